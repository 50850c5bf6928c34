// Classes: how each was recognised after every task, and what it was taken for.

const CLASS_ORDERS = [
  ["learnt", "as learnt"], ["fell", "fell most first"], ["end", "lowest at the end first"], ["name", "by name"],
];
const TAKEN = 3; // of what a class is taken for, that many stand in the table

/** A class over the tasks, in percent; `fell` is from just after it was learnt to the end. */
function classLines(run, outcome) {
  const names = classNames(run);
  const ids = pooled(run.class_order);
  const steps = outcome.correct.length;
  return outcome.taskOf.map((task, label) => {
    const hits = outcome.correct.map((line) => line[label]);
    const [learnt, end] = [hits[task], hits[steps - 1]];
    const total = outcome.totals[label];
    return {
      label, id: String(ids[label]), name: names[label], task, hits, total, end,
      fell: learnt === undefined ? null : (100 * (learnt - end)) / total,
    };
  }).filter((line) => line.task < steps);
}

function sortedClasses(lines, order) {
  const by = {
    fell: (a, b) => b.fell - a.fell, end: (a, b) => a.end / a.total - b.end / b.total,
    name: (a, b) => a.name.localeCompare(b.name, "en", { numeric: true }),
  }[order];
  return by ? [...lines].sort((a, b) => by(a, b) || a.label - b.label) : lines;
}

const takenText = (names, taken, most = TAKEN) => taken.slice(0, most).map(([other, count]) => `${names[other]} ${count}`).join(", ");

function classesTable(run, outcome, order, chosen) {
  const names = classNames(run);
  const steps = outcome.correct.length;
  const rows = sortedClasses(classLines(run, outcome), order).map((line, at, all) => {
    const border = order === "learnt" && at && all[at - 1].task !== line.task;
    return el("tr", { class: [border ? "border" : "", line.id === chosen ? "chosen" : ""].join(" ").trim() || null, "data-class": line.id },
      el("th", { scope: "row", title: line.name, text: line.name }), el("td", { text: line.task + 1 }),
      line.hits.map((hits, step) => (hits === undefined ? el("td")
        : shareCell(hits / line.total, String(Math.round((100 * hits) / line.total)), `${line.name}: ${hits} of ${line.total} after task ${step + 1}`))),
      el("td", { text: signed(-line.fell, 0) }),
      el("td", { class: "taken", text: takenText(names, outcome.taken[line.label]) }));
  });
  const heads = [el("th", { scope: "col", text: "class" }), el("th", { scope: "col", text: "task" }),
    Array.from({ length: steps }, (_, i) => el("th", { scope: "col", title: `after task ${i + 1}`, text: `after ${i + 1}` })),
    el("th", { scope: "col", text: "change" }), el("th", { scope: "col", class: "taken", text: "taken for, at the end (videos)" })].flat();
  return scroller("Accuracy of every class after every task, %", el("table", { class: steps > 14 ? "heat classes many" : "heat classes" },
    el("thead", {}, el("tr", {}, heads)), el("tbody", {}, rows)));
}

/** One class: after every task what its videos were taken for, and at the end what was taken for it. */
function oneClass(run, outcome, line) {
  const names = classNames(run);
  const { videos } = outcome;
  const steps = outcome.correct.length;
  const rows = line.hits.map((hits, step) => (hits === undefined ? null : el("tr", {},
    el("th", { scope: "row", text: `after task ${step + 1}` }),
    shareCell(hits / line.total, `${hits}/${line.total}`, `${fixed((100 * hits) / line.total, 1)} %`),
    el("td", { class: "taken", text: videos ? takenText(names, takenFor(videos, step, line.label), Infinity) || "–"
      : step === steps - 1 ? takenText(names, outcome.taken[line.label]) || "–" : "not on the page" }))));
  const into = outcome.taken.map((taken, other) => [other, (taken.find(([label]) => label === line.label) || [0, 0])[1]])
    .filter(([, count]) => count).sort((a, b) => b[1] - a[1]);
  return el("div", { class: "one-class", id: "one-class" },
    el("h3", { text: line.name }),
    el("p", { text: `Learnt with task ${line.task + 1}; ${line.hits[line.task]} of ${plural(line.total, "test video")} right then, ${line.end} at the end.` }),
    table(`${line.name} after every task`, ["", "right", "taken for (videos)"], rows.filter(Boolean), "heat"),
    el("p", {}, "Taken for it at the end: ", into.length ? into.map(([other, count]) => `${names[other]} ${count}`).join(", ") : "nothing",
      videos ? "." : ` (of the ${TAKEN} commonest confusions of every class).`));
}

function classesPart(run, outcome, state) {
  if (!outcome) return el("p", { class: "quiet", text: "The outcome of every class is not on this page: no predictions lie beside the record, or the page would grow too large." });
  const lines = classLines(run, outcome);
  const table = el("div");
  const panel = el("div");
  const now = { order: state.get("classes") || "learnt", chosen: state.get("class") || "" };
  const draw = () => {
    table.replaceChildren(classesTable(run, outcome, now.order, now.chosen));
    const line = lines.find((one) => one.id === now.chosen);
    panel.replaceChildren(...(line ? [oneClass(run, outcome, line)] : []));
  };
  const picker = choice("Class", "class", now.chosen, [["", "none chosen"],
    ...sortedClasses(lines, "name").map((line) => [line.id, line.name])], (value) => { now.chosen = value; draw(); });
  table.addEventListener("click", (event) => {
    // A mouse's shortcut to the picker.
    const row = event.target.closest("tbody tr");
    if (!row || String(window.getSelection())) return;
    const select = picker.querySelector("select");
    select.value = select.value === row.dataset.class ? "" : row.dataset.class;
    select.dispatchEvent(new Event("change"));
  });
  draw();
  return [el("p", { class: "quiet", text: "Percent of a class's test videos, after every task; a click on a row shows what it was taken for over time." }),
    el("div", { class: "filters" },
      choice("Order", "classes", now.order, CLASS_ORDERS, (value) => { now.order = value; draw(); }), picker),
    panel, table];
}
