"""Temporal consistency in iCaRL and BiC: asked for by one key, off by default, resumed like all else."""

from __future__ import annotations

from typing import Any

import pytest
from small_runs import config_of, learn, method_class

from vcil_bench.common.config import ConfigError
from vcil_bench.data.clips import SecondClip
from vcil_bench.data.loader import ClipLoader
from vcil_bench.methods.icarl import ICaRLConfig
from vcil_bench.nets.backbones import backbone
from vcil_bench.protocol import MemorySpec
from vcil_bench.stream import TaskStream
from vcil_bench.testing import check_method
from vcil_bench.testing.contract import quick_values

BOTH = pytest.mark.parametrize("name", ["icarl", "bic"])


@BOTH
@pytest.mark.parametrize(
    ("changes", "second"),
    [
        ({}, None),
        ({"tc_clip": "spread"}, SecondClip(4)),
        ({"tc_clip": "released"}, SecondClip(4, released=True)),
    ],
    ids=str,
)
def test_batches_have_second_clips_where_they_are_asked_for(
    name: str,
    changes: dict[str, Any],
    second: SecondClip | None,
    stream: TaskStream,
    tiny: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[SecondClip | None] = []
    original = ClipLoader.training

    def spy(loader: Any, *given: Any, second: SecondClip | None = None, **more: Any) -> Any:
        asked.append(second)
        return original(loader, *given, second=second, **more)

    monkeypatch.setattr(ClipLoader, "training", spy)
    cls = method_class(name)
    learn(cls, config_of(cls, **changes), backbone("tsm_tiny").load(None), stream, tiny, 2, memory__per_class=2)
    assert asked == [second] * {"icarl": 2, "bic": 3}[name]  # BiC trains its correction as well


def test_a_memory_of_whole_videos_makes_the_second_clip_another_draw() -> None:
    whole = MemorySpec(total=2020, frames="all")
    assert ICaRLConfig(tc_clip="spread").second_clip(whole) == SecondClip(-1)
    assert ICaRLConfig(tc_clip="released").second_clip(whole) == SecondClip(-1, released=True)
    assert ICaRLConfig().second_clip(whole) is None


@BOTH
def test_it_is_off_by_default_and_weighs_half(name: str) -> None:
    for protocol in ("vclimb_ucf101_10", "vclimb_kinetics400_20", "synthetic_6x4", "tcd_ucf101_10x5"):
        config, _ = method_class(name).resolve_config(protocol, {})
        assert (config.tc_clip, config.tc_weight) == ("off", 0.5)


def test_a_loss_without_a_cross_entropy_is_refused_with_the_way_out() -> None:
    with pytest.raises(ConfigError, match=r"tc_clip: spread.*loss=paper.*loss=vclimb"):
        ICaRLConfig(loss="paper", tc_clip="spread")
    with pytest.raises(ConfigError, match=r"tc_weight: 1\.5 must be from 0 to 1"):
        ICaRLConfig(tc_weight=1.5)
    with pytest.raises(ConfigError, match="tc_clip=off"):
        ICaRLConfig(tc_weight=0.9)
    assert ICaRLConfig(tc_weight=0.9, tc_clip="spread").tc_weight == 0.9


@pytest.mark.slow
@BOTH
def test_with_two_clips_every_contract_holds(name: str) -> None:
    cls = method_class(name)
    quick = {key: 1 for key in quick_values(cls) if key != "batch_size"}
    results = check_method(cls, "tsm_tiny", config=quick | {"tc_clip": "spread"})
    assert [str(result) for result in results if result.outcome == "failed"] == []
