// Address: the place a page shows and the state of its switches, `#PLACE?KEY=VALUE`, so that a link shows the same.

const PLACES = ["", "overview", "leaderboard", "protocols", "curves", "tables", "unreadable"]; // parts of the home page

/** Home's last state as text: links within it name a place alone, and keep what was chosen. */
let remembered = "";

const isHome = (place) => PLACES.includes(place.split("/")[0]);

/** Place and state of the address. */
function readAddress() {
  const hash = window.location.hash.slice(1);
  const at = hash.indexOf("?");
  const place = at < 0 ? hash : hash.slice(0, at);
  return { place, state: new Map(new URLSearchParams(at < 0 ? "" : hash.slice(at + 1))) };
}

function addressOf(place, state) {
  const text = new URLSearchParams([...state]).toString();
  return `#${place}${text ? `?${text}` : ""}`;
}

/** Changes the state without a new entry in the history; null, what is usual and nothing are left out. */
function writeState(changes) {
  const { place, state } = readAddress();
  for (const [key, value] of Object.entries(changes)) {
    if (value === null || value === undefined || value === "") state.delete(key);
    else state.set(key, value);
  }
  const address = addressOf(place, state);
  if (isHome(place)) remembered = new URLSearchParams([...state]).toString();
  const now = window.location.hash || "#";
  if (address !== now) window.history.replaceState(window.history.state, "", address);
}

/** Home's state: the address's, or where that names a place alone, what was chosen before. */
function homeState() {
  const { place, state } = readAddress();
  if (!state.size && remembered) {
    window.history.replaceState(window.history.state, "", `#${place}?${remembered}`);
    return new Map(new URLSearchParams(remembered));
  }
  remembered = new URLSearchParams([...state]).toString();
  return state;
}
