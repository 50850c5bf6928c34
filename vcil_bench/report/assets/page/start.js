// Start: draws what the address asks for.

function redraw(light = !dark.matches, printed = false) {
  if (!window.Plotly) return;
  colourSigns(light);
  if (!byId("home").hidden && byId("c-group").options.length) drawCurves(light, printed);
  if (openPage) openPage.draw(light);
}

/** What was measured, and how far it can be trusted, in a line. */
function aboutLine() {
  const { methods, protocols, known_protocols: known, seeds, commits, verify } = data.about;
  if (!methods) return "";
  const said = [verify.warnings ? `${plural(verify.warnings, "warning")}` : "", verify.unchecked ? `${plural(verify.unchecked, "run")} not checked` : ""].filter(Boolean);
  return [`${plural(methods, "method")} on ${protocols} of ${plural(known, "protocol")}`, seeds,
    commits.length ? `code ${commits.slice(0, 3).join(", ")}${commits.length > 3 ? ` and ${commits.length - 3} more` : ""}` : "code unknown",
    `verify: ${said.length ? said.join(", ") : "no warnings"}`].filter(Boolean).join(" · ");
}

const FILTER_KEYS = [...Object.keys(FIELDS), "complete"];
/** Parts of the home page: the keys of the state that each depends on, and what shows them. */
const PARTS = [
  { keys: FILTER_KEYS, show: showFilters },
  { keys: [...FILTER_KEYS, "metric", "readout", "published", "deviations", "variants", "order"], show: showBoardState },
  { keys: [...FILTER_KEYS, "sort"], show: updateTables },
  { keys: ["group", "lines", "range"], show: showCurvesState },
];

/** Makes the home page show the state of the address; parts that do already are left alone. */
function showHomeState() {
  const state = homeState();
  for (const part of PARTS) {
    const text = JSON.stringify(part.keys.map((key) => state.get(key) ?? null));
    if (text === part.shown) continue;
    part.shown = text;
    part.show(state);
  }
}

byId("skip").addEventListener("click", (event) => {
  event.preventDefault(); // its address would leave the page of a run
  byId("main").focus();
});
byId("about").textContent = aboutLine();
startFilters();
startBoard();
startTables();
window.addEventListener("hashchange", route);
dark.addEventListener("change", () => redraw());
let closed = [];
window.addEventListener("beforeprint", () => {
  // Paper has what is open on the screen, and all explanations.
  closed = [...document.querySelectorAll("#detail details:not([open]), .formulas-box:not([open])")];
  closed.forEach((one) => { one.open = true; });
  redraw(true, true);
});
window.addEventListener("afterprint", () => {
  closed.forEach((one) => { one.open = false; });
  redraw();
});
// The plotting library comes last, so that the tables are there before it is read.
const library = document.createElement("script");
library.textContent = await textOf("plotting");
document.head.append(library);
startCurves();
route();
