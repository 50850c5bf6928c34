// Colours of methods, light and dark.

function channels(hex) {
  return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
}

function luminance(rgb) {
  const [r, g, b] = rgb.map((c) => (c / 255 <= 0.03928 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

/** A method's colour, moved away from the ground until it stands out, which black does not in the dark. */
function visible(hex, light, least = light ? 3 : 4.5) {
  const ground = luminance(channels(light ? "#ffffff" : "#14171b"));
  let rgb = channels(hex);
  for (let i = 0; i < 40; i += 1) {
    const own = luminance(rgb);
    if ((Math.max(own, ground) + 0.05) / (Math.min(own, ground) + 0.05) >= least) break;
    rgb = rgb.map((c) => Math.round(light ? c * 0.94 : c + (255 - c) * 0.08));
  }
  return rgb;
}

const rgba = (rgb, alpha = 1) => `rgba(${rgb.join(",")},${alpha})`;
const colourOf = (method, light) => visible((data.styles[method] || ["#777777"])[0], light);

/** Colours the signs of methods on the page. */
function colourSigns(light = !dark.matches) {
  const colours = new Map();
  for (const node of document.querySelectorAll(".sign")) {
    const { method } = node.dataset;
    if (!colours.has(method)) colours.set(method, rgba(colourOf(method, light)));
    node.style.color = colours.get(method);
  }
}
