"""Small videos whose every frame says which one it is.

A frame reader can only be tested for exactness if the picture itself carries its index: pixel
comparison against a second decoder merely shows that two decoders agree. The clips made here hold a
coarse barcode of black and white blocks that survives any lossy codec, can be read back from the
decoded pixels with ``read_barcode``, and refuses to be read when the picture is turned, mirrored or
has its colour channels swapped. Other tests may use ``barcode_video`` whenever they need a real
video file of a few kilobytes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

BITS = 10
_COLUMNS = BITS + 2  # one white guard block before the bits and one black one after them

# An MPEG-4 part 2 picture of type P at 25 fps with vop_coded = 0: "no new picture here".
NOT_CODED = b"\x00\x00\x01\xb6\x50\x4f"

# ISO 14496-12 track matrices (a, b, c, d) that tell a player how to turn the stored picture. They
# are written as bytes and not through PyAV, so that a sign error shared by reader and writer shows.
ISO_MATRICES: dict[str, tuple[int, int, int, int]] = {
    "0": (1, 0, 0, 1),
    "90": (0, 1, -1, 0),
    "180": (-1, 0, 0, -1),
    "270": (0, -1, 1, 0),
    "mirror": (-1, 0, 0, 1),
    "mirror90": (0, 1, 1, 0),
}


def barcode_frame(index: int, width: int = 128, height: int = 96) -> np.ndarray:
    """Draw the upright RGB picture of frame ``index``.

    The upper half holds two rows of blocks: guard, ten bits (highest first), guard, and below it
    the inverse. The lower half is red on the left and blue on the right.

    Args:
        index: Number to burn in, below 1024.
        width: Picture width, at least 96 so that a block is 8 pixels wide.
        height: Picture height, at least 48.

    Returns:
        uint8 array of shape [height, width, 3].
    """
    if not 0 <= index < 1 << BITS:
        raise ValueError(f"a barcode holds 0 to {(1 << BITS) - 1}, got {index}")
    code = [1, *((index >> (BITS - 1 - bit)) & 1 for bit in range(BITS)), 0]
    frame = np.empty((height, width, 3), np.uint8)
    frame[:, : width // 2] = (200, 60, 60)
    frame[:, width // 2 :] = (60, 60, 200)
    rows = np.linspace(0, height / 2, 3).astype(int)
    columns = np.linspace(0, width, _COLUMNS + 1).astype(int)
    for position, bit in enumerate(code):
        across = slice(columns[position], columns[position + 1])
        frame[rows[0] : rows[1], across] = 235 if bit else 20
        frame[rows[1] : rows[2], across] = 20 if bit else 235
    return frame


def read_barcode(frame: np.ndarray, colour: bool = True) -> int:
    """Read the index back from decoded RGB pixels.

    Args:
        frame: uint8 array [height, width, 3] of any size that ``barcode_frame`` can draw.
        colour: Also check that red is left and blue is right; False for greyscale clips.

    Returns:
        The burned-in index.

    Raises:
        ValueError: If the picture is no upright, unmirrored, readable barcode.
    """
    height, width = frame.shape[:2]
    values = frame.astype(float)
    centres_y = [round(height / 8), round(height * 3 / 8), round(height * 3 / 4)]
    centres_x = [round(width * (column + 0.5) / _COLUMNS) for column in range(_COLUMNS)]

    def block(y: int, x: int) -> np.ndarray:
        return values[y - 1 : y + 2, x - 1 : x + 2].mean(axis=(0, 1))

    code = []
    for x in centres_x:
        upper, lower = block(centres_y[0], x).mean(), block(centres_y[1], x).mean()
        if abs(upper - lower) < 100:
            raise ValueError(f"no barcode: block at x={x} reads {upper:.0f} over {lower:.0f}")
        code.append(int(upper > lower))
    if code[0] != 1 or code[-1] != 0:
        raise ValueError(f"the barcode is mirrored or turned: guards read {code[0]} and {code[-1]}")
    for x in centres_x:
        if not 60 < block(centres_y[2], x).mean() < 160:
            raise ValueError("the lower half is no plain area: the picture is turned")
    if colour:
        left, right = block(centres_y[2], centres_x[2]), block(centres_y[2], centres_x[-3])
        if left[0] < left[2] + 60 or right[2] < right[0] + 60:
            raise ValueError(f"red and blue are swapped or mirrored: {left} and {right}")
    return int("".join(map(str, code[1:-1])), 2)


def read_barcodes(frames: np.ndarray, colour: bool = True) -> list[int]:
    """Read the index of each frame of a [n, height, width, 3] array."""
    return [read_barcode(frame, colour) for frame in frames]


def encode_frames(
    path: Path,
    pictures: Sequence[np.ndarray],
    *,
    codec: str = "libx264",
    fps: int = 25,
    pix_fmt: str = "yuv420p",
    options: Mapping[str, str] | None = None,
    pts: Sequence[int] | None = None,
    container_options: Mapping[str, str] | None = None,
) -> Path:
    """Encode RGB pictures of one size to a video file.

    Args:
        path: Target; its suffix chooses the container.
        pictures: uint8 arrays [height, width, 3].
        codec: Name of an FFmpeg encoder.
        fps: Frame rate, and the inverse of the time base of ``pts``.
        pix_fmt: Pixel format of the stored video.
        options: Encoder options, for example ``{"g": "12", "bf": "2"}``.
        pts: Presentation time of each picture in 1/1000 s, increasing, for a variable frame rate.
        container_options: Muxer options, for example ``{"movflags": "faststart"}``.

    Returns:
        ``path``.
    """
    height, width = pictures[0].shape[:2]
    with av.open(str(path), "w", options=dict(container_options or {})) as container:
        stream = container.add_stream(codec, rate=fps, options=dict(options or {}))
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.thread_count = 1  # the same bytes on every machine
        time_base = Fraction(1, fps if pts is None else 1000)
        stream.codec_context.time_base = time_base
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame = frame.reformat(format=pix_fmt, threads=1)
            frame.pts = number if pts is None else pts[number]
            frame.time_base = time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def barcode_video(
    path: Path,
    frames: int,
    *,
    width: int = 128,
    height: int = 96,
    first: int = 0,
    turned: str = "0",
    codec: str = "libx264",
    fps: int = 25,
    pix_fmt: str = "yuv420p",
    options: Mapping[str, str] | None = None,
    pts: Sequence[int] | None = None,
    container_options: Mapping[str, str] | None = None,
) -> Path:
    """Make a clip in which frame ``i`` carries the number ``first + i``.

    Args:
        path: Target; its suffix chooses the container.
        frames: Number of frames.
        width: Width of the upright picture, at least 96.
        height: Height of the upright picture, at least 48.
        first: Number burned into frame 0.
        turned: A key of ``ISO_MATRICES``. The pictures are stored turned the other way and the
            file asks its player to turn them back; only for MP4.
        codec: Name of an FFmpeg encoder.
        fps: Frame rate.
        pix_fmt: Pixel format of the stored video.
        options: Encoder options.
        pts: Presentation times in 1/1000 s for a variable frame rate.
        container_options: Muxer options.

    Returns:
        ``path``.
    """
    pictures = [barcode_frame(first + index, width, height) for index in range(frames)]
    a, b, c, d = ISO_MATRICES[turned]
    if turned != "0":
        pictures = [_undo_matrix(picture, (a, b, c, d)) for picture in pictures]
    encode_frames(
        path,
        pictures,
        codec=codec,
        fps=fps,
        pix_fmt=pix_fmt,
        options=options,
        pts=pts,
        container_options=container_options,
    )
    if turned != "0":
        _patch_track_matrix(path, (a, b, c, d))
    return path


def _undo_matrix(picture: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    """Return the stored picture that the matrix turns into ``picture``, pixel by pixel.

    The standard maps a stored point (x, y) to (a x + c y, b x + d y), up to a shift.
    """
    a, b, c, d = matrix
    height, width = picture.shape[:2]
    stored_w, stored_h = (width, height) if a else (height, width)
    y, x = np.mgrid[0:stored_h, 0:stored_w]
    shown_x, shown_y = a * x + c * y, b * x + d * y
    return picture[shown_y - shown_y.min(), shown_x - shown_x.min()]


def _patch_track_matrix(path: Path, matrix: tuple[int, int, int, int]) -> None:
    """Overwrite the matrix of the first track header of an MP4 written without audio."""
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4
    offset = start + (40 if data[start] == 0 else 52)  # version 1 has 64-bit times
    a, b, c, d = (value * 0x10000 for value in matrix)
    struct.pack_into(">9i", data, offset, a, b, 0, c, d, 0, 0, 0, 0x40000000)
    path.write_bytes(data)


def packed_bframe_avi(path: Path, frames: int, *, width: int = 128, height: int = 96) -> Path:
    """Make an MPEG-4 AVI with packed B-frames and several key frames, as DivX wrote them.

    HMDB51's files are of this kind: a chunk holds a P-frame together with the B-frame shown before
    it, the next chunk is a placeholder of a few bytes, and the header counts chunks, which is more
    than there are frames. Seeking decoders return wrong frames from such files.

    Args:
        path: Target, with suffix ``.avi``.
        frames: Number of frames, odd, so that the last one is a P-frame.
        width: Picture width.
        height: Picture height.

    Returns:
        ``path``.
    """
    plain = path.with_name(f"{path.stem}_plain.avi")
    barcode_video(plain, frames, width=width, height=height, codec="mpeg4", options={"g": "12", "bf": "1"})
    with av.open(str(plain)) as source, av.open(str(path), "w") as target:
        stream = source.streams.video[0]
        chunks = [bytes(packet) for packet in source.demux(stream) if packet.size]
        # The user data whose trailing "p" tells a decoder that B-frames are packed goes before the
        # first picture.
        head, start, rest = chunks[0].partition(b"\x00\x00\x01\xb6")
        chunks[0] = head + b"\x00\x00\x01\xb2DivX503b1393p" + start + rest
        packed: list[bytes] = []
        for chunk in chunks:
            if _is_b_picture(chunk):
                packed[-1] += chunk
                packed.append(NOT_CODED)
            else:
                packed.append(chunk)
        packed.insert(1, b"\x7f")  # DivX's encoder delay: the chunk that makes the count one too high
        copy = target.add_stream_from_template(stream)
        for number, chunk in enumerate(packed):
            packet = av.Packet(chunk)
            packet.stream = copy
            packet.dts = packet.pts = number
            packet.time_base = Fraction(1, 25)
            target.mux(packet)
    plain.unlink()
    return path


def _is_b_picture(chunk: bytes) -> bool:
    """Tell whether an MPEG-4 part 2 chunk is a B-picture: two bits after the start code."""
    after = chunk.index(b"\x00\x00\x01\xb6") + 4
    return chunk[after] >> 6 == 2


def stream_copied_cut(source: Path, path: Path, first: int) -> Path:
    """Copy a video without re-encoding so that its edit list hides the frames before ``first``.

    The stream table of the result still counts every stored frame.

    Args:
        source: A video at 25 frames per second.
        path: Target MP4.
        first: First frame that a player shows.

    Returns:
        ``path``.
    """
    with av.open(str(source)) as original, av.open(str(path), "w") as target:
        stream = original.streams.video[0]
        copy = target.add_stream_from_template(stream)
        assert stream.time_base is not None
        shift = int(Fraction(first, 25) / stream.time_base)
        for packet in original.demux(stream):
            if packet.dts is None or packet.pts is None:
                continue
            packet.dts -= shift
            packet.pts -= shift
            packet.stream = copy
            target.mux(packet)
    return path


def audio_file(path: Path, seconds: float = 0.5, codec: str = "aac") -> Path:
    """Make a file that holds a tone and no picture."""
    rate = 16000
    samples = np.sin(np.arange(int(rate * seconds)) * 0.1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        assert isinstance(stream, av.AudioStream)
        wave = (samples * 8000).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
        frame.sample_rate = rate
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def decode_all(path: Path) -> np.ndarray:
    """Decode a file with PyAV's own iteration, as an oracle for pixels."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24", threads=1) for frame in container.decode(video=0)])
