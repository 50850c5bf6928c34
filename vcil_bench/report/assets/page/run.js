// The page of a run: what came out, why, and what it was made with.

function runRoute(rest, state) {
  const number = routes.get(plain(rest));
  return number === undefined ? null : runPage(data.runs[number], `run/${rest}`, state);
}

/** What came out, in words. */
function runSentence(run, row, readout) {
  const sizes = pooled(run.classes_per_task);
  const matrix = matrixOf(run, readout);
  const overall = overallOf(run, readout);
  const who = row ? `${row.label}, ${row.backbone}, ${keeps(row)}` : pooled(run.method).name;
  if (!matrix.length) return `${who}: no task was finished.`;
  const last = overall[overall.length - 1];
  const worst = worstFall(matrix);
  const fell = !worst ? "" : worst.drop > 0
    ? `; task ${worst.task + 1} fell most, from ${fixed(worst.learnt, 1)} to ${fixed(worst.end, 1)} %` : "; no task fell";
  return matrix.length < sizes.length
    ? `${who}: stopped after task ${matrix.length} of ${sizes.length}, ${fixed(last)} % over the classes learnt by then${fell}.`
    : `${who}: ${fixed(mean(overall))} % on average over the tasks, ${fixed(last)} % at the end${fell}.`;
}

/** Correct test videos and accuracies after every task. */
function countsTable(run, readout) {
  const totals = pooled(run.test_videos);
  const correct = run.correct[readout];
  const overall = overallOf(run, readout);
  return triangle(`Correct test videos of every task after every task, ${readout}`, totals.length, correct.length, ["%", "all seen"],
    (i) => [el("td", {}, el("b", { text: fixed(overall[i]) })), el("td", { text: `${sum(correct[i])}/${sum(totals.slice(0, i + 1))}` })],
    (i, j) => shareCell(correct[i][j] / totals[j], `${correct[i][j]}/${totals[j]}`, `${fixed((100 * correct[i][j]) / totals[j])} %`));
}

function commandBlock(run) {
  const code = el("code", { text: run.command });
  return el("div", { class: "command" }, el("pre", {}, code), copyButton(run.command, null, code));
}

function metricsTable(run) {
  const values = Object.entries(run.values);
  if (!values.length) return null;
  const title = (name) => (data.readouts[name] ? data.readouts[name].label : name);
  const made = table("Metrics, %", ["metric", ...values.map(([readout]) => title(readout))], Object.keys(values[0][1]).map((name) => el("tr", {},
    el("th", { scope: "row", title: data.metrics[name].formula, text: `${data.metrics[name].title} ${data.metrics[name].up ? "↑" : "↓"}` }),
    values.map(([, all]) => el("td", { class: "number", text: fixed(all[name]) })))), "metrics");
  made.querySelectorAll("thead th + th, thead td + th").forEach((head) => head.classList.add("number"));
  return el("div", {}, made, el("p", { class: "quiet", text: "Percent; of forgetting percentage points. A metric's formula is in its tooltip." }));
}

function tasksTable(run) {
  const names = classNames(run);
  const [sizes, videos] = ["classes_per_task", "test_videos"].map((key) => pooled(run[key]));
  let start = 0;
  const rows = sizes.map((size, i) => el("tr", {}, el("th", { scope: "row", text: i + 1 }), el("td", { class: "number", text: size }),
    el("td", { class: "number", text: videos[i] }), el("td", { class: "names", text: names.slice(start, start += size).join(", ") })));
  return table("Classes of every task", ["task", "classes", "test videos", "class names, in the order of their labels"], rows);
}

/** Other seeds of the run's row, and the readouts of its classifier: links, the present one marked. */
function runSwitches(run, rows, readout, place) {
  const row = rows.find((one) => one.readout === readout) || rows[0];
  const seeds = row && row.runs.length > 1 ? el("span", {}, "class orders: ", row.runs.map((number) => data.runs[number]).flatMap((other) =>
    [el("a", { href: runLink(other), "aria-current": other === run ? "page" : null, text: `seed ${other.seed}` }), " "])) : null;
  const readouts = Object.keys(run.correct);
  const labels = readouts.map((name) => [name, data.readouts[name] ? data.readouts[name].label : name]);
  return [seeds, readouts.length > 1
    ? choice("Classifier", "readout", readout, labels, () => remake()) : null];
}

function runPage(run, place, state) {
  const draft = new Draft(place);
  const rows = rowsOf(run);
  const readouts = Object.keys(run.correct);
  const readout = readouts.includes(state.get("readout")) ? state.get("readout") : readouts[0];
  const row = rows.find((one) => one.readout === readout) || null;
  const group = row && data.groups[run.group];
  const method = pooled(run.method);
  const environment = pooled(run.environment.environment);
  const matrix = matrixOf(run, readout);
  const outcome = outcomeOf(run, readout);
  const name = row ? row.label : method.name;
  const warnings = [];
  if (group && group.kind !== "real") warnings.push(`${group.kind}: says nothing about methods on real data.`);
  if (run.status !== "complete") warnings.push(`${run.status}${run.reason ? `: ${run.reason}` : ""}; does not count in any mean.`);
  const others = group ? runPicker(run, group) : null;
  const head = [
    el("p", { class: "crumbs" }, homeLink(), rows.map((one) => el("a", { href: rowLink(one), text: `${one.label} ${one.readout_label}: mean of ${plural(one.complete, "class order")}` }))),
    el("h1", { tabindex: "-1", id: "run-title" }, `${name} on ${group ? protocolName(group) : pooled(run.protocol).label}`,
      el("span", { class: "quiet", text: ` ${run.variant === "default" ? "" : `${run.variant}, `}seed ${run.seed}` })),
    group ? el("p", { class: "quiet", text: group.title }) : null,
    el("p", { class: "sentence", id: "sentence", text: runSentence(run, row, readout) }),
    el("p", { class: "pickers" }, runSwitches(run, rows, readout, place), others),
    warnings.map((words) => el("p", { class: "warning", text: words })),
    verifyWarnings(run),
    run.stale ? el("details", { class: "warning" }, el("summary", { text: "stale: code that its numbers depend on changed since this run" }), el("p", { text: run.stale })) : null,
  ];
  return draft.page(`${name}, ${run.variant === "default" ? "" : `${run.variant}, `}seed ${run.seed}, ${group ? group.label : ""}`, head, [
    ["accuracy", "Accuracy, task by task", matrix.length
      ? besides(pooled(run.test_videos).length, [countsTable(run, readout), el("p", { class: "quiet", text: "Correct test videos of every task, of all its test videos." })],
        curves(draft, method.name, run.seen, over([run], () => overallOf(run, readout)), over([run], () => dropsOf(run, readout))), metricsTable(run))
      : el("p", { class: "quiet", text: "No task was finished." })],
    ["settings", "Settings that differ from the default", changedPart(run)],
    matrix.length ? ["classes", "Classes", draft.later(outcome, (all) => classesPart(run, all, state))] : null,
    matrix.length > 1 ? ["videos", "Videos learnt and lost", draft.later(outcome, (all) => videosPart(run, all))] : null,
    ["loss", "Loss", losses(draft, run)],
    ["cost", "Cost", costsPerTask([run])],
    ["again", "Run it again", commandBlock(run), el("p", { class: "quiet" },
      "Code: ", environment.git ? ["commit ", short(environment.git), environment.dirty ? " with changes" : ""] : "commit unknown",
      "; record: ", el("span", { class: "mono path", text: run.file }), run.origin ? `, ${run.origin}` : "", "; ",
      el("span", { class: `dot ${run.status}`, "aria-hidden": "true" }), `${run.status}, ${shown(run.started)} to ${shown(run.finished)}.`)],
    ["tasks", "Tasks and class order", tasksTable(run)],
    ["record", "All that the record says", recordPart(run)],
  ]);
}
