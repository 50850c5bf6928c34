"""A dataset comes from a mirror as its adapter reads it; interrupted anywhere, it ends in the same files."""

from __future__ import annotations

import errno
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import yaml
from archive_factory import rar_of, tar_of, tree, write, zip_of
from dataset_factory import video
from file_server import FileServer, serving

from vcil_bench.cli import main
from vcil_bench.common.errors import ExitCode
from vcil_bench.common.files import Busy
from vcil_bench.data.datasets import adapter
from vcil_bench.fetch import archives, download, space
from vcil_bench.fetch.errors import Damaged, DiskFull, FetchError, Hostile, NotAccepted, Unreachable, WrongHash
from vcil_bench.fetch.fetching import Options, Outcome, Plan, fetch
from vcil_bench.fetch.layout import Rule
from vcil_bench.fetch.sources import Remote, Source, listed_archives, sources
from vcil_bench.fetch.state import State

LISTS = {
    "ucfTrainTestlist/trainlist01.txt": b"Run/v_Run_g08_c01.avi 1\r\nWave/v_Wave_g09_c02.avi 2\r\n",
    "ucfTrainTestlist/testlist01.txt": b"Run/v_Run_g01_c01.avi\r\nWave/v_Wave_g01_c03.avi\r\n",
}
NAMES = [line.split()[0] for text in LISTS.values() for line in text.decode().splitlines()]
VIDEOS = {f"UCF-101/{name}": random.Random(name).randbytes(400_000) for name in NAMES}
UCF = Source(
    "ucf101",
    "small",
    "page",
    "licence",
    "tried",
    (
        Remote("lists.zip", "http://nowhere.invalid/lists.zip", "made up", Rule()),
        Remote("UCF101.tar.gz", "http://nowhere.invalid/UCF101.tar.gz", "made up", Rule()),
    ),
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FileServer]:
    write(tmp_path / "published/lists.zip", zip_of(LISTS))
    write(tmp_path / "published/UCF101.tar.gz", tar_of(VIDEOS))
    with serving(tmp_path / "published") as started:
        yield started


def get(source: Source, root: Path, **options: Any) -> tuple[Outcome, Plan]:
    plans: list[Plan] = []
    state = State(root)
    with state.locked():
        outcome = fetch(
            source,
            state,
            Options(pause_s=0.001, **options),
            lambda text: nullcontext(lambda done, total: None),
            plans.append,
        )
    return outcome, plans[0]


def test_a_dataset_comes_into_the_layout_of_its_adapter(server: FileServer, tmp_path: Path) -> None:
    root = tmp_path / "ucf"
    outcome, plan = get(UCF, root, mirror=server.url)
    assert (outcome.files, outcome.failed) == (6, [])
    assert tree(root) == {**LISTS, **VIDEOS}
    assert [listed.path for listed in adapter("ucf101").list_videos(root, "1")] == [
        f"UCF-101/{n}" for n in NAMES
    ]
    sizes = [path.stat().st_size for path in server.folder.iterdir()]
    assert (plan.files, plan.there, plan.to_come, plan.unknown) == (2, 0, sum(sizes), 0)
    assert plan.needed >= sum(sizes) + sum(map(len, VIDEOS.values()))
    assert not [path for path in tree(root, hidden=True) if path.startswith(".fetch/downloads")]


def test_what_is_there_is_not_asked_for_again(server: FileServer, tmp_path: Path) -> None:
    root = tmp_path / "ucf"
    get(UCF, root, mirror=server.url)
    server.asked.clear()
    outcome, plan = get(UCF, root, mirror=server.url)
    assert (outcome.files, plan.files, plan.there, server.asked) == (0, 0, 2, [])
    (root / "UCF-101" / NAMES[0]).unlink()  # one that is missing again brings its archive, and no other
    outcome, plan = get(UCF, root, mirror=server.url)
    assert (plan.files, {path for _, path, _ in server.asked}) == (1, {"/UCF101.tar.gz"})
    assert tree(root) == {**LISTS, **VIDEOS}


def test_archives_are_kept_if_asked_for(server: FileServer, tmp_path: Path) -> None:
    get(UCF, tmp_path / "ucf", mirror=server.url, keep=True)
    kept = tmp_path / "ucf/.fetch/downloads/UCF101.tar.gz"
    assert kept.read_bytes() == (server.folder / "UCF101.tar.gz").read_bytes()


def test_files_of_a_folder_stay_there(server: FileServer, tmp_path: Path) -> None:
    before = tree(server.folder)
    get(UCF, tmp_path / "ucf", folder=server.folder)
    assert tree(tmp_path / "ucf") == {**LISTS, **VIDEOS}
    assert tree(server.folder) == before
    assert not server.asked


def test_a_file_that_fails_leaves_the_others_and_is_named(server: FileServer, tmp_path: Path) -> None:
    content = (server.folder / "UCF101.tar.gz").read_bytes()
    for data, kind in ((None, Unreachable), (content[:-1000], Damaged), (tar_of({"../x": b"1"}), Hostile)):
        (server.folder / "UCF101.tar.gz").unlink()
        root = tmp_path / f"ucf_{kind.__name__}"
        if data is not None:
            write(server.folder / "UCF101.tar.gz", data)
        outcome, _ = get(UCF, root, mirror=server.url)
        assert [type(error) for error in outcome.failed] == [kind]
        assert LISTS.keys() <= tree(root).keys()
        write(server.folder / "UCF101.tar.gz", content)
        shutil.rmtree(root / ".fetch/downloads")  # as the error says of a damaged one
        get(UCF, root, mirror=server.url)
        assert tree(root) == {**LISTS, **VIDEOS}


def test_a_disk_without_room_is_refused_before_anything_comes(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(space.shutil, "disk_usage", lambda path: usage._replace(free=2**20))
    with pytest.raises(DiskFull):
        get(UCF, tmp_path / "ucf", mirror=server.url)
    assert not [asked for asked in server.asked if asked[0] == "GET"]


def test_the_space_is_that_of_the_fullest_moment() -> None:
    archives = [(100, 150), (10, 1000)]
    assert space.needed(110, archives, keep=False) == 110 + 150 - 100 + 1000
    assert space.needed(110, archives, keep=True) == 110 + 150 + 1000
    assert space.needed(500, [], keep=False) == 500


def test_two_fetches_at_once_are_refused(server: FileServer, tmp_path: Path) -> None:
    state = State(tmp_path / "ucf")
    with state.locked(), pytest.raises(Busy):
        get(UCF, tmp_path / "ucf", mirror=server.url)
    get(UCF, tmp_path / "ucf", mirror=server.url)
    assert tree(tmp_path / "ucf") == {**LISTS, **VIDEOS}


class Ended(BaseException):
    """Stands for a kill: nothing catches it."""


MOMENTS = random.Random(7).sample(range(1, 150), 10)


@pytest.mark.parametrize(
    "ends", [Ended, pytest.param(OSError(errno.ENOSPC, "No space left on device"), marks=pytest.mark.slow)]
)
def test_interrupted_at_random_moments_it_ends_in_the_same_files(
    ends: Any, server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended at the n-th call that changes the disk or moves a block, again and again, and then let run."""
    root = tmp_path / "ucf"
    server.break_after = 300_000
    reached = []
    for moment in MOMENTS:
        left = [moment]

        def end_here(left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] == 0:
                raise ends

        def counted(name: str, end_here: Callable[[], None] = end_here) -> Any:
            real = getattr(Path, name)

            def call(path: Path, *args: Any, **kwargs: Any) -> Any:
                reads = name == "open" and args[:1] in ((), ("r",), ("rb",))
                if root in path.parents and not reads:
                    end_here()
                return real(path, *args, **kwargs)

            return call

        def in_blocks(real: Any, end_here: Callable[[], None] = end_here) -> Any:
            def call(first: Any, *args: Any) -> Any:
                end_here()  # with part of the file written
                return real(first, *args)

            return call

        with monkeypatch.context() as patch:
            for name in ("open", "replace", "unlink", "mkdir"):
                patch.setattr(Path, name, counted(name))
            patch.setattr(archives, "_read", in_blocks(archives._read))
            patch.setattr(download, "_write", in_blocks(download._write))
            try:
                get(UCF, root, mirror=server.url, at_once=1)
            except (Ended, DiskFull, ValueError):
                reached.append(moment)
        complete = tree(root)
        assert complete.items() <= {**LISTS, **VIDEOS}.items()  # never a part of a file
        if moment % 2:
            shutil.rmtree(root, ignore_errors=True)
    assert len(reached) >= 5
    get(UCF, root, mirror=server.url)
    assert tree(root) == {**LISTS, **VIDEOS}
    get(UCF, tmp_path / "at_once", mirror=server.url)
    assert tree(root, hidden=True) == tree(tmp_path / "at_once", hidden=True)


# --- Kinetics


@pytest.fixture
def k400(tmp_path: Path) -> Iterator[FileServer]:
    """Two archives of training videos, one of the test, a corrected video, lists with a video that is gone."""
    folder = tmp_path / "k400"
    header = "label,youtube_id,time_start,time_end,split\n"
    rows = {"train": ["aaaaaaaaaa1", "aaaaaaaaaa2", "aaaaaaaaaa3", "gone_gone_1"], "val": ["bbbbbbbbbb1"]}
    for part, ids in rows.items():
        text = header + "".join(f"archery,{name},5,15,{part}\n" for name in ids)
        write(folder / f"annotations/{part}.csv", text.encode())
    stem = "{}_000005_000015.mp4"
    first = {f"./{stem.format(name)}": name.encode() for name in rows["train"][:2]}
    write(folder / "train/part_0.tar.gz", tar_of(first))
    write(folder / "train/part_1.tar.gz", tar_of({stem.format("aaaaaaaaaa3"): b"broken"}))
    write(folder / "val/part_0.tar.gz", tar_of({stem.format("bbbbbbbbbb1"): b"b1"}))
    corrected = {f"replacement/{stem.format('aaaaaaaaaa3')}": b"whole again", "replacement/other.mp4": b""}
    write(folder / "replacement_for_corrupted_k400.tgz", tar_of(corrected))
    for part, count in (("train", 2), ("val", 1)):
        lines = "".join(f"https://nowhere.invalid/{part}/part_{n}.tar.gz\n" for n in range(count))
        write(folder / f"{part}/k400_{part}_path.txt", lines.encode())
    with serving(folder) as started:
        yield started


def test_kinetics_comes_by_its_lists_of_archives(k400: FileServer, tmp_path: Path) -> None:
    root = tmp_path / "root"
    outcome, _ = get(sources()["kinetics400"], root, mirror=k400.url)
    assert not outcome.failed
    assert {path: content for path, content in tree(root).items() if path.endswith(".mp4")} == {
        "train/aaaaaaaaaa1_000005_000015.mp4": b"aaaaaaaaaa1",
        "train/aaaaaaaaaa2_000005_000015.mp4": b"aaaaaaaaaa2",
        "train/aaaaaaaaaa3_000005_000015.mp4": b"whole again",
        "val/bbbbbbbbbb1_000005_000015.mp4": b"b1",
    }
    listed = adapter("kinetics400").list_videos(root, "official")
    assert [(root / video.path).is_file() for video in listed] == [True, True, True, False, True]
    _, plan = get(sources()["kinetics400"], root, mirror=k400.url)
    assert plan.files == 0


def test_a_corrected_video_comes_again_behind_its_archive(k400: FileServer, tmp_path: Path) -> None:
    root = tmp_path / "root"
    get(sources()["kinetics400"], root, mirror=k400.url)
    (root / "train/aaaaaaaaaa3_000005_000015.mp4").unlink()
    get(sources()["kinetics400"], root, mirror=k400.url)
    assert (root / "train/aaaaaaaaaa3_000005_000015.mp4").read_bytes() == b"whole again"


def test_an_archive_that_the_publishers_lost_is_named(k400: FileServer, tmp_path: Path) -> None:
    (k400.folder / "train/part_1.tar.gz").unlink()
    outcome, _ = get(sources()["kinetics400"], tmp_path / "root", mirror=k400.url)
    assert [type(error) for error in outcome.failed] == [Unreachable]
    assert (tmp_path / "root/val/bbbbbbbbbb1_000005_000015.mp4").is_file()


@pytest.mark.parametrize(
    "line",
    ["<html>", "ftp://host/a.tar.gz", "part_0.tar.gz", "https://host/..", "https://host/%2e%2e", "https://h"],
)
def test_a_list_that_is_none_is_refused(line: str) -> None:
    file = Remote("train/list.txt", "http://host/list.txt", "made up", Rule(), lists_archives=True)
    for text in (line, ""):
        with pytest.raises(FetchError):
            listed_archives(file, text, None)


# --- the command


@pytest.fixture
def ucf_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """UCF101 as published: lists in a zip, videos in a rar; only the lists' hash is another."""
    pytest.importorskip("libarchive", exc_type=(ImportError, OSError))  # type: ignore[arg-type]
    monkeypatch.setenv("VCIL_BENCH_CACHE", str(tmp_path / "cache"))
    from vcil_bench.fetch import sources as module

    table = dict(sources())
    lists, videos = table["ucf101"].files
    unhashed = Remote(lists.name, lists.url, lists.read, lists.rule, expands=lists.expands)
    table["ucf101"] = Source(**{**vars(table["ucf101"]), "files": (unhashed, videos)})
    monkeypatch.setattr(module, "sources", lambda: table)
    made = tmp_path / "made"
    for number, name in enumerate(NAMES):
        video(made / "UCF-101" / name, frames=8, first=number)
    folder = tmp_path / "mirror"
    write(folder / lists.name, zip_of(LISTS))
    write(folder / videos.name, rar_of(tree(made)))
    with serving(folder) as started:
        yield started


def test_the_command_asks_for_the_licence_once(
    ucf_mirror: FileServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "ucf"
    command = ["fetch", "ucf101", str(root), "--mirror", ucf_mirror.url, "--no-prepare"]
    licence = sources()["ucf101"].licence
    assert main(command) == ExitCode.REFUSED
    assert licence in capsys.readouterr().err
    assert not ucf_mirror.asked
    assert main([*command, "--accept-licence"]) == ExitCode.DONE
    assert licence in capsys.readouterr().out
    assert main(command) == ExitCode.DONE
    assert licence not in "".join(capsys.readouterr())
    assert len(tree(root)) == 6


def test_another_licence_is_asked_for_again(tmp_path: Path) -> None:
    state = State(tmp_path)
    assert state.accept(UCF, True)
    assert not state.accept(UCF, False)
    with pytest.raises(NotAccepted):
        state.accept(Source("ucf101", "small", "page", "another licence", "tried"), False)


def test_check_asks_for_headers_alone(
    k400: FileServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["fetch", "kinetics400", "--check", "--mirror", k400.url]
    assert main(command) == ExitCode.DONE
    assert len(capsys.readouterr().out.splitlines()) == 8
    assert [path for method, path, _ in k400.asked if method == "GET"] == [
        "/train/k400_train_path.txt",
        "/val/k400_val_path.txt",
    ]
    (k400.folder / "train/part_1.tar.gz").unlink()
    assert main(command) == ExitCode.FAILED


@pytest.mark.parametrize(
    "arguments",
    [
        ["ucf11", "ROOT"],
        ["ucf101"],
        ["ssv2", "ROOT"],
        ["activitynet", "ROOT"],
        ["ucf101", "ROOT", "--from", "nowhere"],
        ["ucf101", "ROOT", "--from", ".", "--mirror", "http://127.0.0.1:9"],
        ["ucf101", "ROOT", "--at-once", "0"],
        ["weights"],
        ["weights", "clip_tiny"],
        ["weights", "resnet9"],
        ["weights", "clip_vit_b16", "--check"],
    ],
)
def test_a_wrong_command_is_refused(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["fetch", *arguments]) == ExitCode.REFUSED
    assert not list(tmp_path.iterdir())


PROTOCOL = {
    "name": "small_ucf",
    "version": 1,
    "dataset": {"name": "ucf101", "split": 1},
    "classes": {"num": 2, "order": {"kind": "numpy_shuffle"}},
    "tasks": {"sizes": [1, 1]},
    "seeds": [1],
    "clip": {"frames": 4, "size": 64, "train_crop": "center", "flip": False},
    "metrics": {"headline": "average_incremental_accuracy", "also": ["final_accuracy"]},
}


@pytest.mark.slow
def test_one_command_fetches_and_prepares_and_the_next_runs(ucf_mirror: FileServer, tmp_path: Path) -> None:
    root, protocol = tmp_path / "ucf", tmp_path / "small_ucf.yaml"
    protocol.write_text(yaml.safe_dump(PROTOCOL), encoding="utf-8")
    command = ["fetch", "ucf101", str(root), "--mirror", ucf_mirror.url, "--accept-licence", "--workers", "1"]
    assert main(command) == ExitCode.DONE
    assert list((tmp_path / "cache").rglob("*.statistics.json"))
    options = ["--data", str(root), "--results", str(tmp_path / "results"), "--device", "cpu", "--seed", "1"]
    settings = ["--set", "backbone=clip_tiny", "workers=0"]
    assert main(["run", "zero_shot", str(protocol), *options, *settings]) == ExitCode.DONE
    assert list((tmp_path / "results").rglob("*.json"))


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_in_the_same_files(ucf_mirror: FileServer, tmp_path: Path) -> None:
    """Processes are killed while a slow server sends, then let run."""
    published = tree(ucf_mirror.folder)
    folder = tmp_path / "hosted"
    for name, content in published.items():
        write(folder / name, content)
    write(folder / "UCF101.rar", rar_of({**VIDEOS, "UCF-101/Run/more.avi": bytes(600_000)}))
    root, random_source = tmp_path / "ucf", random.Random(3)
    code = (
        "import sys; from vcil_bench.fetch import sources as m; t = dict(m.sources()); s = t['ucf101'];"
        "from dataclasses import replace; f = s.files;"
        "t['ucf101'] = replace(s, files=(replace(f[0], size=None, digest=''), f[1])); m.sources = lambda: t;"
        "from vcil_bench.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    with serving(folder) as server:
        server.slow_s = 0.02
        command = ["fetch", "ucf101", str(root), "--mirror", server.url, "--accept-licence", "--no-prepare"]
        for _ in range(10):
            process = subprocess.Popen([sys.executable, "-c", code, *command], stdout=subprocess.DEVNULL)
            time.sleep(random_source.uniform(0.3, 1.6))
            process.kill()
            process.wait()
        server.slow_s = 0
        subprocess.run([sys.executable, "-c", code, *command], check=True, stdout=subprocess.DEVNULL)
        assert tree(root) == {**LISTS, **VIDEOS, "UCF-101/Run/more.avi": bytes(600_000)}
        assert any(asked for _, _, asked in server.asked)


def test_hashes_of_a_users_files_are_compared(tmp_path: Path) -> None:
    write(tmp_path / "downloads/UCF101TrainTestSplits-RecognitionTask.zip", zip_of(LISTS))
    outcome, _ = get(sources()["ucf101"], tmp_path / "ucf", folder=tmp_path / "downloads")
    assert [type(error) for error in outcome.failed] == [WrongHash, FetchError]
    assert not tree(tmp_path / "ucf")
