// The page of a comparison: two rows or two runs, A and B; a difference is A minus B.

function compareRoute(rest, state) {
  const parts = rest.split("/");
  // A row's address has four parts, or five where it comes from elsewhere.
  for (const at of [4, 5]) {
    const rows = [parts.slice(0, at), parts.slice(at)].map((half) => rowsById.get(plainId(half.join("/"))));
    if (rows.every(Boolean)) return comparisonOfRows(rows, rest, state);
  }
  return parts[0] === "run" ? comparisonOfRuns(parts.slice(1).join("/"), rest, state) : null;
}

function comparisonOfRows([a, b], rest, state) {
  if (a.group !== b.group) return notAlike(a.group, b.group);
  return comparePage(a.group, rowSide(a.row), rowSide(b.row), `compare/${rest}`, pickRows(a.group, a.row, b.row));
}

function comparisonOfRuns(text, rest, state) {
  // Nothing keeps "~~" out of a run's own id.
  const whole = plain(text);
  const pairs = [...whole.matchAll(/~(?=~)/g)].map(({ index }) => [whole.slice(0, index), whole.slice(index + 2)]);
  const names = pairs.find((pair) => pair.every((name) => routes.has(name)));
  if (!names) return null;
  const runs = names.map((name) => data.runs[routes.get(name)]);
  const groups = runs.map((run) => (rowsOf(run).length ? data.groups[run.group] : null));
  if (!groups[0] || groups[0] !== groups[1]) return notAlike(groups[0], groups[1]);
  const given = (state.get("readout") || "").split(",");
  const common = Object.keys(runs[0].correct).find((name) => name in runs[1].correct);
  const readouts = runs.map((run, i) => (given[i] in run.correct ? given[i] : common || Object.keys(run.correct)[0]));
  const sides = runs.map((run, i) => runSide(run, readouts[i]));
  return comparePage(groups[0], sides[0], sides[1], `compare/${rest}`, pickRuns(groups[0], runs, readouts));
}

function notAlike(a, b) {
  return {
    title: "nothing to compare", draw: () => {}, ready: Promise.resolve(),
    nodes: [el("p", { class: "crumbs" }, homeLink()), el("h1", { tabindex: "-1", text: "Nothing to compare" }),
      el("p", { text: `Only runs on the same version of a protocol, kind of data and kind of weights are compared; these are of ${[a, b].map((group) => (group ? group.title : "no table")).join(" and ")}.` })],
  };
}

const letter = (side) => el("span", { class: `side ${side}`, text: side });

function pick(label, groups, chosen, go) {
  const select = el("select", { onchange: () => go(select.value) }, groups.map(([name, options]) => {
    const made = options.map(([value, text]) => el("option", { value, text, selected: value === chosen }));
    return name === null ? made : el("optgroup", { label: name }, made);
  }).flat());
  return el("label", {}, label, " ", select);
}

/** Rows of a group, by the data that their weights saw: those are ranked together. */
function rowChoices(group, without = null) {
  const kinds = [...new Set(group.rows.map((row) => row.like))];
  return kinds.map((like) => [like, group.rows.filter((row) => row.like === like && row !== without && row.complete)
    .map((row) => [row.id, rowName(row)])]).filter(([, options]) => options.length);
}

const goCompare = (a, b) => { window.location.hash = `#compare/${a}/${b}`; };

function pickRows(group, a, b) {
  return [pick([letter("A"), "row"], rowChoices(group), a.id, (id) => goCompare(id, b.id)),
    pick([letter("B"), "row"], rowChoices(group), b.id, (id) => goCompare(a.id, id))];
}

/** A page's own picker: the row to compare this one with. */
function rowPicker(group, row) {
  const choices = rowChoices(group, row);
  if (!row.complete || !choices.length) return null;
  return pick("Compare with", [[null, [["", "another row …"]]], ...choices], "", (id) => id && goCompare(row.id, id));
}

function runChoices(group, without = null) {
  const numbers = new Set();
  return group.rows.map((row) => [`${row.label}${row.origin ? ` [${row.origin}]` : ""}${row.variant === "default" ? "" : ` ${row.variant}`}`,
    completeRuns(row).filter((run) => run !== without && !numbers.has(run.id) && numbers.add(run.id)).map((run) => [run.id, `${row.label} ${run.variant === "default" ? "" : `${run.variant} `}seed ${run.seed}`])])
    .filter(([, options]) => options.length);
}

const runPath = (id) => id.split("/").map(encodeURIComponent).join("/");
const goRuns = (a, b) => { window.location.hash = `#compare/run/${runPath(a)}~~${runPath(b)}`; };

function runPicker(run, group) {
  const choices = runChoices(group, run);
  if (run.status !== "complete" || !choices.length) return null;
  return pick("Compare with", [[null, [["", "another run …"]]], ...choices], "", (id) => id && goRuns(run.id, id));
}

function pickRuns(group, [a, b], readouts) {
  const readout = (run, at) => {
    const names = Object.keys(run.correct);
    if (names.length < 2) return null;
    return pick([letter("AB"[at]), "classifier"], [[null, names.map((name) => [name, data.readouts[name] ? data.readouts[name].label : name])]], readouts[at], (name) => {
      writeState({ readout: readouts.map((old, i) => (i === at ? name : old)).join(",") });
      remake();
    });
  };
  return [pick([letter("A"), "run"], runChoices(group), a.id, (id) => goRuns(id, b.id)), readout(a, 0),
    pick([letter("B"), "run"], runChoices(group), b.id, (id) => goRuns(a.id, id)), readout(b, 1)];
}

const orders = (seeds) => `${plural(seeds.length, "class order")} (seed ${seeds.join(", ")})`;
const probability = (p) => (p < 0.001 ? p.toExponential(1) : String(Number(p.toPrecision(3))));

function compareSentence(metrics, a, b, shared) {
  const [first] = metrics;
  if (!first) return "No metric is known of both.";
  const { title: name } = data.metrics[first.name];
  const range = first.interval ? ` (95 % interval ${signed(first.interval[0])} to ${signed(first.interval[1])})` : "";
  const better = (data.metrics[first.name].up ? 1 : -1) * first.difference;
  const who = Math.abs(better) < 0.005 ? "A and B are equal" : `${better > 0 ? "A" : "B"} is ahead by ${fixed(Math.abs(better))} percentage points${range}`;
  return `${name}: ${who}; A wins ${first.wins} and B ${first.losses} of ${plural(shared.seeds.length, "class order")}.`;
}

function metricsDifferences(metrics, shared) {
  const rows = metrics.map((one) => el("tr", {},
    el("th", { scope: "row", title: data.metrics[one.name].formula, text: `${data.metrics[one.name].title} ${data.metrics[one.name].up ? "↑" : "↓"}` }),
    [fixed(one.first), fixed(one.second), signed(one.difference), one.interval ? `${signed(one.interval[0])} to ${signed(one.interval[1])}` : "–",
      `${one.wins}–${one.losses}${one.ties ? `–${one.ties}` : ""}`, probability(one.p)].map((text) => el("td", { class: "number", text }))));
  const made = table("Metrics of both", ["metric", "A", "B", "A − B", "95 % interval", metrics.some((one) => one.ties) ? "won–lost–tied" : "won–lost", "p"], rows, "metrics");
  made.querySelectorAll("thead th + th, thead td + th").forEach((head) => head.classList.add("number"));
  const best = metrics.length ? metrics[0].best : 1;
  return [made, el("p", { class: "quiet", text: "Percent and percentage points, mean over class orders. Interval: paired bootstrap over test videos, for these class "
    + "orders; of a protocol's headline and of forgetting, where all predictions are there (others: vcil-bench compare). p: two-sided sign test over class orders. "
    + (shared.seeds.length === 1 ? "One class order says nothing about others: p is 1, whatever the difference."
      : `With ${shared.seeds.length} class orders it is never below ${probability(best)}${best > 0.05 ? ", however clear the difference: it cannot show significance" : ""}.`) })];
}

function taskDifferences(a, b, shared) {
  const of = (side, s) => over(shared.runs[s], (run) => matrixOf(run, side.readout)).map((line) => line.map((one) => one.mean));
  const seen = (side, s) => over(shared.runs[s], (run) => overallOf(run, side.readout)).map((one) => one.mean);
  const [first, second] = [of(a, 0), of(b, 1)];
  const [allFirst, allSecond] = [seen(a, 0), seen(b, 1)];
  const most = Math.max(1, ...first.flatMap((line, i) => line.map((value, j) => Math.abs(value - second[i][j]))));
  const size = first.length;
  const words = (x, y) => `A ${fixed(x, 1)} %, B ${fixed(y, 1)} %`;
  const rows = first.map((_, j) => {
    const pair = (x, y) => [el("td", { text: fixed(x, 1) }), el("td", { text: fixed(y, 1) }), differenceCell(x - y, most, words(x, y))];
    return el("tr", {}, el("th", { scope: "row", text: `task ${j + 1}` }), pair(first[j][j], second[j][j]), pair(first[size - 1][j], second[size - 1][j]));
  });
  return [
    triangle("Difference of the accuracies on every task after every task, percentage points", size, size, ["all seen"],
      (i) => differenceCell(allFirst[i] - allSecond[i], most, words(allFirst[i], allSecond[i])),
      (i, j) => differenceCell(first[i][j] - second[i][j], most, words(first[i][j], second[i][j]))),
    el("p", { class: "legend quiet" }, el("span", { class: "swatch plus" }), "A better  ", el("span", { class: "swatch minus" }), "B better; percentage points, mean over class orders; both values in a cell's tooltip."),
    el("details", {}, el("summary", { text: "every task when learnt and at the end" }),
      table("Tasks when learnt and at the end", ["", "A, learnt", "B, learnt", "A − B", "A, at the end", "B, at the end", "A − B"], rows, "heat")),
  ];
}

/** Per class, who alone recognises how many of its videos at the end, over all class orders. */
function classesOfOne(pairs, names) {
  const counts = new Map();
  for (const { id, first, second } of pairs.flat()) {
    if (!counts.has(id)) counts.set(id, [0, 0]);
    if (first !== second) counts.get(id)[first ? 0 : 1] += 1;
  }
  return [...counts].map(([id, [a, b]]) => ({ name: names[id] ?? `class ${id}`, a, b })).filter(({ a, b }) => a || b)
    .sort((x, y) => Math.abs(y.a - y.b) - Math.abs(x.a - x.b) || y.a + y.b - x.a - x.b || x.name.localeCompare(y.name, "en"));
}

function videosOfOne(side, pairs, seeds, names) {
  const alone = new Map();
  pairs.forEach((videos, at) => videos.forEach(({ name, id, first, second }) => {
    if (first === second || first !== (side === "A")) return;
    if (!alone.has(name)) alone.set(name, { id, seeds: [] });
    alone.get(name).seeds.push(seeds[at]);
  }));
  const lines = [...alone].sort((x, y) => y[1].seeds.length - x[1].seeds.length || (x[0] < y[0] ? -1 : 1));
  const box = el("details", {}, el("summary", { text: `${plural(lines.length, "video")} that only ${side} recognises` }));
  box.addEventListener("toggle", () => {
    if (!box.open || box.children.length > 1) return;
    const pictures = lines.some(([name]) => thumbnail(name));
    box.append(table(`Videos that only ${side} recognises`, [...(pictures ? [""] : []), "video", "class", "with seed"], lines.map(([name, one]) => el("tr", {},
      pictures ? el("td", { class: "picture" }, thumbnail(name)) : null,
      el("th", { scope: "row", class: "mono", text: name }), el("td", { text: names[one.id] ?? `class ${one.id}` }), el("td", { text: one.seeds.join(", ") }))), "lost"));
  });
  return lines.length ? box : null;
}

function videosOfBoth(shared, outcomes) {
  const paired = shared.seeds.map((seed, i) => [seed, pairedVideos([shared.runs[0][i], shared.runs[1][i]], [outcomes[0][i], outcomes[1][i]])]).filter(([, videos]) => videos);
  if (!paired.length) return el("p", { class: "quiet", text: "The test videos cannot be paired here: their outcome is on this page for small runs only, or the two were tested on other videos (vcil-bench compare reads the predictions themselves)." });
  const seeds = paired.map(([seed]) => seed);
  const pairs = paired.map(([, videos]) => videos);
  const names = pooled(shared.runs[0][0].class_names);
  const rows = paired.map(([seed, videos]) => {
    const test = mcnemar(videos);
    return el("tr", {}, el("th", { scope: "row", text: `seed ${seed}` }),
      [test.both, test.firstOnly, test.secondOnly, test.neither, probability(test.p)].map((text) => el("td", { class: "number", text })));
  });
  const made = table("Videos by who recognises them", ["class order", "both right", "only A", "only B", "neither", "p"], rows, "mcnemar");
  made.querySelectorAll("thead th + th, thead td + th").forEach((head) => head.classList.add("number"));
  const classes = classesOfOne(pairs, names);
  const most = Math.max(1, ...classes.map(({ a, b }) => Math.abs(a - b)));
  const named = pairs.every((videos) => videos.every(({ name }) => name !== null));
  return [
    paired.length < shared.seeds.length ? el("p", { class: "quiet", text: `The videos of ${shared.seeds.length - paired.length} of ${plural(shared.seeds.length, "class order")} cannot be paired here.` }) : null,
    made, el("p", { class: "quiet", text: "Test videos after the last task. p: exact McNemar test, two-sided, whether A alone and B alone are equally many." }),
    classes.length ? el("details", { open: true, class: "tall" }, el("summary", { text: "by class, over all class orders" }),
      table("Videos that only one recognises, by class", ["class", "only A", "only B", "A − B"], classes.map(({ name, a, b }) => el("tr", {},
        el("th", { scope: "row", text: name }), el("td", { text: a }), el("td", { text: b }), countCell(a - b, most))), "heat")) : null,
    named ? [videosOfOne("A", pairs, seeds, names), videosOfOne("B", pairs, seeds, names)] : null,
  ];
}

function countCell(difference, most) {
  const cell = differenceCell(difference, most);
  cell.textContent = signed(difference, 0);
  return cell;
}

function settingsDifferences(shared) {
  const lines = settingsThatDiffer(shared.runs);
  if (!lines.length) return el("p", { class: "quiet", text: "None: the same settings, weights, exemplars and environment." });
  const nothing = (values) => canonical(values) === "[null]";
  const alone = lines.filter(([, first, second]) => nothing(first) || nothing(second));
  const both = lines.filter((line) => !alone.includes(line));
  const all = (values) => values.map((value) => (typeof value === "string" && /^[0-9a-f]{32,}$/.test(value) ? short(value) : el("span", { text: shown(value) })))
    .flatMap((node, at) => (at ? [" | ", node] : [node]));
  const made = (label, some) => table(label, ["setting", "A", "B"], some.map(([key, first, second]) => el("tr", {},
    el("th", { scope: "row", text: key }), el("td", {}, all(first)), el("td", {}, all(second)))), "settings");
  return [both.length ? made("Settings that differ", both) : null,
    el("p", { class: "quiet", text: "Only what differs; several values where the runs of one side differ." }),
    alone.length ? el("details", {}, el("summary", { text: `${plural(alone.length, "setting")} that only one of the two has` }), made("Settings of one side", alone)) : null];
}

function comparePage(group, a, b, place, pickers) {
  const draft = new Draft(place);
  const shared = sharedOrders(a, b);
  const warnings = [];
  if (group.kind !== "real") warnings.push(`${group.kind}: says nothing about methods on real data.`);
  if (a.row && b.row && a.row.like !== b.row.like) warnings.push(`The weights of the two saw different data (A: ${a.row.like}; B: ${b.row.like}): tables do not rank them against each other.`);
  if (shared.alone.length) warnings.push(`Left out, since only one of the two has them: seed ${shared.alone.join(", ")}.`);
  const metrics = shared.seeds.length ? group.all_metrics.map((name) => metricDifference(name, a, b, shared, group)).filter(Boolean) : [];
  const head = [
    el("p", { class: "crumbs" }, homeLink(), el("a", { href: `#protocols/${encodeURIComponent(group.label)}`, text: protocolName(group) })),
    el("h1", { tabindex: "-1", id: "compare-title" }, letter("A"), el("a", { href: a.link, text: a.name }), " against ", letter("B"), el("a", { href: b.link, text: b.name })),
    el("p", { class: "quiet", text: `${group.title}; ${shared.seeds.length ? orders(shared.seeds) : "no class order in common"}.` }),
    shared.seeds.length ? el("p", { class: "sentence", id: "sentence", text: compareSentence(metrics, a, b, shared) }) : null,
    el("p", { class: "pickers" }, pickers),
    warnings.map((words) => el("p", { class: "warning", text: words })),
  ];
  const names = `${a.name} against ${b.name}`;
  if (!shared.seeds.length) {
    return draft.page(names, head, [["metrics", "Metrics", el("p", { text: "There is no class order that both were run on to the end, so nothing can be paired." })]]);
  }
  const outcomes = Promise.all([a, b].map((side, s) => Promise.all(shared.runs[s].map((run) => outcomeOf(run, side.readout)))));
  return draft.page(names, head, [
    ["metrics", "Metrics", metricsDifferences(metrics, shared)],
    ["tasks", "Difference, task by task", taskDifferences(a, b, shared)],
    ["videos", "Videos that only one recognises", draft.later(outcomes, (all) => videosOfBoth(shared, all))],
    ["settings", "Settings that differ", settingsDifferences(shared)],
  ]);
}
