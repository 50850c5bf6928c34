"""Damaged videos: detects missing or corrupt data from one decode."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from fractions import Fraction

from av.container import InputContainer
from av.video.stream import VideoStream

# The rules of ``_missing_data`` that have to estimate forgive this many frames.
_TOLERANCE = 2
_MICROSECONDS = 1_000_000  # unit of a container's duration


@dataclass
class DecodeLog:
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


def find_problem(container: InputContainer, stream: VideoStream, log: DecodeLog) -> str | None:
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


def _missing_data(container: InputContainer, stream: VideoStream, log: DecodeLog) -> str | None:
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
