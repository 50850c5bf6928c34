// Statistics: accuracies from counts, means over class orders, the sign test.

const sum = (values) => values.reduce((total, value) => total + value, 0);
const mean = (values) => sum(values) / values.length;

/** Sample standard deviation; null of a single value. */
function deviation(values) {
  if (values.length < 2) return null;
  const centre = mean(values);
  return Math.sqrt(sum(values.map((value) => (value - centre) ** 2)) / (values.length - 1));
}

/** Accuracy on every task (columns) after every task learnt (rows) in percent: a triangle. */
function matrixOf(run, readout) {
  const totals = pooled(run.test_videos);
  return run.correct[readout].map((line) => line.map((hit, task) => (100 * hit) / totals[task]));
}

/** Accuracy over all test videos of the classes learnt so far, after every task, in percent. */
function overallOf(run, readout) {
  const totals = pooled(run.test_videos);
  return run.correct[readout].map((line) => (100 * sum(line)) / sum(totals.slice(0, line.length)));
}

/** Mean drop of the tasks before since each was learnt, after every task, in percentage points. */
function dropsOf(run, readout) {
  const matrix = matrixOf(run, readout);
  return matrix.map((line, i) => (i ? mean(line.slice(0, i).map((value, j) => matrix[j][j] - value)) : 0));
}

/** What `per(run)` gives of several runs, element by element: `{mean, std, values}`, nested as they are. */
function over(runs, per) {
  const join = (all) => (Array.isArray(all[0])
    ? all[0].map((_, i) => join(all.map((each) => each[i])))
    : { mean: mean(all), std: deviation(all), values: all });
  return join(runs.map(per));
}

/** The task that fell most since it was learnt, `{task, learnt, end, drop}`; null where there is but one. */
function worstFall(matrix) {
  const end = matrix[matrix.length - 1];
  const falls = end.slice(0, -1).map((value, task) => (
    { task, learnt: matrix[task][task], end: value, drop: matrix[task][task] - value }));
  return falls.length ? falls.reduce((worst, fall) => (fall.drop > worst.drop ? fall : worst)) : null;
}

/** Two-sided p of so uneven a split of fair coins, exact; ties are left out. In logarithms: it may be tiny. */
function signTest(wins, losses) {
  const tosses = wins + losses;
  let ways = -tosses * Math.LN2; // logarithm of the share of k heads
  let tail = 0;
  const terms = [];
  for (let k = 0; k <= Math.min(wins, losses); k += 1) {
    terms.push(ways);
    ways += Math.log((tosses - k) / (k + 1));
  }
  // The largest come last; added from the smallest on.
  for (const term of terms) tail += Math.exp(term);
  return Math.min(1, 2 * tail);
}
