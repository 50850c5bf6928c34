"""Archives of all kinds give their files, whole or not at all; hostile ones give nothing outside the folder."""

from __future__ import annotations

import errno
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from archive_factory import rar_of, tar_of, tree, write, zip_of

from vcil_bench.fetch.errors import Damaged, DiskFull, FetchError, Hostile, TooLarge
from vcil_bench.fetch.layout import Rule, make_folder
from vcil_bench.fetch.unpack import Unpacking

CONTENT = {"UCF-101/Run/a.avi": bytes(range(256)) * 700, "UCF-101/Run/b.avi": b"b" * 9, "list.txt": b""}
LIMIT = 2**24
MAKERS: dict[str, Callable[[dict[str, bytes]], bytes]] = {
    "a.zip": zip_of,
    "a.tar": lambda content: tar_of(content, "w"),
    "a.tar.gz": lambda content: tar_of(content, "w:gz"),
    "a.tgz": lambda content: tar_of(content, "w:gz"),
    "a.tar.bz2": lambda content: tar_of(content, "w:bz2"),
    "a.tar.xz": lambda content: tar_of(content, "w:xz"),
    "a.rar": rar_of,
}


def needs_rar(name: str) -> None:
    if name.endswith(".rar"):
        pytest.importorskip("libarchive", exc_type=(ImportError, OSError))  # type: ignore[arg-type]


def unpack(
    tmp_path: Path, name: str, data: bytes, rule: Rule | None = None, limit: int = LIMIT
) -> dict[str, bytes]:
    """Unpack an archive into tmp_path/root and return what lies there; nothing else may change."""
    root = tmp_path / "root"
    root.mkdir(exist_ok=True)
    archive = write(tmp_path / "archives" / name, data)
    outside = {path for path in tmp_path.rglob("*") if root not in path.parents}
    try:
        unpacking = Unpacking(root, root / ".fetch/temporary", rule or Rule(), limit)
        unpacking.archive(archive, name)
    finally:
        assert {path for path in tmp_path.rglob("*") if root not in path.parents} == outside
        assert not [path for path in root.rglob("*") if path.is_symlink()]
    files = tree(root)
    assert {path: len(content) for path, content in files.items()} == unpacking.files
    return files


@pytest.mark.parametrize("name", MAKERS)
def test_every_kind_of_archive_gives_its_files(name: str, tmp_path: Path) -> None:
    needs_rar(name)
    assert unpack(tmp_path, name, MAKERS[name](CONTENT)) == CONTENT


@pytest.mark.parametrize("name", MAKERS)
def test_a_truncated_archive_is_told_and_leaves_whole_files_only(name: str, tmp_path: Path) -> None:
    """Cut anywhere, also between two members and just before the end."""
    needs_rar(name)
    data = MAKERS[name](CONTENT)
    cuts = {len(data) // 3, len(data) // 2, len(data) - 600, len(data) - 30}
    if name == "a.tar":
        cuts |= {512 + -(-700 * 256 // 512) * 512}  # just behind the first member
    for cut in sorted(cut for cut in cuts if cut > 20):
        if name == "a.tar" and not data[cut:].strip(b"\0") and not data[cut - 512 : cut].strip(b"\0"):
            continue  # only of the zeros at its end, of which there are enough
        if name == "a.rar" and cut > data.rindex(b"list.txt"):
            continue  # all members are there
        with pytest.raises(Damaged):
            unpack(tmp_path, name, data[:cut])
        assert all(CONTENT[path] == content for path, content in tree(tmp_path / "root").items())


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.tar.bz2"])
def test_a_flipped_bit_is_told(name: str, tmp_path: Path) -> None:
    data = bytearray(MAKERS[name](CONTENT))
    data[len(data) // 4] ^= 8
    with pytest.raises(Damaged):
        unpack(tmp_path, name, bytes(data))


def test_what_is_no_archive_is_told(tmp_path: Path) -> None:
    for name in MAKERS:
        needs_rar(name)
        with pytest.raises(Damaged):
            unpack(tmp_path, name, b"<html>please log in</html>" * 40)


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.rar"])
@pytest.mark.parametrize(
    "member", ["../evil", "a/../../evil", "/tmp/evil", "..", "C:/evil", "C:\\evil", "..\\evil", "\\evil"]
)
def test_names_that_lead_outside_are_refused(member: str, name: str, tmp_path: Path) -> None:
    needs_rar(name)
    with pytest.raises(Hostile):
        unpack(tmp_path, name, MAKERS[name]({"good.avi": b"1", member: b"evil"}))
    assert tree(tmp_path / "root") == {"good.avi": b"1"}


SPECIAL = {
    "a link": (tarfile.SYMTYPE, "../../evil"),
    "a hard link": (tarfile.LNKTYPE, "/etc/passwd"),
    "a character device": (tarfile.CHRTYPE, ""),
    "a block device": (tarfile.BLKTYPE, ""),
    "a pipe": (tarfile.FIFOTYPE, ""),
}


@pytest.mark.parametrize("special", SPECIAL)
def test_links_and_devices_in_a_tar_are_refused(special: str, tmp_path: Path) -> None:
    info = tarfile.TarInfo("special")
    info.type, info.linkname = SPECIAL[special]
    with pytest.raises(Hostile):
        unpack(tmp_path, "a.tar.gz", tar_of({"good.avi": b"1"}, "w:gz", info))
    assert tree(tmp_path / "root") == {"good.avi": b"1"}


@pytest.mark.parametrize("mode", [0o120777, 0o010644, 0o020644, 0o060644, 0o140644])
def test_links_and_devices_in_a_zip_are_refused(mode: int, tmp_path: Path) -> None:
    with pytest.raises(Hostile):
        unpack(tmp_path, "a.zip", zip_of({"special": b"../../evil"}, {"special": mode}))


def test_links_in_a_rar_are_refused(tmp_path: Path) -> None:
    needs_rar("a.rar")
    with pytest.raises(Hostile):
        unpack(tmp_path, "a.rar", rar_of({}, {"special": "../../evil"}))


def test_a_link_in_the_folder_is_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    root = tmp_path / "linked"
    root.mkdir()
    (root / "UCF-101").symlink_to(elsewhere)
    archive = write(tmp_path / "a.zip", zip_of(CONTENT))
    with pytest.raises(Hostile):
        Unpacking(root, root / ".fetch/t", Rule(), LIMIT).archive(archive, "a.zip")
    assert not list(elsewhere.iterdir())


def test_a_file_that_is_a_link_is_replaced_not_written_through(tmp_path: Path) -> None:
    secret = write(tmp_path / "secret", b"secret")
    root = tmp_path / "linked"
    root.mkdir()
    (root / "list.txt").symlink_to(secret)
    archive = write(tmp_path / "a.zip", zip_of({"list.txt": b"new"}))
    Unpacking(root, root / ".fetch/t", Rule(), LIMIT).archive(archive, "a.zip")
    assert secret.read_bytes() == b"secret"
    assert (root / "list.txt").read_bytes() == b"new"


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_more_than_was_announced_is_stopped(name: str, tmp_path: Path) -> None:
    with pytest.raises(TooLarge):
        unpack(tmp_path, name, MAKERS[name]({"zeros": bytes(2**22)}), limit=2**20)
    assert sum(map(len, tree(tmp_path / "root", hidden=True).values())) <= 2**20


def test_empty_files_beyond_number_are_stopped(tmp_path: Path) -> None:
    with pytest.raises(TooLarge):
        unpack(tmp_path, "a.zip", zip_of({str(n): b"" for n in range(400)}), limit=2**20)


def test_a_bomb_in_an_archive_counts_too(tmp_path: Path) -> None:
    inner = zip_of({f"{n}": bytes(2**20) for n in range(8)})
    with pytest.raises(TooLarge):
        unpack(tmp_path, "a.zip", zip_of({"inner.zip": inner}), limit=2**21)


def test_nested_archives_are_unpacked_where_they_lie(tmp_path: Path) -> None:
    needs_rar("a.rar")
    inner = {f"{action}.rar": rar_of({f"{action}/x.avi": action.encode()}) for action in ("run", "wave")}
    files = unpack(tmp_path, "hmdb51_org.rar", rar_of(inner), Rule("hmdb51_org"))
    assert files == {f"hmdb51_org/{action}/x.avi": action.encode() for action in ("run", "wave")}


def test_nested_archives_are_as_hostile_as_others(tmp_path: Path) -> None:
    with pytest.raises(Hostile):
        unpack(tmp_path, "a.zip", zip_of({"b/c/inner.zip": zip_of({"../../../evil": b"evil"})}))
    with pytest.raises(Damaged):
        unpack(tmp_path, "a.zip", zip_of({"inner.tgz": tar_of(CONTENT)[:-50]}))


def test_archives_in_archives_without_end_are_refused(tmp_path: Path) -> None:
    data = zip_of({"x": b"1"})
    for _ in range(3):
        data = zip_of({"x.zip": data})
    with pytest.raises(Hostile):
        unpack(tmp_path, "a.zip", data)


def test_members_can_be_chosen_flattened_and_put_in_the_place_of_others(tmp_path: Path) -> None:
    data = zip_of({"x/y/a.mp4": b"new", "x/readme.txt": b"1", "z/c.mp4": b"3"})
    flat = Rule("train", flat=True, suffixes=(".mp4",))
    assert unpack(tmp_path, "a.zip", data, flat) == {"train/a.mp4": b"new", "train/c.mp4": b"3"}
    root = tmp_path / "other"
    write(root / "val/a.mp4", b"broken")
    archive = write(tmp_path / "b.zip", data)
    Unpacking(root, root / ".fetch/t", Rule(replaces=("train", "val")), LIMIT).archive(archive, "b.zip")
    assert tree(root) == {"val/a.mp4": b"new"}


def test_a_disk_that_fills_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = Path.replace

    def replaced(path: Path, target: Any) -> Path:
        if Path(target).name == "b.avi":
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", replaced)
    with pytest.raises(DiskFull):
        unpack(tmp_path, "a.zip", zip_of(CONTENT))
    assert tree(tmp_path / "root") == {"UCF-101/Run/a.avi": CONTENT["UCF-101/Run/a.avi"]}


def test_a_file_where_a_folder_is_to_be_is_told(tmp_path: Path) -> None:
    write(tmp_path / "a", b"")
    with pytest.raises(ValueError, match="a file lies where a folder is to be"):
        make_folder(tmp_path, PurePosixPath("a/b"))


def test_without_libarchive_rar_is_refused_with_a_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    monkeypatch.setitem(sys.modules, "libarchive", None)
    with pytest.raises(FetchError) as caught:
        unpack(tmp_path, "a.rar", rar_of(CONTENT))
    assert not isinstance(caught.value, Damaged)
