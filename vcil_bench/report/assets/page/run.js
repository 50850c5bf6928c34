// The page of a run: its counts, losses, costs and settings.

let lossPlot = null;

function section(title, ...content) {
  return el("section", {}, el("h2", { text: title }), ...content);
}

function settings(label, values) {
  const rows = Object.entries(values).map(([key, { value, origin }]) =>
    el("tr", { class: origin === "command line" ? "changed" : null },
      el("th", { scope: "row", text: key }), el("td", { text: shown(value) }), el("td", { text: shown(origin) })));
  return rows.length ? table(label, ["key", "value", "origin"], rows) : el("p", { class: "quiet", text: "none" });
}

function commandBlock(run) {
  const code = el("code", { text: run.command });
  const said = el("span", { class: "quiet", role: "status" });
  const copy = el("button", { type: "button", class: "copy", text: "Copy" });
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(run.command);
      said.textContent = "copied";
    } catch {
      // Some browsers give files no clipboard: select the text, so that one key copies it.
      window.getSelection().selectAllChildren(code);
      said.textContent = document.execCommand("copy") ? "copied" : "selected; copy it with your keyboard";
    }
  });
  return el("div", { class: "command" }, el("pre", {}, code), copy, said);
}

function counts(run, readout) {
  const correct = run.correct[readout];
  const totals = pooled(run.test_videos);
  const seen = (i, list) => list.slice(0, i + 1).reduce((sum, one) => sum + one, 0);
  const rows = correct.map((line, i) => {
    const cells = totals.map((total, j) => {
      if (j > i) return el("td");
      const cell = el("td", { class: "cell", title: `${fixed(100 * line[j] / total)} %`, text: `${line[j]}/${total}` });
      cell.style.setProperty("--share", (line[j] / total).toFixed(3));
      return cell;
    });
    const [hit, of] = [seen(i, line), seen(i, totals)];
    return el("tr", {}, el("th", { scope: "row", text: `after ${i + 1}` }),
      el("td", {}, el("b", { text: fixed(100 * hit / of) })), el("td", { text: `${hit}/${of}` }), cells);
  });
  const headers = ["step", "%", "all seen", ...totals.map((_, j) => `task ${j + 1}`)];
  return table(`Correct test videos, readout ${readout}`, headers, rows, totals.length > 14 ? "heat many" : "heat");
}

const COSTS = {
  train_s: ["training", duration], eval_s: ["testing", duration], data_wait_s: ["waiting for data", duration],
  peak_device_mb: ["device memory, peak", (v) => `${fixed(v, 0)} MB`], parameters: ["parameters"],
  trainable: ["trainable"], state_bytes: ["state", bytes], "memory.videos": ["exemplar videos"],
  "memory.frames": ["exemplar frames"], "memory.bytes": ["exemplar memory", bytes],
  "memory.statistics_bytes": ["class statistics", bytes],
};

function costs(run) {
  const keys = Object.keys(run.costs);
  if (!keys.length) return el("p", { class: "quiet", text: "None recorded." });
  const said = (key, value) => {
    if (value === null) return "–";
    const write = (COSTS[key] || [])[1];
    return write ? write(value) : typeof value === "number" ? value.toLocaleString("en") : shown(value);
  };
  const rows = run.costs[keys[0]].map((_, i) => el("tr", {},
    el("th", { scope: "row", text: run.seen[i] === null ? `${i + 1}` : `${i + 1} (${run.seen[i]} classes)` }),
    keys.map((key) => el("td", { class: "number", text: said(key, run.costs[key][i]) }))));
  const made = table("Costs of every step", ["step", ...keys.map((key) => (COSTS[key] || [key])[0])], rows, "costs");
  made.querySelectorAll("thead th + th").forEach((head) => head.classList.add("number"));
  return made;
}

function tasks(run) {
  const [names, ids, sizes, videos] = ["class_names", "class_order", "classes_per_task", "test_videos"].map((key) => pooled(run[key]));
  let start = 0;
  const rows = sizes.map((size, i) => {
    const own = ids.slice(start, start += size).map((id) => names[id] ?? `class ${id}`);
    return el("tr", {}, el("th", { scope: "row", text: i + 1 }), el("td", { class: "number", text: size }),
      el("td", { class: "number", text: videos[i] }), el("td", { class: "names", text: own.join(", ") }));
  });
  return table("Classes of every task", ["task", "classes", "test videos", "class names, in the order of their labels"], rows);
}

function drawLosses(run, node, light) {
  const colours = look(light);
  const { terms, step, phase, epoch } = run.losses;
  const x = step.map((_, i) => i);
  const palette = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#777777"];
  const traces = terms.map((term, i) => ({
    x, y: run.losses[term].map((v) => (typeof v === "number" ? v : null)), name: inert(term), mode: "lines+markers",
    line: { color: rgba(visible(palette[i % palette.length], light)), width: 1.5, dash: DASHES[Math.floor(i / palette.length) % DASHES.length] },
    marker: { size: 3 },
    text: x.map((at) => inert(`${phase ? phase[at] : `step ${step[at] + 1}`}, epoch ${epoch ? epoch[at] : at + 1}`)),
    hovertemplate: "%{y:.4g}<extra>%{text}</extra>", connectgaps: false,
  }));
  const starts = x.filter((at) => at === 0 || step[at] !== step[at - 1]);
  const thin = Math.ceil(starts.length / (narrow.matches ? 6 : 14));
  window.Plotly.react(node, traces, {
    height: 290, margin: { l: 50, r: 12, t: 12, b: 60 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: colours.text, family: "system-ui, sans-serif", size: 12 }, showlegend: true,
    legend: { orientation: "h", y: -0.22, x: 0 }, hovermode: "closest",
    hoverlabel: { bgcolor: colours.ground, bordercolor: colours.line, font: { color: colours.text } },
    xaxis: axis(colours, "", {
      tickvals: starts.filter((_, i) => i % thin === 0), showgrid: false, zeroline: false,
      ticktext: starts.filter((_, i) => i % thin === 0).map((at) => `step ${step[at] + 1}`),
    }),
    yaxis: axis(colours, "loss", { rangemode: "tozero" }),
    shapes: starts.map((at) => ({
      type: "line", x0: at - 0.5, x1: at - 0.5, yref: "paper", y0: 0, y1: 1, line: { color: colours.grid, width: 1 },
    })),
  }, { ...CONFIG, displayModeBar: false });
}

function losses(run) {
  if (!run.losses.terms.length) return { node: el("p", { class: "quiet", text: "None recorded." }), draw: null };
  const plot = el("div", { class: "plot small" });
  const said = ["Mean over each epoch; lines part the steps."];
  if (run.losses.every > 1) said.push(`One epoch in ${run.losses.every} is drawn.`);
  return {
    node: el("div", {}, el("p", { class: "quiet", text: said.join(" ") }), plot),
    draw: (light) => drawLosses(run, plot, light), plot,
  };
}

function dataBlock(run) {
  const stored = pooled(run.data);
  const { left_out: left, verified, ...rest } = stored;
  const parts = [facts("Data", Object.entries(rest))];
  for (const one of verified.filter(({ level }) => ["warning", "error"].includes(level)).reverse()) {
    parts.unshift(el("p", { class: "warning" }, el("b", { text: `${shown(one.check)}: ` }), shown(one.text)));
  }
  if (verified.length) {
    parts.push(el("details", {},
      el("summary", { text: `${plural(verified.length, "finding")} of vcil-bench verify` }),
      table("Findings", ["level", "check", "found"], verified.map((one) => el("tr", {},
        el("td", { text: shown(one.level) }), el("th", { scope: "row", text: shown(one.check) }), el("td", { text: shown(one.text) }))))));
  }
  if (left.length) {
    parts.push(el("details", { open: left.length <= 20 },
      el("summary", { text: `${plural(left.length, "video")} left out` }),
      table("Videos left out", ["video", "split", "problem"], left.map((one) => {
        const video = typeof one === "object" && one ? one : { id: one };
        return el("tr", {}, el("th", { scope: "row", text: shown(video.id) }), el("td", { text: shown(video.split) }), el("td", { text: shown(video.problem) }));
      }))));
  } else parts.push(el("p", { class: "quiet", text: "No video left out." }));
  return parts;
}

function sessionsBlock(run) {
  const resumed = run.sessions.length - 1;
  return el("div", {},
    el("p", { class: "quiet", text: resumed > 0 ? `Resumed ${plural(resumed, "time")}.` : "One session, not resumed." }),
    run.sessions.map((session, i) => {
      const same = session.environment === run.environment.environment;
      return el("details", {}, el("summary", { text: `session ${i + 1}, started ${shown(session.started)}${same ? "" : ", another environment"}` }),
        facts(`Session ${i + 1}`, [["command", session.command], ...flat(pooled(session.environment))]));
    }));
}

function siblings(run) {
  if (!run.place) return [];
  const row = data.groups[run.place[0]].rows[run.place[1]];
  return row.runs.map((number) => data.runs[number]);
}

function runPage(run) {
  const [protocol, method, weights] = ["protocol", "method", "weights"].map((key) => pooled(run[key]));
  const group = run.place && data.groups[run.place[0]];
  const environment = pooled(run.environment.environment);
  const warnings = [];
  if (group && group.kind !== "real") warnings.push(`${group.kind}: says nothing about methods on real data.`);
  if (run.status !== "complete") warnings.push(`${run.status}${run.reason ? `: ${run.reason}` : ""}; does not count in any mean.`);
  if (run.stale) warnings.push(`stale: ${run.stale} changed since this run.`);
  const values = Object.entries(run.values);
  const names = values.length ? Object.keys(values[0][1]) : [];
  const { spec, ...about } = protocol;
  const loss = losses(run);
  const readouts = Object.keys(run.correct);
  const others = siblings(run);
  const page = [
    el("p", { class: "crumbs" }, el("a", { href: "#overview", id: "back", text: "← all results" }),
      others.length > 1 ? el("span", {}, "seeds: ", others.flatMap((one) => [el("a", {
        href: runLink(one), "aria-current": one === run ? "page" : null, text: one.seed,
      }), " "])) : null),
    el("h1", { tabindex: "-1", id: "run-title" }, `${method.name} on ${protocol.label}`,
      el("span", { class: "quiet", text: `  ${run.variant === "default" ? "" : `${run.variant}, `}seed ${run.seed}` })),
    el("p", {}, el("span", { class: `dot ${run.status}`, "aria-hidden": "true" }), el("b", { text: run.status }),
      ` · ${shown(run.started)} to ${shown(run.finished)} · `, el("span", { class: "mono", text: run.id })),
    warnings.map((words) => el("p", { class: "warning", text: words })),
    section("Run it again", commandBlock(run), el("p", { class: "quiet", text:
      `Code: ${environment.git ? `commit ${environment.git}${environment.dirty ? " with changes" : ""}` : "commit unknown"}; `
      + `record: ${run.file}${run.origin ? `, ${run.origin}` : ""}` })),
    values.length ? section("Metrics, %", table("Metrics", ["readout", ...names.map((name) => data.metrics[name].title + (data.metrics[name].up ? " ↑" : " ↓"))],
      values.map(([readout, own]) => el("tr", {}, el("th", { scope: "row", text: readout }), names.map((name) =>
        el("td", { text: fixed(own[name]), title: data.metrics[name].formula })))))) : null,
    section("Correct test videos per step and task",
      Object.values(run.correct).some((lines) => lines.length)
        ? readouts.map((readout) => [readouts.length > 1 ? el("h3", { text: `readout ${readout}` }) : null, counts(run, readout)]).flat()
        : el("p", { class: "quiet", text: "No step was finished." })),
    el("section", { class: "keep" }, el("h2", { text: "Loss per epoch" }), loss.node),
    section("Costs per step", costs(run)),
    el("div", { class: "columns" },
      section("Method config", settings("Method config", pooled(run.config))),
      section("Run options", settings("Run options", pooled(run.options)))),
    section("Tasks and class order", tasks(run)),
    el("div", { class: "columns" },
      section("Data", dataBlock(run)),
      section("Weights", facts("Weights", flat(weights))),
      section("Method", facts("Method", flat(method))),
      section("Protocol", facts("Protocol", [...Object.entries(about).filter(([key]) => key !== "overrides"),
        ["overrides", Object.keys(about.overrides).length ? about.overrides : "none"]].flatMap(([key, value]) => flat({ [key]: value }))),
      spec ? el("details", {}, el("summary", { text: "full specification" }), facts("Protocol specification", flat(spec))) : null),
      section("Environment", facts("Environment", [["command", run.environment.command], ["run seed", run.run_seed], ...flat(environment)])),
      section("Sessions", sessionsBlock(run)),
      section("Predictions", run.predictions ? facts("Predictions", flat(run.predictions)) : el("p", { class: "quiet", text: "None stored." }))),
  ];
  return { page: page.flat().filter(Boolean), loss };
}
