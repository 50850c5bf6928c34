"""Backbones and network parts: equal to open_clip where nothing is added, and the sizes the paper states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from vcil_bench.common.errors import UserError
from vcil_bench.nets.backbones import backbone
from vcil_bench.nets.clip import prompts, readable
from vcil_bench.nets.expert_pool import ExpertPool
from vcil_bench.nets.heads import GrowingLinear
from vcil_bench.nets.temporal import TemporalEncoder, sinusoidal_positions
from vcil_bench.nets.trunk import AdapterConfig


@pytest.fixture(scope="module")
def tiny_clip() -> Any:
    return backbone("clip_tiny").load(None)


def _clips(size: int, batch: int = 2, frames: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (batch, frames, 3, size, size)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def test_frame_features_equal_open_clips_own_forward(tiny_clip: Any) -> None:
    clips = _clips(64)
    with torch.no_grad():
        ours = tiny_clip.encode_frames(clips, None)
        theirs = tiny_clip.model.encode_image(tiny_clip.normalise(clips.flatten(0, 1)))
    torch.testing.assert_close(ours.flatten(0, 1), theirs)


def test_normalising_is_the_preprocessing_of_open_clip(tiny_clip: Any) -> None:
    frame = _clips(64, 1, 1)[0, 0]
    visual = tiny_clip.model.visual
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (visual.image_mean, visual.image_std))
    torch.testing.assert_close(tiny_clip.normalise(frame), (frame / 255 - mean) / std)


def test_fresh_adapters_change_nothing_and_trained_ones_do(tiny_clip: Any) -> None:
    encoder = tiny_clip.encoder(AdapterConfig(bottleneck=8)).eval()
    clips = _clips(64)
    with torch.no_grad():
        plain = tiny_clip.encode_frames(clips, None)
        torch.testing.assert_close(encoder(clips), plain)
        torch.nn.init.normal_(encoder.adapters[1].up.weight)
        assert not torch.allclose(encoder(clips), plain, atol=1e-3)


def test_gradients_reach_every_adapter_and_no_frozen_weight(tiny_clip: Any) -> None:
    encoder = tiny_clip.encoder(AdapterConfig(bottleneck=8))
    for adapter in encoder.adapters:
        torch.nn.init.normal_(adapter.up.weight, std=0.1)
    encoder(_clips(64)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())
    assert all(p.grad is None for p in tiny_clip.model.parameters())


def test_frozen_copy_keeps_its_adapters_while_the_original_trains(tiny_clip: Any) -> None:
    encoder = tiny_clip.encoder(AdapterConfig(bottleneck=8))
    old = encoder.frozen_copy()
    with torch.no_grad():
        encoder.adapters[0].up.bias.add_(1)
    assert not torch.equal(encoder.adapters[0].up.bias, old.adapters[0].up.bias)
    assert not old.training


def test_an_old_encoder_sees_the_clips_beside_the_new_as_it_does_alone(tiny_clip: Any) -> None:
    torch.manual_seed(0)
    encoder = tiny_clip.encoder(AdapterConfig(bottleneck=8)).train()
    for adapter in encoder.adapters:
        torch.nn.init.normal_(adapter.up.weight, std=0.1)
    old = encoder.frozen_copy()
    torch.nn.init.normal_(encoder.adapters[0].up.weight, std=0.1)
    gradients = []
    for together in (False, True):
        torch.manual_seed(1)  # of the dropout
        if together:
            new, before = encoder.forward_with(old, _clips(64))
        else:
            new = encoder(_clips(64))
            with torch.no_grad():
                before = old(_clips(64))
        assert not before.requires_grad
        gradients.append([new, before, *torch.autograd.grad((new * before).sum(), list(encoder.parameters()))])
    alone, beside = gradients
    assert torch.equal(alone[0], beside[0])
    for a, b in zip(alone[1:], beside[1:], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5 * float(a.detach().abs().max()))
    assert encoder.forward_with(None, _clips(64))[1] is None


def test_the_first_block_runs_once_for_both_encoders(tiny_clip: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    run = tiny_clip._block
    monkeypatch.setattr(tiny_clip, "_block", lambda block, x: (calls.append(x.requires_grad), run(block, x))[1])
    encoder = tiny_clip.encoder(AdapterConfig(bottleneck=8))
    encoder.forward_with(encoder.frozen_copy(), _clips(64))
    later = len(tiny_clip.model.visual.transformer.resblocks) - 1
    # The old one's last, for its class token alone, is apart.
    assert calls == [False] + [True] * later + [False] * (later - 1)


def test_texts_that_come_again_are_the_same_and_not_shared(
    tiny_clip: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tiny_clip.encode_text(["a red square", "a blue circle"])
    kept = first.clone()
    first.zero_()
    monkeypatch.setattr(tiny_clip, "_tokenizer", None)
    assert torch.equal(tiny_clip.encode_text(["a red square", "a blue circle"]), kept)


def test_texts_are_unit_length_and_apart(tiny_clip: Any) -> None:
    texts = tiny_clip.encode_text(["a red square moving left", "a blue circle moving up"])
    torch.testing.assert_close(texts.norm(dim=1), torch.ones(2))
    assert texts.shape == (2, tiny_clip.dim)
    assert float(texts[0] @ texts[1]) < 0.99


def test_expert_has_the_parameters_the_paper_hints_at() -> None:
    expert = TemporalEncoder(512)
    assert sum(p.numel() for p in expert.parameters()) == 9_457_664


def test_temporal_encoder_tells_the_order_of_frames() -> None:
    torch.manual_seed(0)
    expert = TemporalEncoder(32, head_width=16).eval()
    frames = torch.randn(2, 5, 32)
    with torch.no_grad():
        assert not torch.allclose(expert(frames), expert(frames.flip(1)), atol=1e-4)


@pytest.fixture
def pool() -> ExpertPool:
    torch.manual_seed(0)
    return ExpertPool(TemporalEncoder(32, head_width=16, layers=2) for _ in range(5)).eval()


def _one_by_one(pool: ExpertPool, frames: torch.Tensor) -> torch.Tensor:
    return torch.stack([expert(frames) for expert in pool], dim=1)


@pytest.mark.parametrize("readout", ["cls", "mean"])
def test_experts_together_are_each_on_its_own(
    pool: ExpertPool, readout: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for expert in pool:
        expert.readout = readout
        torch.nn.init.normal_(expert.layers[1].norm2.weight)
    frames = torch.randn(3, 4, 32)
    with torch.no_grad():
        expected = _one_by_one(pool, frames)
        torch.testing.assert_close(pool(frames), expected, rtol=1e-5, atol=1e-5)
        monkeypatch.setattr("vcil_bench.nets.expert_pool.MAX_ACTIVATION", 2 * 3 * 5 * 128)  # two at a time
        torch.testing.assert_close(pool(frames), expected, rtol=1e-5, atol=1e-5)
        with torch.autocast("cpu", torch.bfloat16):
            low = pool(frames.bfloat16())
        torch.testing.assert_close(low.float(), expected, rtol=0.05, atol=0.1)
    with torch.enable_grad():
        assert pool(frames).requires_grad


def test_the_stacked_copy_follows_the_experts_and_is_no_part_of_them(pool: ExpertPool) -> None:
    frames = torch.randn(2, 3, 32)
    names = list(pool.state_dict())
    with torch.inference_mode():
        before = pool(frames)
    assert list(pool.state_dict()) == names
    stacked = pool._stacked
    with torch.no_grad():
        pool(frames)
        assert pool._stacked is stacked
        pool[3].layers[0].linear1.weight.mul_(2)
        changed = pool(frames)
        torch.testing.assert_close(changed, _one_by_one(pool, frames), rtol=1e-5, atol=1e-5)
        assert (changed - before).abs().amax(dim=(0, 2)).gt(1e-4).tolist() == [False] * 3 + [True, False]
        pool.append(TemporalEncoder(32, head_width=16, layers=2).eval())
        torch.testing.assert_close(pool(frames), _one_by_one(pool, frames), rtol=1e-5, atol=1e-5)
        pool.load_state_dict({key: torch.zeros_like(value) for key, value in pool.state_dict().items()})
        assert torch.equal(pool(frames), _one_by_one(pool, frames))
    pool.train()
    assert not pool._stacked


def test_positions_are_sines_and_cosines() -> None:
    codes = sinusoidal_positions(4, 6, torch.device("cpu"), torch.float32)
    torch.testing.assert_close(codes[0], torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0, 1.0]))
    torch.testing.assert_close(codes[3, 0], torch.tensor(3.0).sin())
    torch.testing.assert_close(codes[3, 3], torch.tensor(3.0 * 10000 ** (-2 / 6)).cos())


def test_growing_head_keeps_old_outputs() -> None:
    head = GrowingLinear(4)
    head.grow(2)
    features = torch.randn(3, 4)
    before = head(features)
    head.grow(3)
    after = head(features)
    assert after.shape == (3, 5)
    torch.testing.assert_close(after[:, :2], before)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("HighJump", "High Jump"),
        ("kick_ball", "kick ball"),
        ("YoYo", "Yo Yo"),
        ("a red square moving left", "a red square moving left"),
        ("Putting something onto [something]", "Putting something onto [something]"),
    ],
)
def test_class_names_become_words(name: str, words: str) -> None:
    assert readable(name) == words
    assert prompts([name], "a video of {}") == [f"a video of {words}"]


def test_vit_b16_is_the_quickgelu_model_and_says_that_its_weights_are_random() -> None:
    trunk = backbone("clip_vit_b16").load("random")
    assert trunk.weights.source == "random"
    assert trunk.dim == 512
    assert trunk.image_size == 224
    blocks = trunk.model.visual.transformer.resblocks
    assert len(blocks) == 12
    assert type(blocks[0].mlp.gelu).__name__ == "QuickGELU"
    adapters = trunk.encoder(AdapterConfig())
    assert sum(p.numel() for p in adapters.parameters()) == 12 * (2 * 768 * 64 + 64 + 768)
    with torch.no_grad():
        assert trunk.encode_frames(_clips(224, 1, 1), None).shape == (1, 1, 512)


def test_weights_of_a_local_file_are_read_and_hashed(tmp_path: Path) -> None:
    source = backbone("clip_tiny").load("random")
    path = tmp_path / "weights.safetensors"
    save_file({k: v.clone() for k, v in source.model.state_dict().items()}, path)
    trunk = backbone("clip_tiny").load(str(path))
    assert trunk.weights.source == str(path)
    assert len(trunk.weights.sha256) == 64
    for name, tensor in trunk.model.state_dict().items():
        assert torch.equal(tensor, source.model.state_dict()[name])


def test_a_weight_file_of_another_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"some.weight": torch.zeros(2)}, path)
    with pytest.raises(UserError, match=r"other\.safetensors"):
        backbone("clip_tiny").load(str(path))


def test_a_malicious_weight_file_is_not_executed(tmp_path: Path) -> None:
    import pickle

    class Bomb:
        def __reduce__(self) -> Any:
            return (Path(tmp_path / "ran").touch, ())

    path = tmp_path / "bomb.pt"
    path.write_bytes(pickle.dumps(Bomb(), protocol=2))
    with pytest.raises(UserError, match=r"bomb\.pt"):
        backbone("clip_tiny").load(str(path))
    assert not (tmp_path / "ran").exists()


def test_tokenizer_of_the_real_model_is_there_offline() -> None:
    tokens = open_clip.get_tokenizer("ViT-B-16-quickgelu")(["a video of a person doing High Jump"])
    assert tokens.shape == (1, 77)
