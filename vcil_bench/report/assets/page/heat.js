// Tables of numbers with coloured cells: accuracies light to dark, differences in two colours.

/** A cell coloured by its share of the whole, 0 to 1. */
function shareCell(share, text, title) {
  const cell = el("td", { class: "cell", title }, text);
  cell.style.setProperty("--share", Math.max(0, Math.min(1, share)).toFixed(3));
  return cell;
}

/** A cell coloured by sign and size of a difference; `most` has the full colour. */
function differenceCell(difference, most, title) {
  const cell = el("td", { class: `cell ${difference < 0 ? "minus" : "plus"}`, title, text: signed(difference, 1) });
  cell.style.setProperty("--share", most ? Math.min(1, Math.abs(difference) / most).toFixed(3) : "0");
  return cell;
}

/** A difference with its sign, and a true minus. */
function signed(value, digits = 2) {
  if (typeof value !== "number") return "–";
  const text = Math.abs(value).toFixed(digits);
  return (Number(text) === 0 ? "" : value < 0 ? "−" : "+") + text;
}

/** A number of operations, as 1.2 TFLOPs. */
function operations(number) {
  const units = ["", "k", "M", "G", "T", "P", "E"];
  let unit = 0;
  for (; number >= 1000 && unit < units.length - 1; unit += 1) number /= 1000;
  return `${number.toFixed(unit && number < 100 ? 1 : 0)} ${units[unit]}FLOPs`;
}

/** Rows "after task i", columns "task j"; `cell(i, j)` makes the cells up to the diagonal, `lead(i)` those before. */
function triangle(label, size, steps, heads, lead, cell) {
  const rows = Array.from({ length: steps }, (_, i) => el("tr", {},
    el("th", { scope: "row", text: `after task ${i + 1}` }), lead(i),
    Array.from({ length: size }, (__, j) => (j > i ? el("td") : cell(i, j)))));
  const tasks = Array.from({ length: size }, (_, j) => (size > 14 ? `${j + 1}` : `task ${j + 1}`));
  return table(label, ["", ...heads, ...tasks], rows, size > 14 ? "heat many" : "heat");
}
