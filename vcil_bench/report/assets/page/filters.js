// Filters: which rows leaderboard and tables show. The address holds what was chosen; the fields only show it.

const FIELDS = { text: "f-text", protocol: "f-protocol", method: "f-method", backbone: "f-backbone", data: "f-data" };

const natural = new Intl.Collator("en", { numeric: true }).compare;
const distinct = (values) => [...new Set(values)];
const groupName = (group) => [group.dataset, group.short].filter(Boolean).join(" ");
const methodName = (row) => (row.origin ? `${row.label} [${row.origin}]` : row.label);
const pathOf = (id) => `#row/${id}`;

/** A choice of the address, nothing where its list has none such, as an old link may name. */
function choiceOf(state, key, id) {
  const value = state.get(key) ?? "";
  return [...byId(id).options].some((option) => option.value === value) ? value : "";
}

/** What a state filters by. */
function chosenFilters(state) {
  const chosen = Object.fromEntries(Object.entries(FIELDS).map(([key, id]) => [key, key === "text" ? state.get(key) ?? "" : choiceOf(state, key, id)]));
  return { ...chosen, words: chosen.text.toLowerCase().split(/\s+/).filter(Boolean), complete: state.get("complete") === "yes" };
}

const groupWords = (group) => `${group.label} ${groupName(group)} ${group.title} ${group.kind}`.toLowerCase();
const wordsOf = new Map();

/** All that a search of rows looks at, in lower case. */
function rowWords(group, row) {
  let words = wordsOf.get(row);
  if (words === undefined) {
    const runs = row.runs.map((number) => `${data.runs[number].seed} ${data.runs[number].status}`);
    const exemplars = row.exemplars === "none" ? "exemplar-free no exemplars" : `exemplars ${row.exemplars}`;
    words = [groupWords(group), row.method, row.label, row.origin, row.variant, row.readout, row.readout_label, row.backbone,
      row.pretraining, row.like, exemplars, row.bound ? "bound" : "", ...row.notes, ...runs].join(" ").toLowerCase();
    wordsOf.set(row, words);
  }
  return words;
}

const groupPasses = (group, chosen) =>
  (!chosen.protocol || group.label === chosen.protocol) && (!chosen.data || group.kind === chosen.data);

function rowPasses(group, row, chosen) {
  return groupPasses(group, chosen)
    && (!chosen.method || row.method === chosen.method)
    && (!chosen.backbone || row.backbone === chosen.backbone)
    && (!chosen.complete || !row.incomplete)
    && (!chosen.words.length || chosen.words.every((word) => rowWords(group, row).includes(word)));
}

/** Fills a list of choices: values, or [value, text] where they read otherwise. */
function options(select, first, values) {
  select.replaceChildren(...first === null ? [] : [el("option", { value: "", text: first })],
    ...values.map((one) => (Array.isArray(one) ? el("option", { value: one[0], text: one[1] }) : el("option", { value: one, text: one }))));
}

function showFilters(state) {
  for (const [key, id] of Object.entries(FIELDS)) {
    const value = key === "text" ? state.get(key) ?? "" : choiceOf(state, key, id);
    if (byId(id).value !== value) byId(id).value = value; // a field that is typed in keeps its cursor
  }
  byId("f-complete").checked = state.get("complete") === "yes";
  const set = [...Object.keys(FIELDS), "complete"].filter((key) => state.get(key)).length;
  byId("filter-sum").textContent = set ? `Filter (${set} set)` : "Filter";
}

function clearFilters() {
  writeState(Object.fromEntries([...Object.keys(FIELDS), "complete"].map((key) => [key, null])));
  showHomeState();
  byId("f-text").focus();
}

/** What stands where no row passes. */
function emptyNote() {
  const text = homeState().get("text");
  return el("p", { class: "empty" }, `No row matches${text ? ` “${text}”` : " the filter"}. `,
    el("button", { type: "button", text: "Clear the filter", onclick: clearFilters }));
}

function startFilters() {
  const rows = data.groups.flatMap((group) => group.rows);
  options(byId("f-protocol"), "all", data.groups.map((group) => [group.label, group.kind === "real" ? groupName(group) : `${groupName(group)} (${group.kind})`]));
  options(byId("f-method"), "all", distinct(rows.map((row) => row.method)).sort(natural).map((name) => [name, data.methods[name].label]));
  options(byId("f-backbone"), "all", distinct(rows.map((row) => row.backbone)).sort(natural));
  options(byId("f-data"), "all", distinct(data.groups.map((group) => group.kind)));
  const form = byId("filters");
  form.addEventListener("input", (event) => {
    const key = Object.keys(FIELDS).find((name) => FIELDS[name] === event.target.id);
    if (key) writeState({ [key]: event.target.value });
    else writeState({ complete: event.target.checked ? "yes" : null });
    showHomeState();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", (event) => {
    event.preventDefault(); // the fields follow the address
    clearFilters();
  });
  // A phone's screen is for numbers: the fields are folded away there, and stand open where there is room.
  const box = byId("filter-box");
  const fit = () => { box.open = !narrow.matches; };
  narrow.addEventListener("change", fit);
  fit();
}
