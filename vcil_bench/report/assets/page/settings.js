// Settings: what a run was made with; what differs from the default first.

/** Config and options that are not at their default, with who set them. */
function changedSettings(run) {
  const sections = [["", pooled(run.config)], ["option ", pooled(run.options)]];
  const changed = sections.flatMap(([before, values]) => Object.entries(values)
    .filter(([, { origin }]) => origin !== "default").map(([key, { value, origin }]) => [before + key, value, origin]));
  const overrides = Object.entries(flatOnce(pooled(run.protocol).overrides)).map(([key, value]) => [`protocol.${key}`, value, "command line"]);
  return [...changed, ...overrides];
}

const flatOnce = (tree) => Object.fromEntries(flat(tree));

/** Where a value comes from, in words. */
function setBy(origin) {
  const recipe = /^recipe (.*)$/.exec(origin);
  return recipe ? `preset for ${recipe[1].replace(/_?\*$/, "")} protocols` : origin;
}

function settingsTable(label, lines) {
  if (!lines.length) return el("p", { class: "quiet", text: "None." });
  return table(label, ["setting", "value", "set by"], lines.map(([key, value, origin]) =>
    el("tr", { class: origin === "command line" ? "changed" : null },
      el("th", { scope: "row", text: key }), el("td", { text: shown(value) }), el("td", { text: setBy(shown(origin)) }))), "settings");
}

const everySetting = (values) => Object.entries(values).map(([key, { value, origin }]) => [key, value, origin]);

function changedPart(run) {
  const changed = changedSettings(run);
  const all = Object.keys(pooled(run.config)).length + Object.keys(pooled(run.options)).length;
  return [changed.length ? settingsTable("Settings that differ from the default", changed) : null,
    el("p", { class: "quiet", text: `${changed.length ? "The other" : "All"} ${all - changed.length} settings are at their default.` })];
}

/** Everything else that a run's record says, folded. */
function recordPart(run) {
  const { spec, overrides, ...protocol } = pooled(run.protocol);
  const environment = pooled(run.environment.environment);
  const fold = (name, ...content) => el("details", {}, el("summary", { text: name }), ...content.flat());
  const hashed = (pairs) => pairs.map(([key, value]) => [key, typeof value === "string" && /^[0-9a-f]{32,}$/.test(value) ? short(value) : value]);
  return [
    fold("Method config", settingsTable("Method config", everySetting(pooled(run.config)))),
    fold("Run options", settingsTable("Run options", everySetting(pooled(run.options)))),
    fold("Data", dataBlock(run, hashed)),
    fold("Weights", facts("Weights", hashed(flat(pooled(run.weights))))),
    fold("Method", facts("Method", hashed(flat(pooled(run.method))))),
    fold("Protocol", facts("Protocol", hashed(flat({ ...protocol, overrides: Object.keys(overrides).length ? overrides : "none" })))),
    spec ? fold("Protocol, full specification", facts("Protocol specification", hashed(flat(spec)))) : null,
    fold("Environment", facts("Environment", hashed([["command", run.environment.command], ["run seed", run.run_seed], ...flat(environment)]))),
    fold(`Sessions (${run.sessions.length})`, sessionsBlock(run)),
    fold("Predictions", run.predictions ? facts("Predictions", hashed(flat(run.predictions))) : el("p", { class: "quiet", text: "None stored." })),
  ];
}

function dataBlock(run, hashed) {
  const { left_out: left, verified, ...rest } = pooled(run.data);
  const parts = [facts("Data", hashed(Object.entries(rest)))];
  if (verified.length) {
    parts.push(el("h3", { text: `${plural(verified.length, "finding")} of vcil-bench verify` }),
      table("Findings", ["level", "check", "found"], verified.map((one) => el("tr", {},
        el("td", { text: shown(one.level) }), el("th", { scope: "row", text: shown(one.check) }), el("td", { text: shown(one.text) })))));
  }
  if (left.length) {
    parts.push(el("h3", { text: `${plural(left.length, "video")} left out` }),
      table("Videos left out", ["video", "split", "problem"], left.map((one) => {
        const video = typeof one === "object" && one ? one : { id: one };
        return el("tr", {}, el("th", { scope: "row", text: shown(video.id) }), el("td", { text: shown(video.split) }), el("td", { text: shown(video.problem) }));
      })));
  } else parts.push(el("p", { class: "quiet", text: "No video left out." }));
  return parts;
}

/** What verify warned of before the run, which nobody should have to unfold. */
function verifyWarnings(run) {
  return pooled(run.data).verified.filter(({ level }) => ["warning", "error"].includes(level))
    .map((one) => el("p", { class: "warning" }, el("b", { text: `${shown(one.check)}: ` }), shown(one.text)));
}

function sessionsBlock(run) {
  const resumed = run.sessions.length - 1;
  return [el("p", { class: "quiet", text: resumed > 0 ? `Resumed ${plural(resumed, "time")}.` : "One session, not resumed." }),
    run.sessions.map((session, i) => {
      const same = session.environment === run.environment.environment;
      return [el("h3", { text: `session ${i + 1}, started ${shown(session.started)}${same ? "" : ", another environment"}` }),
        facts(`Session ${i + 1}`, [["command", session.command], ...(same ? [] : flat(pooled(session.environment)))])];
    })].flat(2);
}
