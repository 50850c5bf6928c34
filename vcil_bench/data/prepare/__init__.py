"""Prepare a dataset: every file is read once, before anything is trained on it, and what was found is reported.

``prepare`` joins the dataset's official list with facts read from every file (true frame count, size, hash) and
writes one JSON line per video. Facts of files that did not change are reused, so preparing again costs one
``stat`` a file.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from vcil_bench.common.files import check_writable, locked, write_changed
from vcil_bench.data.datasets import Adapter, Listed
from vcil_bench.data.manifest import MISSING, Manifest, Video, manifest_path
from vcil_bench.data.video.facts import Facts

from .journal import DECODER, SCHEMA, Journal, unchanged
from .read_facts import facts_of, read_all, refuse_while_starting
from .report import statistics, summary

PREPARING_S = 24 * 3600.0  # for another process to read the same files; what takes longer hangs
READ_LIMIT_S = 60.0  # the longest videos of these datasets decode in a few seconds
Progress = Callable[[int, int], None]


def prepare(
    adapter: Adapter,
    root: Path,
    split: str,
    progress: Progress | None = None,
    *,
    listed: Sequence[Listed] | None = None,
    workers: int | None = None,
    limit_s: float = READ_LIMIT_S,
) -> Manifest:
    """List a dataset's split, read every file's facts and store the manifest, its report and its statistics.

    Args:
        adapter: The dataset.
        root: Its folder.
        split: One of its splits.
        progress: Called as ``progress(done, total)`` after each file.
        listed: What the split's lists name, where they were read already.
        workers: Processes that decode; None for one per core.
        limit_s: Seconds after which the decoder of a video is killed.

    Raises:
        DatasetError: The root is missing or does not hold this dataset.
        UnguardedScript: Called from a script without ``if __name__ == "__main__"``.
        StorageError: The user's cache cannot be written.
    """
    refuse_while_starting()
    if listed is None:
        listed = adapter.list_videos(root, split)
    target = manifest_path(adapter.name, root, split)
    check_writable(target.parent)
    # Runs that start together wait here for the first of them, and then find its facts.
    journal = target.with_name("facts.jsonl")
    with locked(journal, wait_s=PREPARING_S):
        found = _facts(root, listed, journal, progress, workers, limit_s)
    videos = tuple(
        Video(
            entry.id,
            entry.path,
            entry.label,
            entry.split,
            entry.group,
            found[entry.path],
            interval=entry.interval,
            excluded=entry.excluded,
        )
        for entry in listed
    )
    manifest = Manifest(adapter.name, adapter.kind, split, root, videos)
    save(manifest, target)
    for name, content in (("report", summary(manifest)), ("statistics", statistics(manifest))):
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        write_changed(target.with_suffix(f".{name}.json"), text.splitlines(keepends=True))
    return manifest


def save(manifest: Manifest, path: Path) -> None:
    """Write a manifest as JSON lines, a header first, unless it stands there already.

    Raises:
        StorageError: The file cannot be written.
    """
    write_changed(path, _Lines(manifest))


@dataclass(frozen=True)
class _Lines:
    """The lines of a manifest's file, made one at a time since there may be a hundred megabytes of them."""

    manifest: Manifest

    def __iter__(self) -> Iterator[str]:
        header = {
            "schema": SCHEMA,
            "decoder": DECODER,
            "dataset": self.manifest.dataset,
            "kind": self.manifest.kind,
            "split": self.manifest.split,
            "root": str(self.manifest.root),
        }
        yield json.dumps(header, ensure_ascii=False) + "\n"
        for video in self.manifest.videos:
            line = {name: value for name in Listed.__slots__ if (value := getattr(video, name)) is not None}
            if video.interval is not None:
                line["interval"] = dataclasses.asdict(video.interval)
                line["span"] = [video.span.start, video.span.stop]
            line |= {name: getattr(video.facts, name) for name in Facts.__slots__}
            yield json.dumps(line, ensure_ascii=False) + "\n"


def _facts(
    root: Path,
    listed: Sequence[Listed],
    journal_path: Path,
    progress: Progress | None,
    workers: int | None,
    limit_s: float,
) -> dict[str, Facts]:
    """Return the facts of every listed file by its path, those of unchanged files from the journal."""
    paths = list(dict.fromkeys(entry.path for entry in listed))  # a file may be listed by its parts
    found: dict[str, Facts] = {}
    changed: list[str] = []
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, len(paths))

    with Journal(journal_path) as journal:
        for path, state in zip(paths, _states(root, paths), strict=True):
            old = journal.known.get(path)
            if isinstance(state, str):
                found[path] = Facts(problem=state)
            elif old is not None and unchanged(old, state) and _is_final(old, journal.hung_s.get(path), limit_s):
                found[path] = old
            else:
                changed.append(path)
                continue
            count()
        base = f"{root}{os.sep}"
        for path, facts, hung in read_all(
            [base + path for path in changed], facts_of, workers=workers, limit_s=limit_s
        ):
            journal.add(path.removeprefix(base), facts, limit_s if hung else None)
            found[path.removeprefix(base)] = facts
            count()
    return found


def _is_final(facts: Facts, hung_s: float | None, limit_s: float) -> bool:
    """Tell whether reading an unchanged file again could bring nothing new.

    A problem may have been the disk's, unless all of the file could be hashed. A decoder that hung would hang
    for as long again; another limit is another try.

    Args:
        facts: What the last reading gave.
        hung_s: Seconds that it was given, where the decoder hung.
        limit_s: Seconds that it would be given now.
    """
    return facts.problem is None or bool(facts.sha256) or hung_s == limit_s


def _states(root: Path, paths: Sequence[str]) -> Iterator[os.stat_result | str]:
    """Yield the state of every file in order, or why there is none.

    Threads, a thousand files each at a time: on a network disk every ``stat`` is a round trip.
    """

    def states(some: Sequence[str]) -> list[os.stat_result | str]:
        return [_state(f"{root}{os.sep}{path}") for path in some]

    chunks = [paths[start : start + 1000] for start in range(0, len(paths), 1000)]
    with ThreadPoolExecutor(max_workers=16) as pool:
        for chunk in pool.map(states, chunks):
            yield from chunk


def _state(path: str) -> os.stat_result | str:
    try:
        return os.stat(path)  # noqa: PTH116 - a Path for each of 240,000 files takes longer than the call
    except (FileNotFoundError, NotADirectoryError):
        return MISSING
    except OSError as error:
        return str(error.strerror)
