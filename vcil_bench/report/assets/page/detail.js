// Pages of a row, a run and a comparison: what they have in common.

/** A page in the making: its plots, and what it still waits for. */
class Draft {
  constructor(place) {
    this.place = place;
    this.plots = [];
    this.waiting = [];
  }

  /** A part that is filled once something is unpacked. */
  later(promise, fill) {
    const box = el("div", {}, el("p", { class: "quiet", text: "Unpacking …" }));
    const done = promise.then((value) => {
      box.replaceChildren(...[fill(value)].flat(Infinity).filter((node) => node));
      this.draw(!dark.matches);
    }).catch((error) => {
      console.error(error);
      box.replaceChildren(el("p", { class: "warning", text: `This browser cannot unpack it: ${error.message}` }));
    });
    this.waiting.push(done);
    return box;
  }

  /** A plot with its numbers as a table, for those who cannot see it. */
  plot(label, headers, rows, draw, size = "small") {
    const node = el("div", { class: `plot ${size}`, role: "img", "aria-label": label });
    this.plots.push({ node, draw });
    const cells = (line) => line.map((text, at) => el(at ? "td" : "th", { scope: at ? null : "row", class: at ? "number" : null, text }));
    return el("figure", { class: "chart" }, node, el("details", {}, el("summary", { text: "numbers" }),
      table(label, headers, rows.map((line) => el("tr", {}, cells(line))), "numbers")));
  }

  draw(light) {
    if (!window.Plotly) return;
    for (const { node, draw } of this.plots) if (node.isConnected) draw(node, light);
  }

  /** The page as routes show it: a head, a list of its parts, and the parts `[id, title, ...nodes]`. */
  page(title, head, parts) {
    const kept = parts.filter((part) => part);
    const list = el("nav", { class: "contents", "aria-label": "On this page" }, el("ul", {},
      kept.map(([id, name]) => el("li", {}, partLink(this.place, id, name)))));
    const sections = kept.map(([id, name, ...content]) => el("section", { id: `part-${id}` },
      el("h2", { id: `part-${id}-title`, tabindex: "-1", text: name }), ...content.flat(Infinity)));
    return {
      title, nodes: [el("div", { class: "detail-head" }, ...head.flat(Infinity).filter((node) => node)),
        el("div", { class: "detail" }, list, el("div", { class: "parts" }, sections))],
      draw: (light) => this.draw(light), ready: Promise.all(this.waiting),
    };
  }
}

function partLink(place, id, name) {
  const link = el("a", { href: `#${place}?at=${id}`, text: name });
  link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    event.preventDefault(); // no new page: only another place on it
    writeState({ at: id });
    showPart(id);
  });
  return link;
}

function showPart(id) {
  const heading = byId(`part-${id}-title`);
  if (!heading) return;
  heading.scrollIntoView();
  heading.focus({ preventScroll: true });
}

/** Lines over the classes seen or the tasks: `[{name, x, y, std, colour, dash, symbol}]`. */
function drawLines(node, light, lines, { x, y, ticks, range, names }) {
  const colours = look(light);
  const traces = [];
  for (const { name, at, values, std, colour, dash, symbol } of lines) {
    const rgb = visible(colour, light);
    if (std && std.every((one) => one !== null)) {
      traces.push({
        x: [...at, ...[...at].reverse()], fill: "toself", fillcolor: rgba(rgb, 0.16), line: { width: 0 }, mode: "lines",
        y: [...values.map((v, i) => v + std[i]), ...values.map((v, i) => v - std[i]).reverse()],
        hoverinfo: "skip", showlegend: false,
      });
    }
    traces.push({
      x: at, y: values, name: inert(name), mode: "lines+markers", line: { color: rgba(rgb), width: 2, dash },
      marker: { symbol: symbol || "circle", size: 7 },
      text: values.map((value, i) => `${inert(name)}: ${spread([value, std ? std[i] : null])}`), hovertemplate: "%{text}<extra></extra>",
    });
  }
  window.Plotly.react(node, traces, {
    height: 270, margin: { l: 46, r: 10, t: 8, b: lines.length > 1 ? 74 : 46 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: colours.text, family: "system-ui, sans-serif", size: 12 }, showlegend: lines.length > 1,
    legend: { orientation: "h", x: 0, y: -0.24 }, hovermode: "closest",
    hoverlabel: { bgcolor: colours.ground, bordercolor: colours.line, font: { color: colours.text }, namelength: -1, align: "left" },
    xaxis: axis(colours, x, { tickvals: ticks, ticktext: names, zeroline: false }),
    yaxis: axis(colours, y, { range, zeroline: !range }),
  }, { ...CONFIG, displayModeBar: false });
}

/** At most so many of the ticks, the first and the last among them. */
function thinned(ticks, most = narrow.matches ? 6 : 12) {
  const every = Math.ceil(ticks.length / most);
  return ticks.filter((_, i) => i % every === 0 || i === ticks.length - 1);
}

/** Accuracy over the classes learnt, and forgetting of old tasks, after every task: of one run or of several. */
function curves(draft, name, seen, accuracy, drops) {
  const [hex] = data.styles[name] || ["#777777"];
  const std = (list) => (list[0].std === null ? null : list.map((one) => one.std));
  const part = (label, list, y, range) => draft.plot(label, ["classes learnt", y],
    list.map((one, i) => [seen[i], spread([one.mean, one.std])]),
    (node, light) => drawLines(node, light, [{
      name: y, at: seen, values: list.map((one) => one.mean), std: std(list), colour: hex,
    }], { x: "classes learnt", y, ticks: thinned(seen), range }));
  return [
    part("Accuracy over the classes learnt so far, after every task", accuracy, "accuracy, %", [0, 103]),
    drops.length > 1 ? part("Mean fall of old tasks since each was learnt, after every task", drops, "forgetting, percentage points") : null,
  ];
}

/** A matrix beside its curves, or above them where it is wide. */
function besides(size, matrix, ...rest) {
  return el("div", { class: "columns" }, el("div", { class: size > 8 ? "whole-row" : null }, matrix), ...rest.flat());
}

const homeLink = () => el("a", { href: `#${homeAddress()}`, id: "back", text: "← all results" });
const rowLink = (row) => `#row/${row.id}`;

/** Rows of the tables that show a run, one a readout. */
function rowsOf(run) {
  if (run.group === null || run.group === undefined) return [];
  const number = data.runs.indexOf(run);
  return data.groups[run.group].rows.filter((row) => row.runs.includes(number));
}

const completeRuns = (row) => row.runs.map((number) => data.runs[number]).filter((run) => run.status === "complete");
const rowName = (row) => [row.label, row.origin ? `[${row.origin}]` : "", row.variant === "default" ? "" : row.variant, row.readout_label]
  .filter(Boolean).join(" ");
const protocolName = (group) => `${group.dataset} ${group.short}`;
const keeps = (row) => (row.exemplars === "none" ? "no exemplars" : `exemplars: ${row.exemplars}`);

/** A long hash or id: its beginning, the whole to be copied. */
function short(value, length = 12) {
  const text = String(value);
  if (text.length <= length + 4) return el("span", { class: "mono", text });
  return el("span", { class: "short" }, el("span", { class: "mono", title: text, text: `${text.slice(0, length)}…` }), " ", copyButton(text, `Copy ${text.slice(0, length)}`));
}

/** A button that copies a text; `shownIn` is selected where a browser gives files no clipboard. */
function copyButton(text, label, shownIn = null) {
  const said = el("span", { class: "quiet", role: "status" });
  const button = el("button", { type: "button", class: shownIn ? "copy" : "copy tiny", "aria-label": label, text: "Copy" });
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      said.textContent = "copied";
    } catch {
      const whole = shownIn || el("span", { class: "mono", text });
      if (!shownIn) said.replaceChildren(whole);
      window.getSelection().selectAllChildren(whole);
      const copied = document.execCommand("copy");
      if (shownIn || copied) said.textContent = copied ? "copied" : "selected; copy it with your keyboard";
    }
  });
  return [button, said];
}

/** A choice that stands in the address: a select, and what changes with it. */
function choice(label, key, value, options, chosen) {
  const select = el("select", {}, options.map(([name, text]) => el("option", { value: name, text, selected: name === value })));
  select.addEventListener("change", () => {
    writeState({ [key]: select.value === options[0][0] ? null : select.value });
    chosen(select.value);
  });
  return el("label", {}, label, " ", select);
}
