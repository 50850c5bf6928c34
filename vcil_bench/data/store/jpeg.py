"""JPEG by simplejpeg, which was fastest of what installs everywhere: 0.21 ms to decode a picture of 320x240
(torchvision 0.26, PIL 0.35).
"""

from __future__ import annotations

import numpy as np
import simplejpeg
from numpy.typing import NDArray

VERSION = f"simplejpeg {simplejpeg.__version__}"
_LINE = 32  # bytes
_BLOCK = 16  # rows that are decoded at a time, with halved chroma
_FRAME_HEADER = b"\xff\xc0\x00\x11\x08"  # of a baseline JPEG with three colours; height and width follow


def encode(picture: NDArray[np.uint8], quality: int) -> bytes:
    """Return the JPEG of a uint8 RGB picture [height, width, 3], its chroma halved."""
    encoded: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(picture), quality, "RGB", "420")
    return encoded


def room(height: int, width: int) -> NDArray[np.uint8]:
    """Return memory to decode a picture into, [height, width, 3], that begins between two multiples of 32 bytes.

    Into rows that begin on them libjpeg-turbo writes past the processor's cache, which is measured to cost a
    quarter more, and reading the picture afterwards costs again.
    """
    memory = np.empty(height * width * 3 + _LINE, np.uint8)
    start = (_LINE // 2 - memory.ctypes.data) % _LINE
    return memory[start : start + height * width * 3].reshape(height, width, 3)


def decode(content: bytes, picture: NDArray[np.uint8], rows: int) -> None:
    """Decode the first rows of a picture; what is written to the others is not said.

    Chroma is repeated as the video's own decoder repeats it, which is nearer to its pixels than smoothing it. No
    row then depends on those below it, and so these need not be decoded: the decoder is told that the picture
    ends above them.

    Args:
        content: A JPEG by ``encode``, whole and undamaged.
        picture: To be written to, from ``room``.
        rows: Rows that are wanted.

    Raises:
        ValueError: It is no JPEG of this size.
    """
    end = -(-rows // _BLOCK) * _BLOCK
    if end >= len(picture):
        simplejpeg.decode_jpeg(content, fastupsample=True, buffer=picture)
        return
    height = content.index(_FRAME_HEADER) + len(_FRAME_HEADER)
    content = content[:height] + end.to_bytes(2, "big") + content[height + 2 :]
    # Not strict: that more follows than so many rows is what it would complain of.
    simplejpeg.decode_jpeg(content, fastupsample=True, buffer=picture[:end], strict=False)
