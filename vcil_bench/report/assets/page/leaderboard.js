// Leaderboard: methods x protocols in one metric. Like pretraining stands together, best first; bounds and the numbers
// of papers stand apart and are never ranked.

const BEST = "best"; // the readout that is best in each cell

/** The columns: a protocol and its metric each, protocols of a dataset beside each other. */
function boardColumns(chosen, metric) {
  const columns = data.groups.filter((group) => groupPasses(group, chosen))
    .map((group) => ({ group, metric: metric || group.metrics[0], spanner: group.kind === "real" ? group.dataset : `${group.dataset} (${group.kind})` }))
    .filter((column) => column.group.all_metrics.includes(column.metric));
  const spanners = distinct(columns.map((column) => column.spanner));
  return spanners.flatMap((spanner) => columns.filter((column) => column.spanner === spanner));
}

const better = (metric) => (a, b) => (data.metrics[metric].up ? b - a : a - b);

/** The better of two rows of the same runs, which differ in the readout. */
function betterRow(a, b, metric) {
  const [x, y] = [a.values[metric], b.values[metric]];
  if (!x || !y) return x ? a : b;
  return better(metric)(x[0], y[0]) <= 0 ? a : b;
}

/** The lines: one per method, variant and backbone, and per readout where all are shown. */
function boardLines(columns, chosen, readout) {
  const lines = new Map();
  columns.forEach(({ group, metric }, at) => {
    for (const row of group.rows) {
      if (!rowPasses(group, row, chosen) || (readout && ![BEST, "first"].includes(readout) && row.readout !== readout)) continue;
      const key = JSON.stringify([row.bound, row.like, row.method, row.variant, row.backbone, row.origin, readout ? "" : row.readout]);
      let line = lines.get(key);
      if (!line) lines.set(key, line = { row, key, cells: Array(columns.length).fill(null) });
      const there = line.cells[at];
      if (!there) line.cells[at] = row;
      else if (readout === BEST) line.cells[at] = betterRow(there, row, metric);
    }
  });
  return [...lines.values()];
}

/** Parts lines that say more of a method from its usual setting: shown only if asked for, unless they are all there is. */
function withoutVariants(lines) {
  const same = ({ row }) => JSON.stringify([row.like, row.method, row.origin]);
  const usual = new Set(lines.filter(({ row }) => row.variant === "default").map(same));
  return lines.filter((line) => line.row.variant === "default" || !usual.has(same(line)));
}

/** Mean place of every line over the columns; where a number is missing, the last place. */
function meanPlaces(lines, columns) {
  const sums = new Map(lines.map((line) => [line, 0]));
  columns.forEach(({ metric }, at) => {
    const values = lines.map((line) => line.cells[at]?.values[metric]?.[0]).filter((value) => value !== undefined);
    const order = better(metric);
    for (const line of lines) {
      const value = line.cells[at]?.values[metric]?.[0];
      const place = value === undefined ? lines.length : 1 + values.filter((other) => order(other, value) < 0).length;
      sums.set(line, sums.get(line) + place / columns.length);
    }
  });
  return sums;
}

function sortLines(lines, columns, order) {
  const [label, direction] = splitOrder(order);
  const at = columns.findIndex(({ group }) => group.label === label);
  const names = (a, b) => natural(methodName(a.row), methodName(b.row)) || natural(a.key, b.key);
  if (label === "method") return lines.sort((a, b) => (direction === "descending" ? names(b, a) : names(a, b)));
  if (at < 0) {
    const places = meanPlaces(lines, columns);
    return lines.sort((a, b) => places.get(a) - places.get(b) || names(a, b));
  }
  const value = (line) => line.cells[at]?.values[columns[at].metric]?.[0];
  return lines.sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === undefined || y === undefined) return (x === undefined) - (y === undefined) || names(a, b);
    return (direction === "descending" ? y - x : x - y) || names(a, b);
  });
}

/** A sorting as the address has it: key and direction. */
function splitOrder(text) {
  const at = (text ?? "").lastIndexOf(":");
  return at < 0 ? ["", ""] : [text.slice(0, at), text.slice(at + 1)];
}

function reportedPasses(group, number, words) {
  if (!words.length) return true;
  const text = `${groupWords(group)} ${number.label} ${number.readout} ${number.backbone} ${number.source} reported`.toLowerCase();
  return words.every((word) => text.includes(word));
}

/** Lines of numbers that papers report: one per method, readout and backbone. */
function reportedLines(columns, chosen, readout) {
  const wanted = readout && ![BEST, "first"].includes(readout) ? data.readouts[readout].label : null;
  const method = chosen.method && data.methods[chosen.method].label;
  const lines = new Map();
  columns.forEach(({ group, metric }, at) => {
    for (const number of group.published ?? []) {
      if (number.metric !== metric || (wanted && number.readout && number.readout !== wanted)
        || (method && number.label !== method) || (chosen.backbone && number.backbone !== chosen.backbone)
        || !reportedPasses(group, number, chosen.words)) continue;
      const key = JSON.stringify([number.label, number.readout, number.backbone]);
      let line = lines.get(key);
      if (!line) lines.set(key, line = { reported: number, key, cells: columns.map(() => []) });
      line.cells[at].push(number);
    }
  });
  return [...lines.values()].sort((a, b) => natural(a.reported.label, b.reported.label) || natural(a.key, b.key));
}

/** All that the leaderboard shows: columns and blocks of lines. */
function boardOf(state) {
  const chosen = chosenFilters(state);
  const readout = choiceOf(state, "readout", "b-readout");
  let columns = boardColumns(chosen, choiceOf(state, "metric", "b-metric"));
  const every = boardLines(columns, chosen, readout);
  const lines = state.get("variants") === "yes" ? every : withoutVariants(every);
  const reported = state.get("published") === "no" ? [] : reportedLines(columns, chosen, readout);
  const kept = columns.map((_, at) => lines.some((line) => line.cells[at]) || reported.some((line) => line.cells[at].length));
  const thin = (line) => ({ ...line, cells: line.cells.filter((_, at) => kept[at]) });
  columns = columns.filter((_, at) => kept[at]);
  const ranked = lines.filter(({ row }) => !row.bound).map(thin);
  const likes = distinct(ranked.map(({ row }) => row.like)).sort(natural);
  const blocks = likes.map((like) => {
    const members = ranked.filter(({ row }) => row.like === like);
    const backbone = shared(members.map(({ row }) => row.backbone));
    return { title: [like, backbone].filter(Boolean).join(" · "), lines: sortLines(members, columns, state.get("order")) };
  });
  const bounds = lines.filter(({ row }) => row.bound).map(thin);
  if (bounds.length) blocks.push({ title: "Bounds, not ranked: trained on the videos of all tasks so far", bound: true, lines: sortLines(bounds, columns, state.get("order")) });
  if (reported.length) blocks.push({ title: "Reported in papers: not measured here, not ranked", reported: true, lines: reported.map(thin) });
  return { columns, blocks, hiddenVariants: every.length - lines.length, lines: lines.length };
}

/** What tells a line from others of its method in its block. */
function lineNotes(line, block) {
  const others = block.lines.filter((other) => other.row.label === line.row.label && other.row.origin === line.row.origin);
  const notes = block.bound || distinct(others.map((other) => other.row.backbone)).length > 1 ? [line.row.backbone] : [];
  const alike = others.filter((other) => other.row.backbone === line.row.backbone);
  if (distinct(alike.map((other) => other.row.variant)).length > 1 && line.row.variant !== "default") notes.push(line.row.variant);
  return notes;
}

const shared = (values) => (distinct(values).length === 1 ? values[0] : "");
const readoutOf = (line) => (line.reported ? line.reported.readout : shared(line.cells.filter(Boolean).map((row) => row.readout_label)));
const exemplarsOf = (line) => (line.reported ? "" : shared(line.cells.filter(Boolean).map((row) => row.exemplars)) || "varies");

function cellWords(row, column) {
  const pair = row.values[column.metric];
  return [`${methodName(row)}, ${row.readout_label}, on ${groupName(column.group)}: ${spread(pair)}`,
    `${row.complete} of ${plural(row.seeds, "class order")}`, row.backbone, `exemplars: ${row.exemplars}`,
    row.stale ? "stale: code has changed since" : "", row.variant === "default" ? "" : row.variant].filter(Boolean).join("; ");
}

function boardCell(row, column, deviations, allStale) {
  if (!row) return el("td", { class: "number" });
  const pair = row.values[column.metric];
  const text = pair ? fixed(pair[0]) : "–";
  return el("td", { class: "number" }, el("a", { href: pathOf(row.id), tabindex: "-1", title: cellWords(row, column) },
    ranked(text, row.ranks[column.metric]),
    deviations && pair && pair[1] !== null ? el("small", { text: ` ± ${fixed(pair[1])}` }) : null,
    row.incomplete ? el("small", { class: "lack", text: ` ${row.complete}/${row.seeds}` }) : null,
    row.stale && !allStale ? el("small", { class: "lack", "aria-label": "stale", text: "*" }) : null));
}

function reportedCell(numbers) {
  if (!numbers.length) return el("td", { class: "number" });
  const values = distinct(numbers.map((number) => fixed(number.value)));
  const words = numbers.map((number) => `reported ${fixed(number.value)}: ${number.source}`).join("; ");
  return el("td", { class: "number" }, el("span", { class: "hollow", title: words, text: values.slice(0, 2).join(" / ") + (values.length > 2 ? " …" : "") }));
}

function boardHead(columns, order) {
  const [sorted, direction] = splitOrder(order);
  const top = [];
  for (let at = 0; at < columns.length;) {
    let end = at;
    while (end < columns.length && columns[end].spanner === columns[at].spanner) end += 1;
    top.push(el("th", { scope: "colgroup", colspan: end - at, class: "spanner", text: columns[at].spanner }));
    at = end;
  }
  const heads = columns.map(({ group, metric, spanner }, at) => {
    const name = group.short || group.dataset;
    return el("th", {
      scope: "col", class: at && columns[at - 1].spanner === spanner ? "number" : "number first",
      "aria-sort": sorted === group.label ? direction : null,
    }, el("a", { href: `#protocols/${encodeURIComponent(group.label)}`, title: `${group.title}. ${data.metrics[metric].title}: ${data.metrics[metric].formula}`, text: name }),
    el("button", { type: "button", class: "sort", "aria-label": `sort by ${groupName(group)}`, "data-label": group.label, "data-up": data.metrics[metric].up ? "yes" : "no" }));
  });
  return el("thead", {},
    el("tr", {}, el("th", { scope: "col", rowspan: 2, class: "corner", "aria-sort": sorted === "method" ? direction : null },
      "Method", el("button", { type: "button", class: "sort", "aria-label": "sort by method", "data-label": "method", "data-up": "no" })),
    el("th", { scope: "col", rowspan: 2, class: "aside", text: "Readout" }), el("th", { scope: "col", rowspan: 2, class: "aside", text: "Exemplars" }), top),
    el("tr", {}, heads));
}

function boardTable(board, state) {
  const { columns, blocks } = board;
  const deviations = state.get("deviations") === "yes";
  const rows = blocks.filter((block) => !block.reported).flatMap((block) => block.lines.flatMap((line) => line.cells.filter(Boolean)));
  const allStale = rows.length > 0 && rows.every((row) => row.stale);
  const bodies = blocks.map((block) => el("tbody", { class: block.bound ? "bounds" : block.reported ? "reported" : null },
    el("tr", { class: "like" }, el("th", { scope: "rowgroup", colspan: 3 + columns.length }, el("span", { text: block.title }))),
    block.lines.map((line) => el("tr", {},
      line.reported
        ? el("th", { scope: "row" }, line.reported.label, line.reported.backbone ? el("small", { text: ` ${line.reported.backbone}` }) : null)
        : el("th", { scope: "row" }, sign(line.row), " ", el("a", { href: pathOf(line.cells.find(Boolean).id), text: methodName(line.row), title: line.row.like }),
          lineNotes(line, block).map((note) => el("small", { title: note, text: ` ${note}` }))),
      el("td", { class: "aside", text: readoutOf(line) }), el("td", { class: "aside", text: exemplarsOf(line) }),
      line.cells.map((cell, at) => (line.reported ? reportedCell(cell) : boardCell(cell, columns[at], deviations, allStale)))))));
  return { node: el("table", { class: "board" }, el("caption", { class: "unseen", text: "Methods and protocols" }), boardHead(columns, state.get("order")), bodies), allStale };
}

function boardNotes(board, state, allStale) {
  const { columns } = board;
  const metrics = distinct(columns.map((column) => column.metric));
  const named = metrics.map((metric) => {
    const on = metrics.length > 1 ? ` (${columns.filter((column) => column.metric === metric).map((column) => groupName(column.group)).join(", ")})` : "";
    return `${data.metrics[metric].title} ${data.metrics[metric].up ? "↑" : "↓"}${on}: ${data.metrics[metric].formula}.`;
  });
  const [sorted] = splitOrder(state.get("order"));
  const notes = [`Percent${metrics.some((metric) => metric.includes("forgetting")) ? "; forgetting in percentage points, to be read with the accuracy" : ""}. ${named.join(" ")}`,
    "Bold: best among methods with the same pretraining, over all readouts, and any that do not differ significantly from it "
    + "(paired bootstrap over test videos, 95 %); underlined: second. Bounds, stale numbers and those with missing class orders are not ranked."];
  if (!sorted) notes.push("Order: mean place over the columns, a missing number counting as the last.");
  if (state.get("readout") === BEST) notes.push("The readout of each number is the best one on the test videos.");
  if (allStale) notes.push("All numbers are stale: code has changed since they were measured.");
  else if (board.blocks.some((block) => !block.reported && block.lines.some((line) => line.cells.some((row) => row && row.stale)))) notes.push("*: stale, code has changed since.");
  if (board.blocks.some((block) => !block.reported && block.lines.some((line) => line.cells.some((row) => row && row.incomplete)))) notes.push("n/N: finished class orders.");
  return notes.join(" ");
}

/** Draws the leaderboard anew. */
function updateBoard(state = homeState()) {
  const board = boardOf(state);
  const box = byId("board");
  if (!board.columns.length) {
    box.replaceChildren(data.groups.length ? emptyNote() : el("p", { class: "quiet", text: "No records yet." }));
    byId("board-notes").textContent = "";
    byId("board-exports").replaceChildren();
    return;
  }
  const { node, allStale } = boardTable(board, state);
  box.replaceChildren(scroller("Table of methods and protocols", node));
  byId("board-notes").textContent = boardNotes(board, state, allStale);
  const more = byId("b-variants-label");
  more.hidden = !board.hiddenVariants && state.get("variants") !== "yes";
  more.lastElementChild.textContent = board.hiddenVariants ? `variants (${board.hiddenVariants} hidden)` : "variants";
  byId("board-exports").replaceChildren(...tableExports("leaderboard", () => boardSheet(boardOf(homeState()), homeState())));
  colourSigns();
}

/** The leaderboard as exports have it. */
function boardSheet(board, state) {
  const metric = choiceOf(state, "metric", "b-metric");
  return {
    title: `Leaderboard, ${metric ? data.metrics[metric].title : "headline metric of each protocol"}`,
    note: byId("board-notes").textContent, described: ["Method", "Readout", "Exemplars"], deviations: state.get("deviations") === "yes",
    heads: board.columns.map(({ group, metric: name, spanner }) => ({ group: spanner, leaf: group.short || group.dataset, metric: name })),
    blocks: board.blocks.map((block) => ({
      title: block.title, kind: block.reported ? "reported" : block.bound ? "bound" : "measured",
      rows: block.lines.map((line) => ({
        about: [line.reported ? [line.reported.label, line.reported.backbone].filter(Boolean).join(", ") : [methodName(line.row), ...lineNotes(line, block)].join(", "), readoutOf(line), exemplarsOf(line)],
        cells: line.cells.map((cell, at) => {
          if (line.reported) return cell.length ? { values: distinct(cell.map((number) => number.value)), reported: true } : null;
          const pair = cell && cell.values[board.columns[at].metric];
          return pair ? { mean: pair[0], std: pair[1], rank: cell.ranks[board.columns[at].metric], finished: cell.complete, seeds: cell.seeds, stale: cell.stale } : null;
        }),
      })),
    })),
  };
}

/** Arrows lead from number to number, so that the tabulator need not pass all of them. */
function walkBoard(event) {
  const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
  const step = steps[event.key];
  const from = event.target.closest("tbody a");
  if (!step || !from) return;
  const lines = [...byId("board").querySelectorAll("tbody tr:not(.like)")];
  const cells = lines.map((line) => [...line.children]);
  let [row, column] = [lines.indexOf(from.closest("tr")), [...from.closest("tr").children].indexOf(from.closest("th, td"))];
  event.preventDefault();
  for (;;) {
    row += step[0];
    column += step[1];
    const cell = cells[row]?.[column];
    if (!cell) return;
    const link = cell.querySelector("a");
    if (link) {
      link.focus();
      return;
    }
  }
}

function startBoard() {
  const metrics = distinct(data.groups.flatMap((group) => group.all_metrics));
  options(byId("b-metric"), "headline of each protocol", metrics.map((name) => [name, `${data.metrics[name].title} ${data.metrics[name].up ? "↑" : "↓"}`]));
  const readouts = distinct(data.groups.flatMap((group) => group.rows.map((row) => row.readout)));
  options(byId("b-readout"), "all", [["first", "each method's first"], [BEST, "best of each (on the test videos)"],
    ...readouts.map((name) => [name, data.readouts[name].label])]);
  const change = (key, value) => {
    writeState({ [key]: value });
    showHomeState();
  };
  byId("b-metric").addEventListener("change", (event) => change("metric", event.target.value));
  byId("b-readout").addEventListener("change", (event) => change("readout", event.target.value));
  byId("b-published").addEventListener("change", (event) => change("published", event.target.checked ? null : "no"));
  byId("b-deviations").addEventListener("change", (event) => change("deviations", event.target.checked ? "yes" : null));
  byId("b-variants").addEventListener("change", (event) => change("variants", event.target.checked ? "yes" : null));
  byId("b-published-label").hidden = !data.groups.some((group) => (group.published ?? []).length);
  byId("board").addEventListener("keydown", walkBoard);
  byId("board").addEventListener("click", (event) => {
    const button = event.target.closest("button.sort");
    if (!button) return;
    const { label, up } = button.dataset;
    const [first, second] = up === "yes" ? ["descending", "ascending"] : ["ascending", "descending"];
    const [sorted, direction] = splitOrder(homeState().get("order"));
    // The third click leads back to the order there was.
    const next = sorted !== label ? first : direction === first ? second : null;
    change("order", next && `${label}:${next}`);
    [...byId("board").querySelectorAll("button.sort")].find((one) => one.dataset.label === label).focus({ preventScroll: true });
  });
}

function showBoardState(state) {
  byId("b-metric").value = choiceOf(state, "metric", "b-metric");
  byId("b-readout").value = choiceOf(state, "readout", "b-readout");
  byId("b-published").checked = state.get("published") !== "no";
  byId("b-deviations").checked = state.get("deviations") === "yes";
  byId("b-variants").checked = state.get("variants") === "yes";
  updateBoard(state);
}
