"""The temporal encoder with prompts and PIVOT's positions, against its authors' module."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden_files import DTYPES, close, tensors
from torch import Tensor

from vcil_bench.common.config import ConfigError
from vcil_bench.nets.temporal import TemporalEncoder, sinusoidal_positions


def pivots(data: dict[str, Tensor]) -> TemporalEncoder:
    """Return the encoder with the recorded weights."""
    dim, layers = len(data["cls"]), int(data["num_layers"])
    encoder = TemporalEncoder(
        dim,
        layers=layers,
        head_width=dim // int(data["num_heads"]),
        ratio=1,
        dropout=0.0,
        activation="relu",
        cls_position=True,
    )
    hidden = len(data["layer0_linear1_bias"])  # fewer than any multiple of D, so the rest is zero
    state = {name: torch.zeros_like(tensor) for name, tensor in encoder.state_dict().items()}
    state["cls"] = data["cls"][None, None]
    for i in range(layers):
        for name in (n.removeprefix("layers.0.") for n in list(state) if n.startswith("layers.0.")):
            given = data[f"layer{i}_{name.replace('.', '_')}"]
            place = state[f"layers.{i}.{name}"]
            if name.startswith("linear1"):
                place[:hidden] = given
            elif name == "linear2.weight":
                place[:, :hidden] = given
            else:
                place.copy_(given)
    encoder.load_state_dict(state)
    return encoder.to(data["cls"].dtype).eval()


@DTYPES
def test_the_plain_read_out_equals_the_authors(precision: str) -> None:
    data = tensors("piv_01", precision)
    encoder, frames = pivots(data), data["frames"].requires_grad_()
    out = encoder(frames)
    close(out, data["out_plain"])
    (out * data["probe"]).sum().backward()
    close(frames.grad, data["grad_frames_plain"])
    close(encoder.cls.grad.flatten(), data["grad_cls_plain"])


@DTYPES
def test_the_read_out_at_prompts_equals_the_authors(precision: str) -> None:
    data = tensors("piv_01", precision)
    encoder, frames = pivots(data), data["frames"].requires_grad_()
    prompts = [data[f"prompt_temporal_task{task}"].requires_grad_() for task in range(3)]
    out = encoder(frames, torch.stack(prompts)[data["task_of_clip"]])
    close(out, data["out_prompted"])
    (out * data["probe"]).sum().backward()
    close(frames.grad, data["grad_frames_prompted"])
    for task, prompt in enumerate(prompts):
        close(prompt.grad, data[f"grad_prompt_temporal_task{task}"])


@DTYPES
def test_positions_are_as_precise_as_what_is_asked_for(precision: str) -> None:
    data = tensors("piv_01", precision)
    found = sinusoidal_positions(*data["positions"].shape, torch.device("cpu"), data["positions"].dtype)
    close(found, data["positions"])


@pytest.mark.parametrize(
    ("change", "same"), [({"activation": "relu"}, False), ({"cls_position": True}, False), ({}, True)]
)
def test_each_switch_is_another_encoder(change: dict[str, Any], same: bool) -> None:
    frames = torch.randn(2, 3, 8)
    both = []
    for switches in ({}, change):
        torch.manual_seed(0)
        both.append(TemporalEncoder(8, head_width=4, layers=1, **switches).eval()(frames))
    assert torch.equal(*both) == same


def test_clips_of_other_prompts_do_not_meet() -> None:
    torch.manual_seed(0)
    encoder = TemporalEncoder(8, head_width=4, layers=2, cls_position=True).double().eval()
    frames, prompts = torch.randn(3, 4, 8).double(), torch.randn(3, 2, 8).double()
    together = encoder(frames, prompts)
    for i in range(3):
        torch.testing.assert_close(encoder(frames[i : i + 1], prompts[i : i + 1])[0], together[i])


def test_heads_that_do_not_divide_the_feature_size_are_refused() -> None:
    with pytest.raises(ConfigError, match="heads of width 3 do not divide the feature size 8"):
        TemporalEncoder(8, head_width=3)
