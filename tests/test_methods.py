"""Contract tests over every method that is found, on a stream small enough to run each of them whole."""

from __future__ import annotations

import dataclasses
import json
import typing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.progress import Progress

from vcil_bench import checkpoint, protocol, record, registry
from vcil_bench.data.datasets import adapter
from vcil_bench.data.loader import ClipLoader
from vcil_bench.data.manifest import prepare
from vcil_bench.evaluation import evaluate
from vcil_bench.method import Method, RunContext
from vcil_bench.nets.backbones import backbone
from vcil_bench.randomness import seed_modules
from vcil_bench.stream import TaskStream

ENTRIES = registry.find_all()
NAMES = sorted(ENTRIES)
# What makes a method quick enough for a test; keys that a method's Config lacks are passed over.
QUICK = {"epochs": 1, "epochs_first": 2, "batch_size": 4, "template": "{}"}


def _config(cls: type[Method], **changes: Any) -> Any:
    keys = {f.name for f in dataclasses.fields(cls.Config)}
    values = {k: v for k, v in (QUICK | changes).items() if k in keys}
    return cls.resolve_config("contract", values)[0]


@pytest.fixture(scope="module")
def trunk() -> Any:
    return backbone("clip_tiny").load(None)


@pytest.fixture(scope="module")
def stream(tiny: Any) -> TaskStream:
    loaded = protocol.load(tiny.protocol)
    return TaskStream(loaded, prepare(adapter("folder"), tiny.root, "videos.csv"), 1)


def _context(trunk: Any, tiny: Any) -> RunContext:
    cpu = torch.device("cpu")
    spec = protocol.load(tiny.protocol).spec.clip
    loader = ClipLoader(spec, decoder="auto", workers=0, device=cpu, seed=1)
    return RunContext(cpu, "fp32", 1, loader, trunk, None, Progress(disable=True))


def _learn(cls: type[Method], config: Any, trunk: Any, stream: TaskStream, tiny: Any, steps: int) -> Method:
    seed_modules(1, "init")
    method = cls(config, _context(trunk, tiny))
    for step in range(steps):
        task = stream.task(step, cumulative=cls.data_access == "cumulative")
        seed_modules(1, "grow", step)
        method.grow(task)
        seed_modules(1, "learn", step)
        method.train().learn(task)
    return method.eval()


def _clips(stream: TaskStream, method: Method, upto: int) -> torch.Tensor:
    samples = [s for i in range(upto) for s in stream.test(i)]
    return torch.cat([b.clips[:, 0] for b in method.context.loader.views(samples, 8)])


def test_methods_are_found() -> None:
    assert {"stpr", "zero_shot", "finetune", "joint"} <= set(NAMES)
    assert all(entry.cls is not None for entry in ENTRIES.values())


@pytest.fixture(scope="module", params=NAMES)
def learnt(request: Any, trunk: Any, stream: TaskStream, tiny: Any) -> Method:
    """Each method after the first two tasks."""
    cls = ENTRIES[request.param].cls
    assert cls is not None
    return _learn(cls, _config(cls), trunk, stream, tiny, 2)


def test_scores_cover_the_classes_seen(learnt: Method, stream: TaskStream) -> None:
    clips = _clips(stream, learnt, 2)
    with torch.inference_mode():
        scores = learnt.predict(clips)
    assert tuple(scores) == learnt.readouts
    for matrix in scores.values():
        assert matrix.shape == (len(clips), 3)
        assert matrix.isfinite().all()
        assert matrix.dtype == torch.float32


def test_predicting_leaves_no_trace(learnt: Method, stream: TaskStream) -> None:
    clips = _clips(stream, learnt, 2)
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
    clips = _clips(stream, learnt, 2)
    with torch.inference_mode():
        together = learnt.predict(clips)
        alone = [learnt.predict(clip[None]) for clip in clips]
    for name, matrix in together.items():
        torch.testing.assert_close(torch.cat([a[name] for a in alone]), matrix, rtol=1e-4, atol=1e-5)


def test_state_is_all_that_a_method_keeps(
    learnt: Method, stream: TaskStream, trunk: Any, tiny: Any, tmp_path: Path
) -> None:
    """Construct, replay grow, load: the way a run is resumed, through a file."""
    path = tmp_path / "state.safetensors"
    checkpoint.save(path, checkpoint.Checkpoint("id", [], {}, learnt.state_dict(), []))
    seed_modules(999, "other initial weights")
    twin = type(learnt)(learnt.config, _context(trunk, tiny))
    for step in range(2):
        twin.grow(stream.task(step, cumulative=learnt.data_access == "cumulative"))
    twin.load_state_dict(checkpoint.load(path).state)
    twin.eval()
    clips = _clips(stream, learnt, 2)
    with torch.inference_mode():
        for name, scores in learnt.predict(clips).items():
            assert torch.equal(twin.predict(clips)[name], scores)


def test_the_backbone_is_neither_trained_nor_stored(learnt: Method, trunk: Any) -> None:
    assert not any(p.requires_grad or p.grad is not None for p in trunk.model.parameters())
    frozen = {p.data_ptr() for p in trunk.model.parameters()}
    assert not frozen & {p.data_ptr() for p in learnt.state_dict().values()}


def test_learning_moves_what_is_trained_and_the_same_seed_repeats_it(
    learnt: Method, stream: TaskStream, trunk: Any, tiny: Any
) -> None:
    cls = type(learnt)
    again = _learn(cls, learnt.config, trunk, stream, tiny, 2)
    state = learnt.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in again.state_dict().items())
    seed_modules(1, "init")
    fresh = cls(learnt.config, _context(trunk, tiny))
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
    for pattern in cls.recipes:
        cls.resolve_config(pattern.replace("*", "x"), {})


def test_task_of_one_class_with_one_video_stays_finite(learnt: Method, trunk: Any, tiny: Any) -> None:
    """HMDB51 in steps of one class is the hard case for contrastive losses and variances."""
    loaded = protocol.load(tiny.protocol)
    manifest = prepare(adapter("folder"), tiny.root, "videos.csv")
    seen: set[str] = set()
    videos = []
    for video in manifest.videos:
        if video.split == "test" or video.label not in seen:
            videos.append(video)
        if video.split == "train":
            seen.add(video.label)
    few = TaskStream(loaded, dataclasses.replace(manifest, videos=tuple(videos)), 2)
    assert [len(few.task(i).train) for i in range(3)] == [2, 1, 1]
    method = _learn(type(learnt), learnt.config, trunk, few, tiny, 3)
    with torch.inference_mode():
        for scores in method.predict(_clips(few, method, 3)).values():
            assert scores.isfinite().all()


STPR_VARIANTS = [
    {"adapters": False},
    {"fssd": False},
    {"moe": False},
    {"adapters": False, "moe": False},
    {"router": "average"},
    {"router": "clip"},
    {"router": "adapter"},
    {"adapter_chain": "separate"},
    {"expert_init": "fresh"},
    {"importance": "stored"},
    {"importance_clamp": False},
    {"normalise": False},
    {"routing": "softmax"},
    {"routing": "top1"},
    {"dynamics": "before"},
    {"logit_scale": 50.0},
    {"schedule": "constant"},
    {"adapter_activation": "gelu"},
    {"expert_readout": "mean"},
    {"negatives": "current"},
    {"negatives": "batch"},
    {"template": "a clip of {}"},
]


@pytest.fixture(scope="module")
def plain_stpr(trunk: Any, stream: TaskStream, tiny: Any) -> torch.Tensor:
    return _stpr_scores({}, trunk, stream, tiny)


def _stpr_scores(changes: dict[str, Any], trunk: Any, stream: TaskStream, tiny: Any) -> torch.Tensor:
    cls = ENTRIES["stpr"].cls
    assert cls is not None
    method = _learn(cls, _config(cls, lr=0.1, **changes), trunk, stream, tiny, 3)
    with torch.inference_mode():
        return method.predict(_clips(stream, method, 3))["text"]


def test_every_switch_of_stpr_is_among_the_variants() -> None:
    """``relu`` alone may leave scores as they are, where no score is negative; golden numbers check it."""
    cls = ENTRIES["stpr"].cls
    assert cls is not None
    tried = {(key, value) for variant in STPR_VARIANTS for key, value in variant.items()}
    for field in dataclasses.fields(cls.Config):
        hint = typing.get_type_hints(cls.Config)[field.name]
        choices = (True, False) if hint is bool else typing.get_args(hint)
        for value in choices:
            if isinstance(value, (bool, str)) and value not in (field.default, "relu"):
                assert (field.name, value) in tried


@pytest.mark.parametrize("changes", STPR_VARIANTS, ids=lambda c: "+".join(f"{k}={v}" for k, v in c.items()))
def test_every_switch_of_stpr_runs_and_changes_its_scores(
    changes: dict[str, Any], plain_stpr: torch.Tensor, trunk: Any, stream: TaskStream, tiny: Any
) -> None:
    scores = _stpr_scores(changes, trunk, stream, tiny)
    assert scores.shape == plain_stpr.shape
    assert scores.isfinite().all()
    assert not torch.allclose(scores, plain_stpr, rtol=0, atol=1e-6)


def test_stpr_without_any_part_is_frozen_clip(trunk: Any, stream: TaskStream, tiny: Any) -> None:
    scores = _stpr_scores({"adapters": False, "moe": False, "template": "{}"}, trunk, stream, tiny)
    cls = ENTRIES["zero_shot"].cls
    assert cls is not None
    method = _learn(cls, _config(cls), trunk, stream, tiny, 3)
    with torch.inference_mode():
        torch.testing.assert_close(scores, method.predict(_clips(stream, method, 3))["text"])


def test_old_experts_and_anchors_stay_as_they_were(trunk: Any, stream: TaskStream, tiny: Any) -> None:
    cls = ENTRIES["stpr"].cls
    assert cls is not None
    config = _config(cls)
    two = _learn(cls, config, trunk, stream, tiny, 2).state_dict()
    three = _learn(cls, config, trunk, stream, tiny, 3).state_dict()
    experts = [k for k in two if k.startswith("experts.")]
    assert experts
    assert all(torch.equal(two[k], three[k]) for k in experts)
    assert torch.equal(two["anchors"], three["anchors"][:3])
    assert (three["anchors"].norm(dim=1) > 0).all()
    adapters = [k for k in two if k.startswith("encoders.")]
    assert not all(torch.equal(two[k], three[k]) for k in adapters)


def test_fssd_holds_the_encoder_back(trunk: Any, stream: TaskStream, tiny: Any) -> None:
    """A larger w must leave the shared semantics of old clips closer to where they were.

    The variance floor is high because three near-identical videos a class have next to no variance, which
    would make the weighted loss too steep for any step.
    """
    cls = ENTRIES["stpr"].cls
    assert cls is not None
    drifts = []
    for weight in (0.0, 1e4, 1e5):
        config = _config(
            cls,
            fssd_weight=weight,
            moe=False,
            adapter_dropout=0.0,
            epochs=8,
            lr=0.5,
            importance_floor=0.01,
        )
        one = _learn(cls, config, trunk, stream, tiny, 1)
        two = _learn(cls, config, trunk, stream, tiny, 2)
        clips = _clips(stream, one, 1)
        with torch.inference_mode():
            old, new = (m.encoder(clips).mean(dim=1) for m in (one, two))
        unit = torch.nn.functional.normalize
        drifts.append(float((unit(old, dim=-1) - unit(new, dim=-1)).square().mean()))
    assert drifts[2] < drifts[1] < drifts[0]
    assert drifts[2] < 0.5 * drifts[0]


def test_importance_is_measured_under_the_old_encoder_before_training(
    trunk: Any, stream: TaskStream, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cls = ENTRIES["stpr"].cls
    assert cls is not None
    config = _config(cls, lr=0.1)
    one = _learn(cls, config, trunk, stream, tiny, 1)
    measured = []
    original = cls._importance  # type: ignore[attr-defined]

    def spy(self: Any, task: Any) -> torch.Tensor:
        adapters = {k: v.clone() for k, v in self.encoder.state_dict().items()}
        measured.append((task.index, adapters, original(self, task)))
        return measured[-1][2]

    monkeypatch.setattr(cls, "_importance", spy)
    two = _learn(cls, config, trunk, stream, tiny, 2)
    ((index, adapters, importance),) = measured
    assert index == 1
    assert all(torch.equal(v, one.encoder.state_dict()[k]) for k, v in adapters.items())
    assert not all(torch.equal(v, two.encoder.state_dict()[k]) for k, v in adapters.items())
    task = stream.task(1)
    with torch.inference_mode():
        spatial = torch.cat([one.encoder(b.clips).mean(dim=1) for b in one.context.plain_clips(task.train)])
        unit = torch.nn.functional.normalize(spatial, dim=-1)
    expected = unit.mean(dim=0) * two.texts[2] / unit.var(dim=0, correction=0).clamp_min(1e-6)
    torch.testing.assert_close(importance[2], expected.clamp_min(0), rtol=1e-3, atol=1e-4)
    assert (importance[:2] == 0).all()


def test_anchors_are_class_means_under_the_trained_encoder(trunk: Any, stream: TaskStream, tiny: Any) -> None:
    cls = ENTRIES["stpr"].cls
    assert cls is not None
    method = _learn(cls, _config(cls, lr=0.1), trunk, stream, tiny, 2)
    unit = torch.nn.functional.normalize
    with torch.inference_mode():
        batches = list(method.context.plain_clips(stream.task(1).train))
        frames = torch.cat([method.encoder(b.clips) for b in batches])
        dynamics = unit(method.experts[1](frames), dim=-1) - unit(frames.mean(dim=1), dim=-1)
    torch.testing.assert_close(method.anchors[2], dynamics.mean(dim=0), rtol=1e-4, atol=1e-5)
    assert method.expert_of_anchor.tolist() == [0, 0, 1]


def test_separate_adapters_feed_each_expert_its_own_frames(trunk: Any, stream: TaskStream, tiny: Any) -> None:
    cls = ENTRIES["stpr"].cls
    assert cls is not None
    config = _config(cls, lr=0.1, adapter_chain="separate")
    one = _learn(cls, config, trunk, stream, tiny, 1).encoder.state_dict()
    two = _learn(cls, config, trunk, stream, tiny, 2)
    assert len(two.encoders) == 2
    assert all(torch.equal(v, one[k]) for k, v in two.encoders[0].state_dict().items())
    assert not all(torch.equal(v, one[k]) for k, v in two.encoders[1].state_dict().items())


def test_distillation_holds_no_second_trunk(trunk: Any) -> None:
    from vcil_bench.nets.clip import AdapterConfig

    encoder = trunk.encoder(AdapterConfig(bottleneck=8))
    old = encoder.frozen_copy()
    assert old.trunk is encoder.trunk
    assert sum(p.numel() for p in old.parameters()) == sum(p.numel() for p in encoder.parameters())
    assert not any(p.requires_grad for p in old.parameters())


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

    method = Constant(Constant.Config(), _context(trunk, tiny)).eval()
    tests = [stream.test(i) for i in range(3)]
    found = evaluate(method, method.context, tests, 4, 3)
    assert found.correct == {"cnn": [2, 0, 0]}  # two test videos of label 1, which is in the base task
    assert found.top["cnn"].shape == (8, 5)
    assert (found.top["cnn"][:, 0] == 1).all()
    assert (found.top["cnn"][:, 1:4] == [0, 2, 3]).all()  # ties rank the lower label first
    assert (found.top["cnn"][:, 4] == -1).all()


def test_a_run_leaves_the_evidence(tiny: Any, tmp_path: Path) -> None:
    sets = [f"{k}={json.dumps(v)}" for k, v in QUICK.items()]
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
    costs = found.data["steps"][1]["costs"]
    assert costs["trainable"] > 0
    assert costs["memory"] == {"videos": 0, "frames": 0, "bytes": 0}
    assert {"spatial", "spatiotemporal", "fssd"} <= set(found.data["steps"][1]["losses"][0])
    assert np.isfinite(found.metric("backward_forgetting", "text"))
