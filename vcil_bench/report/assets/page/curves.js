// Curves: accuracy and forgetting after every task. Hue and marker are the method's, the line's style the readout's.

const MOST = 6; // lines at first
const QUANTITIES = [["accuracy", "Accuracy over classes seen, %", "accuracy, %"], ["forgetting", "Forgetting of old tasks, percentage points", "forgetting, points"]];
const curvesShown = { group: null, rows: [], active: null, bands: [] };

const lineKey = (row) => row.id.split("/").slice(1).join("/");
const withCurves = (group) => group.rows.filter((row) => row.curve);

/** A line's name: what tells it from the group's others. */
function lineName(group, row) {
  const same = group.rows.filter((other) => other.method === row.method && other.origin === row.origin && other.like === row.like);
  return [methodName(row), distinct(same.map((other) => other.variant)).length > 1 && row.variant !== "default" ? row.variant : "",
    distinct(same.map((other) => other.readout)).length > 1 ? row.readout_label : ""].filter(Boolean).join(" ");
}

/** A line's name beside all others of its group: with the backbone, where its method has run on several. */
function chipName(group, row) {
  const several = distinct(withCurves(group).filter((other) => other.method === row.method).map((other) => other.backbone)).length > 1;
  return lineName(group, row) + (several ? `, ${row.backbone}` : "");
}

const shortName = (text, most = 22) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
const familyOf = (row) => (data.styles[row.method] || [])[3] ?? row.method;
const headlineOf = (group, row) => row.values[group.all_metrics[0]]?.[0];

/** The lines at first: the best of each family and pretraining, and the bounds of those. */
function usualLines(group) {
  const order = better(group.all_metrics[0]);
  const rows = withCurves(group).filter((row) => headlineOf(group, row) !== undefined)
    .sort((a, b) => order(headlineOf(group, a), headlineOf(group, b)));
  const bounds = distinct(rows.filter((row) => row.bound).map((row) => row.like))
    .map((like) => rows.find((row) => row.bound && row.like === like)).slice(0, 2);
  const taken = new Set();
  const heads = rows.filter((row) => {
    const family = JSON.stringify([row.like, familyOf(row)]);
    return !row.bound && !taken.has(family) && taken.add(family);
  });
  // Every pretraining gets its share, the one with the best line first.
  const likes = distinct(heads.map((row) => row.like));
  const ranks = new Map(likes.flatMap((like) => heads.filter((row) => row.like === like).map((row, i) => [row, i])));
  const lines = [...heads].sort((a, b) => ranks.get(a) - ranks.get(b)).slice(0, MOST - bounds.length);
  return [...lines, ...bounds.filter((bound) => lines.some((row) => row.like === bound.like))];
}

function chosenGroup(state) {
  const drawn = data.groups.filter((group) => withCurves(group).length);
  return drawn.find((group) => group.label === state.get("group")) ?? drawn[0];
}

/** The rows whose lines are drawn: the address's, or the usual ones; the best at the end come first. */
function chosenLines(group, state) {
  const wanted = state.has("lines") ? state.get("lines").split(" ") : null;
  const rows = wanted ? withCurves(group).filter((row) => wanted.includes(lineKey(row))) : usualLines(group);
  return rows.sort((a, b) => b.curve.accuracy.mean.at(-1) - a.curve.accuracy.mean.at(-1));
}

/** A readout's dashes as the plotting library and CSS have them. */
function dashOf(readout, width = 2) {
  const dashes = (data.readouts[readout] || {}).dash ?? [];
  return dashes.length ? dashes.map((length) => `${Math.max(1, Math.round(length * width))}px`).join(",") : "solid";
}

/** Tick places: after the last task, and of many every n-th before it. */
function taskTicks(seen, most) {
  const every = Math.ceil(seen.length / most);
  return seen.filter((_, i) => (seen.length - 1 - i) % every === 0);
}

/** The range of a quantity: all of 0 to 100, or what its lines fill. */
function rangeOf(group, rows, part, fit) {
  const values = rows.flatMap((row) => [...row.curve[part].mean, ...reportedPoints(group, row, part).map(({ y }) => y)]);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  // Forgetting is small where methods work: at least 20 points, so that little does not look like much.
  if (part === "forgetting") return [Math.min(0, low) - 1.5, Math.max(high, Math.min(0, low) + 20) + 1.5];
  if (!fit) return [Math.min(0, low), 101];
  const room = Math.max(1, 0.06 * (high - low));
  return [low - room, high + room];
}

/** Places of names beside the ends of lines, pushed apart; null where they do not fit. */
function placesOfNames(ends, low, high, height) {
  const least = (15 / height) * (high - low);
  if (ends.length * least > high - low) return null;
  const order = ends.map((_, i) => i).sort((a, b) => ends[b] - ends[a]);
  const places = ends.map((value) => Math.min(high - least / 2, Math.max(low + least / 2, value)));
  for (let i = 1; i < order.length; i += 1) places[order[i]] = Math.min(places[order[i]], places[order[i - 1]] - least);
  for (let i = order.length - 1, floor = low + least / 2; i >= 0; i -= 1, floor += least) places[order[i]] = Math.max(places[order[i]], floor);
  return places;
}

/** What papers report of a line's method, as points of one of its curves: `{x, y, source}`. */
function reportedPoints(group, row, part) {
  if (row.variant !== "default" || row.origin) return [];
  return group.points.filter((point) => point.method === row.method && point.part === part && (point.readout === null || point.readout === row.readout))
    .map(({ step, value, source }) => ({ x: row.curve.seen.at(step ?? -1), y: value, source }));
}

/** The figure of some lines: a pair of panels per pretraining, drawn `width` pixels wide. */
function curvesFigure(group, rows, { light, fit, width, stacked, title: heading }) {
  const colours = look(light);
  const likes = distinct(rows.map((row) => row.like)).sort(natural);
  const names = new Map(rows.map((row) => [row, shortName(lineName(group, row))]));
  const seen = rows[0].curve.seen;
  const label = stacked ? 8 : Math.min(190, 14 + 7 * Math.max(...[...names.values()].map((name) => name.length)));
  const [left, top, bottom, panel, gap] = [58, heading ? 64 : likes.length > 1 ? 30 : 14, 50, stacked ? 230 : 300, stacked ? 58 : 66];
  const lines = stacked ? 2 * likes.length : likes.length;
  const inner = lines * panel + (lines - 1) * gap;
  const wide = width - left - 6;
  const each = stacked ? wide - label : (wide - 2 * label - 52) / 2;
  const layout = {
    width, height: inner + top + bottom, paper_bgcolor: light && heading ? "#ffffff" : "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: colours.text, family: "system-ui, sans-serif", size: 12.5 }, showlegend: false, hovermode: "x unified", hoversort: "value descending",
    hoverlabel: { bgcolor: colours.ground, bordercolor: colours.line, font: { color: colours.text }, namelength: -1, align: "left" },
    margin: { l: left, r: 6, t: top, b: bottom, autoexpand: false }, annotations: [], dragmode: "zoom",
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colours.line, activecolor: colours.text },
  };
  if (heading) layout.title = { text: inert(heading), x: 0, xref: "paper", y: 1, yref: "container", yanchor: "top", pad: { t: 12 }, font: { size: 15 } };
  const traces = [];
  const bands = [];
  likes.forEach((like, number) => {
    const members = rows.filter((row) => row.like === like);
    QUANTITIES.forEach(([part, long, short], side) => {
      const at = 2 * number + side;
      const suffix = at ? String(at + 1) : "";
      const line = stacked ? at : number;
      const from = stacked || !side ? 0 : (each + label + 52) / wide;
      const high = 1 - (line * (panel + gap)) / inner;
      const low = Math.max(0, high - panel / inner);
      const range = rangeOf(group, rows, part, fit);
      layout[`xaxis${suffix}`] = axis(colours, !stacked && number === likes.length - 1 ? "classes seen" : stacked && line === lines - 1 ? "classes seen" : "", {
        domain: [from, from + each / wide], anchor: `y${suffix}`, tickvals: taskTicks(seen, stacked ? 7 : 12), showgrid: false, zeroline: false,
        range: [seen[0] - 0.03 * (seen.at(-1) - seen[0] || 1), seen.at(-1) + 0.03 * (seen.at(-1) - seen[0] || 1)], automargin: false,
        unifiedhovertitle: { text: "%{x} classes" }, ticks: "outside", ticklen: 4, tickcolor: colours.line, showline: true,
      });
      layout[`yaxis${suffix}`] = axis(colours, stacked ? short : long, { domain: [low, high], anchor: `x${suffix}`, range, automargin: false, nticks: 7, zeroline: part === "forgetting" });
      if (likes.length > 1 && (!side || stacked)) {
        layout.annotations.push({ xref: "paper", yref: "paper", x: 0, xanchor: "left", y: high, yanchor: "bottom", yshift: 4, showarrow: false, text: `<b>${inert(like)}</b>${stacked ? `, ${part}` : ""}` });
      }
      bands.push({ like, part, trace: traces.length });
      traces.push({ xaxis: `x${suffix}`, yaxis: `y${suffix}`, x: [], y: [], fill: "toself", mode: "lines", line: { width: 0 }, hoverinfo: "skip" });
      for (const row of members) {
        const [hex, marker] = data.styles[row.method] || ["#777777", "o"];
        const rgb = row.bound ? channels(light ? "#8a929c" : "#808994") : visible(hex, light);
        const { mean, std } = row.curve[part];
        traces.push({
          xaxis: `x${suffix}`, yaxis: `y${suffix}`, x: row.curve.seen, y: mean, name: inert(lineName(group, row)), mode: row.bound ? "lines" : "lines+markers",
          line: { color: rgba(rgb), width: row.bound ? 1.2 : 2, dash: row.bound ? "6px,4px" : dashOf(row.readout) },
          marker: { symbol: SYMBOLS[marker] || "circle", size: marker === "*" ? 10 : 7 }, meta: lineKey(row),
          text: mean.map((m, i) => `${spread([m, std ? std[i] : null])}${row.bound ? ", bound" : ""}`), hovertemplate: `%{text}<extra>${inert(lineName(group, row))}</extra>`,
        });
        const points = reportedPoints(group, row, part);
        if (points.length) {
          traces.push({
            xaxis: `x${suffix}`, yaxis: `y${suffix}`, x: points.map(({ x }) => x), y: points.map(({ y }) => y), name: inert(`${lineName(group, row)}, reported`),
            mode: "markers", cliponaxis: false, marker: { symbol: `${SYMBOLS[marker] || "circle"}-open`, size: 10, color: rgba(rgb), line: { width: 1.5 } },
            text: points.map(({ y, source }) => `${fixed(y)} reported: ${inert(source)}`), hovertemplate: `%{text}<extra>${inert(lineName(group, row))}</extra>`,
          });
        }
      }
      const places = stacked ? null : placesOfNames(members.map((row) => row.curve[part].mean.at(-1)), range[0], range[1], panel);
      if (places) {
        members.forEach((row, i) => layout.annotations.push({
          xref: `x${suffix} domain`, x: 1, xanchor: "left", xshift: 5, yref: `y${suffix}`, y: places[i], yanchor: "middle", showarrow: false, align: "left",
          text: inert(names.get(row)), font: { size: 11.5, color: row.bound ? rgba(channels(light ? "#59616b" : "#a2abb6")) : rgba(visible((data.styles[row.method] || ["#777777"])[0], light, 4.5)) },
        }));
      }
    });
  });
  return { data: traces, layout, bands };
}

/** Fills the band of one line, one standard deviation to either side; null empties all. */
function showBand(key) {
  const { group, rows, bands, active } = curvesShown;
  if (key === active || !window.Plotly || !bands.length) return;
  curvesShown.active = key;
  const row = rows.find((other) => lineKey(other) === key);
  const light = !dark.matches;
  const filled = bands.map(({ like, part }) => {
    const { mean, std } = (row && row.like === like && row.curve[part]) || {};
    if (!std) return { x: [], y: [] };
    return { x: [...row.curve.seen, ...[...row.curve.seen].reverse()], y: [...mean.map((m, i) => m + std[i]), ...mean.map((m, i) => m - std[i]).reverse()] };
  });
  const colour = row ? rgba(row.bound ? channels("#8a929c") : visible((data.styles[row.method] || ["#777777"])[0], light), 0.2) : "rgba(0,0,0,0)";
  window.Plotly.restyle(byId("plot"), { x: filled.map(({ x }) => x), y: filled.map(({ y }) => y), fillcolor: colour }, bands.map(({ trace }) => trace));
  byId("c-note").textContent = curvesNote(group, rows, row);
}

function curvesNote(group, rows, active) {
  const likes = distinct(rows.map((row) => row.like));
  const backbones = distinct(rows.map((row) => row.backbone)).sort(natural);
  const parts = ["Mean over the finished class orders."];
  parts.push(active ? `Band: ±1 standard deviation of ${lineName(group, active)} (${plural(active.complete, "class order")}).` : "Point at a line or its name for ±1 standard deviation.");
  if (rows.some((row) => QUANTITIES.some(([part]) => reportedPoints(group, row, part).length))) {
    parts.push("Hollow marks: what papers report of the same method, on their backbone and weights.");
  }
  if (likes.length > 1) parts.push("A pair of panels per pretraining: compare within a panel.");
  if (backbones.length > 1) parts.push(`Backbones: ${backbones.join(", ")}.`);
  if (group.kind !== "real") parts.push(`Data: ${group.kind}, no statement about methods on real data.`);
  return parts.join(" ");
}

function curvesLabel(group, rows) {
  const ends = rows.map((row) => `${chipName(group, row)} ${fixed(row.curve.accuracy.mean.at(-1), 1)} %`).join(", ");
  return `Accuracy and forgetting after each task on ${groupName(group)}, ${plural(rows.length, "line")}. Accuracy after the last task: ${ends}. The numbers stand in the table below.`;
}

function drawCurves(light = !dark.matches, printed = false) {
  const state = homeState();
  const group = chosenGroup(state);
  const rows = chosenLines(group, state);
  const plot = byId("plot");
  plot.hidden = !rows.length;
  byId("c-data").hidden = !rows.length;
  showChips(group, rows, light);
  Object.assign(curvesShown, { group, rows, active: undefined, bands: [] });
  if (!rows.length) {
    byId("c-note").textContent = "No line is chosen: add one above.";
    return;
  }
  if (!window.Plotly) return;
  const width = printed ? 980 : plot.clientWidth || 600;
  const { data: traces, layout, bands } = curvesFigure(group, rows, { light, fit: state.get("range") === "fit", width, stacked: narrow.matches && !printed });
  curvesShown.bands = bands;
  plot.style.minHeight = `${layout.height}px`;
  // On a phone the buttons would lie over the curves, and fingers zoom and pan without them.
  window.Plotly.react(plot, traces, layout, { ...CONFIG, responsive: false, displayModeBar: narrow.matches ? false : "hover" });
  plot.removeAllListeners("plotly_hover");
  plot.removeAllListeners("plotly_unhover");
  plot.on("plotly_hover", ({ points, yvals }) => {
    const nearest = points.filter(({ data: trace }) => trace.meta).reduce((best, point) =>
      (!best || Math.abs(point.y - yvals[0]) < Math.abs(best.y - yvals[0]) ? point : best), null);
    if (nearest) showBand(nearest.data.meta);
  });
  plot.on("plotly_unhover", () => showBand(restingBand()));
  showBand(restingBand());
  namePlot(plot, curvesLabel(group, rows));
  if (byId("c-data").open) fillCurveTable();
}

/** The band that is there unasked: a single line's. */
const restingBand = () => (curvesShown.rows.length === 1 ? lineKey(curvesShown.rows[0]) : null);

function setLines(rows) {
  const group = chosenGroup(homeState());
  const usual = usualLines(group).map(lineKey).sort().join(" ");
  const text = rows.map(lineKey).sort().join(" ");
  writeState({ lines: text === usual ? null : text || "none" });
  showHomeState();
}

function chip(group, row, pressed, light) {
  const rgb = row.bound ? channels(light ? "#6b7480" : "#98a2ad") : colourOf(row.method, light);
  const dashes = row.bound ? "dashed" : { solid: "solid" }[dashOf(row.readout)] ?? (data.readouts[row.readout].dash[0] > 1.5 ? "dashed" : "dotted");
  const line = el("span", { class: "line", "aria-hidden": "true" });
  line.style.borderTopStyle = dashes;
  line.style.borderTopColor = rgba(rgb);
  const glyph = el("span", { "aria-hidden": "true", text: (data.styles[row.method] || ["", "", "●"])[2] });
  glyph.style.color = rgba(rgb);
  const key = lineKey(row);
  const node = el("button", {
    type: "button", class: "chip", "aria-pressed": String(pressed), "data-line": key, title: `${row.like}; ${row.backbone}${row.variant === "default" ? "" : `; ${row.variant}`}`,
    onmouseenter: () => pressed && showBand(key), onmouseleave: () => pressed && showBand(restingBand()),
    onfocus: () => pressed && showBand(key), onblur: () => pressed && showBand(restingBand()),
  }, line, glyph, ` ${shortName(chipName(group, row), 40)}${row.bound ? " (bound)" : ""}${row.incomplete ? ` ${row.complete}/${row.seeds}` : ""}`);
  node.addEventListener("click", () => {
    const rows = curvesShown.rows.filter((other) => other !== row);
    setLines(pressed ? rows : [...rows, row]);
    const again = [...document.querySelectorAll("#c-lines .chip")].find((other) => other.dataset.line === key);
    if (again && again.closest("details:not([open])") === null) again.focus();
  });
  return node;
}

function showChips(group, rows, light) {
  const rest = withCurves(group).filter((row) => !rows.includes(row));
  const more = byId("c-more");
  const likes = distinct(rest.map((row) => row.like)).sort(natural);
  byId("c-pressed").replaceChildren(...rows.map((row) => chip(group, row, true, light)),
    homeState().has("lines") ? el("button", { type: "button", class: "plain", text: "usual lines", onclick: () => {
      writeState({ lines: null });
      showHomeState();
    } }) : "");
  more.hidden = !rest.length;
  more.firstElementChild.textContent = `Add a line (${rest.length})`;
  more.lastElementChild.replaceChildren(...likes.map((like) => el("div", { role: "group", "aria-label": like, class: "chips" },
    el("span", { class: "quiet", text: like }), rest.filter((row) => row.like === like).map((row) => chip(group, row, false, light)))));
}

function fillCurveTable() {
  const { group, rows } = curvesShown;
  const { seen } = rows[0].curve;
  byId("c-table").replaceChildren(...QUANTITIES.map(([part, long]) => table(`${long}, after each task`, ["line", ...seen.map((number) => `${number} classes`)],
    rows.map((row) => el("tr", {}, el("th", { scope: "row", text: `${chipName(group, row)}${row.bound ? " (bound)" : ""}` }),
      row.curve[part].mean.map((mean, i) => el("td", { class: "number", text: spread([mean, row.curve[part].std ? row.curve[part].std[i] : null]) })))), "steps")).flatMap((node, i) => [el("h3", { text: QUANTITIES[i][1] }), node]));
}

/** The values behind the lines, one line of a CSV per row and number of classes seen. */
function curveLines() {
  const { group, rows } = curvesShown;
  return [["method", "variant", "readout", "backbone", "pretraining", "bound", "orders", "classes seen", "accuracy", "accuracy std", "forgetting", "forgetting std"],
    ...rows.flatMap((row) => row.curve.seen.map((seen, i) => [methodName(row), row.variant, row.readout_label, row.backbone, row.like, row.bound ? "yes" : "no", row.complete, seen,
      ...["accuracy", "forgetting"].flatMap((part) => [row.curve[part].mean[i], row.curve[part].std ? row.curve[part].std[i] : null])]))];
}

function showCurvesState(state) {
  if (byId("c-group").options.length) {
    byId("c-group").value = chosenGroup(state).label;
    byId("c-range").value = state.get("range") === "fit" ? "fit" : "";
    drawCurves();
  }
}

function startCurves() {
  const drawn = data.groups.filter((group) => withCurves(group).length);
  if (!drawn.length) {
    for (const id of ["c-form", "c-lines", "plot", "c-data"]) byId(id).hidden = true;
    byId("c-note").textContent = "No run is complete yet.";
    return;
  }
  options(byId("c-group"), null, drawn.map((group) => [group.label, `${groupName(group)}${group.kind === "real" ? "" : ` (${group.kind})`}`]));
  byId("c-group").addEventListener("change", (event) => {
    writeState({ group: event.target.value === drawn[0].label ? null : event.target.value, lines: null });
    showHomeState();
  });
  byId("c-range").addEventListener("change", (event) => {
    writeState({ range: event.target.value });
    showHomeState();
  });
  byId("c-data").addEventListener("toggle", () => byId("c-data").open && fillCurveTable());
  byId("c-exports").append(...plotExports(() => `curves-${curvesShown.group.label}`, () => {
    const { group, rows } = curvesShown;
    return curvesFigure(group, rows, { light: true, fit: homeState().get("range") === "fit", width: 1100, stacked: false, title: `${groupName(group)}${group.kind === "real" ? "" : ` (${group.kind})`}` });
  }, curveLines));
  narrow.addEventListener("change", () => redraw());
  let width = byId("plot").clientWidth;
  new ResizeObserver(() => {
    const now = byId("plot").clientWidth;
    if (!now || now === width) return; // hidden, or only higher
    width = now;
    window.requestAnimationFrame(() => redraw());
  }).observe(byId("curves"));
}
