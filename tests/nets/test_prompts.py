"""Slots of the CLIP trunk: recorded numbers, and what prompts and prefixes mean in the trunk."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden_files import DTYPES, close, tensors
from open_clip.transformer import QuickGELU, VisionTransformer
from torch import Tensor, nn

from vcil_bench.nets.backbones import backbone
from vcil_bench.nets.clip import prompted_features
from vcil_bench.nets.clip_blocks import prefix_attention
from vcil_bench.nets.compute import ComputeOptions
from vcil_bench.nets.prompts import (
    Slots,
    gather_prefixes,
    prepend_prompts,
    prompt_similarity,
    select_prompts,
)
from vcil_bench.nets.trunk import AdapterConfig

WIDTH, BLOCKS = 128, 3  # of clip_tiny


# --- recorded numbers


@DTYPES
@pytest.mark.parametrize(
    ("name", "options"), [("instance", {}), ("batchwise", {"batchwise": True}), ("masked", {"task": 1})]
)
def test_l2ps_choice_of_prompts(name: str, options: dict[str, Any], precision: str) -> None:
    g = tensors("l2p_23", precision)
    keys = g["prompt_key"].requires_grad_()
    chosen = select_prompts(g["cls_features"], keys, int(g["top_k"]), **options)
    assert torch.equal(chosen, g[f"{name}_prompt_idx"])
    similarity = prompt_similarity(g["cls_features"], keys, chosen)
    close(similarity, g[f"{name}_reduce_sim"])
    if name != "masked":
        close(prepend_prompts(g["x_embed"], g["prompt"], chosen), g[f"{name}_prompted_embedding"])
        (-similarity).backward()
        assert keys.grad is not None
        close(keys.grad, g[f"{name}_pull_grad_key"])


@DTYPES
def test_other_queries_and_keys_of_l2p(precision: str) -> None:
    g = tensors("l2p_23", precision)
    x, k = g["x_embed"], int(g["top_k"])
    queries = {"mean": x.mean(1), "max": x.amax(1), "mean_max": x.amax(1) + 2 * x.mean(1)}
    pairs = {f"embeddingkey_{name}": (query, g["prompt_key"]) for name, query in queries.items()}
    pairs["meankey"] = (g["cls_features"], g["prompt"].mean(1))
    for name, (query, keys) in pairs.items():
        chosen = select_prompts(query, keys, k)
        assert torch.equal(chosen, g[f"{name}_prompt_idx"])
        close(prompt_similarity(query, keys, chosen), g[f"{name}_reduce_sim"])


def test_of_prompts_chosen_equally_often_the_first_are_taken() -> None:
    keys = torch.eye(4)
    query = keys[[3, 1, 3, 1, 2]]
    assert select_prompts(query, keys, 1, batchwise=True).flatten().tolist() == [1] * 5


def _attention(g: dict[str, Tensor]) -> nn.MultiheadAttention:
    heads, width = int(g["num_heads"]), g["proj_weight"].shape[0]
    found = nn.MultiheadAttention(width, heads, batch_first=True, dtype=g["qkv_weight"].dtype)
    found.load_state_dict(
        {
            "in_proj_weight": g["qkv_weight"],
            "in_proj_bias": g["qkv_bias"],
            "out_proj.weight": g["proj_weight"],
            "out_proj.bias": g["proj_bias"],
        }
    )
    return found


@DTYPES
def test_a_prefix_shared_by_all_is_dualprompts_general_prompt(precision: str) -> None:
    g = tensors("dualprompt_36", precision)
    attention, prompt = _attention(g), g["g_prompt"].requires_grad_()
    close(prefix_attention(attention, g["x"]), g["attention_without_prefix"])
    torch.testing.assert_close(
        prefix_attention(attention, g["x"]), attention(g["x"], g["x"], g["x"], need_weights=False)[0]
    )
    seen = prefix_attention(attention, g["x"], *prompt.flatten(2)[:, None])
    close(seen, g["attention_g_prefix"])
    seen.square().sum().backward()
    assert prompt.grad is not None
    close(prompt.grad, g["attention_g_prefix_sumsq_grad_g_prompt"])


@DTYPES
@pytest.mark.parametrize(
    ("name", "options"), [("train", {}), ("test_instance", {}), ("test_batchwise", {"batchwise": True})]
)
def test_dualprompts_choice_of_prefixes(name: str, options: dict[str, Any], precision: str) -> None:
    g = tensors("dualprompt_36", precision)
    keys, k = g["e_key"].requires_grad_(), int(g["top_k"])
    task = int(g["task_id"]) if name == "train" else None
    chosen = select_prompts(g["cls_features"], keys, k, task=task, **options)
    assert torch.equal(chosen, g[f"{name}_prompt_idx"])
    similarity = prompt_similarity(g["cls_features"], keys, chosen)
    close(similarity, g[f"{name}_reduce_sim"])
    attention = _attention(g)
    for kind, released in (("own", False), ("port", True)):
        prefixes = gather_prefixes(g["e_prompt"], chosen, released)
        close(prefixes, g[f"{name}_{kind}_batched_prompt"])
        key, value = prefixes[1].flatten(3).unbind(1)
        close(prefix_attention(attention, g["x"], key, value), g[f"{name}_{kind}_attention_layer1"])
    if name == "train":
        (-similarity).backward()
        assert keys.grad is not None
        close(keys.grad, g["train_pull_grad_key"])


@DTYPES
def test_the_choice_and_the_key_loss_of_codas_dualprompt(precision: str) -> None:
    g = tensors("dualprompt_36", precision)
    for task, name in ((int(g["task_id"]), "train"), (None, "test")):
        chosen = select_prompts(g["cls_features"], g["e_key"], 1, task=task)
        key, value = g["zoo_e_prompt"][chosen[:, 0]].chunk(2, dim=1)
        close(key, g[f"zoo_{name}_Ek"])
        close(value, g[f"zoo_{name}_Ev"])
        if name == "train":
            similarity = prompt_similarity(g["cls_features"], g["e_key"], chosen)
            close(len(chosen) * (1 - similarity), g["zoo_train_loss"])


@DTYPES
def test_a_prompted_visual_tower_is_pivots(precision: str) -> None:
    g = tensors("piv_02", precision)
    width, heads = g["w_class_embedding"].shape[0], int(g["num_heads"])
    visual = VisionTransformer(
        g["images"].shape[-1],
        int(g["patch_size"]),
        width,
        2,
        heads,
        4.0,
        output_dim=g["w_proj"].shape[1],
        act_layer=QuickGELU,
    )
    names = {key.removeprefix("w_").replace(".", "_"): key for key in g if key.startswith("w_")}
    state = {name: g[names[name.replace(".", "_")]] for name in visual.state_dict()}
    visual = visual.to(g["images"].dtype)
    visual.load_state_dict(state)
    visual.requires_grad_(False)
    float32_norms = {"least": 1e-5}  # the authors' layer norms compute in float32 whatever comes in
    close(prompted_features(visual, g["images"]), g["out_plain"], **float32_norms)
    tables = [g[f"prompt_spatial_task{t}"].requires_grad_() for t in range(3)]
    frames = len(g["images"]) // len(g["task_of_clip"])
    prompts = torch.stack(tables)[g["task_of_clip"].repeat_interleave(frames)]
    out = prompted_features(visual, g["images"], prompts)
    close(out, g["out_prompted"], **float32_norms)
    for t, gradient in enumerate(torch.autograd.grad((out * g["probe"]).sum(), tables)):
        close(gradient, g[f"grad_prompt_spatial_task{t}"], **float32_norms)


# --- in the trunk


@pytest.fixture(scope="module")
def trunk() -> Any:
    return backbone("clip_tiny").load(None)


def clips(batch: int = 2, frames: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (batch, frames, 3, 64, 64)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).requires_grad_()


@pytest.mark.parametrize("readout", ["class", "prompts"])
@pytest.mark.parametrize("rows", [1, 2, 6])
def test_prompts_for_all_for_clips_or_for_frames(trunk: Any, readout: Any, rows: int) -> None:
    prompts = drawn(rows, 4, WIDTH)
    found = trunk.encode_frames(clips(), None, slots=Slots(prompts=prompts, readout=readout))
    images = trunk.normalise(clips().flatten(0, 1))
    expected = prompted_features(
        trunk.model.visual, images, prompts.repeat_interleave(6 // rows, dim=0), readout
    )
    torch.testing.assert_close(found.flatten(0, 1), expected, rtol=1e-4, atol=1e-5)
    a, b = (torch.autograd.grad(x.square().sum(), prompts)[0] for x in (found, expected))
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * float(b.abs().max()))
    assert (b.abs().amax(dim=(1, 2)) > 0).all()


@pytest.mark.parametrize("rows", [1, 2, 6])
@pytest.mark.parametrize("blocks", [(0,), (1,), (0, 2), (2,)])
def test_prefixes_enter_the_attention_of_their_blocks(trunk: Any, blocks: tuple[int, ...], rows: int) -> None:
    prefixes = {block: drawn(rows, 2, 3 + block, WIDTH) for block in blocks}
    found = trunk.encode_frames(clips(), None, "unprojected", Slots(prefixes=prefixes))
    visual = trunk.model.visual
    x = visual._embeds(trunk.normalise(clips().flatten(0, 1)))
    for i, block in enumerate(visual.transformer.resblocks):
        pair = prefixes[i].repeat_interleave(6 // rows, dim=0).unbind(1) if i in blocks else ()
        x = x + prefix_attention(block.attn, block.ln_1(x), *pair)
        x = x + block.mlp(block.ln_2(x))
    expected = visual.ln_post(x[:, 0])
    torch.testing.assert_close(found.flatten(0, 1), expected, rtol=1e-4, atol=1e-5)
    tensors = list(prefixes.values())
    a, b = (torch.autograd.grad(x.square().sum(), tensors) for x in (found, expected))
    for one, other in zip(a, b, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * float(other.abs().max()))
        assert (other.abs().amax(dim=(2, 3)) > 0).all()  # keys and values of every row


@pytest.mark.parametrize(("slots", "first"), [((0,), 0), ((1,), 1), ((2,), 2), ((), 0)])
def test_only_blocks_from_the_first_slot_on_need_gradients(
    trunk: Any, monkeypatch: pytest.MonkeyPatch, slots: tuple[int, ...], first: int
) -> None:
    run, needed = trunk._block, []

    def watching(block: nn.Module, x: Tensor, *prefix: Tensor) -> Any:
        before, after = run(block, x, *prefix)
        needed.append(after.requires_grad)
        return before, after

    monkeypatch.setattr(trunk, "_block", watching)
    prefixes = {block: drawn(1, 2, 3, WIDTH) for block in slots}
    prompts = None if slots else drawn(1, 2, WIDTH)
    trunk.encode_frames(clips(), None, slots=Slots(prompts=prompts, prefixes=prefixes))
    assert needed == [i >= first for i in range(BLOCKS - 1)]  # the last is run for its class token alone


def test_without_slots_nothing_of_them_is_run(trunk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trunk, "_encode_with", None)
    monkeypatch.setattr("vcil_bench.nets.clip_blocks.prefix_attention", None)
    encoder = trunk.encoder(AdapterConfig(bottleneck=8))
    encoder.forward_with(encoder.frozen_copy(), clips())
    encoder.features(clips())
    with torch.no_grad():
        trunk.encode_frames(clips(), None)


def test_adapters_work_beside_slots(trunk: Any) -> None:
    encoder = trunk.encoder(AdapterConfig(bottleneck=8)).eval()
    slots = Slots(prompts=drawn(2, 4, WIDTH), prefixes={1: drawn(1, 2, 3, WIDTH)})
    with torch.no_grad():
        torch.testing.assert_close(encoder(clips(), slots), trunk.encode_frames(clips(), None, slots=slots))
    for adapter in encoder.adapters:
        nn.init.normal_(adapter.up.weight, std=0.1)
    frames = encoder.train()(clips(), slots)
    wanted = [*encoder.parameters(), slots.prompts, slots.prefixes[1]]
    for gradient in torch.autograd.grad(frames.square().sum(), wanted):
        assert gradient.abs().sum() > 0


def test_slots_need_no_frames_in_the_cache() -> None:
    trunk: Any = backbone("clip_tiny").load(None, ComputeOptions(feature_cache_mb=1))
    plain = trunk.encode_frames(clips(), None)
    slots = Slots(prompts=drawn(1, 4, WIDTH))
    assert not torch.allclose(trunk.encode_frames(clips(), None, slots=slots), plain, atol=1e-2)
    assert torch.equal(trunk.encode_frames(clips(), None), plain)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_slots_at_half_precision_are_those_at_full_but_for_rounding(trunk: Any, precision: Any) -> None:
    low: Any = backbone("clip_tiny").load(None, ComputeOptions(precision=precision))
    slots = Slots(prompts=drawn(2, 4, WIDTH), readout="prompts", prefixes={2: drawn(1, 2, 3, WIDTH)})
    passes = []
    for each in (trunk, low):
        frames = each.encode_frames(clips(), None, slots=slots)
        gradients = torch.autograd.grad(frames.float().square().sum(), [slots.prompts, slots.prefixes[2]])
        passes.append([frames.detach(), *gradients])
    assert passes[1][0].dtype == {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    for a, b in zip(*passes, strict=True):
        assert float((a - b.float()).norm() / a.norm()) < 0.05


def test_slots_that_fit_neither_clips_nor_frames_are_refused(trunk: Any) -> None:
    with pytest.raises(ValueError, match=r"4 slots for 2 clips of 3 frames"):
        trunk.encode_frames(clips(), None, slots=Slots(prompts=drawn(4, 2, WIDTH)))
    with pytest.raises(ValueError, match="block 3: clip_tiny has blocks 0 to 2"):
        trunk.encode_frames(clips(), None, slots=Slots(prefixes={3: drawn(1, 2, 2, WIDTH)}))
