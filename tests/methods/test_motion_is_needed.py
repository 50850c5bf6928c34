"""The embedded clips need motion: joint training on all classes is lost without the order of the frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import method_class
from torch import Tensor

from vcil_bench.data import synthetic
from vcil_bench.data.datasets import adapter
from vcil_bench.data.loader import ClipLoader
from vcil_bench.data.prepare import prepare
from vcil_bench.method import RunContext
from vcil_bench.nets.backbones import backbone
from vcil_bench.protocol import load
from vcil_bench.run import seeded
from vcil_bench.stream import TaskStream
from vcil_bench.training import Trainer

OF_BACKBONE: dict[str, dict[str, Any]] = {
    "clip_tiny": {},
    "tsm_tiny": {"temporal": "mean", "lr": 0.006, "batch_size": 20, "epochs_first": 10},
}
JOINT = method_class("joint")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / synthetic.FOLDER_NAME
    synthetic.render(root)
    return root


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_BACKBONE)
def test_shuffled_or_still_clips_tell_joint_training_the_object_alone(name: str, clips: Path) -> None:
    protocol = load("synthetic_3x4").derive({"tasks.sizes": [24]})
    stream = TaskStream(protocol, prepare(adapter("synthetic"), clips, "1"), 1000)
    cpu = torch.device("cpu")
    loader = ClipLoader(protocol.spec.clip, decoder="auto", workers=0, device=cpu, seed=1000)
    context = RunContext(
        cpu, "fp32", loader, backbone(name).load(None), protocol.spec.memory, Trainer(cpu, "fp32", loader)
    )
    config = JOINT.resolve_config(protocol.name, OF_BACKBONE[name])[0]
    joint = seeded.construct(JOINT, config, context, 1000)
    task = stream.task(0, cumulative=True)
    seeded.grow(joint, task, 1000)
    seeded.learn(joint, task, 1000)
    joint.eval()

    batches = list(loader.views(stream.test(0), 32))
    videos = torch.cat([batch.clips[:, 0] for batch in batches])
    labels = torch.cat([batch.labels for batch in batches])
    chance = torch.Generator().manual_seed(0)
    shuffled = torch.stack([clip[torch.randperm(len(clip), generator=chance)] for clip in videos])
    still = videos[:, :1].expand_as(videos)

    @torch.no_grad()
    def accuracy(clips: Tensor) -> float:
        scores = torch.cat([joint.predict(part)["cnn"] for part in clips.split(32)])
        return float((scores.argmax(1) == labels).float().mean())

    assert accuracy(videos) > 0.85
    assert accuracy(shuffled) < 0.35  # objects alone give a quarter
    assert accuracy(still) < 0.35
