"""Every method with exemplars on memories that keep a frame or few of a video, repeated or interpolated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import ENTRIES, config_of, method_class

from vcil_bench.common.config import ConfigError
from vcil_bench.nets.backbones import backbone
from vcil_bench.protocol import MemorySpec
from vcil_bench.testing.contract import quick_values, short_epochs
from vcil_bench.testing.small_data import SmallData
from vcil_bench.testing.small_runs import SmallRuns

METHODS = [name for name, entry in ENTRIES.items() if entry.cls is not None and entry.cls.uses_memory]
SPECS = {
    "whole": MemorySpec(per_class=1, frames=4),
    "single": MemorySpec(per_class=1, frames=1),
    "repeat": MemorySpec(per_class=1, frames=2),
    "interpolate": MemorySpec(per_class=1, frames=2, fill="interpolate"),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SmallData:
    return SmallData(tmp_path_factory.mktemp("videos"))


def runs(name: str, spec: MemorySpec, epochs: int) -> SmallRuns:
    cls = method_class(name)
    config = config_of(cls, **quick_values(cls) | short_epochs(cls, epochs))
    return SmallRuns(cls, config, backbone("tsm_tiny").load(None), spec)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "replay" else pytest.mark.slow) for name in METHODS]
)
def test_what_is_kept_of_a_video_is_what_is_trained_on_and_counted(name: str, data: SmallData) -> None:
    losses = {}
    for kind, spec in SPECS.items():
        learnt = runs(name, spec, epochs=1).learn_all(data.tasks((2, 1), (2, 2, 2)))
        use, frames = learnt.uses[-1], 3 * int(spec.frames)
        side = backbone("tsm_tiny").image_size
        assert (use.videos, use.frames, use.bytes) == (3, frames, frames * 3 * side**2)
        assert all(len(sample.stored) == spec.frames for sample in learnt.exemplars[-1])
        losses[kind] = str(learnt.losses)
    assert len(set(losses.values())) == len(SPECS)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_a_run_on_interpolated_exemplars_goes_on_where_it_was_stopped(
    name: str, data: SmallData, tmp_path: Path
) -> None:
    few, tasks = runs(name, SPECS["interpolate"], epochs=2), data.tasks((2, 2))
    whole = few.learn_all(tasks)
    resumed = few.resume_with_stops(whole.states[0], tasks, tmp_path, [3, 2])
    assert whole.batches[-1] > 5
    assert resumed.losses[-1] == whole.losses[-1]
    for key, value in whole.states[-1].items():
        assert torch.equal(resumed.states[-1][key], value), key


@pytest.mark.parametrize("name", ["icarl", "bic"])
@pytest.mark.parametrize("kind", ["spread", "released"])
def test_a_second_clip_of_stored_frames_is_refused_where_they_are_interpolated(name: str, kind: str) -> None:
    cls = method_class(name)
    given: Any = {"config": config_of(cls, tc_clip=kind), "trunk": backbone("tsm_tiny").load(None)}
    SmallRuns(cls, budget=SPECS["repeat"], **given).construct()
    with pytest.raises(ConfigError, match=rf"tc_clip: {kind} .*memory\.fill=repeat"):
        SmallRuns(cls, budget=SPECS["interpolate"], **given).construct()
