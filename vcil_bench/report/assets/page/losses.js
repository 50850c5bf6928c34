// Losses: the terms of a run's loss per epoch.

function drawLosses(run, node, light) {
  const colours = look(light);
  const { terms, step, phase, epoch } = run.losses;
  const x = step.map((_, i) => i);
  const palette = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#777777"];
  const traces = terms.map((term, i) => ({
    x, y: run.losses[term].map((v) => (typeof v === "number" ? v : null)), name: inert(term), mode: "lines+markers",
    line: { color: rgba(visible(palette[i % palette.length], light)), width: 1.5, dash: DASHES[Math.floor(i / palette.length) % DASHES.length] },
    marker: { size: 3 },
    text: x.map((at) => inert(`${phase ? phase[at] : `task ${step[at] + 1}`}, epoch ${epoch ? epoch[at] : at + 1}`)),
    hovertemplate: "%{y:.4g}<extra>%{text}</extra>", connectgaps: false,
  }));
  const starts = x.filter((at) => at === 0 || step[at] !== step[at - 1]);
  const thin = Math.ceil(starts.length / (narrow.matches ? 6 : 14));
  window.Plotly.react(node, traces, {
    height: 290, margin: { l: 50, r: 12, t: 12, b: 60 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: colours.text, family: "system-ui, sans-serif", size: 12 }, showlegend: true,
    legend: { orientation: "h", y: -0.22, x: 0 }, hovermode: "closest",
    hoverlabel: { bgcolor: colours.ground, bordercolor: colours.line, font: { color: colours.text } },
    xaxis: axis(colours, "", {
      tickvals: starts.filter((_, i) => i % thin === 0), showgrid: false, zeroline: false, tickangle: 0,
      ticktext: starts.filter((_, i) => i % thin === 0).map((at) => `task ${step[at] + 1}`),
    }),
    yaxis: axis(colours, "loss", { rangemode: "tozero" }),
    shapes: starts.map((at) => ({
      type: "line", x0: at - 0.5, x1: at - 0.5, yref: "paper", y0: 0, y1: 1, line: { color: colours.grid, width: 1 },
    })),
  }, { ...CONFIG, displayModeBar: false });
}

function losses(draft, run) {
  const { terms, step, phase, epoch, every } = run.losses;
  if (!terms.length) return el("p", { class: "quiet", text: "None recorded." });
  const said = ["Mean loss per epoch; vertical lines mark new tasks."];
  if (every > 1) said.push(`One epoch in ${every} is drawn.`);
  const rows = step.map((one, i) => [`task ${one + 1}${phase ? `, ${shown(phase[i])}` : ""}, epoch ${epoch ? epoch[i] : i + 1}`,
    ...terms.map((term) => shown(run.losses[term][i]))]);
  return [el("p", { class: "quiet", text: said.join(" ") }),
    draft.plot("Loss per epoch", ["epoch", ...terms], rows, (node, light) => drawLosses(run, node, light))];
}
