// Pairs: two rows or runs compared on the class orders and test videos that both have.

/** A side: `{name, row, runs, readout, link}`, its runs complete ones by class order. */
function rowSide(row) {
  return { name: rowName(row), row, runs: completeRuns(row), readout: row.readout, link: rowLink(row) };
}

function runSide(run, readout) {
  const row = rowsOf(run).find((one) => one.readout === readout) || null;
  return { name: `${row ? rowName(row) : pooled(run.method).name} seed ${run.seed}`, row, runs: run.status === "complete" ? [run] : [], readout, link: runLink(run) };
}

/** The runs of either on the class orders that both have, in one order, and the seeds that one has alone. */
function sharedOrders(a, b) {
  const seeds = [a, b].map((side) => side.runs.map((run) => run.seed));
  const both = seeds[0].filter((seed) => seeds[1].includes(seed)).sort((x, y) => x - y);
  const of = (side) => both.map((seed) => side.runs.find((run) => run.seed === seed));
  const alone = [...new Set(seeds.flat())].filter((seed) => !both.includes(seed)).sort((x, y) => x - y);
  return { seeds: both, alone, runs: [of(a), of(b)] };
}

/** A metric of both over the class orders; `interval` in percentage points, null where there is none. */
function metricDifference(name, a, b, shared, group) {
  const values = [a, b].map((side, s) => shared.runs[s].map((run) => (run.values[side.readout] || {})[name]));
  if (values.flat().some((value) => typeof value !== "number")) return null;
  const gaps = values[0].map((value, i) => value - values[1][i]);
  const sign = data.metrics[name].up ? 1 : -1;
  const [wins, losses] = [1, -1].map((side) => gaps.filter((gap) => side * sign * gap > 0).length);
  return {
    name, first: mean(values[0]), second: mean(values[1]), difference: mean(gaps),
    interval: interval(name, a, b, shared, group), wins, losses, ties: gaps.length - wins - losses,
    p: signTest(wins, losses), best: signTest(gaps.length, 0),
  };
}

/** The 95 % interval of two rows' difference, made where the page is made; of all their class orders or none. */
function interval(name, a, b, shared, group) {
  if (!a.row || !b.row || shared.alone.length || a.row.complete !== shared.seeds.length || b.row.complete !== shared.seeds.length) return null;
  const [x, y] = [a, b].map((side) => group.rows.indexOf(side.row));
  const kept = (group.pairs && group.pairs[name]) || {};
  const stored = kept[`${Math.min(x, y)},${Math.max(x, y)}`];
  if (!stored) return null;
  return x < y ? stored : [-stored[1], -stored[0]];
}

/**
 * Whether each test video of two runs is recognised after the last task: `[{key, name, id, first, second}]`, `id` that
 * of its class; null where the videos cannot be paired. Without names on the page they are paired by their place,
 * where both were tested on the same list in the same order.
 */
function pairedVideos(runs, outcomes) {
  if (outcomes.some((outcome) => !outcome || !outcome.videos)) return null;
  const hits = outcomes.map(({ videos }) => {
    const last = videos.steps[videos.steps.length - 1];
    return videos.labels.map((label, video) => last[video] === label);
  });
  const [ids, other] = runs.map((run) => pooled(run.class_order));
  const [one, two] = outcomes.map(({ videos }) => videos);
  const line = (v, w) => ({ name: one.names ? one.names[v] : null, id: ids[one.labels[v]], first: hits[0][v], second: hits[1][w] });
  if (one.names && two.names) {
    const places = new Map(two.names.map((name, place) => [name, place]));
    const same = one.names.length === two.names.length && one.names.every((name) => places.has(name));
    return same ? one.names.map((name, v) => line(v, places.get(name))) : null;
  }
  const alike = JSON.stringify(ids) === JSON.stringify(other) && JSON.stringify(one.labels) === JSON.stringify(two.labels)
    && pooled(runs[0].data).manifest_sha256 === pooled(runs[1].data).manifest_sha256
    && JSON.stringify(pooled(runs[0].data).left_out) === JSON.stringify(pooled(runs[1].data).left_out);
  return alike ? one.labels.map((_, v) => line(v, v)) : null;
}

/** Counts of paired videos by who recognises them, and the two-sided p of the exact McNemar test. */
function mcnemar(videos) {
  const count = (first, second) => videos.filter((one) => one.first === first && one.second === second).length;
  const [firstOnly, secondOnly] = [count(true, false), count(false, true)];
  return { both: count(true, true), firstOnly, secondOnly, neither: count(false, false), p: signTest(firstOnly, secondOnly) };
}

/** A value as text that is the same for equal values, whatever the order of their keys. */
function canonical(value) {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (value !== null && typeof value === "object") {
    return `{${Object.keys(value).sort().map((key) => `${JSON.stringify(key)}:${canonical(value[key])}`).join(",")}}`;
  }
  return JSON.stringify(value ?? null);
}

/** All that a run was made with, as `vcil-bench compare` names it; its command is none. */
function allSettings(run) {
  const method = pooled(run.method);
  const stored = pooled(run.data);
  const settings = new Map([["method", method.name], ["exemplars.declared", method.uses_memory], ["data_access", method.data_access]]);
  for (const [name, values] of [["config", pooled(run.config)], ["options", pooled(run.options)]]) {
    for (const [key, { value }] of Object.entries(values)) settings.set(`${name}.${key}`, value);
  }
  for (const [key, value] of Object.entries(pooled(run.weights))) settings.set(`weights.${key}`, value);
  for (const key of data.memory) settings.set(`memory.${key}`, 0);
  for (const [key, values] of Object.entries(run.costs)) {
    if (key.startsWith("memory.") || key === "parameters" || key === "trainable") settings.set(key, values[values.length - 1]);
  }
  for (const key of ["manifest_sha256", "decoder", "store"]) settings.set(`data.${key}`, stored[key]);
  settings.set("run_seed", run.run_seed === run.seed ? "the class order's" : run.run_seed);
  for (const [key, value] of Object.entries(pooled(run.environment.environment))) settings.set(`environment.${key}`, value);
  return settings;
}

/** Settings in which two sides differ: `[key, values of the first, of the second]`. */
function settingsThatDiffer(runs) {
  const told = runs.map((side) => side.map(allSettings));
  const keys = new Set(told.flat().flatMap((settings) => [...settings.keys()]));
  const distinct = (side, key) => [...new Map(side.map((settings) => [canonical(settings.get(key)), settings.get(key)]))]
    .sort(([a], [b]) => (a < b ? -1 : 1)).map(([, value]) => value);
  const lines = [...keys].map((key) => [key, ...told.map((side) => distinct(side, key))])
    .filter(([, first, second]) => canonical(first) !== canonical(second));
  const [one, two] = runs.map(([run]) => pooled(run.code));
  const version = (name, digest) => data.same_code[`${name} ${digest}`] ?? digest;
  const changed = Object.keys(one).filter((name) => name in two && version(name, one[name]) !== version(name, two[name]));
  if (changed.length) lines.push(["code", ...[one, two].map((code) => changed.map((name) => `${name} ${code[name]}`))]);
  return lines;
}
