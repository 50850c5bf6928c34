"""A dataset of Kinetics' size: memory and time of listing, preparing and streaming its videos."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vcil_bench.data.manifest import manifest_path
from vcil_bench.data.prepare.journal import Journal
from vcil_bench.data.video.facts import Facts
from vcil_bench.protocol import load

PROTOCOL = "kinetics400_40x10_seeded"
MEASURE = """
import json, resource, sys, time
from pathlib import Path
from vcil_bench.data.datasets import adapter
from vcil_bench.data.manifest import check_present
from vcil_bench.data.prepare import prepare
from vcil_bench.data.prepare.report import summary
from vcil_bench.protocol import load
from vcil_bench.stream import TaskStream

root = Path(sys.argv[1])
start = time.process_time()  # of this process, since other ones may keep the machine busy
listed = adapter("kinetics400").list_videos(root, "official")
check_present(adapter("kinetics400"), root, listed, 0.0)
manifest = prepare(adapter("kinetics400"), root, "official", listed=listed)
del listed
manifest.check_complete(0.0)
summary(manifest)
stream = TaskStream(load(sys.argv[2]), manifest, 1000)
frames = sum(s.frames for i in range(len(stream)) for s in (*stream.task(i).train, *stream.test(i)))
joint = len(stream.task(len(stream) - 1, cumulative=True).train)
print(json.dumps({
    "seconds": time.process_time() - start,
    "bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024),
    "frames": frames,
    "joint": joint,
    "torch": "torch" in sys.modules,
}))
"""


def dataset(root: Path, train: int, test: int) -> Path:
    """Write lists and files of a made Kinetics-400, with the facts that decoding them would have found."""
    names = load(PROTOCOL).class_names
    with Journal(manifest_path("kinetics400", root, "official").with_name("facts.jsonl")) as journal:
        for part, count in (("train", train), ("val", test)):
            (root / part).mkdir(parents=True)
            with (root / f"{part}.csv").open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(["label", "youtube_id", "time_start", "time_end", "split", "is_cc"])
                for number in range(count):
                    youtube = f"{part[0]}{number:010}"
                    writer.writerow([names[number % 400], youtube, 10, 20, part, 0])
                    path = f"{part}/{youtube}_000010_000020.mp4"
                    (root / path).touch()
                    facts = Facts(
                        frames=300,
                        claimed=300,
                        width=340,
                        height=256,
                        fps=29.97,
                        codec="h264",
                        mtime_ns=(root / path).stat().st_mtime_ns,
                        sha256=hashlib.sha256(path.encode()).hexdigest(),
                    )
                    journal.add(path, facts)
    return root


def measured(root: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(root), PROTOCOL],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.slow
def test_kinetics_fits_in_a_gigabyte_and_costs_in_proportion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VCIL_BENCH_CACHE", str(tmp_path / "cache"))
    quarter = measured(dataset(tmp_path / "quarter", 55_000, 5_000))
    whole = measured(dataset(tmp_path / "whole", 220_000, 20_000))
    print(f"quarter: {quarter}\nwhole: {whole}")  # noqa: T201
    assert (whole["frames"], whole["joint"]) == (240_000 * 300, 220_000)
    assert whole["torch"]  # the stream's loader brings it, so that it counts
    assert whole["bytes"] < 1e9
    assert whole["seconds"] < 8 * quarter["seconds"]
