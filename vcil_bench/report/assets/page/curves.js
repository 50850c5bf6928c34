// Plots of accuracy and forgetting after every task.

function drawCurves(light = !dark.matches, printed = false) {
  const group = data.groups[Number(byId("c-group").value)];
  const colours = look(light);
  const bands = byId("c-bands").checked;
  const traces = [];
  const counts = {};
  const rows = group.rows.filter((one) => one.curve);
  const strength = 0.18 * Math.min(1, 6 / rows.length);
  for (const row of rows) {
    const [hex, marker] = data.styles[row.method];
    const number = counts[hex + marker] = (counts[hex + marker] ?? -1) + 1; // rows that look alike differ in dashes
    const rgb = visible(hex, light);
    const name = inert(row.legend);
    for (const [part, suffix] of [["accuracy", ""], ["forgetting", "2"]]) {
      const { mean, std } = row.curve[part];
      const at = { legendgroup: String(group.rows.indexOf(row)), xaxis: `x${suffix}`, yaxis: `y${suffix}` };
      if (std && bands) {
        traces.push({
          ...at, x: [...row.curve.seen, ...[...row.curve.seen].reverse()],
          y: [...mean.map((m, i) => m + std[i]), ...mean.map((m, i) => m - std[i]).reverse()],
          fill: "toself", fillcolor: rgba(rgb, strength), line: { width: 0 }, mode: "lines",
          hoverinfo: "skip", showlegend: false,
        });
      }
      traces.push({
        ...at, x: row.curve.seen, y: mean, name, showlegend: !suffix,
        mode: "lines+markers", line: { color: rgba(rgb), width: 2, dash: DASHES[number % DASHES.length] },
        marker: { symbol: SYMBOLS[marker] || "circle", size: marker === "*" ? 10 : 8 },
        text: mean.map((m, i) => `${name}: ${spread([m, std ? std[i] : null])}`),
        hovertemplate: "%{text}<extra>%{x} classes</extra>",
      });
    }
  }
  const stacked = narrow.matches && !printed;
  const below = 60 + 26 * Math.ceil(rows.length / (stacked ? 1 : 4)); // axis title and legend
  const height = (stacked ? 700 : 370) + below;
  const drawn = height - below - 20;
  const layout = {
    height, width: printed ? 980 : null, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: colours.text, family: "system-ui, sans-serif", size: 13 },
    hoverlabel: { bgcolor: colours.ground, bordercolor: colours.line, font: { color: colours.text }, namelength: -1, align: "left" },
    margin: { l: 50, r: 12, t: 20, b: below }, hovermode: "closest",
    grid: stacked ? { rows: 2, columns: 1, pattern: "independent", ygap: 0.25 }
      : { rows: 1, columns: 2, pattern: "independent", xgap: 0.14 },
    xaxis: axis(colours, "classes seen"), xaxis2: axis(colours, "classes seen"),
    yaxis: axis(colours, stacked ? "accuracy, %" : "accuracy over classes seen, %"),
    yaxis2: axis(colours, stacked ? "drop of old tasks, %" : "mean drop of old tasks since learnt, %"),
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colours.line, activecolor: colours.text },
    legend: { orientation: "h", x: 0, xanchor: "left", y: -56 / drawn, yanchor: "top", groupclick: "togglegroup", maxheight: below + 100 },
  };
  byId("plot").style.minHeight = `${height}px`;
  // On a phone the buttons would lie over the curves, and fingers zoom and pan without them.
  window.Plotly.react(byId("plot"), traces, layout, { ...CONFIG, displayModeBar: narrow.matches ? false : "hover" });
  const kind = group.kind === "real" ? "" : ` Kind of data: ${group.kind}, no statement about methods on real data.`;
  byId("c-note").textContent = "Mean over finished seeds. A click on a name in the legend hides its line, a double "
    + `click all others; the values stand in the tables above.${kind}`;
}

function startCurves() {
  const drawn = data.groups.map((group, number) => [group, number]).filter(([group]) => group.rows.some((row) => row.curve));
  if (!drawn.length) {
    byId("curves").querySelector(".filters").hidden = true;
    byId("plot").hidden = true;
    byId("c-note").textContent = "No run is complete yet.";
    return;
  }
  byId("c-group").append(...drawn.map(([group, number]) => el("option", { value: number, text: group.title })));
  byId("c-group").addEventListener("change", () => drawCurves());
  byId("c-bands").addEventListener("change", () => drawCurves());
  narrow.addEventListener("change", () => redraw());
  redraw();
}
