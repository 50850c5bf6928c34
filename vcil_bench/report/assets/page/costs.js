// Costs: time, computations, parameters and memory of runs, in all and task by task.

const COSTS = {
  train_s: ["training", duration], eval_s: ["testing", duration], data_wait_s: ["waiting for data", duration],
  train_flops: ["training, FLOPs", operations], test_clip_flops: ["one test clip, FLOPs", operations],
  peak_device_mb: ["device memory, peak", (v) => `${fixed(v, 0)} MB`], parameters: ["parameters"],
  trainable: ["trainable"], state_bytes: ["state", bytes], "memory.videos": ["exemplar videos"],
  "memory.frames": ["exemplar frames"], "memory.bytes": ["exemplar memory", bytes],
  "memory.statistics_bytes": ["statistics and modules", bytes], "memory.feature_frames": ["exemplar features, frames"],
};
const SUMMED = ["train_s", "eval_s", "data_wait_s", "train_flops"]; // of all tasks together; of others the end counts

const costTitle = (key) => (COSTS[key] || [key])[0];

function costText(key, value) {
  if (value === null || value === undefined) return "–";
  const write = (COSTS[key] || [])[1];
  return write ? write(value) : typeof value === "number" ? value.toLocaleString("en", { maximumFractionDigits: 1 }) : shown(value);
}

/** Columns of costs of which anything is known, and not all of it nothing. */
const costKeys = (runs) => [...new Set(runs.flatMap((run) => Object.keys(run.costs)))]
  .filter((key) => runs.some((run) => (run.costs[key] || []).some((value) => value !== null && value !== 0)));

function costTable(label, heads, lines) {
  const made = table(label, heads, lines, "costs");
  made.querySelectorAll("thead th + th, thead td + th").forEach((head) => head.classList.add("number"));
  return made;
}

/** Costs of a run, or the mean of several, after every task. */
function costsPerTask(runs) {
  const keys = costKeys(runs);
  if (!keys.length) return el("p", { class: "quiet", text: "None recorded." });
  const [first] = runs;
  const value = (key, i) => {
    const known = runs.map((run) => (run.costs[key] || [])[i]).filter((one) => typeof one === "number");
    return known.length ? mean(known) : ((first.costs[key] || [])[i] ?? null);
  };
  const rows = first.seen.map((seen, i) => el("tr", {},
    el("th", { scope: "row", text: `${i + 1} (${seen} classes)` }),
    keys.map((key) => el("td", { class: "number", text: costText(key, value(key, i)) }))));
  return costTable("Costs of every task", ["task", ...keys.map(costTitle)], rows);
}

/** Costs of whole runs: sums over tasks of what is spent, the end of what is kept; one line a run. */
function costsOfRuns(runs) {
  const keys = costKeys(runs);
  if (!keys.length) return el("p", { class: "quiet", text: "None recorded." });
  const total = (run, key) => {
    const values = run.costs[key];
    if (!values || values.some((value) => typeof value !== "number")) return null;
    if (SUMMED.includes(key)) return sum(values);
    return key === "trainable" || key === "peak_device_mb" ? Math.max(...values) : values[values.length - 1];
  };
  const line = (name, per) => el("tr", {}, el("th", { scope: "row" }, name),
    keys.map((key) => el("td", { class: "number", text: costText(key, per(key)) })));
  const lines = runs.map((run) => line(el("a", { href: runLink(run), text: `seed ${run.seed}` }), (key) => total(run, key)));
  if (runs.length > 1) {
    lines.unshift(line("mean", (key) => {
      const known = runs.map((run) => total(run, key)).filter((one) => one !== null);
      return known.length ? mean(known) : null;
    }));
  }
  return [costTable("Costs of whole runs", ["class order", ...keys.map(costTitle)], lines),
    el("p", { class: "quiet", text: "Times and FLOPs of training: all tasks together; trainable parameters and device memory: the most of any task; the rest: after the last task." })];
}
