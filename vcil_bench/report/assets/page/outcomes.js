// Outcomes: what became of every test video or class of a run, unpacked when a page asks for it.

const unpacked = new Map();

/**
 * What became of a run's classes, and of its videos where they are on the page; null where neither is.
 *
 * Classes are counted in the order in which they are learnt. Of `correct` the first key is the task just learnt,
 * the second the class: how many of its `totals` test videos are recognised. `taken` holds per class what its
 * videos are taken for after the last task, `[[other class, videos], ...]`, the commonest first. `videos` is null
 * or `{labels, steps, names}`: the class of each video, the classes it was taken for after every task, its name.
 */
function outcomeOf(run, readout) {
  const stored = run.outcomes && run.outcomes[readout];
  if (!stored) return Promise.resolve(null);
  const key = `${run.id}\n${readout}`;
  if (!unpacked.has(key)) unpacked.set(key, readOutcome(run, stored, run.correct[readout].length));
  return unpacked.get(key);
}

async function readOutcome(run, stored, steps) {
  const numbers = new Uint16Array(await unpacking(stored.data).arrayBuffer());
  const sizes = pooled(run.classes_per_task);
  const taskOf = sizes.flatMap((size, task) => new Array(size).fill(task));
  const seen = sizes.map((_, task) => sum(sizes.slice(0, task + 1)));
  return stored.kind === "predictions"
    ? ofVideos(run, stored, numbers, steps, taskOf, seen) : ofClasses(stored, numbers, steps, taskOf, seen);
}

function ofClasses(stored, numbers, steps, taskOf, seen) {
  const correct = [];
  let at = 0;
  for (let step = 0; step < steps; step += 1) correct.push(Array.from(numbers.subarray(at, at += seen[step])));
  const taken = taskOf.map((_, label) => stored.taken[label] || []);
  return { taskOf, totals: pooled(stored.totals), correct, taken, videos: null };
}

function ofVideos(run, stored, numbers, count, taskOf, seen) {
  const labels = pooled(stored.labels);
  const tested = pooled(run.test_videos).map((_, task, all) => sum(all.slice(0, task + 1)));
  const steps = [];
  let at = 0;
  for (let step = 0; step < count; step += 1) steps.push(numbers.subarray(at, at += tested[step]));
  const totals = new Array(taskOf.length).fill(0);
  for (const label of labels) totals[label] += 1;
  const correct = steps.map((taken, step) => {
    const hits = new Array(seen[step]).fill(0);
    taken.forEach((label, video) => { if (label === labels[video]) hits[label] += 1; });
    return hits;
  });
  const videos = { labels, steps, names: run.videos === null ? null : pooled(run.videos) };
  const taken = taskOf.map((_, label) => (count ? takenFor(videos, count - 1, label) : []));
  return { taskOf, totals, correct, taken, videos };
}

/** What the videos of a class are taken for after a task, `[[other class, videos], ...]`, the commonest first. */
function takenFor(videos, step, label) {
  const counts = new Map();
  videos.steps[step].forEach((guess, video) => {
    if (videos.labels[video] === label && guess !== label) counts.set(guess, (counts.get(guess) || 0) + 1);
  });
  return [...counts].sort((a, b) => b[1] - a[1] || a[0] - b[0]);
}

/** Names of a run's classes in the order in which they are learnt. */
function classNames(run) {
  const names = pooled(run.class_names);
  return pooled(run.class_order).map((id) => names[id] ?? `class ${id}`);
}
