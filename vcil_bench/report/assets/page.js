// Draws the page from the JSON in #data. Text of records only ever becomes text nodes, never markup.
(() => {
  "use strict";

  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const pooled = (number) => data.pool[number];
  const routes = new Map(data.runs.map((run, number) => [run.id, number]));
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const narrow = window.matchMedia("(max-width: 40rem)");

  // ---- small tools

  /** Makes an element; `props` are attributes, but for `on*` (listeners) and `text`. */
  function el(tag, props = {}, ...children) {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(props)) {
      if (value === null || value === undefined || value === false) continue;
      if (key === "text") node.textContent = value;
      else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
      else node.setAttribute(key, value === true ? "" : value);
    }
    node.append(...children.flat().filter((child) => child !== null && child !== undefined));
    return node;
  }

  const fixed = (value, digits = 2) => (typeof value === "number" ? value.toFixed(digits) : "–");
  const spread = (pair) => (!pair ? "–" : fixed(pair[0]) + (pair[1] === null ? "" : ` ± ${fixed(pair[1])}`));
  const plural = (number, word) => `${number.toLocaleString("en")} ${word}${number === 1 ? "" : "s"}`;
  const runLink = (run) => `#run/${run.id.split("/").map(encodeURIComponent).join("/")}`;

  function duration(seconds) {
    if (typeof seconds !== "number") return "–";
    if (seconds < 60) return `${seconds.toFixed(1)} s`;
    if (seconds < 3600) return `${(seconds / 60).toFixed(1)} min`;
    return `${(seconds / 3600).toFixed(1)} h`;
  }

  function bytes(number) {
    const units = ["B", "kB", "MB", "GB", "TB"];
    let unit = 0;
    for (; number >= 1000 && unit < units.length - 1; unit += 1) number /= 1000;
    return `${number.toFixed(unit && number < 100 ? 1 : 0)} ${units[unit]}`;
  }

  function shown(value) {
    if (value === null || value === undefined) return "–";
    if (typeof value === "boolean") return value ? "yes" : "no";
    if (Array.isArray(value) && value.every((one) => one === null || typeof one !== "object")) {
      return value.length ? value.map(shown).join(", ") : "none";
    }
    return typeof value === "object" ? JSON.stringify(value) : String(value);
  }

  /** Nested sections as [dotted key, value] pairs. */
  function flat(tree, before = "") {
    return Object.entries(tree).flatMap(([key, value]) =>
      value !== null && typeof value === "object" && !Array.isArray(value) && Object.keys(value).length
        ? flat(value, `${before}${key}.`)
        : [[before + key, value]]);
  }

  function scroller(label, table) {
    return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, table);
  }

  function table(label, headers, rows, kind = "") {
    return scroller(label, el("table", { class: kind },
      headers.length ? el("thead", {}, el("tr", {}, headers.map((text) => el("th", { scope: "col", text })))) : null,
      el("tbody", {}, rows)));
  }

  /** A table of keys and values. */
  function facts(label, pairs) {
    return table(label, [], pairs.map(([key, value]) => el("tr", {},
      el("th", { scope: "row", text: key }),
      el("td", {}, value instanceof Node ? value : shown(value)))), "facts");
  }

  // ---- colours

  function channels(hex) {
    return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  }

  function luminance(rgb) {
    const [r, g, b] = rgb.map((c) => (c / 255 <= 0.03928 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  }

  /** A method's colour, moved away from the ground until it stands out, which black does not in the dark. */
  function visible(hex, light) {
    const ground = luminance(channels(light ? "#ffffff" : "#14171b"));
    let rgb = channels(hex);
    for (let i = 0; i < 40; i += 1) {
      const own = luminance(rgb);
      if ((Math.max(own, ground) + 0.05) / (Math.min(own, ground) + 0.05) >= (light ? 3 : 4.5)) break;
      rgb = rgb.map((c) => Math.round(light ? c * 0.94 : c + (255 - c) * 0.08));
    }
    return rgb;
  }

  const rgba = (rgb, alpha = 1) => `rgba(${rgb.join(",")},${alpha})`;
  const colourOf = (method, light) => visible((data.styles[method] || ["#777777"])[0], light);

  // ---- overview

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

  // ---- curves

  const SYMBOLS = {
    o: "circle", s: "square", D: "diamond", d: "diamond-tall", "^": "triangle-up", v: "triangle-down", P: "cross",
    X: "x", "*": "star", "<": "triangle-left", ">": "triangle-right", p: "pentagon", h: "hexagon",
  };
  const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];

  // Plotly reads a few tags in texts; written out they are text.
  const inert = (value) => String(value).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

  function look(light) {
    return light
      ? { text: "#1a1d21", grid: "#e3e6ea", line: "#8a929c", ground: "#ffffff" }
      : { text: "#e6e8eb", grid: "#2f353c", line: "#808994", ground: "#14171b" };
  }

  const CONFIG = {
    responsive: true, displaylogo: false,
    // All there are, by name: the library adds a button that uploads the plot, and may add others.
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]], showSendToCloud: false,
    toImageButtonOptions: { filename: "vcil-bench-curves", scale: 2 },
  };

  function axis(colours, title, more = {}) {
    return {
      title: { text: title, standoff: 8 }, gridcolor: colours.grid, linecolor: colours.line, zerolinecolor: colours.line,
      automargin: true, ...more,
    };
  }

  function drawCurves(light = !dark.matches, printed = false) {
    const group = data.groups[Number(byId("c-group").value)];
    const colours = look(light);
    const bands = byId("c-bands").checked;
    const traces = [];
    const counts = {};
    const rows = group.rows.filter((one) => one.curve);
    const strength = 0.18 * Math.min(1, 6 / rows.length);
    for (const row of rows) {
      const [hex, marker] = data.styles[row.method];
      const number = counts[hex + marker] = (counts[hex + marker] ?? -1) + 1; // rows that look alike differ in dashes
      const rgb = visible(hex, light);
      const name = inert(row.legend);
      for (const [part, suffix] of [["accuracy", ""], ["forgetting", "2"]]) {
        const { mean, std } = row.curve[part];
        const at = { legendgroup: String(group.rows.indexOf(row)), xaxis: `x${suffix}`, yaxis: `y${suffix}` };
        if (std && bands) {
          traces.push({
            ...at, x: [...row.curve.seen, ...[...row.curve.seen].reverse()],
            y: [...mean.map((m, i) => m + std[i]), ...mean.map((m, i) => m - std[i]).reverse()],
            fill: "toself", fillcolor: rgba(rgb, strength), line: { width: 0 }, mode: "lines",
            hoverinfo: "skip", showlegend: false,
          });
        }
        traces.push({
          ...at, x: row.curve.seen, y: mean, name, showlegend: !suffix,
          mode: "lines+markers", line: { color: rgba(rgb), width: 2, dash: DASHES[number % DASHES.length] },
          marker: { symbol: SYMBOLS[marker] || "circle", size: marker === "*" ? 10 : 8 },
          text: mean.map((m, i) => `${name}: ${spread([m, std ? std[i] : null])}`),
          hovertemplate: "%{text}<extra>%{x} classes</extra>",
        });
      }
    }
    const stacked = narrow.matches && !printed;
    const below = 60 + 26 * Math.ceil(rows.length / (stacked ? 1 : 4)); // axis title and legend
    const height = (stacked ? 700 : 370) + below;
    const drawn = height - below - 20;
    const layout = {
      height, width: printed ? 980 : null, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: colours.text, family: "system-ui, sans-serif", size: 13 },
      hoverlabel: { bgcolor: colours.ground, bordercolor: colours.line, font: { color: colours.text }, namelength: -1, align: "left" },
      margin: { l: 50, r: 12, t: 20, b: below }, hovermode: "closest",
      grid: stacked ? { rows: 2, columns: 1, pattern: "independent", ygap: 0.25 }
        : { rows: 1, columns: 2, pattern: "independent", xgap: 0.14 },
      xaxis: axis(colours, "classes seen"), xaxis2: axis(colours, "classes seen"),
      yaxis: axis(colours, stacked ? "accuracy, %" : "accuracy over classes seen, %"),
      yaxis2: axis(colours, stacked ? "drop of old tasks, %" : "mean drop of old tasks since learnt, %"),
      modebar: { bgcolor: "rgba(0,0,0,0)", color: colours.line, activecolor: colours.text },
      legend: { orientation: "h", x: 0, xanchor: "left", y: -56 / drawn, yanchor: "top", groupclick: "togglegroup", maxheight: below + 100 },
    };
    byId("plot").style.minHeight = `${height}px`;
    // On a phone the buttons would lie over the curves, and fingers zoom and pan without them.
    window.Plotly.react(byId("plot"), traces, layout, { ...CONFIG, displayModeBar: narrow.matches ? false : "hover" });
    const kind = group.kind === "real" ? "" : ` Kind of data: ${group.kind}, no statement about methods on real data.`;
    byId("c-note").textContent = "Mean over finished seeds. A click on a name in the legend hides its line, a double "
      + `click all others; the values stand in the tables above.${kind}`;
  }

  function startCurves() {
    const drawn = data.groups.map((group, number) => [group, number]).filter(([group]) => group.rows.some((row) => row.curve));
    if (!drawn.length) {
      byId("curves").querySelector(".filters").hidden = true;
      byId("plot").hidden = true;
      byId("c-note").textContent = "No run is complete yet.";
      return;
    }
    byId("c-group").append(...drawn.map(([group, number]) => el("option", { value: number, text: group.title })));
    byId("c-group").addEventListener("change", () => drawCurves());
    byId("c-bands").addEventListener("change", () => drawCurves());
    narrow.addEventListener("change", () => redraw());
    redraw();
  }

  // ---- a run's page

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

  // ---- routes

  const title = document.title;
  let [left, scrolled] = [null, 0];

  function showRun(run) {
    if (byId("run").hidden) [left, scrolled] = [document.activeElement, window.scrollY];
    closeRun();
    const { page, loss } = runPage(run);
    byId("run").replaceChildren(...page);
    byId("home").hidden = true;
    byId("run").hidden = false;
    document.title = `${run.id} – ${title}`;
    lossPlot = loss.draw ? loss : null;
    if (lossPlot && window.Plotly) lossPlot.draw(!dark.matches);
    window.scrollTo({ top: 0, behavior: "instant" });
    byId("run-title").focus({ preventScroll: true });
  }

  function closeRun() {
    if (lossPlot && window.Plotly) window.Plotly.purge(lossPlot.plot);
    lossPlot = null;
  }

  function showHome(hash) {
    const back = !byId("run").hidden;
    closeRun();
    byId("run").hidden = true;
    byId("run").replaceChildren();
    byId("home").hidden = false;
    document.title = title;
    if (back) redraw(); // its width may have changed while it was hidden
    const goal = hash && byId(hash);
    if (back && (!hash || hash === "overview")) {
      window.scrollTo({ top: scrolled, behavior: "instant" });
      if (left && left.isConnected) left.focus({ preventScroll: true });
    } else if (goal && goal.tabIndex === -1) {
      goal.scrollIntoView();
      goal.focus({ preventScroll: true });
    }
  }

  function route() {
    const hash = window.location.hash.slice(1);
    if (!hash.startsWith("run/")) {
      showHome(hash);
      return;
    }
    let name = hash.slice(4);
    try {
      name = name.split("/").map(decodeURIComponent).join("/");
    } catch {
      // Not an address of ours; it is looked up as it is, and not found.
    }
    const number = routes.get(name);
    if (number !== undefined) showRun(data.runs[number]);
    else {
      closeRun();
      byId("run").replaceChildren(
        el("p", { class: "crumbs" }, el("a", { href: "#overview", text: "← all results" })),
        el("h1", { text: "No such run" }), el("p", { text: name }));
      byId("home").hidden = true;
      byId("run").hidden = false;
    }
  }

  // ---- start

  function redraw(light = !dark.matches, printed = false) {
    if (!window.Plotly) return;
    colourSigns(light);
    if (!byId("home").hidden && byId("c-group").options.length) drawCurves(light, printed);
    if (lossPlot) lossPlot.draw(light);
  }

  byId("skip").addEventListener("click", (event) => {
    event.preventDefault(); // its address would leave the page of a run
    byId("main").focus();
  });
  startOverview();
  window.addEventListener("hashchange", route);
  // Plotly comes after this script, so that the tables are there before it is read.
  document.addEventListener("DOMContentLoaded", () => {
    startCurves();
    route();
  });
  dark.addEventListener("change", () => redraw());
  let closed = [];
  window.addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    closed.forEach((one) => { one.open = true; });
    redraw(true, true);
  });
  window.addEventListener("afterprint", () => {
    closed.forEach((one) => { one.open = false; });
    redraw();
  });
})();
