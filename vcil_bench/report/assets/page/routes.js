// Routes: which page an address shows, and where its reader was on it.

const PAGES = { run: runRoute, row: rowRoute, compare: compareRoute };
const NONE = { run: "No such run", row: "No such row", compare: "Nothing to compare" };
const title = document.title;

let openPage = null; // {title, nodes, draw(light), ready} of a page other than home
let lastHome = "leaderboard"; // the part of home that was last looked at
let homeSeat = null; // where the reader left home
let entry = null; // the entry of the history that is shown
const seats = new Map(); // where the reader left each entry

window.history.scrollRestoration = "manual"; // pages are made anew, which no browser waits for

const homeAddress = () => lastHome;

/** Where the reader is: how far down, and on what. */
function seat() {
  const node = document.activeElement;
  return { scroll: window.scrollY, node, href: node && node.getAttribute("href"), id: node && node.id };
}

function sit({ scroll, node, href, id }) {
  const scope = openPage ? byId("detail") : byId("home");
  const back = node && node.isConnected ? node : (id && byId(id))
    || (href && [...scope.querySelectorAll("a")].find((link) => link.getAttribute("href") === href));
  if (back) back.focus({ preventScroll: true });
  window.scrollTo({ top: scroll, behavior: "instant" });
}

/** The seat of the entry that is shown now, where it was left before; undefined for a new one. */
function turnEntry() {
  if (entry !== null) seats.set(entry, seat());
  const { state } = window.history;
  entry = state && state.entry;
  if (!entry) {
    entry = `${performance.timeOrigin}-${seats.size}`;
    window.history.replaceState({ ...state, entry }, "");
  }
  return seats.get(entry) || (state && state.seat);
}

function route() {
  const before = turnEntry();
  const { place, state } = readAddress();
  if (!openPage && !byId("home").hidden && seats.size) homeSeat = seat();
  const [kind, ...rest] = place.split("/");
  if (isHome(place)) showHome(place, before);
  else {
    const make = Object.hasOwn(PAGES, kind) ? PAGES[kind] : () => null;
    showPage(make(rest.join("/"), state) || nothing(kind, place), state, before);
  }
}

function showPage(page, state, before) {
  closePage();
  openPage = page;
  byId("detail").replaceChildren(...page.nodes);
  byId("home").hidden = true;
  byId("detail").hidden = false;
  document.title = `${page.title} – ${title}`;
  page.draw(!dark.matches);
  window.scrollTo({ top: 0, behavior: "instant" });
  const heading = byId("detail").querySelector("h1");
  heading.focus({ preventScroll: true });
  if (!before && !state.has("at")) return;
  // Its height is known only when everything is there; a reader who has moved on is left in peace.
  page.ready.then(() => {
    if (openPage !== page || document.activeElement !== heading) return;
    if (before) sit(before);
    else showPart(state.get("at"));
  });
}

/** Makes the page that is shown anew, as after a switch on it. */
function remake() {
  const { place, state } = readAddress();
  const [kind, ...rest] = place.split("/");
  const now = seat();
  closePage();
  openPage = PAGES[kind](rest.join("/"), state);
  byId("detail").replaceChildren(...openPage.nodes);
  openPage.draw(!dark.matches);
  const page = openPage;
  page.ready.then(() => { if (openPage === page) sit(now); });
}

function closePage() {
  if (window.Plotly) byId("detail").querySelectorAll(".js-plotly-plot").forEach((plot) => window.Plotly.purge(plot));
  openPage = null;
}

function showHome(place, before) {
  const [part, ...rest] = place.split("/");
  const back = Boolean(openPage);
  closePage();
  byId("detail").hidden = true;
  byId("detail").replaceChildren();
  byId("home").hidden = false;
  document.title = title;
  showHomeState();
  if (back) redraw(); // its width may have changed while it was hidden
  const opened = part === "protocols" && rest.length ? openSection(plain(rest.join("/"))) : null;
  const goal = opened || (part && byId(part));
  const returned = before || (back && (!place || place === lastHome) ? homeSeat : null);
  lastHome = place || lastHome;
  if (returned) sit(returned);
  else if (goal && (goal.tabIndex === -1 || opened)) {
    goal.scrollIntoView();
    (opened ? opened.querySelector("summary") : goal).focus({ preventScroll: true });
  }
}

function nothing(kind, place) {
  return {
    title: "no such page", draw: () => {}, ready: Promise.resolve(),
    nodes: [el("p", { class: "crumbs" }, homeLink()),
      el("h1", { tabindex: "-1", text: Object.hasOwn(NONE, kind) ? NONE[kind] : "No such page" }),
      el("p", {}, "Nothing here has the address ", el("code", { text: `#${plain(place)}` }),
        ". It may belong to another report, or to records that are no longer part of this one.")],
  };
}

/** An address's part as it was before it was written for an address; as it is where nobody wrote it so. */
function plain(part) {
  try {
    return part.split("/").map(decodeURIComponent).join("/");
  } catch {
    return part;
  }
}

// A page loaded again begins where it was left.
window.addEventListener("pagehide", () => window.history.replaceState({ ...window.history.state, entry, seat: { scroll: window.scrollY } }, ""));
