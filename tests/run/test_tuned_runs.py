"""Runs with another tuning than the adapters: what is recorded, resuming, every kind of method, and refusals."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from small_runs import method_class
from small_runs import quick as quick_values

from vcil_bench import record
from vcil_bench.common.config import ConfigError
from vcil_bench.common.errors import ExitCode
from vcil_bench.nets.tuning_config import TuningConfig

QUICK = ["epochs=1", "epochs_first=1", "batch_size=4"]
SMALL = {
    "dist": ["dist_width=64", "dist_temporal_width=8", "dist_poolings=1"],
    "st_adapter": ["st_adapter_bottleneck=8"],
    "aim": ["aim_ratio=0.1"],
    "none": [],
}


def recorded(folder: Path) -> Any:
    (path,) = folder.glob("*/*/*.json")
    return record.load(path)


@pytest.mark.slow
def test_a_run_with_dist_says_so_and_resumes(tiny: Any, tmp_path: Path) -> None:
    sets = ["--set", *QUICK, "temporal=mean", "tuning=dist", "dist_start=clip", *SMALL["dist"]]
    assert tiny.run("finetune", tmp_path / "whole", *sets) == 0
    assert tiny.run("finetune", tmp_path / "cut", *sets, "max_tasks=1") == 0
    assert recorded(tmp_path / "cut").data["status"] == "partial"
    assert tiny.run("finetune", tmp_path / "cut", *sets) == 0
    whole, cut = recorded(tmp_path / "whole"), recorded(tmp_path / "cut")
    assert whole.complete
    assert cut.complete
    assert [step["correct"] for step in whole.data["steps"]] == [step["correct"] for step in cut.data["steps"]]
    losses = [[step["losses"] for step in found.data["steps"]] for found in (whole, cut)]
    assert losses[0] == losses[1]
    config = whole.data["config"]
    assert config["tuning"] == {"value": "dist", "origin": "command line"}
    assert config["dist_start"]["value"] == "clip"
    assert "tuning=dist" in whole.data["variant"]
    costs = whole.data["steps"][0]["costs"]
    assert costs["state_bytes"] == 4 * costs["trainable"] > 400_000  # the tower is not stored


@pytest.mark.slow
@pytest.mark.parametrize("tuning", list(SMALL))
@pytest.mark.parametrize(
    "method", ["replay", "lwf", "ucir", "ewc", "bic", "ranpac", "ssiat", "acil", "tcd", "lwm"]
)
def test_methods_run_with_every_tuning(tiny: Any, tmp_path: Path, method: str, tuning: str) -> None:
    cls = method_class(method)
    if tuning == "none" and (method in ("ranpac", "ssiat", "acil") or "maps" in cls.needs):
        pytest.skip("nothing would train, which is refused")
    quick = [f"{key}={json.dumps(value)}" for key, value in quick_values(cls).items() if "adapter" not in key]
    trained = {"ranpac": ["adapt=first"], "acil": ["base_training=always"]}.get(method, [])
    assert tiny.run(method, tmp_path, "--set", *quick, f"tuning={tuning}", *SMALL[tuning], *trained) == 0
    assert recorded(tmp_path).complete


@pytest.mark.slow
def test_the_published_number_of_frames_is_a_protocol_of_its_own(tiny: Any, tmp_path: Path) -> None:
    sets = ["tuning=dist", "dist_alpha=2", *SMALL["dist"], "protocol.clip.frames=8"]
    assert tiny.run("finetune", tmp_path, "--set", *QUICK, *sets) == 0
    assert recorded(tmp_path).data["protocol"]["overrides"] == {"clip.frames": 8}


@pytest.mark.slow
def test_a_method_with_dist_on_the_embedded_clips(tmp_path: Path) -> None:
    from vcil_bench.cli import main

    run = ["run", "finetune", "synthetic_3x4", "--seed", "1000", "--device", "cpu", "--results", str(tmp_path)]
    sets = ["--set", "tuning=dist", "dist_start=clip", "temporal=mean", "epochs_first=1", "max_tasks=1"]
    assert main([*run, *sets]) == 0
    (step,) = recorded(tmp_path).data["steps"]
    assert sum(step["correct"]["cnn"]) > 120 / 12 * 2  # of 120 videos of 12 classes


@pytest.mark.slow
def test_a_method_with_dist_on_real_clips(tmp_path: Path) -> None:
    from vcil_bench.cli import main

    root = Path(os.environ.get("VCIL_BENCH_REAL_CLIPS", "nowhere")) / "windows20"
    if not root.is_dir():
        pytest.skip("the real clips are not on this machine (VCIL_BENCH_REAL_CLIPS)")
    protocol = tmp_path / "windows20_10x2.yaml"
    protocol.write_text(
        "name: windows20_10x2\nversion: 1\ndataset: {name: folder, split: manifest.csv}\n"
        "classes: {num: 20, order: {kind: numpy_shuffle}}\ntasks: {sizes: [10, 5, 5]}\nseeds: [1000]\n"
        "clip: {frames: 8, size: 64}\nmemory: {per_class: 2, frames: 8}\n"
        "metrics: {headline: average_incremental_accuracy}\n"
    )
    run = [
        "run",
        "icarl",
        str(protocol),
        "--data",
        str(root),
        "--device",
        "cpu",
        "--results",
        str(tmp_path / "r"),
    ]
    sets = ["--set", "backbone=clip_tiny", "tuning=dist", *SMALL["dist"], "epochs=1", "epochs_first=1"]
    assert main([*run, *sets]) == 0
    assert recorded(tmp_path / "r").complete


@pytest.mark.parametrize(
    ("method", "sets"),
    [
        ("finetune", ["tuning=dist", "backbone=tsm_tiny"]),
        ("finetune", ["tuning=dist", "dist_alpha=3"]),
        ("finetune", ["tuning=dist", "dist_width=50"]),
        ("acil", ["tuning=dist", "base_training=always", "features=unprojected"]),
        ("stpr", ["tuning=dist"]),
    ],
)
def test_what_cannot_be_tuned_is_refused_before_any_work(
    tiny: Any, tmp_path: Path, method: str, sets: list[str]
) -> None:
    assert tiny.run(method, tmp_path, "--set", *sets) == ExitCode.REFUSED
    assert not list(tmp_path.rglob("*.json"))


def test_an_option_is_refused_under_its_own_name() -> None:
    with pytest.raises(ConfigError, match=r"^dist_alpha: 3 "):
        TuningConfig(tuning="dist", dist_alpha=3).network_tuning(8)


@pytest.mark.parametrize(
    ("method", "values", "named"),
    [
        ("finetune", {"tuning": "dist", "adapter_bottleneck": 8}, ("adapter_bottleneck", "adaptformer", "dist")),
        ("icarl", {"dist_start": "clip"}, ("dist_start", "dist", "adaptformer")),
        ("icarl", {"tuning": "aim", "st_adapter_places": "both"}, ("st_adapter_places", "st_adapter", "aim")),
        ("tcd", {"tuning": "none"}, ("tuning", "none", "dist")),
        ("ease", {"tuning": "dist"}, ("tuning", "dist", "adaptformer")),
        ("ssiat", {"tuning": "none"}, ("tuning", "none")),
        ("simplecil", {"tuning": "dist"}, ("tuning", "dist", "adapt")),
        ("simplecil", {"tuning": "none", "adapt": "first"}, ("adapt", "first", "none")),
        ("acil", {"tuning": "aim"}, ("tuning", "aim", "base_training")),
        ("acil", {"tuning": "none", "base_training": "always"}, ("base_training", "none")),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(
    method: str, values: dict[str, Any], named: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError) as refused:
        method_class(method).resolve_config("synthetic_3x4", values)
    assert all(word in str(refused.value) for word in named)


def test_small_networks_for_the_embedded_clips_come_by_recipe() -> None:
    """A recipe's options of other tunings are none that somebody gave."""
    config, origins = method_class("icarl").resolve_config("synthetic_3x4", {"tuning": "dist"})
    assert isinstance(config, TuningConfig)
    assert (config.adapter_bottleneck, config.dist_width) == (16, 64)
    assert origins["dist_width"] == "recipe synthetic_*"
    assert config.network_tuning(8).dist.width == 64
