"""PyAV, decoding forward from frame 0: the decoder whose frames are exact and whose count is true.

Only the wanted pictures are converted to RGB, and decoding stops after the last of them. It never seeks. Going
forward costs nothing on such clips: they have one or two key frames, so a seek would decode from the start as
well (measured 2 to 4 times slower than one forward pass).
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream

from .damage import DecodeLog, find_problem
from .facts import Facts, VideoError

# PyAV keeps FFmpeg's own log silent unless a program asks for it; the causes of failures reach the
# user through exceptions and ``Facts.problem``.

# Largest MPEG-4 chunk that only says "no new picture here" (FFmpeg's MAX_NVOP_SIZE).
_PLACEHOLDER_BYTES = 19


def pictures(
    path: str | os.PathLike[str], wanted: Collection[int] | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the asked frames, upright and in the order of the video.

    Args:
        path: A video file.
        wanted: 0-based frame numbers of a forward decode, at least one; None for all frames.

    Yields:
        Frame number and uint8 RGB picture [height, width, 3].

    Raises:
        VideoError: If the file cannot be decoded, ends before the last wanted frame, or changes its
            picture size.
    """
    last = None if wanted is None else max(wanted)
    shape: tuple[int, ...] | None = None
    reformatter = VideoReformatter()
    log = DecodeLog()
    with open_video(path) as (container, stream):
        for number, frame in enumerate(_decode(container, stream, log)):
            if log.size_change is not None:
                raise VideoError(f"{path}: {log.size_change}")
            if wanted is None or number in wanted:
                picture = _to_rgb(path, frame, reformatter)
                if shape is not None and picture.shape != shape:
                    raise VideoError(f"{path}: the picture is turned differently at frame {number}")
                shape = picture.shape
                yield number, picture
            if number == last:
                return
    _require_frames(path, log)
    if last is not None:
        why = f" ({log.error})" if log.error else ""
        raise VideoError(f"{path}: frame {last} was asked for, but only {log.frames} frames can be decoded{why}")


def count(path: str | os.PathLike[str]) -> int:
    """Count the frames that a forward decode yields; see ``video.count_frames``."""
    log = DecodeLog()
    with open_video(path) as (container, stream):
        for _ in _decode(container, stream, log):
            pass
    _require_frames(path, log)
    return log.frames


def probe(path: str | os.PathLike[str]) -> Facts:
    """Decode a whole video once and report what it holds; see ``video.probe``."""
    log = DecodeLog()
    matrix = None
    with open_video(path) as (container, stream):
        for frame in _decode(container, stream, log, all_streams=True):
            if log.frames == 1:
                matrix = _display_matrix(frame)
        _require_frames(path, log)
        width, height = log.size
        if matrix is not None and _is_transposed(matrix):
            width, height = height, width
        return Facts(
            frames=log.frames,
            claimed=stream.frames or None,
            width=width,
            height=height,
            fps=float(stream.average_rate) if stream.average_rate else None,
            codec=stream.codec_context.codec.canonical_name,
            problem=find_problem(container, stream, log),
        )


@contextlib.contextmanager
def open_video(path: str | os.PathLike[str]) -> Iterator[tuple[InputContainer, VideoStream]]:
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
    container: InputContainer, stream: VideoStream, log: DecodeLog, all_streams: bool = False
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


def _noted(frames: Sequence[VideoFrame], log: DecodeLog) -> Iterator[VideoFrame]:
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


def _note_time(packet: av.Packet, is_video: bool, log: DecodeLog) -> None:
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


def _require_frames(path: str | os.PathLike[str], log: DecodeLog) -> None:
    if log.frames == 0:
        why = log.error or log.start_error or "its video stream is empty or damaged"
        raise VideoError(f"{path}: not a single frame can be decoded ({why})")


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
