"""Contract tests over every method that is found, on a stream small enough to run each of them whole."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import ENTRIES, clips_of, config_of, context_of, learn, method_class, quick, stream_of

from vcil_bench import record
from vcil_bench.common.random_streams import seed_modules
from vcil_bench.data.datasets import adapter
from vcil_bench.data.prepare import prepare
from vcil_bench.method import Method
from vcil_bench.nets.backbones import BACKBONES, backbone
from vcil_bench.run.evaluation import evaluate
from vcil_bench.stream import TaskStream
from vcil_bench.training import checkpoint

EMBEDDED = ("clip_tiny", "tsm_tiny")
# Every method on every embedded backbone that has what it needs.
PAIRS = [
    (name, other)
    for name, entry in ENTRIES.items()
    for other in EMBEDDED
    if entry.cls is not None and entry.cls.needs <= BACKBONES[other].provides
]


@pytest.fixture(scope="module")
def trunk() -> Any:
    return backbone("clip_tiny").load(None)


def test_methods_are_found() -> None:
    ours = {"stpr", "zero_shot", "finetune", "joint", "lwf", "lwm", "icarl", "ucir", "podnet", "tcd", "hce"}
    assert ours <= set(ENTRIES)
    assert all(entry.cls is not None for entry in ENTRIES.values())


@pytest.fixture(scope="module", params=PAIRS, ids=lambda pair: "-".join(pair))
def learnt(request: Any, stream: TaskStream, tiny: Any) -> Method:
    """Each method after the first two tasks, on each backbone."""
    name, on = request.param
    cls = method_class(name)
    return learn(cls, config_of(cls), backbone(on).load(None), stream, tiny, 2)


def test_scores_cover_the_classes_seen(learnt: Method, stream: TaskStream) -> None:
    clips = clips_of(stream, learnt, 2)
    with torch.inference_mode():
        scores = learnt.predict(clips)
    assert tuple(scores) == learnt.readouts
    for matrix in scores.values():
        assert matrix.shape == (len(clips), 3)
        assert matrix.isfinite().all()
        assert matrix.dtype == torch.float32


def test_predicting_leaves_no_trace(learnt: Method, stream: TaskStream) -> None:
    clips = clips_of(stream, learnt, 2)
    before = {k: v.clone() for k, v in learnt.state_dict().items()}
    random = torch.get_rng_state()
    with torch.inference_mode():
        first = learnt.predict(clips)
        second = learnt.predict(clips)
    for name in first:
        assert torch.equal(first[name], second[name])
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(v, before[k]) for k, v in learnt.state_dict().items())


def test_batch_size_does_not_change_predictions(learnt: Method, stream: TaskStream) -> None:
    clips = clips_of(stream, learnt, 2)
    with torch.inference_mode():
        together = learnt.predict(clips)
        alone = [learnt.predict(clip[None]) for clip in clips]
    for name, matrix in together.items():
        torch.testing.assert_close(torch.cat([a[name] for a in alone]), matrix, rtol=1e-4, atol=1e-5)


def test_state_is_all_that_a_method_keeps(learnt: Method, stream: TaskStream, tiny: Any, tmp_path: Path) -> None:
    """Construct, replay grow, load: the way a run is resumed, through a file."""
    path = tmp_path / "state.safetensors"
    checkpoint.save(path, checkpoint.Checkpoint("id", [], {}, learnt.state_dict(), []))
    seed_modules(999, "other initial weights")
    twin = type(learnt)(learnt.config, context_of(learnt.context.backbone, tiny.protocol))
    for step in range(2):
        twin.grow(stream.task(step, cumulative=learnt.data_access == "cumulative"))
    twin.load_state_dict(checkpoint.load(path).state)
    twin.eval()
    clips = clips_of(stream, learnt, 2)
    with torch.inference_mode():
        for name, scores in learnt.predict(clips).items():
            assert torch.equal(twin.predict(clips)[name], scores)


def test_the_backbone_is_neither_trained_nor_stored(learnt: Method) -> None:
    trunk: Any = learnt.context.backbone
    assert not any(p.requires_grad or p.grad is not None for p in trunk.model.parameters())
    frozen = {p.data_ptr() for p in trunk.model.parameters()}
    assert not frozen & {p.data_ptr() for p in learnt.state_dict().values()}


def test_learning_moves_what_is_trained_and_the_same_seed_repeats_it(
    learnt: Method, stream: TaskStream, tiny: Any
) -> None:
    cls, trunk = type(learnt), learnt.context.backbone
    again = learn(cls, learnt.config, trunk, stream, tiny, 2)
    state = learnt.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in again.state_dict().items())
    seed_modules(1, "init")
    fresh = cls(learnt.config, context_of(trunk, tiny.protocol))
    for step in range(2):
        seed_modules(1, "grow", step)
        fresh.grow(stream.task(step, cumulative=cls.data_access == "cumulative"))
    trained = [k for k, p in fresh.named_parameters() if p.requires_grad]
    moved = [k for k in trained if not torch.equal(fresh.state_dict()[k], state[k])]
    assert moved == trained


def test_config_defaults_are_documented_and_recipes_are_valid(learnt: Method) -> None:
    cls = type(learnt)
    for field in dataclasses.fields(cls.Config):
        documented = any(field.name in (c.__doc__ or "") for c in cls.Config.__mro__)
        assert documented, f"{cls.__name__}.Config does not explain {field.name}"
    for pattern, _ in cls.all_recipes():
        cls.resolve_config(pattern.replace("*", "x"), {})


def test_task_of_one_class_with_one_video_stays_finite(learnt: Method, tiny: Any) -> None:
    """HMDB51 in steps of one class is the hard case for contrastive losses and variances."""
    manifest = prepare(adapter("folder"), tiny.root, "videos.csv")
    seen: set[str] = set()
    videos = []
    for video in manifest.videos:
        if video.split == "test" or video.label not in seen:
            videos.append(video)
        if video.split == "train":
            seen.add(video.label)
    few = stream_of(tiny, 2, videos=tuple(videos))
    assert [len(few.task(i).train) for i in range(3)] == [2, 1, 1]
    method = learn(type(learnt), learnt.config, learnt.context.backbone, few, tiny, 3)
    with torch.inference_mode():
        for scores in method.predict(clips_of(few, method, 3)).values():
            assert scores.isfinite().all()


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
    assert costs["memory"] == {"videos": 0, "frames": 0, "bytes": 0}
    assert {"spatial", "spatiotemporal", "fssd"} <= set(found.data["steps"][1]["losses"][0])
    assert np.isfinite(found.metric("backward_forgetting", "text"))
