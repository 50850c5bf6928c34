// The page of a row: the mean over class orders, where it forgets, what it costs, and the runs behind it.

/** Rows by their address; parts of it are compared as they are before they are written for an address. */
const rowsById = new Map(data.groups.flatMap((group, g) => group.rows.map((row, r) => [plainId(row.id), { group, row, g, r }])));

function plainId(id) {
  return JSON.stringify(id.split("/").map((part) => plain(part)));
}

function rowRoute(rest, state) {
  const place = rowsById.get(plainId(rest));
  return place ? rowPage(place.group, place.row, `row/${rest}`, state) : null;
}

/** What came out, in words. */
function rowSentence(row, runs) {
  const who = `${row.label} (${row.readout_label}), ${row.backbone}, ${keeps(row)}`;
  if (!runs.length) return `${who}: no run is complete.`;
  const overall = over(runs, (run) => overallOf(run, row.readout)).map((one) => one.mean);
  const worst = worstFall(over(runs, (run) => matrixOf(run, row.readout)).map((line) => line.map((one) => one.mean)));
  const fell = !worst ? "" : worst.drop > 0
    ? ` Task ${worst.task + 1} fell most, from ${fixed(worst.learnt, 1)} to ${fixed(worst.end, 1)} %.` : " No task fell.";
  return `${who}: ${fixed(mean(overall))} % on average over the tasks, ${fixed(overall[overall.length - 1])} % at the end; `
    + `${runs.length > 1 ? `mean of ${plural(runs.length, "class order")}` : `one class order, seed ${runs[0].seed}`}.${fell}`;
}

/** Mean and deviation in a cell, every class order in its tooltip. */
function meanCell(one, runs) {
  const cell = shareCell(one.mean / 100, one.mean.toFixed(1), runs.map((run, i) => `seed ${run.seed}: ${fixed(one.values[i], 1)}`).join("; "));
  if (one.std !== null) cell.append(el("small", { text: `${Math.min(...one.values).toFixed(0)}–${Math.max(...one.values).toFixed(0)}` }));
  return cell;
}

function meanMatrix(row, runs) {
  const matrix = over(runs, (run) => matrixOf(run, row.readout));
  const overall = over(runs, (run) => overallOf(run, row.readout));
  return [triangle("Accuracy on every task after every task, mean over class orders, %", matrix.length, matrix.length, ["all seen"],
    (i) => el("td", { class: "mean" }, el("b", { text: fixed(overall[i].mean) }), overall[i].std === null ? null : el("small", { text: `± ${fixed(overall[i].std)}` })),
    (i, j) => meanCell(matrix[i][j], runs)),
  el("p", { class: "quiet", text: runs.length > 1
    ? `Percent, mean over ${plural(runs.length, "class order")}; small: the lowest and the highest of them, and ± one standard deviation over all seen. Task j holds other classes in every order.`
    : "Percent, of one class order." })];
}

/** Of every task: when learnt, at best, at the end; the fall of every class order. */
function forgettingTable(row, runs) {
  const matrices = runs.map((run) => matrixOf(run, row.readout));
  const last = matrices[0].length - 1;
  if (!last) return el("p", { class: "quiet", text: "There is one task, which nothing has come after." });
  const most = Math.max(1, ...matrices.flatMap((matrix) => matrix[last].slice(0, -1).map((end, j) => Math.abs(matrix[j][j] - end))));
  const rows = Array.from({ length: last }, (_, j) => {
    const learnt = matrices.map((matrix) => matrix[j][j]);
    const best = matrices.map((matrix) => Math.max(...matrix.slice(j).map((line) => line[j])));
    const ends = matrices.map((matrix) => matrix[last][j]);
    const falls = learnt.map((value, i) => value - ends[i]);
    return el("tr", {}, el("th", { scope: "row", text: `task ${j + 1}` }),
      [learnt, best, ends].map((values) => el("td", { text: fixed(mean(values), 1) })),
      differenceCell(-mean(falls), most, `BWF's term: ${fixed(mean(falls))} percentage points`),
      falls.map((fall) => differenceCell(-fall, most)));
  });
  return [table("Forgetting of every task", ["", "when learnt", "at best", "at the end", "change", ...runs.map((run) => `seed ${run.seed}`)], rows, "heat narrow-heads"),
    el("p", { class: "quiet", text: "Accuracy in percent, mean over class orders; change from just after a task was learnt to the end, in percentage points, mean and every order. The last task has nothing to forget yet." })];
}

/** Shares, in percent: of old classes' videos taken for classes of the task just learnt, and the reverse. */
function oldNew({ taskOf, videos }) {
  return videos.steps.slice(1).map((guesses, at) => {
    const task = at + 1;
    const counts = { old: 0, taken: 0, fresh: 0, back: 0 };
    guesses.forEach((guess, video) => {
      const isNew = taskOf[videos.labels[video]] === task;
      counts[isNew ? "fresh" : "old"] += 1;
      if (!isNew && taskOf[guess] === task) counts.taken += 1;
      if (isNew && taskOf[guess] < task) counts.back += 1;
    });
    return [(100 * counts.taken) / counts.old, (100 * counts.back) / counts.fresh];
  });
}

/** Of every task's videos after the last task, the share taken for classes of every task, in percent. */
function taskConfusion({ taskOf, videos }) {
  const size = taskOf[taskOf.length - 1] + 1;
  const counts = Array.from({ length: size }, () => new Array(size).fill(0));
  videos.steps[videos.steps.length - 1].forEach((guess, video) => { counts[taskOf[videos.labels[video]]][taskOf[guess]] += 1; });
  return counts.map((line) => line.map((count) => (100 * count) / sum(line)));
}

function confusionPart(draft, runs, outcomes) {
  const known = outcomes.map((outcome, i) => [runs[i], outcome]).filter(([, outcome]) => outcome && outcome.videos);
  if (!known.length) return el("p", { class: "quiet", text: "The outcome of every video is on this page for small runs only." });
  const shares = over(known, ([, outcome]) => oldNew(outcome));
  const confusion = over(known, ([, outcome]) => taskConfusion(outcome));
  const names = ["old classes taken for new ones", "new classes taken for old ones"];
  const looks = [["#D55E00", "circle", "solid"], ["#0072B2", "square", "dash"]];
  const at = shares.map((_, i) => i + 2);
  const lines = names.map((name, n) => ({
    name, at, values: shares.map((pair) => pair[n].mean), std: shares.map((pair) => pair[n].std),
    colour: looks[n][0], symbol: looks[n][1], dash: looks[n][2],
  }));
  const size = confusion.length;
  const tasks = Array.from({ length: size }, (_, j) => (size > 14 ? `${j + 1}` : `task ${j + 1}`));
  return [
    known.length < runs.length ? el("p", { class: "quiet", text: `Of ${known.length} of ${plural(runs.length, "class order")}; the others' videos are not on this page.` }) : null,
    el("div", { class: "columns" },
      size < 2 ? null : el("div", {}, el("h3", { text: "Old and new classes, after every task" }),
        draft.plot("Old and new classes confused after every task", ["after task", ...names],
          shares.map((pair, i) => [String(at[i]), ...pair.map((one) => spread([one.mean, one.std]))]),
          (node, light) => drawLines(node, light, lines, {
            x: "after learning task (its classes are the new ones)", y: "their videos, %",
            ticks: thinned(at), range: [-3, 103],
          }))),
      el("div", {}, el("h3", { text: "Tasks taken for tasks, after the last" }),
        table("Tasks taken for tasks, %", ["videos of", ...tasks], confusion.map((line, i) => el("tr", {},
          el("th", { scope: "row", text: `task ${i + 1}` }), line.map((one, j) => shareCell(one.mean / 100, one.mean.toFixed(0), `videos of task ${i + 1} taken for classes of task ${j + 1}: ${fixed(one.mean, 1)} %`)))),
        size > 14 ? "heat many confusion" : "heat confusion"),
        el("p", { class: "quiet", text: "Percent of a task's videos; the diagonal holds those taken for a class of their own task, rightly or not." }))),
  ];
}

/** Every run of the row: its metrics, status and page. */
function seedsTable(group, row) {
  const names = group.all_metrics;
  const rows = row.runs.map((number) => data.runs[number]).map((run) => {
    const values = run.values[row.readout] || {};
    return el("tr", {}, el("th", { scope: "row" }, el("a", { href: runLink(run), text: `seed ${run.seed}` })),
      names.map((name) => el("td", { class: "number", text: fixed(values[name]) })),
      el("td", {}, el("span", { class: `dot ${run.status}`, "aria-hidden": "true" }), run.status, run.reason ? `: ${run.reason}` : ""),
      el("td", { text: run.stale ? "stale" : "" }));
  });
  if (row.complete > 1) {
    rows.push(el("tr", { class: "total" }, el("th", { scope: "row", text: "mean ± deviation" }),
      names.map((name) => el("td", { class: "number", text: spread(row.values[name]) })), el("td"), el("td")));
  }
  const made = table("Class orders", ["class order", ...names.map((name) => `${data.metrics[name].title} ${data.metrics[name].up ? "↑" : "↓"}`), "run", ""], rows, "seeds-table");
  made.querySelectorAll("thead th").forEach((head, at) => { if (at && at <= names.length) head.classList.add("number"); });
  return [made, el("p", { class: "quiet", text: `Percent, of forgetting percentage points. ${names.map((name) => `${data.metrics[name].title}: ${data.metrics[name].formula}.`).join(" ")}` })];
}

function publishedPart(group, row) {
  const same = (a, b) => String(a).toLowerCase() === String(b).toLowerCase();
  const lines = (group.published || []).filter((one) => same(one.label, row.label)
    && (!one.readout || same(one.readout, row.readout_label) || same(one.readout, row.readout)));
  if (!lines.length) return null;
  const rows = lines.map((one) => {
    const value = row.values[one.metric];
    return el("tr", {}, el("th", { scope: "row", text: one.source }), el("td", { text: one.backbone || "–" }),
      el("td", { text: data.metrics[one.metric] ? data.metrics[one.metric].title : one.metric }),
      el("td", { class: "number", text: fixed(one.value) }), el("td", { class: "number", text: spread(value) }));
  });
  return [table("Published numbers", ["reported in", "backbone there", "metric", "reported, %", "measured here, %"], rows, "published"),
    el("p", { class: "quiet", text: `Measured here on ${row.backbone}, pretrained on: ${row.like || shown(row.pretraining)}. Where backbone or pretraining differ, the numbers are not alike.` })];
}

function rowPage(group, row, place, state) {
  const draft = new Draft(place);
  const runs = completeRuns(row);
  const [first] = runs.length ? runs : row.runs.map((number) => data.runs[number]);
  const warnings = [];
  if (group.kind !== "real") warnings.push(`${group.kind}: says nothing about methods on real data.`);
  if (row.bound) warnings.push("A bound: it sees the data of all tasks at once, and is never ranked.");
  warnings.push(...row.notes);
  const variants = group.rows.filter((other) => other !== row && other.method === row.method && other.backbone === row.backbone);
  const head = [
    el("p", { class: "crumbs" }, homeLink(), el("a", { href: `#protocols/${encodeURIComponent(group.label)}`, text: protocolName(group) })),
    el("h1", { tabindex: "-1", id: "row-title" }, `${row.label} on ${protocolName(group)}`,
      el("span", { class: "quiet", text: ` ${[row.origin ? `from ${row.origin}` : "", row.variant === "default" ? "" : row.variant, row.readout_label].filter(Boolean).join(", ")}` })),
    el("p", { class: "quiet", text: group.title }),
    el("p", { class: "sentence", id: "sentence", text: rowSentence(row, runs) }),
    el("p", { class: "pickers" }, rowPicker(group, row),
      variants.length ? el("details", { class: "also" }, el("summary", { text: `${plural(variants.length, "other row")} of ${row.label}` }),
        el("ul", {}, variants.map((other) => el("li", {}, el("a", { href: rowLink(other), text: rowName(other) }))))) : null),
    warnings.map((words) => el("p", { class: "warning", text: words })),
  ];
  const [accuracy, drops] = runs.length
    ? curves(draft, row.method, runs[0].seen, over(runs, (run) => overallOf(run, row.readout)), over(runs, (run) => dropsOf(run, row.readout))) : [];
  const outcomes = Promise.all(runs.map((run) => outcomeOf(run, row.readout)));
  return draft.page(`${rowName(row)} on ${group.label}`, head, [
    runs.length ? ["accuracy", "Accuracy, task by task", besides(runs[0].seen.length, meanMatrix(row, runs), accuracy)] : null,
    runs.length ? ["forgetting", "Forgetting, task by task", besides(runs.length, forgettingTable(row, runs), drops)] : null,
    ["orders", "Class orders side by side", seedsTable(group, row)],
    runs.length ? ["confusion", "Old and new classes confused", draft.later(outcomes, (all) => confusionPart(draft, runs, all))] : null,
    runs.length ? ["cost", "Cost", costsOfRuns(runs), el("details", {}, el("summary", { text: "task by task, mean over class orders" }), costsPerTask(runs))] : null,
    publishedPart(group, row) ? ["published", "Published numbers", publishedPart(group, row)] : null,
    first ? ["settings", "Settings that differ from the default", changedPart(first),
      el("p", { class: "quiet" }, "All settings, the data and the environment stand on the page of every run, such as ", el("a", { href: runLink(first), text: `seed ${first.seed}` }), ".")] : null,
  ]);
}
