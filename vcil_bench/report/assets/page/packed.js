// Packed parts of the page: base64 of raw deflate. Nothing starts in a browser that cannot unpack them.

const byId = (id) => document.getElementById(id);

/** Bytes of a packed text, to be read as text or as a buffer. */
function unpacking(text) {
  const letters = window.atob(text);
  const packed = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i += 1) packed[i] = letters.charCodeAt(i);
  return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate-raw")));
}

const textOf = (id) => unpacking(byId(id).textContent).text();

function unpacks() {
  try {
    return Boolean(new DecompressionStream("deflate-raw"));
  } catch {
    return false;
  }
}

if (!unpacks()) {
  byId("packed").hidden = false;
  return;
}
