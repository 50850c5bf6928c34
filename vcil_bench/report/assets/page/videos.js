// Videos: which were recognised when their class was learnt, and no longer at the end.

/** Per task: how many were right when learnt and at the end, and which were lost: `{video, until, guess}`. */
function fates(run, { taskOf, videos }) {
  const { labels, steps } = videos;
  const last = steps.length - 1;
  const tasks = steps.map((_, task) => ({ task, videos: 0, learnt: 0, gained: 0, lost: [] }));
  labels.forEach((label, video) => {
    const task = taskOf[label];
    if (task > last) return; // its task was never reached
    const right = (step) => steps[step][video] === label;
    tasks[task].videos += 1;
    if (right(task)) tasks[task].learnt += 1;
    if (!right(task) && right(last)) tasks[task].gained += 1;
    if (!right(task) || right(last)) return;
    let until = last;
    while (!right(until)) until -= 1;
    tasks[task].lost.push({ video, until, guess: steps[last][video] });
  });
  return tasks;
}

function thumbnail(name) {
  const source = data.thumbnails && Object.hasOwn(data.thumbnails, name) && data.thumbnails[name];
  return source ? el("img", { src: source, alt: "", width: 48, height: 48, loading: "lazy" }) : null;
}

function lostTable(run, outcome, fate) {
  const names = classNames(run);
  const { labels, names: files } = outcome.videos;
  const pictures = fate.lost.some(({ video }) => thumbnail(files[video]));
  const rows = fate.lost.map(({ video, until, guess }) => el("tr", {},
    pictures ? el("td", { class: "picture" }, thumbnail(files[video])) : null,
    el("th", { scope: "row", class: "mono", text: files[video] }), el("td", { text: names[labels[video]] }),
    el("td", { text: `task ${until + 1}` }), el("td", { text: names[guess] })));
  return table(`Videos of task ${fate.task + 1} learnt and lost`,
    [...(pictures ? [""] : []), "video", "class", "last right after", "taken for at the end"], rows, "lost");
}

function videosPart(run, outcome) {
  if (!outcome || !outcome.videos) {
    return el("p", { class: "quiet", text: "The outcome of every video is on this page for small runs only; the record's predictions have it." });
  }
  const all = fates(run, outcome);
  const summary = all.slice(0, -1).map((fate) => el("tr", {},
    el("th", { scope: "row", text: fate.task + 1 }),
    [fate.videos, fate.learnt, fate.lost.length, fate.gained].map((number) => el("td", { class: "number", text: number }))));
  if (!summary.length) return el("p", { class: "quiet", text: "Nothing has been learnt after the first task yet." });
  const made = table("Videos learnt and lost, by task", ["task", "test videos", "right when learnt", "of these wrong at the end", "wrong when learnt, right at the end"], summary, "fates");
  made.querySelectorAll("thead th + th, thead td + th").forEach((head) => head.classList.add("number"));
  const lists = !outcome.videos.names ? el("p", { class: "quiet", text: "Names of videos are on this page for small runs only." })
    : all.slice(0, -1).filter((fate) => fate.lost.length).map((fate) => {
      const box = el("details", { class: "fate" }, el("summary", { text: `Task ${fate.task + 1}: ${plural(fate.lost.length, "video")} learnt and lost` }));
      // Long lists are made once they are asked for.
      box.addEventListener("toggle", () => { if (box.open && box.children.length === 1) box.append(lostTable(run, outcome, fate)); });
      return box;
    });
  return [made, lists];
}
