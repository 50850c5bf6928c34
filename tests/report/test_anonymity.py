"""Anonymity: no byte of a report tells where or by whom records were made, unless that is asked for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_records import record_data
from packed_page import readable
from PIL import Image

from vcil_bench import record as records
from vcil_bench.cli import main
from vcil_bench.identity import changed_since
from vcil_bench.record import variant_name
from vcil_bench.report.anonymity import Cover, Telling
from vcil_bench.verify.imported_records import take_in

REFERENCE = Path(__file__).parents[2] / "results/reference/synthetic_3x4"
PATHS = {
    *(
        "jdoe",
        "gpu17",
        "bigdisk",
        "secret lab",
        "/home/",
        "/mnt/",
        "C:\\\\",
        "atlas.example",
        "walnut",
    ),
}
IDENTITY = {
    "c0ffee15a5bad1dea",
    "6.1.2-special",
    "A. Doe",
    "northlab",
    "Doe et al.",
    "doe-plugin",
    "Doe's notes",
}
COMMAND = (
    "vcil-bench run '/home/jdoe/secret lab/mine.py' /home/jdoe/p.yaml --data=/mnt/bigdisk/ucf --results "
    "~jdoe/r --set weights=/mnt/bigdisk/w.pt store_dir=C:\\Users\\jdoe\\s tracker=/mnt/walnut"
)


def telling_data(seed: int, **changes: Any) -> Any:
    """Make up a record that tells all there is to tell."""
    environment = {
        "git": "c0ffee15a5bad1dea",
        "dirty": True,
        "platform": "Linux-6.1.2-special",
        "hostname": "gpu17.atlas.example",
        "user": "jdoe",
        "remote": "git@atlas.example:jdoe/walnut.git",
        "command": COMMAND,
        "note": "ran as jdoe on gpu17, see /mnt/bigdisk/log",
    }
    overrides = {"weights": "/mnt/bigdisk/walnut/w.pt"}
    variant = variant_name(overrides)
    options = {
        key: {"value": value, "origin": "command line"}
        for key, value in (overrides | changes.pop("options", {})).items()
    }
    data: Any = record_data(
        seed=seed,
        variant=variant,
        run_id=f"made_up/alpha/{variant}-s{seed}",
        environment=environment,
        options=options,
        sessions=[
            {"started": "2025-01-01T00:00:00Z", "environment": record_data()["environment"] | environment}
        ],  # type: ignore[arg-type]
        protocol={
            "origin": "/home/jdoe/p.yaml",
            "spec": {"memory": None, "notes": "Doe's notes", "source": {"code": "https://code.example/jdoe"}},
        },
        weights={"source": "/mnt/bigdisk/walnut/w.pt"},
        data={
            "root": "/mnt/bigdisk/my clips",
            "left_out": [{"id": "a.mp4", "split": "train", "problem": "cannot read '/home/jdoe/x y/a.mp4'"}],
            "verified": [
                {"level": "warning", "check": "files", "text": "see /mnt/bigdisk/my clips/b.mp4, jdoe"}
            ],
        },
        **changes,
    )
    own = {"file": "/home/jdoe/secret lab/mine.py", "paper": "Doe et al.", "distribution": "doe-plugin"}
    data["method"] |= own
    return data


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Records that tell: a made-up row with a failed run, damaged files, a row from elsewhere in a table."""
    folder = tmp_path / "jdoe of gpu17/results"
    for seed in (1, 2):
        data = telling_data(seed)
        records.save(records.record_path(folder, "made_up", "alpha", data["variant"], seed), data)
    data = telling_data(
        3, status="failed", reason="OSError: [Errno 5] gpu17:/mnt/bigdisk/a: '/home/jdoe/x y/z.mp4'"
    )
    records.save(records.record_path(folder, "made_up", "alpha", data["variant"], 3), data)
    broken = records.record_path(folder, "made_up", "beta", data["variant"], 1)
    broken.parent.mkdir(parents=True)
    broken.write_text("{")
    sent = tmp_path / "sent"
    sent.mkdir()
    for path in sorted((REFERENCE / "stpr").glob("default-s*.json")):
        shutil.copy(path.with_suffix(".npz"), sent)
        told: Any = json.loads(path.read_text())
        told["environment"]["command"] = COMMAND
        told["data"]["root"] = "/home/jdoe/clips"
        (sent / path.name).write_text(json.dumps(told))
    take_in(
        sorted(sent.glob("*.json")), [], folder, name="northlab", who="A. Doe, gpu17", source="/home/jdoe/mail"
    )
    return folder


def told_by(report: Path, secrets: set[str]) -> set[str]:
    """Return the secrets that any file of a report, or its name, holds."""
    found = set()
    for path in sorted(report.rglob("*")):
        content = path.relative_to(report).as_posix().encode() + b"\n"
        if path.name == "index.html":
            content += readable(path.read_text(encoding="utf-8")).encode()
        elif path.is_file():
            content += path.read_bytes()
        found |= {secret for secret in secrets if secret.encode() in content}
        if path.suffix == ".png" and path.stat().st_size > 10:
            with Image.open(path) as picture:
                assert set(picture.info) <= {"dpi"}
    return found


def report(results: Path, out: Path, *flags: str) -> Path:
    assert main(["report", "--results", str(results), "--out", str(out), *flags]) == 1  # a record is damaged
    return out


def test_paths_hosts_and_users_are_told_only_where_asked_for(results: Path, tmp_path: Path) -> None:
    secrets = PATHS | {str(tmp_path)}
    assert told_by(report(results, tmp_path / "plain"), secrets) == set()
    assert "northlab" in told_by(tmp_path / "plain", IDENTITY)
    asked = told_by(report(results, tmp_path / "asked", "--paths"), secrets | IDENTITY)
    assert asked >= (secrets | IDENTITY) - {"C:\\\\"}


@pytest.mark.pictures
@pytest.mark.slow
def test_pictures_tell_nothing_either(results: Path, tmp_path: Path) -> None:
    assert told_by(report(results, tmp_path / "a", "--anonymous"), PATHS | IDENTITY | {str(tmp_path)}) == set()


def test_an_anonymous_report_tells_no_version_no_sender_no_paper(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = report(results, tmp_path / "a", "--anonymous")
    assert told_by(out, PATHS | IDENTITY | {str(tmp_path)}) == set()
    page = readable((out / "index.html").read_text())
    assert "other-1" in page  # that a row is from elsewhere is still told
    assert "other-1" in (out / "papers/stpr_components.tex").read_text()
    assert "warning" not in capsys.readouterr().err
    (out / "old.svg").write_text("jdoe")
    report(results, out, "--anonymous")
    assert "old.svg" in capsys.readouterr().err


def test_an_anonymous_report_of_some_protocols_keeps_no_names_of_the_last_one(
    results: Path, tmp_path: Path
) -> None:
    out = report(results, tmp_path / "a", "--paths")
    assert "northlab" in (out / ".figures.json").read_text()
    report(results, out, "--anonymous", "--only", "made_up", "--no-figures")
    for name in (".figures.json", ".comparisons.json"):
        assert not any(secret in (out / name).read_text() for secret in PATHS | IDENTITY)


@pytest.mark.pictures
@pytest.mark.parametrize("command", ["table", "figure"])
def test_tables_and_figures_tell_no_paths_either(command: str, results: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / ("t.csv" if command == "table" else "f.svg")
    chosen = {
        "table": ["table", "--protocols", "made_up", "--format", "csv"],
        "figure": ["figure", "curves", "--protocol", "made_up"],
    }
    assert main([*chosen[command], "--results", str(results), "--out", str(out)]) == 0
    assert "alpha" in out.read_text()
    assert told_by(out.parent, PATHS | {str(tmp_path)}) == set()


def test_the_origin_of_a_row_stands_wherever_its_numbers_do(results: Path, tmp_path: Path) -> None:
    out = report(results, tmp_path / "plain")
    for name in (
        *(
            "index.html",
            "index.md",
            "synthetic_3x4/table.md",
            "synthetic_3x4/table.csv",
            "synthetic_3x4/curves.csv",
        ),
        *("papers/stpr_components.md", "papers/stpr_components.csv", "papers/stpr_components.tex"),
    ):
        text = (out / name).read_text()
        assert "northlab" in (readable(text) if name == "index.html" else text), name


def test_what_covers_keeps_numbers_staleness_and_rows_apart(results: Path) -> None:
    written, _ = records.load_all(results)
    shown = Cover(Telling.ANONYMOUS, results, written).records(written)
    assert len({(r.data["variant"], r.data["seed"]) for r in shown}) == len(shown)
    for before, after in zip(written, shown, strict=True):
        assert after.path == before.path
        assert after.as_written.data == before.data
        assert changed_since(after) == changed_since(before)
        for key in ("steps", "class_order", "class_names", "test_videos", "seed", "status", "identity"):
            assert after.data[key] == before.data[key]  # type: ignore[literal-required]
        if before.complete:
            readout = before.data["method"]["readouts"][0]
            np.testing.assert_array_equal(before.matrix(readout), after.matrix(readout))
    assert Cover(Telling.EVERYTHING, results, written).records(written) == written


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/data/x.mp4: not there", ".../x.mp4: not there"),
        ("cannot read '/data/my clips/x.mp4' (code 5/7)", "cannot read '.../x.mp4' (code 5/7)"),
        ("and/or, 1/2, https://example.org/a/b stay", "and/or, 1/2, https://example.org/a/b stay"),
        ("results/p/m/default-s1.json stays", "results/p/m/default-s1.json stays"),
        ("made_up~01234567/alpha stays", "made_up~01234567/alpha stays"),
        ("file:///srv/a.yaml, ~/b.py and ../../c/d", ".../a.yaml, .../b.py and ..."),
        ("node:/srv/a and key=/srv/b", "node:... and key=..."),
        ("C:\\Users\\me\\x.json or \\\\server\\share\\y", ".../x.json or ..."),
        ("mail me@example.org", "mail ..."),
    ],
)
def test_sentences(text: str, expected: str, tmp_path: Path) -> None:
    assert Cover(Telling.NO_PATHS, tmp_path, []).text(text) == expected
