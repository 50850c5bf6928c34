// What the page shows: the JSON in #data. Text of records only ever becomes text nodes, never markup.

const data = JSON.parse(await textOf("data"));
const pooled = (number) => data.pool[number];
const routes = new Map(data.runs.map((run, number) => [run.id, number]));
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const narrow = window.matchMedia("(max-width: 40rem)");
