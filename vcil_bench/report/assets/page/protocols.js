// Tables of protocols: a line per method, variant and readout; sorted and filtered.

const lower = (value) => String(value ?? "").toLowerCase() || null;
const COLUMNS = [
  { key: "method", title: () => "Method", sort: (row) => lower(row.method), cell: methodCell },
  { key: "readout", title: () => "Readout", sort: (row) => lower(row.readout), cell: (row) => row.readout },
  {
    key: "headline", number: true, first: "descending",
    title: (group) => `${data.metrics[group.metrics[0]].title}\u00a0${data.metrics[group.metrics[0]].up ? "↑" : "↓"}`,
    sort: (row) => row.headline && row.headline[0], cell: (row) => [ranked(spread(row.headline), row.marks[0]), mark(row)],
  },
  {
    key: "forgetting", number: true, title: () => "BWF\u00a0↓",
    sort: (row) => row.forgetting && row.forgetting[0], cell: (row) => [ranked(spread(row.forgetting), row.marks[1]), mark(row)],
  },
  { key: "variant", title: () => "Variant", sort: (row) => lower(row.variant), cell: (row) => row.variant },
  { key: "seeds", title: () => "Seeds", sort: (row) => row.complete / row.seeds, cell: seedsCell, kind: "seeds" },
  { key: "backbone", title: () => "Backbone", sort: (row) => lower(row.backbone), cell: (row) => row.backbone },
  {
    key: "pretraining", title: () => "Pretraining",
    sort: (row) => lower(row.pretraining), cell: (row) => shown(row.pretraining),
  },
  {
    key: "memory", kind: "number memory", title: () => "Memory",
    sort: (row) => row.memory && row.memory.bytes + row.memory.statistics_bytes, cell: (row) => memoryCell(row.memory),
  },
  { key: "train", number: true, title: () => "Training", sort: (row) => row.train_s, cell: (row) => duration(row.train_s) },
  {
    key: "notes", title: () => "Notes", kind: "notes", sort: (row) => lower(row.notes.join(" ")),
    cell: (row) => row.notes.map((note) => el("p", { text: note })),
  },
];
const order = { key: null, direction: "ascending" };
const sections = [];

// Best in bold, second best underlined; who is ranked against whom is decided where the page is made.
const ranked = (text, place) =>
  place === "best" ? el("strong", { text }) : place === "second" ? el("u", { text }) : text;
const mark = (row) => (row.incomplete && row.headline ? " *" : "");

function methodCell(row) {
  const [, , glyph] = data.styles[row.method] || ["", "", "●"];
  const sign = el("span", { class: "sign", "aria-hidden": "true", text: glyph });
  sign.dataset.method = row.method;
  return [sign, "\u00a0", el("a", { href: runLink(data.runs[firstRun(row)]), text: row.origin ? `${row.method} [${row.origin}]` : row.method })];
}

function firstRun(row) {
  return row.runs.find((number) => data.runs[number].status === "complete") ?? row.runs[0];
}

function seedsCell(row) {
  const links = row.runs.map((number) => {
    const run = data.runs[number];
    const sign = { partial: "…", failed: "✕" }[run.status] || "";
    const words = `seed ${run.seed}, ${run.status}`;
    return [el("a", { href: runLink(run), class: run.status, title: words, "aria-label": words, text: run.seed + sign }), " "];
  });
  return [`${row.complete}/${row.seeds}`, el("br"), links.flat()];
}

function memoryCell(use) {
  if (!use) return "–";
  const parts = [];
  if (use.videos || use.bytes) {
    parts.push(`${plural(use.videos, "video")},`, `${plural(use.frames, "frame")},`, bytes(use.bytes));
  }
  if (use.statistics_bytes) parts.push("statistics,", bytes(use.statistics_bytes));
  if (!parts.length) return "none";
  return parts.flatMap((part) => [el("span", { class: "whole", text: part }), " "]);
}

function colourSigns(light = !dark.matches) {
  for (const sign of document.querySelectorAll(".sign")) {
    sign.style.color = rgba(colourOf(sign.dataset.method, light));
  }
}

function makeRow(row, index) {
  const cells = COLUMNS.map((column, at) => el(at ? "td" : "th", {
    scope: at ? null : "row", class: column.number ? "number" : column.kind,
  }, [column.cell(row)].flat(2)));
  const line = el("tr", {}, cells);
  line.addEventListener("click", (event) => {
    // A mouse's shortcut; keys have the links. Text that is being selected is left alone.
    if (event.target.closest("a") || String(window.getSelection())) return;
    window.location.hash = runLink(data.runs[firstRun(row)]);
  });
  const words = [row.method, row.variant, row.readout, row.backbone, row.pretraining, ...row.notes,
    ...row.runs.map((number) => `${data.runs[number].seed} ${data.runs[number].status}`)];
  return { row, line, index, words: words.join(" ").toLowerCase() };
}

function makeSection(group, index) {
  const id = `group-${index}`;
  const heads = COLUMNS.map((column) => el("th", {
    scope: "col", class: column.number ? "number" : column.kind, "data-key": column.key, "data-title": column.title(group),
  }, el("button", { type: "button", onclick: () => sortBy(column), text: column.title(group) })));
  const body = el("tbody");
  const real = group.kind === "real";
  const box = el("details", { class: "group", id, open: true },
    el("summary", {},
      el("h3", { id: `${id}-title`, text: group.title }),
      el("span", { class: `badge ${real ? "real" : "other"}`, text: real ? "real data" : group.kind }), " ",
      el("span", { class: "quiet mono", title: group.fingerprint,
        text: `${group.protocol} v${group.version} · ${group.fingerprint.slice(0, 12)}` })),
    scroller(group.title, el("table", { class: "overview", "aria-labelledby": `${id}-title` },
      el("thead", {}, el("tr", {}, heads)), body)),
    el("p", { class: "quiet formulas", text: formulas(group) }));
  // Rows of closed groups are left out until they are opened.
  box.addEventListener("toggle", () => box.open && fill(section));
  const head = `${group.label} ${group.title} ${group.kind} ${group.dataset}`.toLowerCase();
  const section = { group, box, heads, body, head, rows: null };
  return section;
}

function formulas(group) {
  const names = [...new Set([group.metrics[0], "backward_forgetting"])];
  const lines = names.map((name) => `${data.metrics[name].title}: ${data.metrics[name].formula}.`);
  return `Percent; mean ± sample standard deviation over seeds; * where seeds are missing. Bold: best among complete rows whose weights saw the same data, and all not significantly worse (paired bootstrap over test videos); underlined: second best. Seeds: … partial, ✕ failed. ${lines.join(" ")}`;
}

function compare(column) {
  const sign = order.direction === "descending" ? -1 : 1;
  return (a, b) => {
    const [x, y] = [column.sort(a.row), column.sort(b.row)];
    const [noX, noY] = [x === null || x === undefined, y === null || y === undefined];
    if (noX || noY) return noX - noY || a.index - b.index; // what has no value comes last either way
    const by = typeof x === "number" ? x - y : x.localeCompare(y, "en", { numeric: true });
    return sign * by || a.index - b.index;
  };
}

function sortBy(column) {
  const first = column.first || "ascending";
  const other = first === "ascending" ? "descending" : "ascending";
  order.direction = order.key === column.key && order.direction === first ? other : first;
  order.key = column.key;
  update();
}

function fill(section) {
  section.rows ??= section.group.rows.map(makeRow);
  const chosen = filters();
  const column = COLUMNS.find((one) => one.key === order.key);
  const rows = section.rows.filter((one) => passes(section, one, chosen));
  if (column) rows.sort(compare(column));
  section.body.replaceChildren(...rows.map((one) => one.line));
  for (const head of section.heads) {
    if (head.dataset.key === order.key) head.setAttribute("aria-sort", order.direction);
    else head.removeAttribute("aria-sort");
  }
  colourSigns();
}

function filters() {
  return {
    words: byId("f-text").value.toLowerCase().split(/\s+/).filter(Boolean),
    protocol: byId("f-protocol").value, method: byId("f-method").value,
    backbone: byId("f-backbone").value, kind: byId("f-kind").value, complete: byId("f-complete").checked,
  };
}

function passes(section, one, chosen) {
  const { row } = one;
  return (!chosen.protocol || section.group.label === chosen.protocol)
    && (!chosen.kind || section.group.kind === chosen.kind)
    && (!chosen.method || row.method === chosen.method)
    && (!chosen.backbone || row.backbone === chosen.backbone)
    && (!chosen.complete || !row.incomplete)
    && chosen.words.every((word) => one.words.includes(word) || section.head.includes(word));
}

/** Sorts and filters all open groups. */
function update() {
  const chosen = filters();
  let [visibleRows, all] = [0, 0];
  for (const section of sections) {
    section.rows ??= section.group.rows.map(makeRow);
    const number = section.rows.filter((one) => passes(section, one, chosen)).length;
    visibleRows += number;
    all += section.rows.length;
    section.box.hidden = number === 0;
    if (number && section.box.open) fill(section);
    else section.body.replaceChildren();
  }
  byId("shown").textContent = all ? `${visibleRows} of ${plural(all, "row")} shown` : "No records yet.";
}

function options(select, first, values) {
  select.append(el("option", { value: "", text: first }), ...values.map((value) => el("option", { value, text: value })));
}

function startOverview() {
  const unique = (values) => [...new Set(values)].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
  const rows = data.groups.flatMap((group) => group.rows);
  options(byId("f-protocol"), "all", data.groups.map((group) => group.label));
  options(byId("f-method"), "all", unique(rows.map((row) => row.method)));
  options(byId("f-backbone"), "all", unique(rows.map((row) => row.backbone)));
  options(byId("f-kind"), "all", [...new Set(data.groups.map((group) => group.kind))]);
  sections.push(...data.groups.map(makeSection));
  byId("groups").append(...sections.map((section) => section.box));
  const form = byId("filters");
  form.addEventListener("input", update);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => window.setTimeout(update)); // fields are cleared after the event
  update();
}
