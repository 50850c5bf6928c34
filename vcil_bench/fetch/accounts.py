"""Datasets whose publishers ask for an account: what a user has downloaded is unpacked into its place."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from . import space
from .archives import archive_kind, tar_members
from .errors import FetchError
from .fetching import Outcome, Plan, Watch, place_file
from .layout import Rule, make_folder
from .pieces import Joined, in_order
from .sources import Given, Source
from .state import State
from .transfers import Meter
from .unpack import Unpacking


def where(source: Source) -> FetchError:
    """Return where a dataset is to be had, and what to do with it then."""
    return FetchError(
        f"{source.title}: its publishers ask for an account. {source.account}; then: vcil-bench fetch "
        f"{source.name} ROOT --from FOLDER. Page ({source.tried}): {source.page}"
    )


def unpack_given(
    source: Source, folder: Path, state: State, watch: Watch, tell: Callable[[Plan], None]
) -> Outcome:
    """Unpack what a user has downloaded; the files in that folder stay as they are.

    Args:
        source: The dataset.
        folder: Where the user's files lie.
        state: The dataset's folder, locked.
        watch: Shows progress.
        tell: Given the plan before anything is unpacked.

    Raises:
        FetchError: Nothing of the dataset lies there, or an archive cannot be unpacked.
    """
    chosen = [(given, _matching(folder, given.pattern)) for given in source.given]
    names = [path for _, paths in chosen for path in paths]
    if not names:
        patterns = ", ".join(given.pattern for given in source.given)
        raise FetchError(f"{folder}: holds none of {patterns}. {source.account}: {source.page}")
    total = sum(path.stat().st_size for path in names)
    marks = state.marked()
    if any(given.joined and marks.holds(given.pattern) for given in source.given):
        chosen = [(given, paths) for given, paths in chosen if not given.joined and not given.pieces]
    chosen = [(given, [path for path in paths if not marks.holds(path.name)]) for given, paths in chosen]
    written = 0
    lacking = sum(len(paths) for _, paths in chosen)
    needed = _needed(chosen)
    tell(Plan(lacking, len(names) - lacking, 0, needed, 0))
    space.check(state.root, needed)
    with watch(f"unpacking {source.name}, MiB") as moved:
        meter = Meter(total, moved)
        for given, paths in chosen:
            if given.joined:
                written += _unpack_joined(given, paths, state, meter)
                continue
            for path in paths:
                written += _unpack(given, path, state, meter)
    return Outcome(written)


def _matching(folder: Path, pattern: str) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and fnmatch(path.name, pattern))


def _needed(chosen: list[tuple[Given, list[Path]]]) -> int:
    """Return the bytes that all of it takes: pieces in zips twice, as pieces and as what they hold."""
    return sum(
        space.unpacked_limit(path.stat().st_size, given.expands) * (2 if given.pieces else 1)
        for given, paths in chosen
        for path in paths
        if archive_kind(path.name) or given.joined
    )


def _unpack(given: Given, path: Path, state: State, meter: Meter) -> int:
    if archive_kind(path.name) is None:
        target = make_folder(state.root, PurePosixPath(given.rule.into)) / path.name
        place_file(path, target, state, move=False)
        state.mark(path.name, {str(target.relative_to(state.root)): target.stat().st_size})
        return 1
    rule = Rule(str(state.pieces), flat=True) if given.pieces else given.rule
    limit = space.unpacked_limit(path.stat().st_size, given.expands)
    unpacking = Unpacking(state.root, state.temporary, rule, limit, meter.add)
    unpacking.archive(path, str(path))
    shutil.rmtree(state.temporary, ignore_errors=True)
    if not given.pieces:
        state.mark(path.name, unpacking.files)
    return 0 if given.pieces else len(unpacking.files)


def _unpack_joined(given: Given, paths: list[Path], state: State, meter: Meter) -> int:
    unpacked = state.root / state.pieces
    pieces = in_order([*paths, *(_matching(unpacked, given.pattern) if unpacked.is_dir() else ())])
    if not pieces:
        return 0
    name = f"{pieces[0].name} and on"
    limit = space.unpacked_limit(sum(piece.stat().st_size for piece in pieces), given.expands)
    unpacking = Unpacking(state.root, state.temporary, given.rule, limit, meter.add)
    with (
        space.disk_errors(pieces[0].parent),
        io.BufferedReader(Joined(pieces), 2**20) as stream,
        tar_members(stream, name) as members,
    ):
        unpacking.members(members, name)
    shutil.rmtree(state.temporary, ignore_errors=True)
    shutil.rmtree(unpacked, ignore_errors=True)
    state.mark(given.pattern, unpacking.files)
    return len(unpacking.files)
