// Tables of protocols: a line per method, variant and readout; like pretraining together, sorted, filtered, compared.

const lower = (value) => String(value ?? "").toLowerCase() || null;
const sections = [];
let ticked = []; // rows chosen to be compared, of one protocol

/** A method's sign as in the curves. */
function sign(row) {
  const [, , glyph] = data.styles[row.method] || ["", "", "●"];
  const node = el("span", { class: "sign", "aria-hidden": "true", text: glyph });
  node.dataset.method = row.method;
  return node;
}

// Best in bold, second best underlined; who is ranked against whom is decided where the page is made.
const ranked = (text, place) =>
  place === "best" ? el("strong", { text }) : place === "second" ? el("u", { text }) : el("span", { text });

/** How far a row is behind the best like it: its value minus the best's, and the interval. */
function behindText(row, metric) {
  const behind = row.behind[metric];
  if (!behind) return row.ranks[metric] === "best" ? "best" : "";
  const interval = behind.low === null ? "" : ` [${fixed(-behind.high, 1)}, ${fixed(-behind.low, 1)}]`;
  return `${fixed(-behind.diff)}${interval}`;
}

function exemplarText(row) {
  const use = row.memory;
  const parts = [row.exemplars];
  if (use && use.bytes) parts.push(bytes(use.bytes));
  if (use && use.statistics_bytes) parts.push(`stats ${bytes(use.statistics_bytes)}`);
  return parts.join(" · ");
}

function exemplarWords(row) {
  const use = row.memory;
  return use ? `kept at the end: ${plural(use.videos, "video")}, ${use.feature_frames ? `features of ${plural(use.feature_frames, "frame")}` : plural(use.frames, "frame")}, ${bytes(use.bytes)}; statistics and modules ${bytes(use.statistics_bytes)}` : "";
}

const readoutWords = (row) => ({
  cnn: "classifier: the trained linear head", nme: "classifier: nearest mean of exemplars", ncm: "classifier: nearest class mean",
  text: "classifier: text prompts",
}[row.readout] || `classifier: ${row.readout}`);

/** The metrics of a protocol's table: those that it asks for, and forgetting. */
const metricsOf = (group) => distinct([...group.metrics, "backward_forgetting"]);

function valueCell(row, metric) {
  const pair = row.values[metric];
  if (!pair) return "–";
  return [ranked(fixed(pair[0]), row.ranks[metric]), pair[1] === null ? null : el("small", { text: ` ± ${fixed(pair[1])}` })];
}

/** The columns of a protocol's table. `plain` is a cell as text, by which empty and constant columns are known. */
function columnsOf(group) {
  const metrics = metricsOf(group).map((name, at) => ({
    key: at ? name : "headline", metric: name, number: true, first: data.metrics[name].up ? "descending" : "ascending",
    title: `${shortTitle(name)}\u00a0${data.metrics[name].up ? "↑" : "↓"}`, help: `${data.metrics[name].title}: ${data.metrics[name].formula}`,
    sort: (row) => row.values[name] && row.values[name][0], plain: (row) => spread(row.values[name]),
    cell: (row) => valueCell(row, name),
  }));
  const main = group.metrics[0];
  return [
    { key: "readout", title: "Readout", what: "readout", sort: (row) => lower(row.readout_label), plain: (row) => row.readout_label,
      cell: (row) => el("span", { title: readoutWords(row), text: row.readout_label }) },
    { key: "variant", title: "Variant", what: "variant", hidden: true, plain: (row) => row.variant },
    metrics[0],
    { key: "behind", title: "Behind best", number: true, help: "Minus the best ranked row with the same pretraining, in percentage points, with the 95 % interval of a paired bootstrap over test videos",
      sort: (row) => (row.behind[main] ? Math.abs(row.behind[main].diff) : row.ranks[main] === "best" ? 0 : null), plain: (row) => behindText(row, main), behind: main },
    ...metrics.slice(1),
    { key: "exemplars", title: "Exemplars", what: "exemplars", kind: "short", sort: (row) => row.memory && row.memory.bytes + row.memory.statistics_bytes, plain: exemplarText,
      cell: (row) => el("span", { title: exemplarWords(row), text: exemplarText(row) }) },
    { key: "seeds", title: "Orders", what: "class orders finished", help: "Finished class orders of those the protocol asks for", sort: (row) => row.complete / row.seeds, plain: (row) => `${row.complete}/${row.seeds}`, cell: seedsButton, keep: true },
    { key: "backbone", title: "Backbone", what: "backbone", perBlock: true, sort: (row) => lower(row.backbone), plain: (row) => row.backbone, kind: "short" },
    { key: "train", title: "Training", number: true, help: "Mean time of training, all tasks", sort: (row) => row.train_s, plain: (row) => (row.train_s === null ? "" : duration(row.train_s)) },
    { key: "notes", title: "Notes", what: "note", kind: "short", sort: (row) => lower(row.notes.join(" ")), plain: (row) => notesOf(row).join("; "), cell: notesButton },
  ];
}

/** A row's notes but for the number of seeds, which has a column of its own. */
const notesOf = (row) => row.notes.map((note) => note.replace(/^\d+ of \d+ seeds(, )?/, "")).filter(Boolean);

/** A metric's name as a column has it. */
function shortTitle(name) {
  const { title: whole } = data.metrics[name];
  return name === "backward_forgetting" ? "Forgetting (BWF)" : whole;
}

/** Shows what a button stands for beside it, above everything, closed by Escape or a click elsewhere. */
function popUp(button, ...content) {
  const box = byId("pop");
  box.replaceChildren(...content.flat());
  box.showPopover();
  const at = button.getBoundingClientRect();
  box.style.left = `${Math.max(8, Math.min(at.left, window.innerWidth - box.offsetWidth - 8))}px`;
  box.style.top = `${at.bottom + box.offsetHeight + 8 > window.innerHeight ? Math.max(8, at.top - box.offsetHeight - 4) : at.bottom + 4}px`;
  (box.querySelector("a") ?? box).focus({ preventScroll: true });
}

function seedsButton(row) {
  const unfinished = row.runs.some((number) => data.runs[number].status !== "complete");
  const button = el("button", {
    type: "button", class: row.incomplete || unfinished ? "pop lack" : "pop", text: `${row.complete}/${row.seeds}`,
    "aria-label": `${row.complete}/${plural(row.seeds, "class order")} finished: runs`, "aria-haspopup": "dialog",
  });
  button.addEventListener("click", () => popUp(button, el("p", { class: "quiet", text: "Runs, by seed of the class order" }),
    el("ul", {}, row.runs.map((number) => {
      const run = data.runs[number];
      return el("li", {}, el("a", { href: runLink(run), class: run.status, text: `seed ${run.seed}` }), ` ${run.status}${run.stale ? ", stale" : ""}`);
    }))));
  return button;
}

function notesButton(row) {
  const notes = notesOf(row);
  if (!notes.length) return null;
  const button = el("button", { type: "button", class: "pop note-line", text: notes.join("; "), title: notes.join("; "), "aria-haspopup": "dialog" });
  button.addEventListener("click", () => popUp(button, notes.map((note) => el("p", { text: note }))));
  return button;
}

/** Columns as a table of these rows shows them, and in words those in which they do not differ. */
function visibleColumns(columns, rows, blocks) {
  const [shownColumns, constant, told] = [[], [], []];
  for (const column of columns) {
    const values = distinct(rows.map((row) => column.plain(row) ?? ""));
    const empty = values.every((value) => value === "" || value === "–");
    if (column.metric === undefined && empty) continue;
    if (column.what && !column.keep && values.length === 1 && rows.length > 1) constant.push(`${column.what}: ${values[0]}`);
    else if (column.perBlock && blocks.every((block) => block.bound || distinct(block.rows.map(column.plain)).length === 1)) told.push(column);
    else shownColumns.push(column);
  }
  return { shownColumns, constant, told };
}

/** Rows in their blocks: like pretraining together, bounds apart. */
function blocksOf(rows) {
  const likes = distinct(rows.filter((row) => !row.bound).map((row) => row.like)).sort(natural);
  const blocks = likes.map((like) => ({ title: like, rows: rows.filter((row) => !row.bound && row.like === like) }));
  const bounds = rows.filter((row) => row.bound);
  if (bounds.length) blocks.push({ title: "Bounds, not ranked: trained on the videos of all tasks so far", bound: true, rows: bounds });
  return blocks;
}

function rowCompare(column, direction) {
  const turn = direction === "descending" ? -1 : 1;
  return (a, b) => {
    const [x, y] = [column.sort(a), column.sort(b)];
    const [noX, noY] = [x === null || x === undefined, y === null || y === undefined];
    if (noX || noY) return noX - noY || natural(a.label, b.label); // what has no value comes last either way
    return turn * (typeof x === "number" ? x - y : natural(x, y)) || natural(a.label, b.label);
  };
}

/** What a section shows in a state: its rows in order, its columns. */
function tableOf(section, state, chosen) {
  const { group } = section;
  section.columns ??= columnsOf(group);
  const rows = group.rows.filter((row) => rowPasses(group, row, chosen));
  const [key, given] = splitOrder(state.get("sort"));
  const method = { key: "method", title: "Method", sort: (row) => lower(methodName(row)), plain: methodName };
  const sorted = [method, ...section.columns].find((column) => column.key === key) ?? section.columns.find((column) => column.key === "headline");
  const direction = key === sorted.key ? given : sorted.first;
  rows.sort(rowCompare(sorted, direction));
  const blocks = blocksOf(rows);
  return { rows, blocks, sorted, direction, method, ...visibleColumns(section.columns, rows, blocks) };
}

/** What a row adds to its method's name: its variant, and where the heading of its block cannot say it, the backbone. */
function rowAsides(row, block, told) {
  const alike = block.rows.filter((other) => other.method === row.method && other.backbone === row.backbone && other.origin === row.origin);
  const variant = row.variant !== "default" && distinct(alike.map((other) => other.variant)).length > 1 ? row.variant : "";
  return [...block.bound ? told.map((column) => column.plain(row)) : [], variant].filter(Boolean);
}

const blockTitle = (block, told) => [block.title, ...block.bound ? [] : told.map((column) => column.plain(block.rows[0]))].join(" · ");

function makeLine(section, row, columns, asides) {
  const box = el("input", { type: "checkbox", "aria-label": `compare ${methodName(row)}, ${row.readout_label}, ${row.variant}` });
  box.checked = ticked.includes(row);
  box.addEventListener("change", () => tick(section.group, row, box.checked));
  const line = el("tr", {}, el("td", { class: "tick" }, box),
    el("th", { scope: "row" }, sign(row), " ", el("a", { href: pathOf(row.id), text: methodName(row) }),
      asides.map((text) => el("small", { title: text, text: ` ${text}` }))),
    columns.map((column) => el("td", { class: column.number ? "number" : column.kind }, [column.cell ? column.cell(row) : column.plain(row)].flat())));
  line.dataset.row = row.id;
  line.addEventListener("click", (event) => {
    // A mouse's shortcut; keys have the links. Text that is being selected is left alone.
    if (event.target.closest("a, button, input, .tick") || String(window.getSelection())) return;
    window.location.hash = pathOf(row.id);
  });
  return line;
}

function fillSection(section, state = homeState(), chosen = chosenFilters(state)) {
  const shownTable = tableOf(section, state, chosen);
  const { blocks, constant, sorted, direction, method, told } = shownTable;
  let shownColumns = shownTable.shownColumns.filter((column) => !column.hidden);
  // A phone has room for little more than one number.
  if (narrow.matches) shownColumns = [...shownColumns.filter((column) => column.number), ...shownColumns.filter((column) => !column.number)];
  const several = blocks.length > 1;
  const heads = [method, ...shownColumns].map((column) => el("th", {
    scope: "col", class: column.number ? "number" : column.kind, "data-key": column.key, "data-title": column.title, title: column.help,
    "aria-sort": sorted.key === column.key ? direction : null,
  }, el("button", { type: "button", class: "sort", text: column.title, onclick: () => sortSections(section, column) })));
  section.table.replaceChildren(
    el("thead", {}, el("tr", {}, el("th", { scope: "col", class: "tick" }, el("span", { class: "unseen", text: "Compare" })), heads)),
    ...blocks.map((block) => el("tbody", { class: block.bound ? "bounds" : null },
      several ? el("tr", { class: "like" }, el("th", { scope: "rowgroup", colspan: 2 + shownColumns.length }, el("span", { text: blockTitle(block, told) }))) : null,
      block.rows.map((row) => makeLine(section, row, shownColumns, rowAsides(row, block, told))))));
  if (!several && blocks[0]) constant.unshift(`pretraining: ${blocks[0].title}`);
  section.constant.textContent = constant.length ? `All rows: ${constant.join("; ")}.` : "";
  section.notes.textContent = formulas(section.group);
  section.exports.replaceChildren(...tableExports(section.group.label, () => sectionSheet(section)));
  colourSigns();
}

/** A table as exports have it. */
function sectionSheet(section) {
  const state = homeState();
  const { blocks, shownColumns, method, told } = tableOf(section, state, chosenFilters(state));
  const about = [method, ...[...shownColumns, ...told].filter((column) => !column.metric && !column.behind)];
  const numbers = shownColumns.filter((column) => column.metric || column.behind);
  return {
    title: `${groupName(section.group)}${section.group.kind === "real" ? "" : ` (${section.group.kind})`}`, note: [section.constant.textContent, formulas(section.group)].filter(Boolean).join(" "),
    described: about.map((column) => column.title), deviations: true,
    heads: numbers.map((column) => ({ group: "", leaf: column.title.replace("\u00a0", " "), metric: column.metric })),
    blocks: blocks.map((block) => ({
      title: block.title, kind: block.bound ? "bound" : "measured",
      rows: block.rows.map((row) => ({
        about: about.map((column) => column.plain(row) ?? ""),
        cells: numbers.map((column) => {
          if (column.behind) {
            const behind = row.behind[column.behind];
            return behind ? { mean: -behind.diff, low: behind.low === null ? null : -behind.high, high: behind.low === null ? null : -behind.low } : null;
          }
          const pair = row.values[column.metric];
          return pair ? { mean: pair[0], std: pair[1], rank: row.ranks[column.metric], finished: row.complete, seeds: row.seeds, stale: row.stale } : null;
        }),
      })),
    })),
  };
}

function formulas(group) {
  const lines = metricsOf(group).map((name) => `${shortTitle(name)}: ${data.metrics[name].formula}.`);
  return "Percent (differences and forgetting in percentage points); mean ± standard deviation over class orders. Bold: best among methods with the same pretraining, and any that do not "
    + "differ significantly from it (paired bootstrap over test videos, 95 %); underlined: second. Bounds, stale rows and rows with missing class orders are not ranked; "
    + `forgetting is not ranked where nothing is trained, and is to be read with the accuracy. ${lines.join(" ")}`;
}

function sortSections(section, column) {
  const state = homeState();
  const [key, given] = splitOrder(state.get("sort"));
  const first = column.first || "ascending";
  const other = first === "ascending" ? "descending" : "ascending";
  const now = key === column.key ? given : !key && column.key === "headline" ? first : null;
  const next = now === first ? other : first;
  writeState({ sort: column.key === "headline" && next === first ? null : `${column.key}:${next}` });
  showHomeState();
  section.table.querySelector(`th[data-key="${CSS.escape(column.key)}"] button`).focus();
}

function tick(group, row, on) {
  ticked = ticked.filter((other) => other !== row && group.rows.includes(other));
  if (on) ticked = [...ticked.slice(-1), row]; // of three the first is let go
  showTicked();
}

function showTicked() {
  const bar = byId("compare-bar");
  bar.hidden = !ticked.length;
  for (const section of sections) {
    for (const line of section.table.querySelectorAll("tr[data-row]")) {
      line.querySelector("input").checked = ticked.some((row) => row.id === line.dataset.row);
    }
  }
  if (!ticked.length) return;
  const names = ticked.map((row) => [methodName(row), row.readout_label, row.variant === "default" ? "" : row.variant].filter(Boolean).join(" "));
  bar.replaceChildren(
    el("span", { role: "status", text: ticked.length === 2 ? `${names[0]} and ${names[1]}` : `${names[0]}: tick a second row of this table` }),
    ticked.length === 2 ? el("a", { class: "button", id: "compare", href: `#compare/${ticked[0].id}/${ticked[1].id}`, text: "Compare" }) : null,
    el("button", { type: "button", text: "Clear", onclick: () => {
      ticked = [];
      showTicked();
    } }));
}

function makeSection(group, index, open) {
  const id = `group-${index}`;
  const real = group.kind === "real";
  const section = { group, table: el("table", { class: "overview", "aria-labelledby": `${id}-title` }), constant: el("p", { class: "quiet constant" }),
    notes: el("p", { class: "quiet formulas" }), exports: el("div", { class: "exports" }) };
  const about = group.title.includes(": ") ? group.title.slice(group.title.indexOf(": ") + 2).replace(/ \[(synthetic data|random weights[^\]]*)\]/g, "") : group.title;
  section.box = el("details", { class: "group", id, open },
    el("summary", {},
      el("h3", { id: `${id}-title`, text: groupName(group) }),
      el("span", { class: `badge ${real ? "real" : "other"}`, text: real ? "real data" : group.kind }), " ",
      el("span", { class: "quiet", text: `${about} ` }),
      el("span", { class: "quiet mono", title: `fingerprint ${group.fingerprint}`, text: `${group.protocol} v${group.version}` })),
    el("div", { class: "above" }, section.constant, section.exports),
    scroller(groupName(group), section.table),
    el("details", { class: "formulas-box" }, el("summary", { class: "quiet", text: "How to read this table" }), section.notes));
  // Rows of closed groups are left out until they are opened.
  section.box.addEventListener("toggle", () => section.box.open && fillSection(section));
  return section;
}

/** Sorts and filters all open groups. */
function updateTables(state = homeState()) {
  const chosen = chosenFilters(state);
  let [visibleRows, all] = [0, 0];
  for (const section of sections) {
    const number = section.group.rows.filter((row) => rowPasses(section.group, row, chosen)).length;
    visibleRows += number;
    all += section.group.rows.length;
    section.box.hidden = number === 0;
    if (number && section.box.open) fillSection(section, state, chosen);
    else section.table.replaceChildren();
  }
  byId("shown").textContent = all ? `${visibleRows} of ${plural(all, "row")} shown` : "No records yet.";
  byId("none-shown").replaceChildren(...all && !visibleRows ? [emptyNote()] : []);
}

/** Opens a protocol's table, as its heading in the leaderboard asks for. */
function openSection(label) {
  const section = sections.find((one) => one.group.label === label);
  if (!section || section.box.hidden) return null;
  section.box.open = true;
  fillSection(section);
  return section.box;
}

function startTables() {
  narrow.addEventListener("change", () => updateTables());
  const many = data.groups.length > 3;
  sections.push(...data.groups.map((group, index) => makeSection(group, index, !many || index === 0)));
  byId("groups").append(...sections.map((section) => section.box));
}
