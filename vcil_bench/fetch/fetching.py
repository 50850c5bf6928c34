"""Fetching of a dataset: its files are downloaded, unpacked and placed as ``prepare`` expects them.

Whatever ends it, the same command goes on: downloads by range, archives from their beginning, and what is there
already is neither asked for nor written again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from vcil_bench.common.files import remove

from . import space
from .archives import archive_kind
from .download import PAUSE_S, Wanted, bytes_there, file_digest
from .errors import DiskFull, FetchError, Unreachable, WrongHash
from .http_client import read_headers
from .layout import make_folder
from .sources import Remote, Source, listed_archives, mirrored
from .state import State
from .transfers import Meter, download_all
from .unpack import Unpacking

Watch = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]


@dataclass(frozen=True)
class Options:
    """How a dataset is fetched.

    Attributes:
        mirror: Address below which the files lie, in place of the publishers'.
        folder: Folder in which they lie, in place of any address.
        keep: Whether archives stay when they are unpacked.
        at_once: Downloads at once.
        pause_s: Seconds before a broken download is tried again.
    """

    mirror: str | None = None
    folder: Path | None = None
    keep: bool = False
    at_once: int = 4
    pause_s: float = PAUSE_S


@dataclass(frozen=True)
class Plan:
    """What a fetch is about to do.

    Attributes:
        files: Files that are lacking.
        there: Files whose content is there.
        to_come: Bytes to download.
        needed: Bytes of disk that it takes at its fullest moment.
        unknown: Files whose size no server says.
    """

    files: int
    there: int
    to_come: int
    needed: int
    unknown: int


@dataclass(frozen=True)
class Outcome:
    """What a fetch has brought.

    Attributes:
        files: Files that were written below the dataset's folder.
        failed: What went wrong with single files; the others are there.
    """

    files: int = 0
    failed: list[FetchError] = field(default_factory=list)


def fetch(source: Source, state: State, options: Options, watch: Watch, tell: Callable[[Plan], None]) -> Outcome:
    """Fetch what lacks of a dataset; the folder must be locked.

    Args:
        source: The dataset.
        state: Its folder.
        options: From where and how.
        watch: Shows progress.
        tell: Given the plan before anything large comes.

    Raises:
        FetchError: It cannot be had at all, or the disk is full; single files that fail are in what is returned.
    """
    failed: list[FetchError] = []
    files: list[Remote] = []
    marks = state.marked()
    for file in source.files:
        file = mirrored(file, options.mirror)
        if file.lists_archives:
            files += _listed(file, state, options, watch)
        else:
            files.append(file)
    lacking = [file for file in files if not marks.holds(file.name)]
    if any(not file.rule.replaces for file in lacking):
        # What replaces damaged videos of an archive has to come again behind it.
        lacking = [file for file in files if file in lacking or file.rule.replaces]
        for file in lacking:
            state.unmark(file.name)
    for file in files:
        if file not in lacking and options.folder is None and not options.keep:
            remove(_download_path(file, state))  # which a kill just behind its unpacking has left
    sizes = _sizes(lacking, state, options)
    plan = _plan(lacking, sizes, state, options, len(files) - len(lacking))
    tell(plan)
    space.check(state.root, plan.needed)
    if options.folder is None:
        failed += _downloaded(lacking, plan.to_come, state, options, watch, f"downloading {source.name}, MiB")
    written = 0
    with watch(f"unpacking {source.name}, MiB") as moved:
        meter = Meter(sum(sizes.values()), moved)
        for file in lacking:
            try:
                with space.disk_errors(state.root):
                    path = _local(file, state, options)
                    if path is not None:
                        written += _place(file, path, state, options, meter)
            except DiskFull:
                raise
            except FetchError as error:
                failed.append(error)
    return Outcome(written, failed)


def _listed(file: Remote, state: State, options: Options, watch: Watch) -> list[Remote]:
    """Return the archives that a published list names.

    Raises:
        FetchError: The list cannot be had, or is none.
    """
    if options.folder is None:
        failed = _downloaded([file], file.about, state, options, watch, file.name)
        if failed:
            raise failed[0]
    path = _local(file, state, options)
    assert path is not None or options.folder is not None
    if path is None:
        raise FetchError(f"{options.folder}: {file.name} is not there, which names the archives")
    return listed_archives(file, path.read_text(encoding="utf-8", errors="replace"), options.mirror)


def _downloaded(
    files: Sequence[Remote], total: int, state: State, options: Options, watch: Watch, text: str
) -> list[FetchError]:
    wanted = []
    for file in files:
        path = _download_path(file, state)
        make_folder(state.root, PurePosixPath(path.parent.relative_to(state.root)))
        wanted.append(Wanted(file.url, path, file.digest))
    with watch(text) as moved:
        return download_all(wanted, total, moved, at_once=options.at_once, pause_s=options.pause_s)


def _download_path(file: Remote, state: State) -> Path:
    return state.downloads / file.name


def _local(file: Remote, state: State, options: Options) -> Path | None:
    """Return where a file lies that has come, or that the user has; None where it does not.

    Raises:
        WrongHash: The user's is not the published one.
        FetchError: The user's is not there.
    """
    if options.folder is None:
        path = _download_path(file, state)
        return path if path.is_file() else None
    names = (file.name, PurePosixPath(file.name).name)
    path = next((options.folder / name for name in names if (options.folder / name).is_file()), options.folder)
    if path == options.folder:
        raise FetchError(f"{options.folder}: {' or '.join(dict.fromkeys(names))} is not there")
    actual = file_digest(path, file.digest)
    if actual != file.digest:
        raise WrongHash(f"{path}: its hash is {actual}, published is {file.digest}; download it again")
    return path


def _sizes(files: Sequence[Remote], state: State, options: Options) -> dict[str, int]:
    """Return the bytes of every file by name, 0 where nobody says."""

    def size(file: Remote) -> int:
        if options.folder is not None:
            names = (file.name, PurePosixPath(file.name).name)
            there = [path for name in names if (path := options.folder / name).is_file()]
            return there[0].stat().st_size if there else 0
        if _download_path(file, state).is_file():
            return bytes_there(_download_path(file, state))
        try:
            return file.size or read_headers(file.url).size or file.about
        except Unreachable:  # which its download will say
            return file.about

    with ThreadPoolExecutor(max(1, options.at_once)) as pool:
        return dict(zip((file.name for file in files), pool.map(size, files), strict=True))


def _plan(files: Sequence[Remote], sizes: dict[str, int], state: State, options: Options, there: int) -> Plan:
    to_come = 0
    if options.folder is None:
        to_come = sum(max(0, sizes[f.name] - bytes_there(_download_path(f, state))) for f in files)
    archives = [(sizes[f.name], space.unpacked_limit(sizes[f.name], f.expands)) for f in files if _is_archive(f)]
    needed = space.needed(to_come, archives, keep=options.keep or options.folder is not None)
    return Plan(len(files), there, to_come, needed, sum(1 for f in files if not sizes[f.name]))


def _is_archive(file: Remote) -> bool:
    return archive_kind(file.name) is not None


def _place(file: Remote, path: Path, state: State, options: Options, meter: Meter) -> int:
    """Unpack a file that is there, or move it to its place; return how many files that gave.

    Raises:
        FetchError: It cannot be unpacked.
    """
    if _is_archive(file):
        limit = space.unpacked_limit(path.stat().st_size, file.expands)
        unpacking = Unpacking(state.root, state.temporary, file.rule, limit, meter.add)
        unpacking.archive(path, str(path))
        placed = unpacking.files
        shutil.rmtree(state.temporary, ignore_errors=True)
    else:
        name = PurePosixPath(file.rule.into, PurePosixPath(file.name).name)
        target = make_folder(state.root, name.parent) / name.name
        size = path.stat().st_size
        place_file(path, target, state, move=options.folder is None and not options.keep)
        placed = {str(name): size}
        meter.add(size)
    state.mark(file.name, placed)
    if _is_archive(file) and options.folder is None and not options.keep:
        remove(path)
    return len(placed)


def place_file(path: Path, target: Path, state: State, *, move: bool) -> None:
    """Put a file to its place, whole or not at all.

    Raises:
        DiskFull: The disk is full.
    """
    with space.disk_errors(target):
        if move:
            path.replace(target)
            return
        temporary = make_folder(state.root, PurePosixPath(state.temporary.relative_to(state.root))) / "file"
        shutil.copyfile(path, temporary)
        temporary.replace(target)
        shutil.rmtree(state.temporary, ignore_errors=True)
