from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pretrain_tiny_tsm as pretraining
import pytest
import stills
import torch
from fact_reader import FactReader
from safetensors.torch import load_file
from torch import Tensor, nn

from vcil_bench.nets.backbones.resnet import tiny_network

FOLDER = pretraining.DEFAULT_FOLDER
WEIGHTS = FOLDER / pretraining.WEIGHTS_FILE


def shipped_network() -> nn.Module:
    config = json.loads((FOLDER / pretraining.CONFIG_FILE).read_text(encoding="utf-8"))
    model = tiny_network(config)
    model.load_state_dict(load_file(WEIGHTS), strict=True)
    return model.eval()


def trained(seed: int, steps: int) -> tuple[dict[str, Tensor], list[float]]:
    """Train on few stills, and return the weights and the loss of each step."""
    config = pretraining.MODEL_CONFIG
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, reader = tiny_network(config), pretraining.new_reader(config)
        losses = pretraining.train(model, reader, config, steps, seed, progress=False, objects=16)
    return model.state_dict(), losses


def test_shipped_configuration_is_what_the_script_writes() -> None:
    config = json.loads((FOLDER / pretraining.CONFIG_FILE).read_text(encoding="utf-8"))
    assert config == pretraining.MODEL_CONFIG


def test_shipped_weights_are_small_and_fit_strictly() -> None:
    assert WEIGHTS.stat().st_size <= 2_000_000
    state = load_file(WEIGHTS)
    assert {value.dtype for value in state.values()} == {torch.float16}
    loaded = shipped_network().state_dict()
    assert {name for name in loaded if not name.endswith("num_batches_tracked")} == state.keys()
    for name, value in state.items():
        assert torch.equal(loaded[name], value.float())


def test_readme_tells_the_hash_of_the_weights() -> None:
    readme = (FOLDER / pretraining.README_FILE).read_text(encoding="utf-8")
    assert hashlib.sha256(WEIGHTS.read_bytes()).hexdigest() in readme


@torch.no_grad()
def test_shipped_features_tell_objects_and_speed_lines() -> None:
    # Nearest class mean on draws of another seed: the readers are not shipped, the features have to do.
    model = shipped_network()
    features, labels = [], []
    for seed in (98, 99):
        kinds, drawn = zip(*stills.held_out_stills(seed, ("left", "right", "up", "down"), 5), strict=True)
        pixels = stills.normalised(drawn, pretraining.MODEL_CONFIG["mean"], pretraining.MODEL_CONFIG["std"])
        features.append(model(pixels))
        labels.append(torch.tensor(kinds))
    means = torch.stack([features[0][labels[0] == kind].mean(0) for kind in range(24)])
    guessed = torch.cdist(features[1], means).argmin(1)
    assert (guessed == labels[1]).float().mean() > 0.5


@pytest.mark.slow
def test_training_lowers_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretraining, "WARMUP_STEPS", 5)  # or all steps of so short a training were slow ones
    losses = trained(seed=1, steps=30)[1]
    assert len(losses) == 30
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.1


@pytest.mark.slow
def test_same_seed_gives_the_same_weights() -> None:
    first, again, other = (trained(seed, 3)[0] for seed in (1, 1, 2))
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not torch.equal(first["conv1.0.weight"], other["conv1.0.weight"])


def test_two_steps_of_pretraining(tmp_path: Path) -> None:
    state = torch.random.get_rng_state()
    figures = pretraining.pretrain(tmp_path / "model", steps=2, seed=5, progress=False, count=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert names == {"tsm_tiny.json", "weights.safetensors", "README.md"}
    assert set(pretraining.READ_FACTS) < figures.keys()
    assert all(0 <= value <= 1 for value in figures.values())


def test_weights_too_large_for_half_precision_are_refused(tmp_path: Path) -> None:
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.fill_(1e6)
    with pytest.raises(ValueError, match=r"weight does not fit"):
        pretraining.save_weights(layer, tmp_path / "weights")
    assert not (tmp_path / "weights").exists()


def test_unstated_facts_do_not_count() -> None:
    reader = FactReader(4, [3, 2])
    features = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    facts = torch.tensor([[0, 1], [1, -1], [-1, 0], [2, 1], [-1, -1]])
    changed = facts.clone()
    changed[1, 0] = 0
    assert reader(features, facts) != reader(features, changed)
    stated = facts[:, 0] >= 0
    alone = nn.functional.cross_entropy(reader.heads[0](features[stated]), facts[stated, 0])
    nothing_else = torch.stack([facts[:, 0], torch.full((5,), -1)], 1)
    torch.testing.assert_close(reader(features, nothing_else), alone / 2)
    assert reader.read(features).shape == (5, 2)


def test_held_out_stills_are_not_those_of_the_training() -> None:
    training = stills.draw_stills(np.random.default_rng([0, stills.TRAINING_STREAM]), 1.0, 16, 2)
    held_out = [*stills.held_out_mixture(0, 32), *(still for _, still in stills.held_out_stills(0, ("up",), 5))]
    seen = {still.image.tobytes() for still in training}
    assert not seen & {still.image.tobytes() for still in held_out}
