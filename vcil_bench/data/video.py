"""Exactly the asked frames of a video file, and the truth about how many there are.

A class-incremental result depends on which frames a sampler really got, so frames are numbered as a
decode from the first packet onward yields them, and that is also how they are read: PyAV decodes
forward from frame 0, converts only the wanted pictures to RGB and stops after the last of them.

No seeking, and decord only on request, because both return wrong pictures without a word:

- decord on HMDB51 (AVI, several key frames, packed B-frames): all 8 segment centres of one file
  were off by 1 to 87 frames. On made AVIs with B-frames and several key frames it hit 1 of 8, off
  by up to 192 frames. UCF101's AVIs tried have one key frame, which is why the defect stays unseen.
- Seeking fails in the same AVIs, in MPEG-TS, and in streams with open groups of pictures, where
  B-frames refer across a key frame: decord was off by 1 or 2 there, PyAV's own seek missed 30 of
  200 frames.
- The frame count in a container's header is too high for packed B-frames (by 1 or 2) and for cuts
  without re-encoding (200 claimed, 117 shown), and absent from WebM: a count is decoded, not read.

Going forward costs nothing on such clips: they have one or two key frames, so a seek would decode
from the start as well (measured 2 to 4 times slower than one forward pass).
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import math
import operator
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream

from vcil_bench.errors import UserError, did_you_mean

DECODERS = ("auto", "pyav", "decord")

# PyAV keeps FFmpeg's own log silent unless a program asks for it; the causes of failures reach the
# user through exceptions and ``VideoFacts.problem``.

# The rules of ``_missing_data`` that have to estimate forgive this many frames.
_TOLERANCE = 2
# Largest MPEG-4 chunk that only says "no new picture here" (FFmpeg's MAX_NVOP_SIZE).
_PLACEHOLDER_BYTES = 19
_MICROSECONDS = 1_000_000  # unit of a container's duration


class VideoError(UserError):
    """A video that cannot be read, or a frame it does not have; names the file and the cause."""


@dataclass(frozen=True)
class VideoFacts:
    """What one full decode of a video found.

    Attributes:
        frames: Frames that a forward decode yields; in a damaged file those before the damage.
        claimed: Frames that the container's header claims, or None.
        width: Width of the upright picture in stored pixels (no aspect-ratio scaling).
        height: Height of the upright picture.
        fps: Average frame rate, or None if the file does not say.
        codec: FFmpeg's name of the codec.
        rotation: Clockwise turn in degrees (0, 90, 180, 270) that makes the stored picture upright;
            ``read_frames`` has already applied it.
        problem: Why the file is decodable in part only, or None for a healthy file.
    """

    frames: int
    claimed: int | None
    width: int
    height: int
    fps: float | None
    codec: str
    rotation: int
    problem: str | None


def resolve_decoder(name: str) -> str:
    """Return the decoder that runs for ``name``, so that a run record can state it.

    Args:
        name: One of ``DECODERS``.

    Returns:
        ``"pyav"`` for ``"auto"``, otherwise ``name``.

    Raises:
        UserError: If the name is unknown.
    """
    if name not in DECODERS:
        raise UserError(
            f"unknown decoder '{name}'{did_you_mean(name, DECODERS)}; allowed: {', '.join(DECODERS)}"
        )
    return "pyav" if name == "auto" else name


def read_frames(
    path: str | os.PathLike[str], indices: Sequence[int] | np.ndarray, decoder: str = "auto"
) -> np.ndarray:
    """Read exactly the asked frames, upright and in the asked order.

    ``decoder="decord"`` exists to repeat results that were computed with it. It numbers frames in
    its own way, returns wrong ones for some files (see the top of this module) and can hang on
    files that claim more frames than they have.

    Args:
        path: A video file.
        indices: 0-based frame numbers of a forward decode, in any order, duplicates allowed.
        decoder: One of ``DECODERS``.

    Returns:
        uint8 RGB array of shape [len(indices), height, width, 3].

    Raises:
        VideoError: If the file cannot be decoded, has no such frame, or changes its picture size.
        UserError: If the decoder's name is unknown.
    """
    chosen = resolve_decoder(decoder)
    wanted = [operator.index(index) for index in indices]
    if not wanted:
        raise VideoError(f"{path}: no frame index was asked for")
    if min(wanted) < 0:
        raise VideoError(f"{path}: frame index {min(wanted)} is negative; frames count from 0")
    if chosen == "decord":
        return _read_with_decord(path, wanted)
    places: dict[int, list[int]] = {}
    for place, index in enumerate(wanted):
        places.setdefault(index, []).append(place)
    last = max(wanted)
    result: np.ndarray | None = None
    reformatter = VideoReformatter()
    log = _Log()
    with _open(path) as (container, stream):
        for number, frame in enumerate(_decode(container, stream, log)):
            if log.size_change is not None:
                raise VideoError(f"{path}: {log.size_change}")
            if number in places:
                picture = _to_rgb(path, frame, reformatter)
                if result is None:
                    result = np.empty((len(wanted), *picture.shape), np.uint8)
                elif picture.shape != result.shape[1:]:
                    raise VideoError(f"{path}: the picture is turned differently at frame {number}")
                result[places[number]] = picture
            if number == last:
                assert result is not None
                return result
    _require_frames(path, log)
    why = f" ({log.error})" if log.error else ""
    raise VideoError(f"{path}: frame {last} was asked for, but only {log.frames} frames can be decoded{why}")


def count_frames(path: str | os.PathLike[str]) -> int:
    """Count the frames that a forward decode yields; in a damaged file those before the damage.

    Args:
        path: A video file.

    Returns:
        The number of frames, at least 1.

    Raises:
        VideoError: If not a single frame can be decoded.
    """
    log = _Log()
    with _open(path) as (container, stream):
        for _ in _decode(container, stream, log):
            pass
    _require_frames(path, log)
    return log.frames


def probe(path: str | os.PathLike[str]) -> VideoFacts:
    """Decode a whole video once and report what it holds and whether anything is missing.

    Args:
        path: A video file.

    Returns:
        The facts; ``problem`` tells a partly decodable file from a healthy one.

    Raises:
        VideoError: If not a single frame can be decoded.
    """
    log = _Log()
    matrix = None
    with _open(path) as (container, stream):
        for frame in _decode(container, stream, log, all_streams=True):
            if log.frames == 1:
                matrix = _display_matrix(frame)
        _require_frames(path, log)
        width, height = log.size
        if matrix is not None and _is_transposed(matrix):
            width, height = height, width
        return VideoFacts(
            frames=log.frames,
            claimed=stream.frames or None,
            width=width,
            height=height,
            fps=float(stream.average_rate) if stream.average_rate else None,
            codec=stream.codec_context.codec.canonical_name,
            rotation=0 if matrix is None else _clockwise_degrees(matrix),
            problem=_find_problem(container, stream, log),
        )


# --------------------------------------------------------------------------------------------------
# Decoding


@dataclass
class _Log:
    """What a decode met on its way, gathered while its frames are handed out."""

    frames: int = 0
    corrupt_frames: int = 0
    packets: int = 0  # of the video stream, all of them
    shown_packets: int = 0  # of these, neither marked discard nor mere placeholders
    corrupt_packets: int = 0
    times: list[Fraction] = field(default_factory=list)  # of the video packets, in seconds
    video_end: Fraction = Fraction(0)  # latest end of a video packet, in seconds
    end: Fraction = Fraction(0)  # latest end of a packet of any stream, in seconds
    size: tuple[int, int] = (0, 0)
    size_change: str | None = None
    lost_at_start: int = 0  # packets refused before the first one that decodes
    start_error: str | None = None
    error: str | None = None  # what ended the decode early


@contextlib.contextmanager
def _open(path: str | os.PathLike[str]) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a file and its first true video stream, and close it whatever happens."""
    try:
        info = Path(path).stat()
    except FileNotFoundError:
        raise VideoError(f"{path}: the file does not exist") from None
    except (OSError, ValueError) as error:
        raise VideoError(f"{path}: cannot be read ({error})") from error
    if stat.S_ISDIR(info.st_mode):
        raise VideoError(f"{path}: is a folder, not a video file")
    if not stat.S_ISREG(info.st_mode):  # opening a named pipe would wait for ever
        raise VideoError(f"{path}: is not a regular file")
    if info.st_size == 0:
        raise VideoError(f"{path}: the file is empty (0 bytes)")
    try:
        # An absolute path, or FFmpeg takes "take:1.avi" for a URL. Old AVIs carry Latin-1 titles,
        # which must not make a video unreadable.
        container = av.open(str(Path(path).absolute()), metadata_errors="replace")
    except PermissionError as error:
        raise VideoError(f"{path}: no permission to read the file") from error
    except (av.FFmpegError, OSError, ValueError) as error:
        raise VideoError(f"{path}: not a video, or damaged beyond its header ({_cause(error)})") from error
    with container:
        # The cover picture of an audio file is a video stream as well.
        candidates = [
            stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic
        ]
        if not candidates:
            raise VideoError(f"{path}: has no video stream")
        stream = candidates[0]
        if stream.codec_context is None:
            raise VideoError(f"{path}: this build of PyAV has no decoder for its video stream")
        # One thread: workers are the parallel part, and frame threads make the small clips slower.
        stream.thread_type = "NONE"
        stream.thread_count = 1
        yield container, stream


def _decode(
    container: InputContainer, stream: VideoStream, log: _Log, all_streams: bool = False
) -> Iterator[VideoFrame]:
    """Yield the frames of a stream from the first one on, up to the end or the first damage.

    An error ends the decode, because what a decoder makes of the rest has gaps and so no frame
    numbers. The frames that it still holds back are dropped for the same reason: a damaged picture
    may belong between them. Errors before the first packet that decodes are passed over: recordings
    cut out of a running broadcast start in the middle of a group of pictures.
    """
    demuxer = cast(
        "Iterator[av.Packet[Any]]",
        container.demux() if all_streams else container.demux(stream),
    )
    decodes = False
    while True:
        try:
            packet = next(demuxer)
        except StopIteration:
            break
        except (av.FFmpegError, OSError) as error:
            log.error = f"the file cannot be read further: {_cause(error)}"
            return
        if packet.size == 0 and packet.dts is None:
            continue  # PyAV's end mark of each stream; the decoder is emptied below
        is_video = packet.stream.index == stream.index
        if all_streams:
            _note_time(packet, is_video, log)
        if not is_video:
            continue
        log.packets += 1
        if packet.size == 0:
            continue  # would tell the decoder that the stream ends here
        log.corrupt_packets += packet.is_corrupt
        log.shown_packets += not packet.is_discard and packet.size > _PLACEHOLDER_BYTES
        try:
            frames = stream.decode(packet)
        except (av.FFmpegError, OSError) as error:
            if decodes:
                log.error = f"the decoder stops: {_cause(error)}"
                return
            log.lost_at_start += 1
            log.start_error = _cause(error)
            continue
        decodes = True
        yield from _noted(frames, log)
    try:
        frames = stream.decode(None)
    except (av.FFmpegError, OSError) as error:
        log.error = f"the decoder stops: {_cause(error)}"
        return
    yield from _noted(frames, log)


def _noted(frames: Sequence[VideoFrame], log: _Log) -> Iterator[VideoFrame]:
    for frame in frames:
        size = (frame.width, frame.height)
        if log.frames == 0:
            log.size = size
        elif size != log.size and log.size_change is None:
            log.size_change = (
                f"the picture size changes from {log.size[0]}x{log.size[1]} to "
                f"{size[0]}x{size[1]} at frame {log.frames}"
            )
        log.frames += 1
        log.corrupt_frames += frame.is_corrupt
        yield frame


def _note_time(packet: av.Packet, is_video: bool, log: _Log) -> None:
    ticks = packet.pts if packet.pts is not None else packet.dts
    if ticks is None or packet.time_base is None:
        return
    end = (ticks + (packet.duration or 0)) * packet.time_base
    log.end = max(log.end, end)
    if is_video:
        log.times.append(ticks * packet.time_base)
        log.video_end = max(log.video_end, end)


def _cause(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _require_frames(path: str | os.PathLike[str], log: _Log) -> None:
    if log.frames == 0:
        why = log.error or log.start_error or "its video stream is empty or damaged"
        raise VideoError(f"{path}: not a single frame can be decoded ({why})")


# --------------------------------------------------------------------------------------------------
# Completeness


def _find_problem(container: InputContainer, stream: VideoStream, log: _Log) -> str | None:
    """Tell a damaged file from one whose header merely counts in another way.

    The header's number of frames cannot be compared with the decoded one: packed B-frames make it
    too high by 1 or 2, an edit list hides many stored frames on purpose, an AVI counts the ticks in
    which nothing new is shown, and WebM states none. Whether data are missing is therefore judged
    on packets, which each format accounts for in its own way:

    - MP4 and MOV hold a table of every stored packet, hidden ones included (they come out marked
      discard). Fewer packets than entries: the file ends early.
    - AVI states the length of the video stream in ticks, Matroska and WebM that of the whole file
      in seconds, and every packet has a time. If the last packet (of the video, of any stream) ends
      before that, data are missing, unless the gap may be the display time of the last frame: it
      has to exceed twice the longest pause between two packets, so a variable frame rate raises no
      alarm. A file with one packet is not judged.
    - In any format, a decoder error and packets or frames flagged corrupt are damage, and so is
      a decoder that keeps silent but makes frames of fewer than half of the packets (half, because
      each field of an interlaced picture may have its own packet, and VP8 has hidden pictures).

    Not provable, hence not reported: a hole in the middle of a Matroska or MPEG-TS file whose other
    packets are whole, a missing end of an MPEG-TS, wrong pixels that decode without error.
    """
    found = []
    if log.error is not None:
        found.append(f"only {log.frames} frames can be decoded: {log.error}")
    if log.lost_at_start:
        found.append(f"the first {log.lost_at_start} packets do not decode: {log.start_error}")
    if log.corrupt_frames or log.corrupt_packets:
        found.append(
            f"marked corrupt: {log.corrupt_frames} of {log.frames} frames, "
            f"{log.corrupt_packets} of {log.packets} packets"
        )
    if log.error is None:
        missing = _missing_data(container, stream, log)
        if missing is not None:
            found.append(missing)
    if log.size_change is not None:
        found.append(log.size_change)
    return "; ".join(found) or None


def _missing_data(container: InputContainer, stream: VideoStream, log: _Log) -> str | None:
    formats = container.format.name.split(",")
    if "mov" in formats:
        stored = len(stream.index_entries)
        if log.packets < stored:
            return f"the file ends early: {log.packets} of {stored} stored frames are there"
    stated, reached = None, log.end
    if "avi" in formats and stream.frames and stream.time_base:
        stated, reached = stream.frames * stream.time_base, log.video_end
    elif "matroska" in formats and container.duration:
        stated = Fraction(container.duration, _MICROSECONDS)
    if stated is not None and len(log.times) > 1:
        times = sorted(log.times)
        pause = max(later - earlier for earlier, later in itertools.pairwise(times))
        if stated - reached > _TOLERANCE * pause:
            return (
                f"data are missing: {log.frames} frames decoded, packets reach "
                f"{float(reached):.2f} of {float(stated):.2f} s"
            )
    if 2 * (log.frames + _TOLERANCE) < log.shown_packets:
        return f"only {log.frames} frames came out of {log.shown_packets} packets"
    return None


# --------------------------------------------------------------------------------------------------
# Pictures


def _to_rgb(path: str | os.PathLike[str], frame: VideoFrame, reformatter: VideoReformatter) -> np.ndarray:
    try:
        # One thread and a named algorithm, so that the same file gives the same bytes.
        rgb = reformatter.reformat(
            frame, format="rgb24", interpolation=Interpolation.BILINEAR, threads=1
        ).to_ndarray()
    except (av.FFmpegError, OSError, ValueError) as error:
        raise VideoError(
            f"{path}: pixel format {frame.format.name} cannot be converted to RGB ({_cause(error)})"
        ) from error
    matrix = _display_matrix(frame)
    return rgb if matrix is None else _upright(rgb, matrix)


def _display_matrix(frame: VideoFrame) -> tuple[int, int, int, int] | None:
    """Return (a, b, c, d), which show stored point (x, y) at (a x + c y, b x + d y) and a shift."""
    data = cast("Mapping[str, Any]", frame.side_data).get("DISPLAYMATRIX")
    if data is None:
        return None
    a, b, _, c, d, *_ = np.frombuffer(bytes(data), np.int32).tolist()
    return a, b, c, d


def _is_transposed(matrix: tuple[int, int, int, int]) -> bool:
    return abs(matrix[1]) > abs(matrix[0])


def _upright(rgb: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    """Turn or mirror a picture by the quarter turn nearest to its display matrix."""
    a, b, c, d = matrix
    if _is_transposed(matrix):
        rgb, flip_x, flip_y = rgb.transpose(1, 0, 2), c < 0, b < 0
    else:
        flip_x, flip_y = a < 0, d < 0
    return rgb[:: -1 if flip_y else 1, :: -1 if flip_x else 1]


def _clockwise_degrees(matrix: tuple[int, int, int, int]) -> int:
    _, _, c, d = matrix
    return round(math.degrees(math.atan2(-c, d)) / 90) * 90 % 360


# --------------------------------------------------------------------------------------------------
# decord


def _read_with_decord(path: str | os.PathLike[str], wanted: list[int]) -> np.ndarray:
    try:
        decord = importlib.import_module("decord")
    except (ImportError, OSError) as error:
        raise VideoError(
            f"{path}: decoder 'decord' was asked for but cannot be imported ({error}). Install it "
            "with 'pip install decord' (Linux x86_64 and Windows only), or use decoder 'auto', "
            "which needs nothing else and reads exact frames"
        ) from error
    # PyAV says first what is wrong with a file, and which container it is: decord hangs on the last
    # frames of an MPEG-TS, holding the interpreter so that no timeout can end it.
    with _open(path) as (container, _):
        if "mpegts" in container.format.name.split(","):
            raise VideoError(f"{path}: decord hangs on MPEG-TS files; use decoder 'auto'")
    decord.logging.set_level(decord.logging.QUIET)
    failures = (decord.DECORDError, RuntimeError, ValueError, IndexError, OSError)
    try:
        reader = decord.VideoReader(str(Path(path).absolute()), num_threads=1)
        frames = len(reader)
        if max(wanted) < frames:
            pictures = np.asarray(reader.get_batch(wanted).asnumpy())
            return np.ascontiguousarray(pictures, dtype=np.uint8)
    except failures as error:
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise VideoError(f"{path}: decord cannot read it ({first_line})") from error
    raise VideoError(f"{path}: frame {max(wanted)} was asked for, but decord counts {frames} frames")
