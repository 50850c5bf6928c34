// Routes: which page an address shows.

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

function showHome(place) {
  const [hash, rest] = [place.split("/")[0], place.split("/").slice(1).join("/")];
  const back = !byId("run").hidden;
  closeRun();
  byId("run").hidden = true;
  byId("run").replaceChildren();
  byId("home").hidden = false;
  document.title = title;
  showHomeState();
  if (back) redraw(); // its width may have changed while it was hidden
  const goal = (hash === "protocols" && rest && openSection(decodedPart(rest))) || (hash && byId(hash));
  if (back && (!hash || hash === "overview")) {
    window.scrollTo({ top: scrolled, behavior: "instant" });
    if (left && left.isConnected) left.focus({ preventScroll: true });
  } else if (goal && (goal.tabIndex === -1 || rest)) {
    goal.scrollIntoView();
    (goal.tabIndex === -1 ? goal : goal.querySelector("summary")).focus({ preventScroll: true });
  }
}

/** A part of an address as text; what is no code of ours stands for itself. */
function decodedPart(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function route() {
  const { place: hash } = readAddress();
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
