"""Every method that is found keeps the contract; a run of one leaves the evidence of its numbers."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import ENTRIES, context_of, method_class, quick

from vcil_bench import record
from vcil_bench.method import Method
from vcil_bench.nets.backbones import BACKBONES, backbone
from vcil_bench.run.evaluation import evaluate
from vcil_bench.stream import TaskStream
from vcil_bench.testing import check_method
from vcil_bench.testing.contract import PROTOCOL, quick_values

EMBEDDED = ("clip_tiny", "tsm_tiny")
# Every method on every embedded backbone that has what it needs. On its own one it is seen to learn and predict
# on the others (runs_on_its_backbones), so all checks there may wait for the slow tests.
PAIRS = [
    pytest.param(
        name, other, marks=() if other == own.embedded_sibling else pytest.mark.slow, id=f"{name}-{other}"
    )
    for name, entry in ENTRIES.items()
    for other in EMBEDDED
    if entry.cls is not None and entry.cls.needs <= BACKBONES[other].provides
    for own in (backbone(entry.cls.backbone_for(PROTOCOL)[0]),)
]


@pytest.fixture(scope="module")
def trunk() -> Any:
    return backbone("clip_tiny").load(None)


def test_methods_are_found() -> None:
    ours = {
        "stpr",
        "zero_shot",
        "finetune",
        "joint",
        "replay",
        "ewc",
        "mas",
        "bic",
        "lwf",
        "lwm",
        "icarl",
        "ucir",
        "podnet",
        "tcd",
        "hce",
        "simplecil",
        "ranpac",
        "acil",
        "fecam",
        "ssiat",
        "ease",
        "pivot",
        "l2p",
        "dualprompt",
        "coda_prompt",
        "sprompts",
        "sfcl",
        "essential",
    }
    assert ours <= set(ENTRIES)
    assert all(entry.cls is not None for entry in ENTRIES.values())


@pytest.mark.parametrize(("name", "on"), PAIRS)
def test_every_method_keeps_the_contract_on_every_backbone(name: str, on: str) -> None:
    cls = method_class(name)
    results = check_method(cls, on, config={key: 1 for key in quick_values(cls) if key != "batch_size"})
    failed = [result for result in results if result.outcome == "failed"]
    assert not failed, "\n".join(map(str, failed))
    # A method that trains nothing has no batch to be stopped at; nor has one with a batch a task.
    passed_over = {"resumes_inside_a_task"} | ({"learns_a_last_batch_of_one"} if name == "zero_shot" else set())
    assert {result.name for result in results if result.outcome == "skipped"} <= passed_over


@pytest.mark.parametrize(
    ("name", "on", "config"),
    [
        ("simplecil", "clip_tiny", {"adapt": "first"}),
        pytest.param("ranpac", "tsm_tiny", {"adapt": "first"}, marks=pytest.mark.slow),
        pytest.param("fecam", "tsm_tiny", {"adapt": "first", "tukey": 0.5}, marks=pytest.mark.slow),
        pytest.param("acil", "tsm_tiny", {}, marks=pytest.mark.slow),
        pytest.param("ssiat", "clip_tiny", {}, marks=pytest.mark.slow),
        pytest.param("ease", "clip_tiny", {}, marks=pytest.mark.slow),
    ],
)
def test_what_is_trained_on_the_first_task_alone_goes_on_where_it_was_stopped(
    name: str, on: str, config: dict[str, Any]
) -> None:
    outcomes = {result.name: result for result in check_method(name, on, config=config)}
    assert outcomes["resumes_inside_a_task"].outcome == "ok", str(outcomes["resumes_inside_a_task"])
    assert "failed" not in {result.outcome for result in outcomes.values()}


def test_evaluation_counts_by_task(trunk: Any, stream: TaskStream, tiny: Any) -> None:
    """A method that always answers label 1 is right for exactly the test videos of that class."""

    class Constant(Method):
        name, paper, readouts = "constant", "", ("cnn",)
        Config = dataclasses.make_dataclass("Config", [], frozen=True)

        def grow(self, task: Any) -> None: ...

        def learn(self, task: Any) -> None: ...

        def predict(self, clips: torch.Tensor) -> dict[str, torch.Tensor]:
            scores = torch.zeros(len(clips), 4)
            scores[:, 1] = 1
            return {"cnn": scores}

    method = Constant(Constant.Config(), context_of(trunk, tiny.protocol)).eval()
    tests = [stream.test(i) for i in range(3)]
    found = evaluate(method, method.context, tests, 4, 3)
    assert found.correct == {"cnn": [2, 0, 0]}  # two test videos of label 1, which is in the base task
    assert found.top["cnn"].shape == (8, 5)
    assert (found.top["cnn"][:, 0] == 1).all()
    assert (found.top["cnn"][:, 1:4] == [0, 2, 3]).all()  # ties rank the lower label first
    assert (found.top["cnn"][:, 4] == -1).all()


def test_a_run_leaves_the_evidence(tiny: Any, tmp_path: Path) -> None:
    sets = [f"{k}={json.dumps(v)}" for k, v in quick(method_class("stpr")).items()]
    assert tiny.run("stpr", tmp_path, "--set", *sets) == 0
    (path,) = tmp_path.glob("*/stpr/*-s1.json")
    found = record.load(path)
    assert found.complete
    assert [s["classes_seen"] for s in found.data["steps"]] == [2, 3, 4]
    assert [len(s["correct"]["text"]) for s in found.data["steps"]] == [1, 2, 3]
    assert found.data["config"]["lr"] == {"value": 0.01, "origin": "default"}
    assert found.data["config"]["epochs"] == {"value": 1, "origin": "command line"}
    assert found.data["weights"]["source"] == "embedded"
    assert found.data["data"]["kind"] == "real"
    assert found.data["data"]["test_videos_sharing_a_group_with_train"] is None  # the list has no groups
    assert found.data["data"]["identical_files_in_train_and_test"] == []
    costs = found.data["steps"][1]["costs"]
    assert costs["trainable"] > 0
    kept = ("videos", "frames", "bytes", "statistics_bytes", "feature_frames")
    assert costs["memory"] == dict.fromkeys(kept, 0)
    assert {"spatial", "spatiotemporal", "fssd"} <= set(found.data["steps"][1]["losses"][0])
    assert np.isfinite(found.metric("backward_forgetting", "text"))
