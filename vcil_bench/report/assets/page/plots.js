// Plots: what all of them have in common; drawn by the plotting library at the end of the page.

const SYMBOLS = {
  o: "circle", s: "square", D: "diamond", d: "diamond-tall", "^": "triangle-up", v: "triangle-down", P: "cross",
  X: "x", "*": "star", "<": "triangle-left", ">": "triangle-right", p: "pentagon", h: "hexagon", H: "hexagon2", 8: "octagon",
};
const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];

// Plotly reads a few tags in texts; written out they are text.
const inert = (value) => String(value).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

function look(light) {
  return light
    ? { text: "#1a1d21", grid: "#e3e6ea", line: "#8a929c", ground: "#ffffff" }
    : { text: "#e6e8eb", grid: "#2f353c", line: "#808994", ground: "#14171b" };
}

const CONFIG = {
  responsive: true, displaylogo: false,
  // All there are, by name: the library adds a button that uploads the plot, and may add others.
  modeBarButtons: [["zoom2d", "pan2d", "resetScale2d"]], showSendToCloud: false,
};

function axis(colours, title, more = {}) {
  return {
    title: { text: title, standoff: 8, font: { size: 12.5 } }, gridcolor: colours.grid, linecolor: colours.line, zerolinecolor: colours.line,
    automargin: true, ...more,
  };
}

/** Says what a plot shows to who cannot see it: its drawing is one image with a name. */
function namePlot(node, label) {
  for (const [number, svg] of node.querySelectorAll(".main-svg").entries()) {
    if (number) svg.setAttribute("aria-hidden", "true");
    else {
      svg.setAttribute("role", "img");
      svg.setAttribute("aria-label", label);
    }
  }
}
