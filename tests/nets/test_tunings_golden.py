"""DiST, AIM and ST-Adapter against the authors' modules: outputs, gradients, counts of parameters."""

from __future__ import annotations

from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from golden_files import DTYPES, close, golden, tensors
from torch import Tensor, nn

from vcil_bench.nets.aim import AimNetwork
from vcil_bench.nets.clip import ClipTrunk
from vcil_bench.nets.dist import (
    AdaptivePooling,
    DistConfig,
    DistNetwork,
    Integration,
    TemporalModule,
    ToIntegration,
    ToTemporal,
)
from vcil_bench.nets.st_adapter import SpatioTemporalAdapter, SpatioTemporalNetwork
from vcil_bench.nets.trunk import AimConfig, SpatioTemporalConfig, Tuning
from vcil_bench.nets.tuning import tuning_parameters
from vcil_bench.nets.weights import WeightsInfo

Arrays = dict[str, Tensor]


def load(module: nn.Module, data: Arrays, prefix: str) -> Any:
    """Give a module the recorded weights under its parameters' names."""
    for name, parameter in module.named_parameters():
        parameter.data = data[prefix + name.replace(".", "_")].clone()
    return module.eval()


def trunk_of(data: Arrays, prefix: str, heads: int, patch: int, out: int | None = None) -> Any:
    """Build a trunk of recorded weights, whose frames are normalised already."""
    width, side = data[f"{prefix}conv1_weight"].shape[0], data[f"{prefix}positional_embedding"].shape[0] - 1
    depth = len(
        {k.split("_resblocks_")[1].split("_")[0] for k in data if k.startswith(prefix) and "_resblocks_" in k}
    )
    vision = {
        "layers": depth,
        "width": width,
        "head_width": width // heads,
        "patch_size": patch,
        "image_size": patch * round(side**0.5),
    }
    text = {"context_length": 4, "vocab_size": 8, "width": 4, "heads": 1, "layers": 1}
    model: Any = open_clip.CLIP(out or width, vision, text, quick_gelu=True)
    model.visual.image_mean, model.visual.image_std = (0.0,) * 3, (1 / 255,) * 3
    for name, parameter in model.visual.named_parameters():
        if prefix + name.replace(".", "_") in data:
            parameter.data = data[prefix + name.replace(".", "_")].clone()
    return ClipTrunk("golden", model, lambda texts: torch.zeros(0), WeightsInfo("golden", "", "", ""))


def normalised(trunk: Any) -> None:
    """Take clips as they are, in their own precision."""
    trunk.normalise = lambda clips: clips


# --- DiST


@DTYPES
@pytest.mark.parametrize("name", ["temporal", "t2i", "i2t", "integration", "pooling"])
def test_modules_of_dist_equal_the_authors(name: str, precision: str) -> None:
    data = tensors("dist_01", precision)
    batch, frames, alpha, heads = (int(data[k]) for k in ("batch", "sparse_frames", "alpha", "num_heads"))
    channels, width = data["temporal_x0"].shape[1], data["integration_x0"].shape[2]
    inputs = [data[f"{name}_x{i}"].clone().requires_grad_() for i in range(3) if f"{name}_x{i}" in data]

    def rows(tokens: Tensor) -> Tensor:  # [L, B*S, d] of the source
        return tokens.unflatten(1, (batch, frames)).permute(1, 2, 0, 3)

    def back(tokens: Tensor) -> Tensor:
        return tokens.permute(2, 0, 1, 3).flatten(1, 2)

    if name == "temporal":
        module = load(TemporalModule(channels), data, "temporal_w_")
        outputs = [module(inputs[0])]
    elif name == "t2i":
        module = load(ToIntegration(channels, width, frames, alpha), data, "t2i_w_")
        outputs = [back(module(inputs[0]))]
    elif name == "i2t":
        module = load(ToTemporal(width, channels, alpha), data, "i2t_w_")
        outputs = [module(rows(inputs[0]))]
    elif name == "integration":
        module = load(Integration(width), data, "integration_w_")
        outputs = [back(module(rows(inputs[0])))]
    else:
        module = load(AdaptivePooling(width, frames, heads), data, "pooling_w_")
        video, tokens = module(rows(inputs[0]), inputs[1][0], inputs[2][0].unflatten(0, (batch, frames)))
        outputs = [video[None], tokens.flatten(0, 1)[None]]
    for i, output in enumerate(outputs):
        close(output, data[f"{name}_out{i}"])
    total = sum((output * data[f"{name}_probe{i}"]).sum() for i, output in enumerate(outputs))
    named = dict(module.named_parameters())
    gradients = torch.autograd.grad(total, [*inputs, *named.values()])
    for i, gradient in enumerate(gradients[: len(inputs)]):
        close(gradient, data[f"{name}_grad_x{i}"])
    for key, gradient in zip(named, gradients[len(inputs) :], strict=True):
        close(gradient, data[f"{name}_grad_w_{key.replace('.', '_')}"])


def dist_case(data: Arrays, case: str) -> tuple[DistNetwork, Tensor, Arrays]:
    """Return a network of recorded weights, its clips, and the arrays of its case."""
    found = {key.removeprefix(f"{case}_"): value for key, value in data.items() if key.startswith(f"{case}_")}
    frames, alpha = int(found["sparse_frames"]), int(found["alpha"])
    trunk = trunk_of(
        found, "visual_", int(found["visual_heads"]), int(found["patch_size"]), found["visual_proj"].shape[1]
    )
    normalised(trunk)
    width = found["w_ln_post_weight"].shape[0]
    config = DistConfig(
        width=width,
        temporal_width=found["w_temporal_stem_weight"].shape[0],
        poolings=len([k for k in found if k.startswith("w_adapooling") and k.endswith("positional_embedding")]),
        layers=tuple(found["selected_layers"].tolist()),
        alpha=alpha,
        head_width=width // int(found["num_heads"]),
    )
    network = DistNetwork(trunk, Tuning(kind="dist", dist=config, frames=frames * alpha))
    load(network.branch, found, "w_")
    images = found["images"]
    return network, images.unflatten(0, (int(found["batch"]), frames * alpha)), found


@DTYPES
@pytest.mark.parametrize("case", ["c0", "c1"])
def test_dist_equals_the_authors(case: str, precision: str) -> None:
    network, clips, data = dist_case(tensors("dist_02", precision), case)
    layers = network.config.layers
    assert layers is not None
    mids = network.trunk.middle(clips[:, :: network.config.alpha], layers)
    expected = data["mid_features"].unflatten(2, (len(clips), -1)).permute(0, 2, 3, 1, 4)
    close(torch.stack(mids), expected)
    output = network.branch(mids, clips)
    close(output.video, data["video_feature"])
    close(output.frames, data["own_frame_features"])
    close(network.video(clips), data["video_feature"])
    close(network(clips), data["own_frame_features"])
    close(
        network.trunk.encode_frames(clips[:, :: network.config.alpha], None), data["own_frozen_frame_features"]
    )
    cosines = F.normalize(output.video, dim=-1) @ F.normalize(data["text"], dim=-1).T
    logits = data["logit_scale_log"].exp() * cosines
    close(logits, data["logits"])
    loss = F.cross_entropy(logits, data["labels"])
    close(loss, data["loss"])
    named = dict(network.branch.named_parameters())
    gradients = dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))
    for name, gradient in gradients.items():
        if (key := f"grad_w_{name.replace('.', '_')}") in data:
            close(gradient, data[key])
    recorded = {k for k in data if k.startswith("w_")}
    left_out = recorded - {f"w_{name.replace('.', '_')}" for name in named}
    last = f"w_integration2temporal_nets_{len(layers) - 1}_linear_fuse"
    assert left_out == {f"{last}_weight", f"{last}_bias"}
    assert len(left_out) == int(data["branch_weights_without_gradient"])


@pytest.mark.parametrize("case", ["c0", "c1"])
def test_maps_of_dist_are_patches_on_the_way_to_its_features(case: str) -> None:
    network, clips, _ = dist_case(tensors("dist_02", "float64"), case)
    features = network.features(clips)
    plain = network.branch(*reversed(network._seen(clips, trains=False)))
    torch.testing.assert_close(features.frames, plain.frames, rtol=1e-6, atol=1e-7)  # maps are float32
    maps = [m for stage in features.blocks for m in stage]
    for found, expected in zip(maps, plain.maps, strict=True):
        torch.testing.assert_close(found, expected.float())
    gradients = torch.autograd.grad(features.frames.square().sum(), maps)
    assert all(bool(g.abs().sum() > 0) for g in gradients)


# --- AIM


@DTYPES
@pytest.mark.parametrize("case", ["c0", "c1"])
def test_aim_equals_the_authors(case: str, precision: str) -> None:
    data = tensors("aim_05", precision)
    data = {key.removeprefix(f"{case}_"): value for key, value in data.items() if key.startswith(f"{case}_")}
    clips = data["clips"].transpose(1, 2)  # [B, T, 3, S, S]
    frames, heads, patch = clips.shape[1], int(data["num_heads"]), int(data["patch_size"])
    trunk = trunk_of(data, "w_", heads, patch)
    normalised(trunk)
    config = AimConfig(
        ratio=data["w_transformer_resblocks_0_S_Adapter_D_fc1_weight"].shape[0]
        / data["w_ln_post_weight"].shape[0],
        scale=float(data["adapter_scale"]),
        temporal_adapters=2 if int(data["num_tadapter"]) == 2 else 1,
    )
    tuning = Tuning(kind="aim", aim=config, frames=frames, features="unprojected")
    network = AimNetwork(trunk, tuning).to(clips.dtype)
    close(network(clips), data["frame_features_at_start"])
    for i, adapters in enumerate(network.adapters):
        load(adapters, data, f"w_transformer_resblocks_{i}_")
    network.temporal_embedding.data = data["w_temporal_embedding"].clone()
    features = network(clips)
    close(features, data["frame_features"])
    close(features.mean(dim=1), data["video_feature"])
    named = {f"transformer_resblocks_{n.removeprefix('adapters.')}": p for n, p in network.named_parameters()}
    named["temporal_embedding"] = named.pop("transformer_resblocks_temporal_embedding")
    total = (features * data["probe"]).sum()
    compared = 0
    for name, gradient in zip(named, torch.autograd.grad(total, list(named.values())), strict=True):
        if (key := f"grad_w_{name.replace('.', '_')}") in data:
            close(gradient, data[key])
            compared += 1
    assert compared == sum(key.startswith("grad_w_") for key in data) - 1  # the last norm is frozen here


# --- ST-Adapter


@DTYPES
@pytest.mark.parametrize("case", ["c0", "c1"])
def test_a_spatio_temporal_adapter_equals_the_authors(case: str, precision: str) -> None:
    data = tensors("sta_06", precision)
    data = {key.removeprefix(f"{case}_"): value for key, value in data.items() if key.startswith(f"{case}_")}
    bottleneck, width = data["w_fc1_weight"].shape
    kernel: Any = tuple(data["w_conv_weight"].shape[2:])
    module = load(SpatioTemporalAdapter(width, bottleneck, kernel), data, "w_")
    x = data["x"].clone().requires_grad_()
    out = module(x, int(data["frames"]))
    assert torch.equal(x, data["x"])
    close(out, data["out"])
    named = dict(module.named_parameters())
    gradients = torch.autograd.grad((out * data["probe"]).sum(), [x, *named.values()])
    close(gradients[0], data["grad_x"])
    for name, gradient in zip(named, gradients[1:], strict=True):
        close(gradient, data[f"grad_w_{name.replace('.', '_')}"])


@DTYPES
@pytest.mark.parametrize("case", ["c0", "c1"])
def test_st_adapter_equals_the_authors(case: str, precision: str) -> None:
    data = tensors("sta_07", precision)
    data = {key.removeprefix(f"{case}_"): value for key, value in data.items() if key.startswith(f"{case}_")}
    clips = data["clips"].transpose(1, 2)
    trunk = trunk_of(data, "w_", int(data["num_heads"]), int(data["patch_size"]))
    normalised(trunk)
    first = "w_transformer_resblocks_0_adapter_pre_mlp"
    both = "w_transformer_resblocks_0_adapter_pre_attn_fc1_weight" in data
    config = SpatioTemporalConfig(
        bottleneck=data[f"{first}_fc1_bias"].shape[0],
        kernel=(3, 1, 1),
        places="both" if both else "mlp",
    )
    tuning = Tuning(kind="st_adapter", st_adapter=config, features="unprojected")
    network = SpatioTemporalNetwork(trunk, tuning).to(clips.dtype)

    def logits() -> Tensor:  # the source takes the norm behind the mean
        tokens: list[Tensor] = []
        handle = trunk.model.visual.ln_post.register_forward_pre_hook(lambda _, inputs: tokens.append(inputs[0]))
        frames.append(network(clips))
        handle.remove()
        classes = tokens[0][:, 0].unflatten(0, clips.shape[:2])
        videos.append(trunk.model.visual.ln_post(classes.mean(dim=1)))
        class_tokens.append(classes)
        return F.linear(videos[-1], data["w_fc_weight"], data["w_fc_bias"])

    frames: list[Tensor] = []
    videos: list[Tensor] = []
    class_tokens: list[Tensor] = []
    close(logits(), data["logits_at_start"])
    for i, adapters in enumerate(network.adapters):
        load(adapters, data, f"w_transformer_resblocks_{i}_")
    found = logits()
    close(class_tokens[-1], data["class_tokens"])
    close(videos[-1], data["video_feature"])
    close(frames[-1], data["own_frame_features"])
    close(found, data["logits"])
    loss = F.cross_entropy(found, data["labels"])
    close(loss, data["loss"])
    named = {f"transformer_resblocks_{n.removeprefix('adapters.')}": p for n, p in network.named_parameters()}
    for name, gradient in zip(named, torch.autograd.grad(loss, list(named.values())), strict=True):
        if (key := f"grad_w_{name.replace('.', '_')}") in data:
            close(gradient, data[key])
    recorded = {k for k in data if k.startswith("w_") and "_adapter_" in k}
    left_out = recorded - {f"w_{name.replace('.', '_')}" for name in named}
    assert len(left_out) == int(data["adapter_weights_with_zero_gradient"])


# --- counts


def dist(frames: int, alpha: int = 2, **options: Any) -> Tuning:
    return Tuning(kind="dist", dist=DistConfig(alpha=alpha, **options), frames=frames)


def aim(frames: int, temporal_adapters: Any = 1) -> Tuning:
    return Tuning(kind="aim", aim=AimConfig(temporal_adapters=temporal_adapters), frames=frames)


LARGE = {"width": 1024, "depth": 24, "out": 768}  # with the stem that is configured, of 16 pixels
COUNTS: list[tuple[str, Tuning, dict[str, int], int]] = [
    ("dist_b16_k400_8f_total", dist(16, poolings=4), {}, 36960),
    ("dist_b16_ssv2_8f_total", dist(16), {}, 36960),
    ("dist_b16_ssv2_16f_total", dist(32), {}, 36960),
    ("dist_l14_32f_total", dist(64, poolings=4), LARGE, 36960),
    ("aim_b16_k400_8f_trainable", aim(8), {}, 1536),
    ("aim_b16_ssv2_8f_trainable", aim(8, 2), {}, 1536),
    ("aim_b16_k400_32f_trainable", aim(32), {}, 1536),
    ("sta_b16_12x384_adapters", Tuning(kind="st_adapter"), {}, 592512),
    (
        "sta_b16_24x384_adapters",
        Tuning(kind="st_adapter", st_adapter=SpatioTemporalConfig(places="both")),
        {},
        592512,
    ),
]


@pytest.mark.parametrize(("key", "tuning", "tower", "unused"), COUNTS, ids=[case[0] for case in COUNTS])
def test_as_many_parameters_as_the_authors_but_for_those_that_never_train(
    key: str, tuning: Tuning, tower: dict[str, int], unused: int
) -> None:
    released = tuning_parameters(tuning.kind, tuning, released=True, **tower)
    assert released == int(golden("counts_04")[key])
    assert tuning_parameters(tuning.kind, tuning, **tower) == released - unused
