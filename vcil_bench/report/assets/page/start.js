// Start: draws what the address asks for.

function redraw(light = !dark.matches, printed = false) {
  if (!window.Plotly) return;
  colourSigns(light);
  if (!byId("home").hidden && byId("c-group").options.length) drawCurves(light, printed);
  if (openPage) openPage.draw(light);
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
