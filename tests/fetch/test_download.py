"""Downloads from a server that breaks off, refuses ranges or changes its files, and onto a disk that fills."""

from __future__ import annotations

import errno
import hashlib
import http.client
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from archive_factory import write
from file_server import FileServer, serving

from vcil_bench.fetch import download as module
from vcil_bench.fetch.download import Stopped, Wanted, download, part_path
from vcil_bench.fetch.errors import DiskFull, Unreachable, WrongHash
from vcil_bench.fetch.http_client import open_url, read_headers
from vcil_bench.fetch.transfers import download_all

CONTENT = bytes(range(256)) * 2048  # half a MiB
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FileServer]:
    write(tmp_path / "published/a.bin", CONTENT)
    with serving(tmp_path / "published") as started:
        yield started


def get(server: FileServer, target: Path, digest: str = "", name: str = "a.bin") -> list[int]:
    moves: list[int] = []
    target.parent.mkdir(exist_ok=True)
    download(Wanted(f"{server.url}/{name}", target, digest), moves.append, threading.Event(), pause_s=0.001)
    return moves


def ranges(server: FileServer) -> list[str]:
    return [asked for method, _, asked in server.asked if method == "GET"]


def leftovers(target: Path) -> list[Path]:
    return [path for path in target.parent.glob("*.part*")]


@pytest.mark.parametrize("digest", ["", SHA256, f"md5:{hashlib.md5(CONTENT).hexdigest()}"])
def test_a_file_comes_whole_and_once(digest: str, server: FileServer, tmp_path: Path) -> None:
    target = tmp_path / "got/a.bin"
    assert sum(get(server, target, digest)) == len(CONTENT)
    assert target.read_bytes() == CONTENT
    assert not leftovers(target)
    assert not get(server, target, digest)
    assert len(server.asked) == 1


def test_a_git_blob_id_is_a_hash(server: FileServer, tmp_path: Path) -> None:
    blob = hashlib.sha1(b"blob %d\0" % len(CONTENT) + CONTENT).hexdigest()
    get(server, tmp_path / "a.bin", f"git_blob:{blob}")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("etags", [True, False])
def test_a_broken_connection_is_taken_up_where_it_broke(etags: bool, server: FileServer, tmp_path: Path) -> None:
    server.break_after, server.etags = 100_000, etags
    assert sum(get(server, tmp_path / "a.bin", SHA256)) == len(CONTENT)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert ranges(server) == ["", *(f"bytes={n}00000-" for n in range(1, 6))]


def test_a_server_that_refuses_ranges_sends_all_again(server: FileServer, tmp_path: Path) -> None:
    server.break_after, server.breaks_left, server.ranges = 100_000, 2, False
    assert sum(get(server, tmp_path / "a.bin", SHA256)) == len(CONTENT)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_server_that_refuses_ranges_and_always_breaks_off_is_given_up(
    server: FileServer, tmp_path: Path
) -> None:
    server.break_after, server.ranges = 100_000, False
    with pytest.raises(Unreachable):
        get(server, tmp_path / "a.bin")
    assert len(server.asked) == module.ATTEMPTS + 1
    assert part_path(tmp_path / "a.bin").stat().st_size == 100_000


@pytest.mark.parametrize("changed", [CONTENT[::-1], CONTENT[:50_000]])
def test_a_file_that_changed_in_between_is_begun_anew(
    changed: bytes, server: FileServer, tmp_path: Path
) -> None:
    server.break_after = 100_000
    server.failures = [200, 404]
    with pytest.raises(Unreachable):
        get(server, tmp_path / "a.bin")
    assert part_path(tmp_path / "a.bin").read_bytes() == CONTENT[:100_000]
    server.break_after = None
    write(server.folder / "a.bin", changed)
    get(server, tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == changed
    assert not leftovers(tmp_path / "a.bin")


def test_a_part_of_another_address_is_not_gone_on_with(server: FileServer, tmp_path: Path) -> None:
    write(server.folder / "b.bin", CONTENT[::-1])
    server.break_after = 100_000
    server.failures = [200, 404]
    with pytest.raises(Unreachable):
        get(server, tmp_path / "x.bin")
    server.break_after = None
    get(server, tmp_path / "x.bin", name="b.bin")
    assert (tmp_path / "x.bin").read_bytes() == CONTENT[::-1]


def test_passing_failures_are_waited_for_and_lasting_ones_told_at_once(
    server: FileServer, tmp_path: Path
) -> None:
    server.failures = [503, 429, 500]
    get(server, tmp_path / "a.bin", SHA256)
    server.asked.clear()
    with pytest.raises(Unreachable) as caught:
        get(server, tmp_path / "b.bin", name="b.bin")
    assert (caught.value.status, caught.value.lasting) == (404, True)
    assert len(server.asked) == 1


def test_a_server_that_is_not_there_is_given_up(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        gone = f"{server.url}/a.bin"
    with pytest.raises(Unreachable) as caught:
        download(Wanted(gone, tmp_path / "a.bin"), lambda size: None, threading.Event(), pause_s=0.001)
    assert caught.value.status is None


def test_a_wrong_hash_is_fetched_once_more_and_then_told(server: FileServer, tmp_path: Path) -> None:
    target = tmp_path / "got/a.bin"
    with pytest.raises(WrongHash):
        get(server, target, f"sha256:{'0' * 64}")
    assert len(server.asked) == 2
    assert not list(target.parent.iterdir())


class FullDisk:
    """Stands for ``Path.open`` on a disk with so many bytes left."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int, suffix: str) -> None:
        self.room = room
        opened = Path.open

        def open_limited(path: Path, *args: Any, **kwargs: Any) -> Any:
            file = opened(path, *args, **kwargs)
            if not path.name.endswith(suffix) or (args and "r" in args[0]):
                return file
            return _Limited(file, self)

        monkeypatch.setattr(Path, "open", open_limited)


class _Limited:
    def __init__(self, file: Any, disk: FullDisk) -> None:
        self._file, self._disk = file, disk

    def __enter__(self) -> _Limited:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def write(self, data: memoryview) -> int:
        if not self._disk.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        data = data[: self._disk.room]
        self._disk.room -= len(data)
        return int(self._file.write(data))


def test_a_disk_that_fills_keeps_what_came(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        FullDisk(patch, 300_001, ".part")
        with pytest.raises(DiskFull):
            get(server, tmp_path / "a.bin")
    assert part_path(tmp_path / "a.bin").read_bytes() == CONTENT[:300_001]
    get(server, tmp_path / "a.bin", SHA256)
    assert ranges(server) == ["", "bytes=300001-"]


def test_a_full_disk_ends_all_downloads(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FullDisk(monkeypatch, 300_000, ".part")
    files = [Wanted(f"{server.url}/a.bin", tmp_path / f"{n}.bin") for n in range(8)]
    with pytest.raises(DiskFull):
        download_all(files, 0, lambda done, total: None, at_once=2)


def test_several_come_at_once_and_one_that_fails_leaves_the_others(server: FileServer, tmp_path: Path) -> None:
    names = ["a.bin", "no", "a.bin"]
    files = [Wanted(f"{server.url}/{name}", tmp_path / str(n)) for n, name in enumerate(names)]
    moves: list[tuple[int, int]] = []
    failed = download_all(files, 2 * len(CONTENT), lambda *move: moves.append(move), at_once=3)
    assert [type(error) for error in failed] == [Unreachable]
    assert (tmp_path / "0").read_bytes() == (tmp_path / "2").read_bytes() == CONTENT
    assert moves == [(1, 1)]


def test_a_stop_is_heard_in_the_middle(server: FileServer, tmp_path: Path) -> None:
    stop = threading.Event()
    with pytest.raises(Stopped):
        download(Wanted(f"{server.url}/a.bin", tmp_path / "a.bin"), lambda size: stop.set(), stop)
    assert 0 < part_path(tmp_path / "a.bin").stat().st_size < len(CONTENT)


@pytest.mark.parametrize("heads", [True, False])
def test_headers_are_read_also_where_head_is_not_known(heads: bool, server: FileServer) -> None:
    server.heads = heads
    headers = read_headers(f"{server.url}/a.bin")
    assert (headers.size, headers.ranges) == (len(CONTENT), True)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/a", "a.bin", "http://127.0.0.1:x/a"])
def test_only_http_addresses_are_opened(url: str) -> None:
    with pytest.raises(Unreachable) as caught:
        open_url(url)
    assert caught.value.lasting


def test_a_certificate_that_is_not_valid_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = []

    def connect(*_: object, **__: object) -> None:
        asked.append(1)
        raise ssl.SSLCertVerificationError("certificate has expired")

    monkeypatch.setattr(http.client.HTTPSConnection, "connect", connect)
    with pytest.raises(Unreachable) as caught:
        download(Wanted("https://127.0.0.1/a", tmp_path / "a"), lambda size: None, threading.Event())
    assert (caught.value.lasting, len(asked)) == (True, 1)
