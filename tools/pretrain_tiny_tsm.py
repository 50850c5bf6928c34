"""Pretrain the embedded small ResNet on still pictures, so that methods on plain features run offline too.

Methods that insert temporal shifts start from a ResNet that was trained on pictures alone. This script makes
one of that kind in minutes on one core, from the stills that the embedded CLIP learns from: drawn on the fly
(see ``stills``), with no benchmark clip and no frame of one. There is no temporal shift here, as there is none
in the training on ImageNet that it stands in for.

Run ``make tiny-tsm``; it writes the network's configuration, its weights and a
README with the figures measured on held-out stills.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pretraining_command
import torch
from fact_reader import FactReader
from safetensors.torch import load_file, save
from stills import (
    COLOURS,
    FACTS,
    FAMILIES,
    MOTIONS,
    SHAPES,
    TRAINING_STREAM,
    Still,
    contrast_at,
    draw_stills,
    held_out_mixture,
    held_out_stills,
    normalised,
)
from torch import Tensor, nn
from tqdm import tqdm

from vcil_bench.data import synthetic
from vcil_bench.data.synthetic import drawing
from vcil_bench.nets.backbones.resnet import tiny_network

MODEL_NAME = "tsm_tiny"
DEFAULT_FOLDER = Path(__file__).parents[1] / "vcil_bench/nets/tiny_tsm"
CONFIG_FILE = f"{MODEL_NAME}.json"
WEIGHTS_FILE = "weights.safetensors"
README_FILE = "README.md"

MODEL_CONFIG: dict[str, Any] = {
    "block": "BasicBlock",
    "layers": [1, 1, 1, 1],
    "channels": [16, 48, 96, 192],
    "stem_type": "deep",
    "stem_width": 8,
    "image_size": drawing.SIZE,
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
}

READ_FACTS = ("colour", "shape", "motion", "column", "row", "size", "background")

DEFAULT_STEPS = 2000
DEFAULT_SEED = 0
# Two stills of each object: batch statistics of few objects would be those of few colours.
BATCH_OBJECTS = 64
STILLS_PER_OBJECT = 2
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 0.05
WARMUP_STEPS = 100
# One thread: where cores are shared, a second one costs far more than it gains on so small a model, and
# the order of sums does not hang on the number of cores.
NUM_THREADS = 1

_COLUMNS = [tuple(FACTS).index(name) for name in READ_FACTS]


def _input(stills: Sequence[Still], config: dict[str, Any]) -> Tensor:
    return normalised(stills, config["mean"], config["std"])


def _facts(stills: Sequence[Still]) -> Tensor:
    return torch.tensor([still.facts for still in stills])[:, _COLUMNS]


def new_reader(config: dict[str, Any]) -> FactReader:
    """Return new readers of ``READ_FACTS`` for the features of a network of this configuration."""
    return FactReader(config["channels"][-1], [FACTS[name] for name in READ_FACTS])


def train(
    model: nn.Module,
    reader: FactReader,
    config: dict[str, Any],
    steps: int,
    seed: int,
    progress: bool = True,
    objects: int = BATCH_OBJECTS,
) -> list[float]:
    """Train a network and its readers in place to tell the facts of stills.

    Args:
        model: The network, which gives features [B, D].
        reader: Readers of ``READ_FACTS`` on these features.
        config: The configuration of the network.
        steps: Number of batches.
        seed: Seed of the stills.
        progress: Whether to show a progress bar.
        objects: Objects in each batch.

    Returns:
        The loss of each batch, the mean cross-entropy of the facts.
    """
    rng = np.random.default_rng([seed, TRAINING_STREAM])
    parameters = [*model.parameters(), *reader.parameters()]
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": WEIGHT_DECAY},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=LEARNING_RATE,
    )
    model.train()
    losses = []
    bar = tqdm(range(steps), desc="tiny TSM", disable=not progress)
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = pretraining_command.learning_rate(LEARNING_RATE, step, steps, WARMUP_STEPS)
        stills = draw_stills(rng, contrast_at(step, steps), objects, STILLS_PER_OBJECT)
        loss = reader(model(_input(stills, config)), _facts(stills))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if step % 20 == 0:
            bar.set_postfix(loss=f"{losses[-1]:.3f}")
    return losses


@torch.no_grad()
def _read(model: nn.Module, reader: FactReader, config: dict[str, Any], stills: Sequence[Still]) -> Tensor:
    """Return whether each fact of each still is read right [B, F], as 0 or 1."""
    chunks = [stills[i : i + 100] for i in range(0, len(stills), 100)]
    return torch.cat([(reader.read(model(_input(chunk, config))) == _facts(chunk)).float() for chunk in chunks])


def evaluate(
    model: nn.Module,
    reader: FactReader,
    config: dict[str, Any],
    seed: int = DEFAULT_SEED,
    count: int = 40,
) -> dict[str, float]:
    """Measure a network on held-out stills; benchmark clips play no part.

    Args:
        model: The network.
        reader: The readers that were trained with it.
        config: The configuration of the network.
        seed: The seed of the training, whose held-out stream is drawn.
        count: Stills of each of the 24 kinds with speed lines; 50 times as many of the mixture.

    Returns:
        Accuracies in [0, 1]: of each fact on stills where every colour, shape and motion is as likely as
        any other, and of colour, shape, motion and all three on the objects of the class names.
    """
    model.eval()
    mixture = _read(model, reader, config, list(held_out_mixture(seed, 50 * count)))
    figures = {name: float(mixture[:, i].mean()) for i, name in enumerate(READ_FACTS)}
    classes = _read(
        model, reader, config, [still for _, still in held_out_stills(seed, synthetic.MOTIONS, count)]
    )
    named = [READ_FACTS.index(name) for name in ("colour", "shape", "motion")]
    for i in named:
        figures[f"class_{READ_FACTS[i]}"] = float(classes[:, i].mean())
    figures["class_all"] = float(classes[:, named].all(1).float().mean())
    return figures


def save_weights(model: nn.Module, path: Path) -> None:
    """Write all weights and the statistics of the batch norms in half precision.

    The norms' counts of batches are left out: no inference reads them, half precision could not hold them,
    and a strict load fills them in.

    Raises:
        ValueError: If a value is too large for half precision, before anything is written.
    """
    state = {
        name: value.half().contiguous()
        for name, value in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    for name, value in state.items():
        if not value.isfinite().all():
            raise ValueError(f"{name} does not fit into half precision")
    path.write_bytes(save(state))


def _readme(figures: dict[str, float], weights: Path, steps: int, seed: int) -> str:
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    parameters = sum(value.numel() for name, value in load_file(weights).items() if "running_" not in name)
    stills = steps * BATCH_OBJECTS * STILLS_PER_OBJECT
    rows = "\n".join(f"| {name} | {figures[name]:.3f} | {1 / FACTS[name]:.3f} |" for name in READ_FACTS)
    return f"""# Tiny TSM

The embedded backbone of methods on plain image features: a ResNet of {parameters / 1e6:.2f} M parameters for
64 x 64 pictures, so that they run on a fresh clone, offline and on a CPU. It stands in for a ResNet that was
trained on ImageNet in examples and tests; its scores say nothing about one. Like that one it knows pictures
only: temporal shifts come in when a method trains on clips.

Pretrained on stills only: {stills:,} pictures drawn on the fly ({steps} batches, seed {seed}) of
{len(COLOURS)} colours x {len(SHAPES)} shapes on {len(FAMILIES)} kinds of background. Moving objects have
speed lines behind them, which the embedded clips never have. It was trained on no clip and on no frame of one;
what its recipe was chosen by stands in `protocols/README.md`. All background kinds of the clips, those of the
test clips included, occur in the stills, in other draws, and so do all shades, posts and other objects.
The loss is the mean cross-entropy of linear readers, one for each of
{", ".join(READ_FACTS[:-1])} and {READ_FACTS[-1]}, on the mean of the last stage; the readers are dropped
afterwards.

| file | |
|---|---|
| `{CONFIG_FILE}` | arguments of timm's `ResNet`, side of the pictures, mean and deviation of their channels |
| `{WEIGHTS_FILE}` | {weights.stat().st_size / 1e6:.2f} MB, float16, sha256 `{digest}` |

Rebuild this folder with `make tiny-tsm` (about 8
minutes on one core; the same seed gives the same weights on the same machine and library versions, and
slightly different ones elsewhere).

## Measured on held-out stills

Other draws than those of the training, from the same distribution, read by the readers that were trained with
the network, with the weights as written. Start of the weights, learning rate and length were chosen in view of
such stills, so the figures say that the training worked and nothing about other pictures.

Every colour, shape and motion as likely as any other; motion is one of {len(MOTIONS)}, none included:

| fact | accuracy | guessing |
|---|---|---|
{rows}

The six objects of the class names, moving, read among all {len(COLOURS)} colours, {len(SHAPES)} shapes and
{len(MOTIONS)} motions:

| fact | accuracy |
|---|---|
| colour | {figures["class_colour"]:.3f} |
| shape | {figures["class_shape"]:.3f} |
| motion | {figures["class_motion"]:.3f} |
| all three | {figures["class_all"]:.3f} |
"""


def pretrain(out: Path, steps: int, seed: int, progress: bool = True, count: int = 40) -> dict[str, float]:
    """Make the network's folder: configuration, weights and README.

    Args:
        out: Target folder.
        steps: Number of training batches of 128 stills.
        seed: Seed of the initial weights and of all stills.
        progress: Whether to show a progress bar.
        count: Held-out stills, as in ``evaluate``.

    Returns:
        The figures of ``evaluate``, measured with the weights as written.
    """
    out.mkdir(parents=True, exist_ok=True)
    file, weights = out / CONFIG_FILE, out / WEIGHTS_FILE
    file.write_text(json.dumps(MODEL_CONFIG, indent=2) + "\n", encoding="utf-8")
    # From the file, as users of the weights build it.
    config = json.loads(file.read_text(encoding="utf-8"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = tiny_network(config)
        reader = new_reader(config)
        train(model, reader, config, steps, seed, progress)
    save_weights(model, weights)
    model.load_state_dict(load_file(weights), strict=True)
    figures = evaluate(model, reader, config, seed, count)
    readme = _readme(figures, weights, steps, seed)
    (out / README_FILE).write_text(readme, encoding="utf-8")
    return figures


if __name__ == "__main__":
    pretraining_command.run(
        pretrain, DEFAULT_FOLDER, steps=DEFAULT_STEPS, seed=DEFAULT_SEED, threads=NUM_THREADS
    )
