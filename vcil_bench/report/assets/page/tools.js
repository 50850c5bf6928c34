// Small tools: elements, numbers as text, tables.

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

/** A number as text, with a true minus; no value is a dash. */
const fixed = (value, digits = 2) => (typeof value === "number" ? value.toFixed(digits).replace(/^-(?=0\.?0*$)/, "").replace("-", "−") : "–");
const spread = (pair) => (!pair ? "–" : fixed(pair[0]) + (pair[1] === null ? "" : ` ± ${fixed(pair[1])}`));
const grouped = new Intl.NumberFormat("en").format; // made once: making it takes longer than all that it writes
const plural = (number, word) => `${grouped(number)} ${word}${number === 1 ? "" : "s"}`;
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
    headers.length ? el("thead", {}, el("tr", {}, headers.map((text) => (text === "" ? el("td") : el("th", { scope: "col", text }))))) : null,
    el("tbody", {}, rows)));
}

/** A table of keys and values. */
function facts(label, pairs) {
  return table(label, [], pairs.map(([key, value]) => el("tr", {},
    el("th", { scope: "row", text: key }),
    el("td", {}, value instanceof Node ? value : shown(value)))), "facts");
}
