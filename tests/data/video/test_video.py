"""Exactness and honesty of the frame reader, on clips whose pixels carry the frame number."""

from __future__ import annotations

import gc
import importlib
import os
import random
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clip_factory import (
    ISO_MATRICES,
    NOT_CODED,
    audio_file,
    barcode_frame,
    barcode_video,
    decode_all,
    encode_frames,
    packed_bframe_avi,
    read_barcode,
    read_barcodes,
    stream_copied_cut,
)

from vcil_bench.common.errors import UserError
from vcil_bench.data.video import DECODERS, VideoError, count_frames, probe, pyav, read_frames, resolve_decoder
from vcil_bench.data.video.facts import Facts

OPEN_GOP = "keyint=12:min-keyint=12:open-gop=1:bframes=3:b-adapt=0:scenecut=0"
B_FRAMES = {"g": "12", "bf": "2"}
# Pauses of 20 to 400 ms, and the longest one just before the end.
JITTER = np.cumsum([0, *random.Random(0).choices([20, 33, 40, 200], k=38), 400]).tolist()


def _needs_encoder(name: str) -> None:
    try:
        av.codec.Codec(name, "w")
    except av.FFmpegError:
        pytest.skip(f"this build of PyAV has no encoder {name}")


def _needs_torchcodec() -> None:
    try:
        importlib.import_module("torchcodec.decoders")
    except (ImportError, OSError, RuntimeError) as error:
        pytest.skip(f"torchcodec cannot be imported: {str(error).splitlines()[0]}")


def _vp9(path: Path) -> Path:
    _needs_encoder("libvpx-vp9")
    options = {"deadline": "realtime", "cpu-used": "8", "g": "15"}
    return barcode_video(path, 40, codec="libvpx-vp9", options=options)


def _hevc(path: Path) -> Path:
    _needs_encoder("libx265")
    options = {"x265-params": "log-level=none:keyint=12:pools=none", "preset": "ultrafast"}
    return barcode_video(path, 30, codec="libx265", options=options)


def _cut(path: Path, first: int, gop: int) -> Path:
    source = barcode_video(
        path.with_name(f"uncut_{gop}.mp4"), 100, options={"g": str(gop), "bf": "2", "sc_threshold": "0"}
    )
    return stream_copied_cut(source, path, first)


def _copy_packets(source: Path, target: Path, change: Callable[[list[bytes]], list[bytes]]) -> Path:
    """Copy a 25 fps video without B-frames, with its list of packets changed on the way."""
    with av.open(str(source)) as original, av.open(str(target), "w") as copy:
        stream = original.streams.video[0]
        chunks = change([bytes(packet) for packet in original.demux(stream) if packet.size])
        template = copy.add_stream_from_template(stream)
        for number, chunk in enumerate(chunks):
            packet = av.Packet(chunk)
            packet.stream, packet.time_base = template, Fraction(1, 25)
            packet.pts = packet.dts = number
            packet.is_keyframe = number == 0
            copy.mux(packet)
    return target


def _dropped(path: Path) -> Path:
    """Make an AVI whose recorder found nothing new two times out of three.

    It ends on a coded picture: FFmpeg shows the last one twice when placeholders follow it.
    """
    source = barcode_video(path.with_name("undropped.avi"), 20, codec="mpeg4", options={"g": "50"})
    return _copy_packets(
        source,
        path,
        lambda chunks: [c for chunk in chunks for c in (NOT_CODED, NOT_CODED, chunk)][2:],
    )


# name -> (how to make the file, number of frames, what the header claims, number in frame 0)
CLIPS: dict[str, tuple[Callable[[Path], Path], int, int | None, int]] = {
    "h264.mp4": (lambda p: barcode_video(p, 60, options={"g": "12"}), 60, 60, 0),
    "open_gop.mp4": (
        lambda p: barcode_video(p, 60, options={"x264-params": OPEN_GOP}),
        60,
        60,
        0,
    ),
    "fragmented.mp4": (
        lambda p: barcode_video(
            p,
            40,
            options={"g": "12"},
            container_options={"movflags": "frag_keyframe+empty_moov"},
        ),
        40,
        None,
        0,
    ),
    "bframes.avi": (
        lambda p: barcode_video(p, 60, codec="mpeg4", options=B_FRAMES),
        60,
        60,
        0,
    ),
    "packed.avi": (lambda p: packed_bframe_avi(p, 61), 61, 62, 0),
    "mjpeg.avi": (
        lambda p: barcode_video(p, 30, codec="mjpeg", pix_fmt="yuvj420p"),
        30,
        30,
        0,
    ),
    "vp9.webm": (_vp9, 40, None, 0),
    "h264.ts": (lambda p: barcode_video(p, 40, options={"g": "12"}), 40, None, 0),
    "h264.mkv": (lambda p: barcode_video(p, 40, options={"g": "12"}), 40, None, 0),
    "vfr.mp4": (lambda p: barcode_video(p, 40, pts=JITTER), 40, 40, 0),
    "vfr.mkv": (lambda p: barcode_video(p, 40, pts=JITTER), 40, None, 0),
    "ticks.avi": (  # counts milliseconds, not frames
        lambda p: barcode_video(p, 40, codec="mpeg4", pts=JITTER),
        40,
        JITTER[-1] + 40,
        0,
    ),
    "one.mp4": (lambda p: barcode_video(p, 1, first=7), 1, 1, 7),
    "odd_444.mp4": (
        lambda p: barcode_video(p, 10, width=321, height=241, pix_fmt="yuv444p"),
        10,
        10,
        0,
    ),
    "ten_bit.mp4": (lambda p: barcode_video(p, 10, pix_fmt="yuv420p10le"), 10, 10, 0),
    "gray.mp4": (lambda p: barcode_video(p, 10, pix_fmt="gray"), 10, 10, 0),
    "hevc.mp4": (_hevc, 30, 30, 0),
    "edit_list.mp4": (lambda p: _cut(p, 25, gop=40), 75, 100, 25),
    "edit_list_late.mp4": (lambda p: _cut(p, 80, gop=200), 20, 100, 80),
    "dropped.avi": (_dropped, 20, 58, 0),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("clips")

    def make(name: str) -> Path:
        path = folder / name
        return path if path.exists() else CLIPS[name][0](path)

    return make


# -------------------------------------------------------------------------------- exact frames


@pytest.mark.parametrize("name", CLIPS)
def test_every_frame_is_the_one_asked_for(made: Callable[[str], Path], name: str) -> None:
    path, (_, frames, claimed, first) = made(name), CLIPS[name]
    colour = name != "gray.mp4"
    numbers = list(range(first, first + frames))

    everything = read_frames(path, range(frames))
    assert everything.dtype == np.uint8
    assert read_barcodes(everything, colour) == numbers
    assert np.array_equal(everything, decode_all(path))

    rng = random.Random(name)
    for index in rng.sample(range(frames), min(6, frames)):
        (single,) = read_frames(path, [index])
        assert read_barcode(single, colour) == numbers[index]
        assert np.array_equal(single, everything[index])
    mixed = [rng.randrange(frames) for _ in range(12)] + [frames - 1, 0, frames - 1]
    assert np.array_equal(read_frames(path, mixed), everything[mixed])

    facts = probe(path)
    assert count_frames(path) == facts.frames == frames
    assert facts.claimed == claimed
    assert facts.problem is None
    assert (facts.height, facts.width) == everything.shape[1:3]


def test_open_gop_clip_really_has_leading_pictures(made: Callable[[str], Path]) -> None:
    with av.open(str(made("open_gop.mp4"))) as container:
        packets = [p for p in container.demux(video=0) if p.pts is not None]
    keys = [n for n, packet in enumerate(packets) if packet.is_keyframe and n]
    assert len(keys) >= 3
    assert all(packets[n + 1].pts < packets[n].pts for n in keys)  # type: ignore[operator]


def test_packed_clip_really_is_packed(made: Callable[[str], Path]) -> None:
    with av.open(str(made("packed.avi"))) as container:
        sizes = [packet.size for packet in container.demux(video=0) if packet.size]
    assert len(sizes) == 62
    assert sum(size < 20 for size in sizes) >= 25


def test_indices_may_be_any_kind_of_integers(made: Callable[[str], Path]) -> None:
    path = made("h264.mp4")
    for indices in ([3, 1], (3, 1), np.array([3, 1], np.int16), range(3, 0, -2)):
        assert read_barcodes(read_frames(path, indices)) == [3, 1]
    with pytest.raises(TypeError):
        read_frames(path, [1.5])  # type: ignore[list-item]


def test_facts(made: Callable[[str], Path]) -> None:
    facts = probe(made("h264.mp4"))
    assert (facts.codec, facts.fps, facts.width, facts.height) == ("h264", 25.0, 128, 96)
    assert probe(made("packed.avi")).codec == "mpeg4"


def test_reading_stops_after_the_last_wanted_frame(
    made: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []
    original = pyav._noted

    def spy(frames, log):  # type: ignore[no-untyped-def]
        for frame in original(frames, log):
            decoded.append(frame.pts)
            yield frame

    monkeypatch.setattr(pyav, "_noted", spy)
    read_frames(made("h264.mp4"), [5, 2])
    assert len(decoded) == 6


def test_pixels_keep_their_geometry(tmp_path: Path) -> None:
    """A picture with a 2:1 pixel aspect ratio is returned as stored."""
    path = tmp_path / "anamorphic.mp4"
    barcode_video(path, 3, options={"x264-params": "sar=2/1"})
    with av.open(str(path)) as container:
        assert container.streams.video[0].sample_aspect_ratio == 2
    assert read_frames(path, [0]).shape == (1, 96, 128, 3)


def test_many_threads_read_what_one_thread_reads(made: Callable[[str], Path]) -> None:
    path = made("packed.avi")
    expected = read_frames(path, range(61))
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: read_frames(path, range(61)), range(8)))
        assert set(pool.map(probe, [path] * 8)) == {probe(path)}
    assert all(np.array_equal(result, expected) for result in results)


# ------------------------------------------------------------------------------------ rotation


@pytest.mark.parametrize("turned", ISO_MATRICES)
def test_turned_and_mirrored_clips_come_out_upright(tmp_path: Path, turned: str) -> None:
    path = barcode_video(tmp_path / "turned.mp4", 5, width=160, height=96, turned=turned)
    with av.open(str(path)) as container:
        stored = next(container.decode(video=0))
    assert (stored.width < stored.height) == (turned in ("90", "270", "mirror90"))

    frames = read_frames(path, [4, 0])
    assert frames.shape == (2, 96, 160, 3)
    assert read_barcodes(frames) == [4, 0]
    facts = probe(path)
    assert (facts.width, facts.height) == (160, 96)


@pytest.mark.parametrize("turned", ["0", "90", "180", "270"])
def test_decord_turns_the_same_way(tmp_path: Path, turned: str) -> None:
    pytest.importorskip("decord", reason="decord is not installed")
    path = barcode_video(tmp_path / "turned.mp4", 5, width=160, height=96, turned=turned)
    ours, theirs = read_frames(path, [4, 0, 4]), read_frames(path, [4, 0, 4], decoder="decord")
    assert ours.shape == theirs.shape
    assert np.abs(ours.astype(int) - theirs).mean() < 2


# ------------------------------------------------------------------------------ wrong arguments


def test_index_beyond_the_end_names_the_real_count(made: Callable[[str], Path]) -> None:
    with pytest.raises(VideoError, match=r"packed\.avi: frame 61 .* only 61 frames"):
        read_frames(made("packed.avi"), [0, 61])
    with pytest.raises(VideoError, match="only 75 frames"):
        read_frames(made("edit_list.mp4"), [99])


def test_negative_and_missing_indices(made: Callable[[str], Path]) -> None:
    with pytest.raises(VideoError, match="frame index -2 is negative"):
        read_frames(made("h264.mp4"), [0, -2])
    empty: list[np.ndarray | list[int]] = [[], np.array([], int)]
    for nothing in empty:
        with pytest.raises(VideoError, match="no frame index"):
            read_frames(made("h264.mp4"), nothing)


def test_decoder_names(made: Callable[[str], Path]) -> None:
    assert [resolve_decoder(name) for name in DECODERS] == ["pyav", "pyav", "decord", "torchcodec"]
    with pytest.raises(UserError, match=r"'decrod' \(did you mean 'decord'\?\).*auto, pyav"):
        read_frames(made("h264.mp4"), [0], decoder="decrod")
    assert issubclass(VideoError, UserError)


@pytest.mark.parametrize(
    ("decoder", "module", "hint"),
    [
        ("decord", "decord", "pip install decord"),
        ("torchcodec", "torchcodec.decoders", r"pip install torchcodec=="),
    ],
)
def test_a_missing_decoder_is_explained_and_not_needed(
    made: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, decoder: str, module: str, hint: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=rf"'{decoder}'.*{hint}.*'auto'") as caught:
        read_frames(made("h264.mp4"), [0], decoder=decoder)
    assert "\n" not in str(caught.value)
    assert read_barcodes(read_frames(made("h264.mp4"), [9])) == [9]


def test_torchcodec_reads_what_it_is_good_at(made: Callable[[str], Path]) -> None:
    _needs_torchcodec()
    path = made("h264.mp4")
    assert read_barcodes(read_frames(path, [41, 3, 41], decoder="torchcodec")) == [41, 3, 41]
    with pytest.raises(VideoError, match=r"h264\.mp4.* torchcodec counts 60 frames"):
        read_frames(path, [60], decoder="torchcodec")
    with pytest.raises(VideoError, match="MPEG-TS"):
        read_frames(made("h264.ts"), [0], decoder="torchcodec")


def test_decord_errors_are_video_errors(made: Callable[[str], Path], tmp_path: Path) -> None:
    pytest.importorskip("decord", reason="decord is not installed")
    with pytest.raises(VideoError, match="decord counts 60 frames"):
        read_frames(made("h264.mp4"), [60], decoder="decord")
    with pytest.raises(VideoError, match="MPEG-TS"):
        read_frames(made("h264.ts"), [0], decoder="decord")
    with pytest.raises(VideoError, match="does not exist"):
        read_frames(tmp_path / "absent.mp4", [0], decoder="decord")


# --------------------------------------------------------------------------------- broken files


def _broken_files(folder: Path) -> dict[str, tuple[Path, str]]:
    """Return files that hold no decodable frame, with a word of the expected cause."""
    whole = barcode_video(folder / "whole.mp4", 10)
    data = whole.read_bytes()
    files = {
        "zero.mp4": b"",
        "text.mp4": b"this is not a video\n" * 50,
        "page.mp4": b"<html><body>404 Not Found</body></html>",
        "noise.avi": np.random.default_rng(0).bytes(5000),
        "no_moov.mp4": data[: len(data) // 2],
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "folder.mp4").mkdir()
    avi = barcode_video(folder / "whole.avi", 10, codec="mpeg4").read_bytes()
    (folder / "header.avi").write_bytes(avi[: avi.index(b"movi") + 4])
    return {
        "missing": (folder / "absent.mp4", "does not exist"),
        "zero bytes": (folder / "zero.mp4", "empty"),
        "text": (folder / "text.mp4", "not a video"),
        "page": (folder / "page.mp4", "not a video"),
        "noise": (folder / "noise.avi", "not a video|not a single frame"),
        "no index": (folder / "no_moov.mp4", "not a video"),
        "folder": (folder / "folder.mp4", "folder"),
        "audio": (audio_file(folder / "sound.m4a"), "no video stream"),
        "header only": (folder / "header.avi", "not a single frame|not a video"),
        "impossible name": (Path("a\0b.mp4"), "cannot be read"),
    }


def test_undecodable_files_name_file_and_cause(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for path, cause in _broken_files(tmp_path).values():
        for call in (probe, count_frames, lambda p: read_frames(p, [0])):
            with pytest.raises(VideoError, match=cause) as caught:
                call(path)
            assert path.name in str(caught.value)
    captured = capfd.readouterr()
    assert captured.err == ""


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(VideoError, match="not a regular file"):
        probe(tmp_path / "pipe.mp4")


def test_cover_picture_is_no_video(tmp_path: Path) -> None:
    _needs_encoder("flac")
    path = tmp_path / "song.flac"
    audio_file(tmp_path / "plain.flac", codec="flac")
    plain = (tmp_path / "plain.flac").read_bytes()
    jpeg = tmp_path / "cover.jpg"
    encode_frames(jpeg, [barcode_frame(1)], codec="mjpeg", pix_fmt="yuvj420p")
    picture = jpeg.read_bytes()
    # FLAC picture block, put after the stream information, which must come first.
    body = (3).to_bytes(4, "big") + (10).to_bytes(4, "big") + b"image/jpeg" + bytes(4)
    body += (128).to_bytes(4, "big") + (96).to_bytes(4, "big") + (24).to_bytes(4, "big") + bytes(4)
    body += len(picture).to_bytes(4, "big") + picture
    block = bytes([6]) + len(body).to_bytes(3, "big") + body
    path.write_bytes(plain[:4] + bytes([plain[4] & 0x7F]) + plain[5:42] + block + plain[42:])
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 1
    with pytest.raises(VideoError, match="no video stream"):
        probe(path)


def test_names_that_look_like_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    whole = barcode_video(tmp_path / "whole.mp4", 3)
    for name in ("take:1.mp4", "http:.mp4", "größe %03d.mp4", "-i.mp4"):
        Path(name).write_bytes(whole.read_bytes())
        assert read_barcodes(read_frames(name, [2])) == [2]


def _cut_bytes(source: Path, keep: float) -> Path:
    data = source.read_bytes()
    target = source.with_name(f"cut_{keep}_{source.name}")
    target.write_bytes(data[: int(len(data) * keep)])
    return target


def _check_partial(path: Path, first: int = 0) -> Facts:
    """Check that a damaged file is reported, and that what it still holds is readable."""
    facts = probe(path)
    assert facts.problem
    assert count_frames(path) == facts.frames
    # The last frame may be the one that damage has hit.
    good = range(facts.frames - 1)
    assert read_barcodes(read_frames(path, good)) == [first + index for index in good]
    assert len(read_frames(path, [facts.frames - 1])) == 1
    with pytest.raises(VideoError, match=f"only {facts.frames} frames"):
        read_frames(path, [facts.frames])
    return facts


@pytest.mark.parametrize("name", ["bframes.avi", "packed.avi", "mjpeg.avi"])
def test_truncated_avi(made: Callable[[str], Path], name: str) -> None:
    facts = _check_partial(_cut_bytes(made(name), 0.6))
    assert 10 < facts.frames < CLIPS[name][1] - 5


def test_avi_truncated_between_chunks_is_noticed(made: Callable[[str], Path]) -> None:
    """No packet is damaged here: only the header tells that something is missing."""
    data = made("mjpeg.avi").read_bytes()
    movi = data.index(b"movi")
    starts = [n for n in range(movi, len(data) - 4) if data[n : n + 4] == b"00dc"]
    path = made("mjpeg.avi").with_name("between.avi")
    path.write_bytes(data[: starts[20]])
    facts = _check_partial(path)
    assert facts.frames == 20
    assert facts.claimed == 30
    assert "missing" in str(facts.problem)
    assert "corrupt" not in str(facts.problem)


def test_video_chunks_lost_next_to_whole_audio_are_noticed(made: Callable[[str], Path], tmp_path: Path) -> None:
    path = tmp_path / "both.avi"
    with av.open(str(made("mjpeg.avi"))) as source, av.open(str(path), "w") as target:
        copy = target.add_stream_from_template(source.streams.video[0])
        sound = target.add_stream("pcm_s16le", rate=8000, layout="mono")
        assert isinstance(sound, av.AudioStream)
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = copy
                target.mux(packet)
                wave = av.AudioFrame.from_ndarray(np.zeros((1, 320), np.int16), "s16", "mono")
                wave.sample_rate = 8000
                target.mux(sound.encode(wave))
    assert probe(path).problem is None
    data = path.read_bytes()
    head, movi, body = data.partition(b"movi")
    chunks, index, tail = body.partition(b"idx1")
    parts = chunks.split(b"00dc")
    lossy = b"00dc".join(parts[:10]) + b"JUNK" + b"JUNK".join(parts[10:20]) + b"00dc"
    path.write_bytes(head + movi + lossy + b"00dc".join(parts[20:]) + index + tail)
    facts = probe(path)
    assert facts.frames == 20
    assert "data are missing" in str(facts.problem)


def test_truncated_mp4(tmp_path: Path) -> None:
    whole = barcode_video(
        tmp_path / "whole.mp4",
        60,
        options={"g": "12"},
        container_options={"movflags": "faststart"},
    )
    facts = _check_partial(_cut_bytes(whole, 0.8))
    assert 10 < facts.frames < 58
    assert facts.claimed == 60


def test_mp4_truncated_between_samples_is_noticed(tmp_path: Path) -> None:
    whole = barcode_video(
        tmp_path / "whole.mp4",
        30,
        codec="mjpeg",
        pix_fmt="yuvj420p",
        container_options={"movflags": "faststart"},
    )
    with av.open(str(whole)) as container:
        ends = [p.pos + p.size for p in container.demux(video=0) if p.pos is not None]
    path = tmp_path / "between.mp4"
    path.write_bytes(whole.read_bytes()[: ends[19]])
    facts = _check_partial(path)
    assert facts.frames == 20
    assert "ends early: 20 of 30" in str(facts.problem)


def test_truncated_matroska(made: Callable[[str], Path]) -> None:
    facts = _check_partial(_cut_bytes(made("h264.mkv"), 0.6))
    assert "missing" in str(facts.problem)


def test_truncated_webm(made: Callable[[str], Path]) -> None:
    facts = _check_partial(_cut_bytes(made("vp9.webm"), 0.6))
    assert 5 < facts.frames < 38


@pytest.mark.parametrize("name", ["bframes.avi", "h264.mp4", "vp9.webm"])
def test_garbage_in_the_middle(made: Callable[[str], Path], name: str) -> None:
    source = made(name)
    data = bytearray(source.read_bytes())
    with av.open(str(source)) as container:
        places = [p.pos for p in container.demux(video=0) if p.pos is not None]
    start, end = places[20], places[30]
    data[start:end] = np.random.default_rng(1).bytes(end - start)
    path = source.with_name(f"garbage_{name}")
    path.write_bytes(data)
    facts = probe(path)
    assert facts.problem
    # Frames before the damage only, even where the decoder would go on after it.
    assert 15 <= facts.frames <= 20 if name == "h264.mp4" else 15 <= facts.frames < CLIPS[name][1]
    assert read_barcodes(read_frames(path, range(15))) == list(range(15))


def test_flagged_damage_inside_a_frame_is_noticed(made: Callable[[str], Path]) -> None:
    """Every packet is there and every frame comes out, one of them patched up by the decoder."""
    source = made("bframes.avi")
    data = bytearray(source.read_bytes())
    with av.open(str(source)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
    packet = next(p for p in packets[10:] if p.is_keyframe)
    assert packet.pos is not None
    middle = packet.pos + 8 + packet.size // 2
    data[middle : middle + 30] = np.random.default_rng(2).bytes(30)
    path = source.with_name("inside.avi")
    path.write_bytes(data)
    facts = probe(path)
    assert facts.frames == 60
    assert "marked corrupt: 1 of 60 frames" in str(facts.problem)


def test_recording_that_starts_between_key_frames(made: Callable[[str], Path]) -> None:
    """Packets before the first key frame are passed over, and the file is reported."""
    source = made("h264.ts")
    data = source.read_bytes()
    path = source.with_name("late.ts")
    path.write_bytes(data[188 * (len(data) // 188 // 8) :])
    facts = probe(path)
    numbers = read_barcodes(read_frames(path, range(facts.frames)))
    assert numbers == list(range(numbers[0], 40))
    assert 0 < numbers[0] <= 12


def test_packets_that_fail_before_the_first_key_frame_are_passed_over(
    made: Callable[[str], Path], tmp_path: Path
) -> None:
    path = _copy_packets(made("vp9.webm"), tmp_path / "late.webm", lambda chunks: chunks[1:])
    facts = probe(path)
    numbers = read_barcodes(read_frames(path, range(facts.frames)))
    assert numbers == list(range(15, 40))
    assert "the first 14 packets do not decode" in str(facts.problem)


def test_decoder_that_drops_most_packets_silently_is_noticed(tmp_path: Path) -> None:
    whole = barcode_video(tmp_path / "whole.ts", 60, options={"g": "50", "sc_threshold": "0"})
    data = whole.read_bytes()
    path = tmp_path / "late.ts"
    path.write_bytes(data[188 * (len(data) // 188 // 6) :])
    facts = probe(path)
    numbers = read_barcodes(read_frames(path, range(facts.frames)))
    assert numbers == list(range(50, 60))
    assert "only 10 frames came out of" in str(facts.problem)


def test_titles_in_another_encoding_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "latin.avi"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "caf# title"
        stream = container.add_stream("mjpeg", rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuvj420p"
        frame = av.VideoFrame.from_ndarray(barcode_frame(5), format="rgb24")
        container.mux(stream.encode(frame.reformat(format="yuvj420p")))
        container.mux(stream.encode(None))
    data = path.read_bytes()
    assert b"caf# title" in data
    path.write_bytes(data.replace(b"caf#", b"caf\xe9"))
    assert read_barcodes(read_frames(path, [0])) == [5]


def test_frames_of_changing_size_are_named(tmp_path: Path) -> None:
    small = barcode_video(tmp_path / "small.ts", 10, options={"bf": "0"})
    large = barcode_video(tmp_path / "large.ts", 10, width=192, height=144, options={"bf": "0"})
    path = tmp_path / "both.ts"
    path.write_bytes(small.read_bytes() + large.read_bytes())
    message = r"size changes from 128x96 to 192x144 at frame (9|10)"
    for indices in ([0, 15], [15]):
        with pytest.raises(VideoError, match=message):
            read_frames(path, indices)
    assert read_barcodes(read_frames(path, [3, 0])) == [3, 0]
    facts = probe(path)
    assert "size changes from 128x96 to 192x144" in str(facts.problem)
    assert count_frames(path) == facts.frames


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files in /proc")
def test_no_file_stays_open(made: Callable[[str], Path], tmp_path: Path) -> None:
    cut = _cut_bytes(made("bframes.avi"), 0.5)
    broken = [path for path, _ in _broken_files(tmp_path).values()]

    def use_all() -> None:
        read_frames(made("h264.mp4"), [3])
        probe(cut)
        for path in broken:
            with pytest.raises(VideoError):
                read_frames(path, [0])
        with pytest.raises(VideoError):
            read_frames(cut, [500])

    use_all()
    gc.collect()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(10):
        use_all()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="reads /proc/self/statm")
def test_memory_does_not_grow(made: Callable[[str], Path]) -> None:
    paths = [made("one.mp4"), made("packed.avi"), _cut_bytes(made("bframes.avi"), 0.5)]

    def resident_mib() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

    for _ in range(100):
        for path in paths:
            read_frames(path, [0])
    before = resident_mib()
    for _ in range(1700):  # 5,100 opened files
        for path in paths:
            read_frames(path, [0])
    assert resident_mib() - before < 20
