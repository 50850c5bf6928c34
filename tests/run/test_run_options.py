"""Options that make a run fit a machine: they change what they say and nothing else, or are refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from double_precision import check_equal_trainings, double_precision

from vcil_bench import record
from vcil_bench.common.config import ConfigError, parse_assignments
from vcil_bench.options import build_options, split_protocol

QUICK = ["epochs=2", "epochs_first=2", "batch_size=4"]


def _steps(folder: Path) -> list[dict[str, Any]]:
    (path,) = folder.glob("*/*/*-s1.json")
    return record.load(path).data["steps"]


def _data(folder: Path) -> dict[str, Any]:
    (path,) = folder.glob("*/*/*-s1.json")
    return record.load(path).data["data"]


def test_keys_of_the_protocol_are_told_by_their_prefix() -> None:
    overrides, others = split_protocol({"protocol.clip.size": 64, "lr": 0.1, "protocols": 1})
    assert overrides == {"clip.size": 64}
    assert others == {"lr": 0.1, "protocols": 1}


ROUTER = "router=clip"  # reads the frozen CLIP, of which features are kept


@pytest.fixture(scope="module")
def plain(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run StPR in float64 without an option."""
    folder = tmp_path_factory.mktemp("plain")
    with double_precision():
        assert tiny.run("stpr", folder, "--set", *QUICK, ROUTER) == 0
    return folder


@pytest.mark.training
@pytest.mark.parametrize(
    "option",
    [
        *(pytest.param(given, marks=pytest.mark.slow) for given in ("micro_batch=1", "determinism=off")),
        *("micro_batch=3", "feature_cache_mb=8", "determinism=strict"),
    ],
)
def test_options_for_the_machine_give_the_same_result(
    option: str, float64: None, tiny: Any, plain: Path, tmp_path: Path
) -> None:
    assert tiny.run("stpr", tmp_path, "--set", *QUICK, ROUTER, option) == 0
    check_equal_trainings(_steps(plain), _steps(tmp_path))
    names = {p.name for folder in (plain, tmp_path) for p in folder.rglob("*-s1.json")}
    assert len(names) == 1, "an option without effect must not name a variant"


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains(precision: str, tiny: Any, tmp_path: Path) -> None:
    for method in ("stpr", "icarl"):
        assert tiny.run(method, tmp_path / method, "--set", *QUICK, f"precision={precision}") == 0
        steps = _steps(tmp_path / method)
        assert len(steps) == 3
        (path,) = (tmp_path / method).glob("*/*/*-s1.json")
        assert f"precision={precision}" in path.name


@pytest.mark.slow
def test_frames_from_a_store_are_said_in_the_record(tiny: Any, tmp_path: Path) -> None:
    store = tmp_path / "frames"
    assert tiny.main("prepare", "folder", tiny.root, "--store", store) == 0
    sets = ["--set", *QUICK, "store=true", f"store_dir={store}"]
    assert tiny.run("finetune", tmp_path / "stored", *sets) == 0
    assert tiny.run("finetune", tmp_path / "video", "--set", *QUICK) == 0
    assert _data(tmp_path / "video")["store"] is None
    described = _data(tmp_path / "stored")["store"]
    assert described["quality"] == 90
    assert described["max_frames"] is None
    assert str(store) not in str(described)
    (path,) = (tmp_path / "stored").glob("*/*/*-s1.json")
    assert "store=True" in path.name
    assert "store_dir" not in path.name


@pytest.mark.parametrize(
    ("sets", "wanted"),
    [
        (["store=true", "store_dir=nowhere"], ["nowhere", "--store"]),
        (["store_dir=x"], ["store=true"]),
        (["micro_batch=0"], ["micro_batch", "at least 1"]),
        (["micro_batch=2", "backbone=tsm_tiny"], ["tsm_tiny", "normalises over the batch"]),
        (["checkpoint_minutes=-1"], ["checkpoint_minutes"]),
        (["checkpoint_minutes=.inf"], ["checkpoint_minutes"]),
        (["feature_cache_mb=-1"], ["feature_cache_mb"]),
        (["run_seed=-1"], ["run_seed", "-1", "0..4294967295"]),
        (["run_seed=4294967296"], ["run_seed", "4294967296", "0..4294967295"]),
        (["run_seed=true"], ["run_seed", "True", "whole number"]),
        (["run_seed=1.5"], ["run_seed", "1.5", "whole number"]),
        ([f"run_seed={'7' * 400}"], ["run_seed", "777", "whole number"]),
        (["lr=.inf"], ["lr", "inf", "finite"]),
        ([f"lr={'7' * 400}"], ["lr", "777", "finite"]),
        ([f"protocol.title={'[' * 2000}"], ["protocol.title", "[[[", "deep"]),
        ([f"template={'[' * 2000}{']' * 2000}"], ["template", "[[[", "deep"]),
        (["protocol.clip.test_views.crops=5"], ["crops", "5", "short_side", "64"]),
        (["determinism=full"], ["determinism", "'full'", "strict"]),
        (["precision=half"], ["precision", "'half'", "fp16"]),
        (["threads=1000000000"], ["threads", "at most"]),
        (["workers=1000000000"], ["workers", "at most"]),
    ],
)
def test_what_cannot_be_is_one_line(
    sets: list[str], wanted: list[str], tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data", tiny.root, "--results", tmp_path, "--device", "cpu", "--seed", "1"]
    if not any(given.startswith("backbone") for given in sets):
        sets = [*sets, "backbone=clip_tiny"]
    assert tiny.main("run", "finetune", tiny.protocol, *arguments, "--set", *sets) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("vcil-bench: error:")
    for part in wanted:
        assert part in line


def test_off_means_off_though_yaml_reads_it_as_false() -> None:
    assert build_options(parse_assignments(["determinism=off"])).determinism == "off"
    with pytest.raises(ConfigError, match="True is not allowed"):
        build_options({"determinism": True})


def test_a_store_without_a_video_is_refused_before_training(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "frames"
    assert tiny.main("prepare", "folder", tiny.root, "--store", store) == 0
    next(store.rglob("*.frames")).unlink()
    sets = ["--set", "store=true", f"store_dir={store}"]
    assert tiny.run("finetune", tmp_path / "r", *sets) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "1 videos" in line
    assert "prepare folder" in line


def test_maps_stay_whole(tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tiny.run("tcd", tmp_path, "--set", "micro_batch=2") == 2
    assert "feature maps" in capsys.readouterr().err
