// Exports: what is seen as files, made on the page and saved by the browser: PNG, SVG, CSV, LaTeX.

const fileName = (text) => `vcil-bench-${text.replace(/[^A-Za-z0-9._-]+/g, "-").replace(/^-+|-+$/g, "") || "table"}`;

function save(name, content, type) {
  const link = el("a", { href: URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type })), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  window.setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

const exportButton = (text, words, act) => el("button", { type: "button", class: "export", "aria-label": words, title: words, text, onclick: act });

/** Buttons that save a table; `sheetOf` makes it as it is at the moment of the click. */
function tableExports(name, sheetOf) {
  return [
    exportButton("CSV", `Save ${name} as CSV: the values shown`, () => save(`${fileName(name)}.csv`, sheetCsv(sheetOf()), "text/csv;charset=utf-8")),
    exportButton("LaTeX", `Save ${name} as LaTeX: the table as sorted and filtered`, () => save(`${fileName(name)}.tex`, sheetTex(sheetOf()), "text/x-tex;charset=utf-8")),
  ];
}

/** A CSV field; a spreadsheet would run what begins like a formula. */
function csvField(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return String(value);
  const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
  return /[",\n\r]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
}

const csvLines = (lines) => `${lines.map((line) => line.map(csvField).join(",")).join("\n")}\n`;

/** A table as CSV: a line per row; per number its mean, deviation and finished class orders. */
function sheetCsv(sheet) {
  const named = (head) => [head.group, head.leaf].filter(Boolean).join(" ");
  const heads = sheet.heads.flatMap((head) => (head.metric
    ? [named(head), `${named(head)} std`, `${named(head)} orders`] : [named(head), `${named(head)} low`, `${named(head)} high`]));
  const lines = sheet.blocks.flatMap((block) => block.rows.map((row) => [block.kind, block.kind === "measured" ? block.title : "", ...row.about,
    ...row.cells.flatMap((cell, at) => {
      if (!cell) return [null, null, null];
      if (cell.reported) return [cell.values.length === 1 ? cell.values[0] : cell.values.join(" / "), null, null];
      return sheet.heads[at].metric ? [cell.mean, cell.std, cell.finished] : [cell.mean, cell.low, cell.high];
    })]));
  return csvLines([["kind", "pretraining", ...sheet.described, ...heads], ...lines]);
}

const TEX = {
  "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "±": "$\\pm$", "×": "$\\times$", "−": "$-$",
  "–": "--", "↑": "$\\uparrow$", "↓": "$\\downarrow$", "<": "$<$", ">": "$>$", "·": "$\\cdot$", "“": "``", "”": "''",
  ...Object.fromEntries([..."&%$#_{}"].map((letter) => [letter, `\\${letter}`])),
};

/** Text as LaTeX shows it; what its fonts lack becomes a question mark. */
function texText(text) {
  return [...String(text).replace(/\s+/g, " ").trim()].map((letter) => TEX[letter] ?? (letter >= " " && letter <= "~" ? letter : "?")).join("");
}

function texNumber(value, digits = 2) {
  const text = value.toFixed(digits);
  return text.startsWith("-") ? `$${text}$` : text;
}

function texCell(cell, sheet) {
  if (!cell) return "--";
  if (cell.reported) return `\\textit{${cell.values.map((value) => texNumber(value)).join(" / ")}}`;
  let text = texNumber(cell.mean);
  if (cell.rank === "best") text = `\\textbf{${text}}`;
  else if (cell.rank === "second") text = `\\underline{${text}}`;
  if (cell.low !== undefined) return cell.low === null ? text : `${text} {\\scriptsize [${texNumber(cell.low, 1)}, ${texNumber(cell.high, 1)}]}`;
  const behind = [sheet.deviations && cell.std !== null ? `$\\pm$ ${cell.std.toFixed(2)}` : "", cell.finished < cell.seeds ? `${cell.finished}/${cell.seeds}` : "", cell.stale ? "*" : ""];
  const rest = behind.filter(Boolean).join(" ");
  return rest ? `${text} {\\scriptsize ${rest}}` : text;
}

/** Columns of one tabular each, parted between groups where they can be, so that none is wider than a page. */
function texParts(heads, most) {
  const parts = [];
  heads.forEach((head, at) => {
    const last = parts[parts.length - 1];
    const whole = heads.filter((other) => other.group === head.group).length;
    const starts = at === 0 || heads[at - 1].group !== head.group;
    if (!last || last.length >= most || (starts && last.length + Math.min(whole, most) > most)) parts.push([at]);
    else last.push(at);
  });
  return parts;
}

const LONG = 28; // characters of a text column that is not wrapped

function texTabular(sheet, part) {
  const before = sheet.described.length;
  const heads = part.map((at) => sheet.heads[at]);
  const rowsHere = sheet.blocks.flatMap((block) => block.rows);
  const texts = sheet.described.map((_, at) => (rowsHere.some((row) => row.about[at].length > LONG) ? ">{\\raggedright\\arraybackslash}p{4.4cm}" : "l"));
  const lines = [`\\begin{tabular}{@{}${texts.join("")}${"r".repeat(part.length)}@{}}`, "\\toprule"];
  if (heads.some((head) => head.group)) {
    const [cells, rules] = [[], []];
    for (let at = 0; at < heads.length;) {
      let end = at;
      while (end < heads.length && heads[end].group === heads[at].group) end += 1;
      cells.push(`\\multicolumn{${end - at}}{c}{${texText(heads[at].group)}}`);
      if (heads[at].group) rules.push(`\\cmidrule(lr){${before + at + 1}-${before + end}}`);
      at = end;
    }
    lines.push(`${" & ".repeat(before)}${cells.join(" & ")} \\\\`, rules.join(" "));
  }
  lines.push(`${[...sheet.described.map(texText), ...heads.map((head) => `\\multicolumn{1}{c}{${texText(head.leaf)}}`)].join(" & ")} \\\\`);
  for (const block of sheet.blocks) {
    const rows = block.rows.filter((row) => part.some((at) => row.cells[at]));
    if (!rows.length) continue;
    lines.push("\\midrule");
    if (sheet.blocks.length > 1) lines.push(`\\multicolumn{${before + part.length}}{@{}l}{\\emph{${texText(block.title)}}} \\\\`);
    lines.push(...rows.map((row) => `${[...row.about.map(texText), ...part.map((at) => texCell(row.cells[at], sheet))].join(" & ")} \\\\`));
  }
  return [...lines, "\\bottomrule", "\\end{tabular}"].join("\n");
}

/** A table as LaTeX with booktabs: a body to be put in with \input, or into a table float. */
function sheetTex(sheet) {
  const comment = (text) => `% ${texText(text)}`;
  const parts = texParts(sheet.heads, sheet.deviations ? 5 : 8);
  return `${[comment(sheet.title), comment(sheet.note), "% Needs \\usepackage{booktabs,array}.",
    "\\begingroup\\small\\centering\\setlength{\\tabcolsep}{4pt}%", parts.map((part) => texTabular(sheet, part)).join("\n\\par\\medskip\n"),
    "\\par\\endgroup"].join("\n")}\n`;
}

/** Buttons that save a plot; `figureOf` draws a light one with a title, `linesOf` gives its values. */
function plotExports(name, figureOf, linesOf) {
  const picture = (format) => async () => {
    const { data: traces, layout } = figureOf();
    const url = await window.Plotly.toImage({ data: traces, layout }, { format, width: layout.width, height: layout.height, scale: format === "png" ? 3 : 1 });
    const content = url.slice(url.indexOf(",") + 1);
    if (format === "svg") save(`${fileName(name())}.svg`, decodeURIComponent(content), "image/svg+xml");
    else save(`${fileName(name())}.png`, new Blob([Uint8Array.from(window.atob(content), (letter) => letter.charCodeAt(0))], { type: "image/png" }));
  };
  return [
    exportButton("PNG", "Save the curves as PNG: the lines shown, on white", picture("png")),
    exportButton("SVG", "Save the curves as SVG: the lines shown, on white", picture("svg")),
    exportButton("CSV", "Save the curves as CSV: the values shown", () => save(`${fileName(name())}.csv`, csvLines(linesOf()), "text/csv;charset=utf-8")),
  ];
}
