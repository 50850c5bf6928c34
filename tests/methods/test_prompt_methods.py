"""Prompt methods: every named part is alive in training, clips are scored alone, bad values are refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import clips_of, config_of, context_of, learn, method_class, stream_of, untried_switches
from torch import Tensor

from vcil_bench.common.config import ConfigError
from vcil_bench.method import Method
from vcil_bench.nets.backbones import backbone
from vcil_bench.nets.prompts import select_prompts
from vcil_bench.run.plan import RunError, make_plan

NAMES = ("l2p", "dualprompt", "coda_prompt", "sprompts")
# One variant per switch value, and per number that takes a part away.
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "l2p": [
        *({"query": "frame"}, {"features": "unprojected"}, {"choice": "batch", "pool_size": 40}),
        *({"pull": 0.0}, {"clip_norm": None, "lr": 0.05}),
    ],
    "dualprompt": [
        *({"query": "frame"}, {"features": "unprojected"}, {"choice": "batch"}),
        *({"released_prefixes": True}, {"general_blocks": 0}),
    ],
    "coda_prompt": [
        *({"query": "frame"}, {"features": "unprojected"}, {"orthogonality": 0.0}),
        *({"components_per_task": 3}, {"blocks": 1}),
    ],
    "sprompts": [{"query": "frame"}, {"features": "unprojected"}, {"centres": 1}, {"distance": "l2"}],
}
# Which prompts a few clips get need not change with these.
NEED_MORE_CLIPS = [
    ("dualprompt", {"choice": "batch"}),
    *(("sprompts", changes) for changes in ({"query": "frame"}, {"distance": "l2"}, {"centres": 1})),
]


@pytest.fixture(scope="module")
def trunk() -> Any:
    return backbone("clip_tiny").load(None)


def learnt(name: str, trunk: Any, tiny: Any, steps: int = 2, **changes: Any) -> Method:
    cls = method_class(name)
    config = config_of(cls, **({"lr": 0.01} | changes))
    return learn(cls, config, trunk, stream_of(tiny, sizes=(2, 2)), tiny, steps=steps)


def scores(method: Method, tiny: Any) -> Tensor:
    with torch.no_grad():
        return method.predict(clips_of(stream_of(tiny, sizes=(2, 2)), method, 2))["cnn"]


@pytest.fixture(scope="module")
def plain(trunk: Any, tiny: Any) -> Any:
    made: dict[str, Method] = {}

    def of(name: str) -> Method:
        if name not in made:
            made[name] = learnt(name, trunk, tiny)
        return made[name]

    return of


@pytest.mark.parametrize("name", NAMES)
def test_every_switch_is_among_the_variants(name: str) -> None:
    assert untried_switches(method_class(name), VARIANTS[name]) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "changes"),
    [(name, changes) for name, variants in VARIANTS.items() for changes in variants],
    ids=lambda x: x if isinstance(x, str) else "+".join(f"{k}={v}" for k, v in x.items()),
)
def test_every_switch_changes_the_scores(
    name: str, changes: dict[str, Any], plain: Any, trunk: Any, tiny: Any
) -> None:
    changed = scores(learnt(name, trunk, tiny, **changes), tiny)
    assert changed.isfinite().all()
    if (name, changes) not in NEED_MORE_CLIPS:
        assert not torch.allclose(changed, scores(plain(name), tiny))


# --- clips alone


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("query", ["video", pytest.param("frame", marks=pytest.mark.slow)])
def test_a_clip_is_scored_alone_as_in_any_batch(
    name: str, query: str, plain: Any, trunk: Any, tiny: Any
) -> None:
    method = plain(name) if query == "video" else learnt(name, trunk, tiny, query=query)
    clips = clips_of(stream_of(tiny, sizes=(2, 2)), method, 2)
    with torch.no_grad():
        whole = method.predict(clips)["cnn"]
        alone = torch.cat([method.predict(clip[None])["cnn"] for clip in clips])
        backwards = method.predict(clips.flip(0))["cnn"].flip(0)
    torch.testing.assert_close(alone, whole, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(backwards, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("l2p", {"choice": "batch"}),
        ("dualprompt", {"choice": "batch"}),
        ("dualprompt", {"released_prefixes": True}),
    ],
)
def test_released_choices_score_a_clip_by_its_batch(
    name: str, changes: dict[str, Any], trunk: Any, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = learnt(name, trunk, tiny, steps=0)
    changed = type(method)(config_of(type(method), **changes), method.context)
    stream = stream_of(tiny, sizes=(2, 2))
    for step in range(2):
        torch.manual_seed(step)
        changed.grow(stream.task(step))
    for part in changed.parameters():  # as if they had been trained, each apart from all others
        torch.nn.init.normal_(part.data)
    clips = clips_of(stream, changed, 2)
    with torch.no_grad():
        whole = changed.predict(clips)["cnn"]
        alone = torch.cat([changed.predict(clip[None])["cnn"] for clip in clips])
    assert not torch.allclose(alone, whole, rtol=1e-2, atol=1e-2)

    plan = {"seed": 1000, "results": tmp_path, "device": "cpu"}
    make_plan(name, "synthetic_3x4", assignments=changes, **plan)  # type: ignore[arg-type]
    with pytest.raises(RunError, match=r"eval_batch: 8.*by the clips beside it.*leave it at 32"):
        make_plan(name, "synthetic_3x4", assignments=changes | {"eval_batch": 8}, **plan)  # type: ignore[arg-type]
    make_plan(name, "synthetic_3x4", assignments={"eval_batch": 8}, **plan)  # type: ignore[arg-type]
    monkeypatch.setattr("vcil_bench.run.plan.size_of_team", lambda: 2)
    with pytest.raises(RunError, match="without torchrun"):
        make_plan(name, "synthetic_3x4", assignments=changes, **plan)  # type: ignore[arg-type]


def test_one_query_a_video_gives_its_frames_the_same_prompts(plain: Any, trunk: Any, tiny: Any) -> None:
    method = plain("l2p")
    clips = clips_of(stream_of(tiny, sizes=(2, 2)), method, 2)
    frames = trunk.encode_frames(clips, None)
    torch.testing.assert_close(method.query(clips), frames.mean(dim=1))
    assert not method.query(clips).requires_grad
    by_frame = method_class("l2p")(config_of(method_class("l2p"), query="frame"), method.context)
    torch.testing.assert_close(by_frame.query(clips), frames.flatten(0, 1))


# --- parts that are alive


def trained(name: str, trunk: Any, tiny: Any, steps: int, **changes: Any) -> tuple[dict[str, Tensor], Any]:
    """Return a method's state when it has grown for its last task but not learnt it, and after it."""
    cls = method_class(name)
    config, stream = config_of(cls, **({"lr": 0.01} | changes)), stream_of(tiny, sizes=(2, 2))
    before: dict[str, Tensor] = {}

    class Watched(cls):  # type: ignore[misc, valid-type]
        def learn(self, task: Any) -> None:
            before.clear()
            before.update({key: value.clone() for key, value in self.state_dict().items()})
            super().learn(task)

    return before, learn(Watched, config, trunk, stream, tiny, steps=steps)


def moved(before: dict[str, Tensor], method: Any) -> dict[str, Tensor]:
    """Return how far every entry of the state moved in the last task."""
    return {k: (v - before[k]).abs() for k, v in method.state_dict().items()}


@pytest.mark.parametrize("name", NAMES)
def test_the_network_stays_frozen_and_nothing_of_it_is_stored(name: str, plain: Any) -> None:
    method = plain(name)
    assert not list(method.network.parameters())
    assert not any(key.startswith("network") for key in method.state_dict())


def test_l2ps_chosen_prompts_and_keys_move_and_no_others(trunk: Any, tiny: Any) -> None:
    before, method = trained("l2p", trunk, tiny, 1, top_k=2, pool_size=30)
    change = moved(before, method)
    stream = stream_of(tiny, sizes=(2, 2))
    prompts, keys = change["prompts"].amax(dim=(1, 2)) > 0, change["keys"].amax(dim=1) > 0
    assert torch.equal(prompts, keys)
    assert 2 <= int(prompts.sum()) < 30
    queries = method.query(clips_of(stream, method, 1))
    unit = torch.nn.functional.normalize
    chosen = select_prompts(queries, before["keys"], 2)
    near = [(unit(queries) @ unit(k[chosen[0]]).T).mean() for k in (before["keys"], method.keys.detach())]
    assert near[1] > near[0]  # keys are pulled to the queries


def test_dualprompts_general_and_expert_prompts_and_keys_move(trunk: Any, tiny: Any) -> None:
    before, method = trained("dualprompt", trunk, tiny, 2)
    change = moved(before, method)
    assert (change["general"].amax(dim=(1, 4)) > 0).all()  # keys and values of every row in every block
    assert (change["experts.1"].amax(dim=(3, 4)) > 0).all()
    assert (change["keys.1"] > 0).any()
    for frozen in ("experts.0", "keys.0"):
        assert not change[frozen].any()
    assert not change["head.weight"][:2].any()
    assert torch.equal(before["experts.1"], before["experts.0"])  # starts as the last task's
    assert not torch.equal(before["keys.1"], before["keys.0"])


def test_dualprompt_trains_the_tasks_own_prompt_and_tests_by_the_nearest_key(plain: Any, tiny: Any) -> None:
    method = plain("dualprompt")
    stream = stream_of(tiny, sizes=(2, 2))
    query = torch.stack([method.keys[1], method.keys[0]])
    last = method._expert_blocks[-1]
    in_training = method.slots(query, stream.task(0))[0].prefixes[last]
    at_test = method.slots(query, None)[0].prefixes[last]
    first, second = (expert[-1].flatten(-2) for expert in method.experts)
    assert torch.equal(in_training, torch.stack([first, first]))
    assert torch.equal(at_test, torch.stack([second, first]))


def test_codas_new_components_move_and_the_old_stay(trunk: Any, tiny: Any) -> None:
    before, method = trained("coda_prompt", trunk, tiny, 2)
    change = moved(before, method)
    for part in ("keys", "attentions", "components"):
        assert (change[f"{part}.1"].flatten(2).amax(dim=2) > 0).all()  # every component in every block
        assert not change[f"{part}.0"].any()
        both = torch.cat([before[f"{part}.0"], before[f"{part}.1"]], dim=1).flatten(2)
        apart = both @ both.transpose(1, 2) - torch.eye(both.shape[1])
        assert apart[:, 10:, 10:].abs().max() < 0.2  # of the new to one another; the old had been trained
    query = torch.randn(3, method.network.dim)
    with torch.no_grad():
        composed = method.slots(query, None)[0].prefixes[0]
        method.components[0].zero_()
        assert not torch.allclose(method.slots(query, None)[0].prefixes[0], composed)  # old ones are in use


def test_sprompts_train_the_tasks_own_prompts_and_centres_decide(trunk: Any, tiny: Any) -> None:
    before, method = trained("sprompts", trunk, tiny, 2)
    change = moved(before, method)
    assert (change["prompts.1"].amax(dim=2) > 0).all()
    assert change["heads.1.weight"].any()
    assert not change["prompts.0"].any()
    assert not change["heads.0.weight"].any()
    clips = clips_of(stream_of(tiny, sizes=(2, 2)), method, 2)
    chosen = method.choose_tasks(method.query(clips))
    with torch.no_grad():
        found = method.predict(clips)["cnn"]
        assert torch.equal(found[:, 2:].sum(dim=1) > 0, chosen == 1)
        torch.testing.assert_close(found.sum(dim=1), torch.ones(len(clips)))
        method.centres.copy_(method.centres.flip(0))
        assert torch.equal(method.choose_tasks(method.query(clips)), 1 - chosen)
        other = method.predict(clips)["cnn"]
    assert torch.equal(other[:, 2:].sum(dim=1) > 0, chosen == 0)
    assert method.memory_use().statistics_bytes == 2 * 5 * trunk.dim * 4


@pytest.mark.parametrize("name", NAMES)
def test_slots_change_what_the_frozen_network_says(name: str, plain: Any, tiny: Any) -> None:
    method = plain(name)
    expected = scores(method, tiny)
    state = {key: value.clone() for key, value in method.state_dict().items()}
    with torch.no_grad():
        for key, value in method.named_parameters():
            if key.startswith(("prompts", "general", "experts", "components")):
                value.mul_(-1)
    changed = scores(method, tiny)
    method.load_state_dict(state)
    assert not torch.allclose(changed, expected, atol=1e-4)


# --- refusals


@pytest.mark.parametrize(
    ("name", "changes", "text"),
    [
        ("l2p", {"top_k": 11}, "top_k: 11 prompts of a pool of 10"),
        ("dualprompt", {"clip_norm": 0.0}, "clip_norm: 0.0 must be above 0"),
        ("coda_prompt", {"length": 7}, "length: 7 rows do not halve"),
        ("coda_prompt", {"components": 0}, "components: 0 must be above 0"),
        ("sprompts", {"centres": 0}, "centres"),
    ],
)
def test_values_that_no_run_can_use_are_refused(name: str, changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        config_of(method_class(name), **changes)


def test_components_that_tasks_do_not_divide_are_refused_before_any_work(trunk: Any, tiny: Any) -> None:
    cls = method_class("coda_prompt")
    context = context_of(trunk, tiny.protocol)

    def construct(num_tasks: int | None, **changes: Any) -> Any:
        return cls(config_of(cls, **changes), dataclasses.replace(context, num_tasks=num_tasks))

    assert construct(5, components=100)._share == 20
    assert construct(None)._share == 10
    with pytest.raises(ConfigError, match="components: 100 do not divide over 26 tasks"):
        construct(26, components=100)
    with pytest.raises(ConfigError, match="do not divide over an unknown number"):
        construct(None, components=100)
    with pytest.raises(ConfigError, match="10 components in each of 26 tasks are more than the 128"):
        construct(26)


def test_general_prompts_that_leave_no_block_to_expert_ones_are_refused(trunk: Any, tiny: Any) -> None:
    cls = method_class("dualprompt")
    with pytest.raises(ConfigError, match="general_blocks: 3 leave no block of clip_tiny, which has 3"):
        cls(config_of(cls, general_blocks=3), context_of(trunk, tiny.protocol))


def test_a_backbone_without_slots_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="needs a backbone with slots; 'tsm_tiny' provides"):
        make_plan(
            "l2p",
            "synthetic_3x4",
            seed=1000,
            assignments={"backbone": "tsm_tiny"},
            results=tmp_path,
            device="cpu",
        )
