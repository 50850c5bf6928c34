"""Pretrain the embedded tiny CLIP on still pictures, so that a fresh clone has a backbone offline.

The methods under test adapt a CLIP that has seen pictures and never a video. This script makes one
of that kind in minutes on one core. It draws stills on the fly (see ``stills``); no
benchmark clip and no frame of one is ever read.

Speed lines give the motion words a visual meaning, or the texts of "moving left" and "moving right"
would be nearly one vector and nothing could be learned against them. Benchmark clips never have such
lines: for them, the texts of the four motions are well apart and the order of frames has to be learned.

Run ``make tiny-clip``; it writes the model's configuration, merges,
weights and a README with the figures measured on held-out stills.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pretraining_command
import torch
from fact_reader import FactReader
from numpy.typing import NDArray
from open_clip.tokenizer import SimpleTokenizer, default_bpe
from safetensors.torch import load_file, save
from stills import (
    BATCH_OBJECTS,
    COLOURS,
    FACTS,
    FAMILIES,
    HELD_OUT_STREAM,
    INITIAL_STREAM,
    MOTIONS,
    PLACE_BINS,
    SHAPES,
    SIZES,
    STILLS_PER_OBJECT,
    TRAINING_STREAM,
    Still,
    contrast_at,
    draw_still,
    draw_stills,
    held_out_stills,
    normalised,
)
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from vcil_bench.data import synthetic
from vcil_bench.data.synthetic import drawing

MODEL_NAME = "clip_tiny"
DEFAULT_FOLDER = Path(__file__).parents[1] / "vcil_bench/nets/tiny_clip"
CONFIG_FILE = f"{MODEL_NAME}.json"
MERGES_FILE = "merges.txt.gz"
WEIGHTS_FILE = "weights.safetensors"
README_FILE = "README.md"

NUM_MERGES = 2000
CONTEXT_LENGTH = 32
MODEL_CONFIG: dict[str, Any] = {
    "embed_dim": 128,
    "quick_gelu": False,
    "vision_cfg": {
        "image_size": drawing.SIZE,
        "patch_size": 16,
        "width": 128,
        "layers": 3,
        "head_width": 32,
    },
    "text_cfg": {
        "context_length": CONTEXT_LENGTH,
        # Both forms of each byte, the merges, and the start and end marks; the end mark has to be
        # the highest number because the text tower pools there.
        "vocab_size": 2 * 256 + NUM_MERGES + 2,
        "width": 128,
        "heads": 4,
        "layers": 2,
    },
}

DEFAULT_STEPS = 2200
CAPTIONED = 2  # one in so many stills meets its caption: a text costs as much as a picture and teaches no place
DEFAULT_SEED = 0
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 0.05
WARMUP_STEPS = 100
MAX_SCALE = 100.0
POSITION_STD = 0.5
WHITENING = 0.6
# Nothing in the training holds the length of picture features, which ends near 15. A temporal encoder adds codes
# of fixed size for the order of frames, which hardly count beside features of that length: halve it.
FEATURE_SCALE = 0.5
READING_WEIGHT = 2.0
READING_SCALE = 11.0  # sharpens the reading of unit vectors, about the square root of their length
# One thread: where cores are shared, a second one costs far more than it gains on so small a model, and
# the order of sums does not hang on the number of cores.
NUM_THREADS = 1

SEEN_TEMPLATES: tuple[str, ...] = (
    "{}",
    "{}.",
    "a photo of {}",
    "a photo of {}.",
    "a picture of {}",
    "a drawing of {}",
    "a video of {}",
    "a video of {}.",
    "a clip of {}",
    "a video of the action {}",
    "a video showing {}",
)
UNSEEN_TEMPLATE = "a recording that shows {}"

_FAMILY_WORDS = {
    "gradient": "a smooth background",
    "stripes": "a striped background",
    "checker": "a checkered background",
    "noise": "a cloudy background",
    "radial": "a glowing background",
    "waves": "a wavy background",
    "dots": "a dotted background",
    "patches": "a patchy background",
    "plain": "a plain background",
}
_ZONES = (
    "in the top left corner",
    "at the top",
    "in the top right corner",
    "on the left",
    "in the middle",
    "on the right",
    "in the bottom left corner",
    "at the bottom",
    "in the bottom right corner",
)
_NUMBERS = ("one", "two", "three", "four", "five", "six")


@dataclass(frozen=True)
class Caption:
    """A text and the facts it states, in the order of ``Still.facts``; -1 stands for unstated."""

    text: str
    facts: tuple[int, ...]


def write_caption(rng: np.random.Generator, facts: Sequence[int]) -> Caption:
    """Describe a still in a random choice of its facts, wording and template."""
    colour, shape, motion, zone, cell, _, _, size, family = facts
    detailed = rng.random() < 0.85
    tells_motion = rng.random() < 0.85
    tells_size = detailed and SIZES[size] != "" and rng.random() < 0.4
    tells_zone, tells_cell = False, False
    if detailed and rng.random() < 0.85:
        tells_zone = bool(rng.random() < 0.4)
        tells_cell = not tells_zone
    tells_family = detailed and not tells_cell and rng.random() < 0.4

    words = [COLOURS[colour], SHAPES[shape]]
    if tells_size:
        words.insert(0, SIZES[size])
    if tells_motion and MOTIONS[motion] == "still":
        words.insert(0, "still")
    words.insert(0, "an" if words[0][0] in "aeiou" else "a")
    if tells_motion and MOTIONS[motion] != "still":
        words += ["moving", MOTIONS[motion]]
    if tells_zone:
        words.append(_ZONES[zone])
    if tells_cell:
        words.append(f"in column {_NUMBERS[cell % 6]} of row {_NUMBERS[cell // 6]}")
    if tells_family:
        words.append(f"on {_FAMILY_WORDS[FAMILIES[family]]}")
    template = SEEN_TEMPLATES[rng.integers(len(SEEN_TEMPLATES))]
    told = (True, True, tells_motion, tells_zone, tells_cell, False, False, tells_size, tells_family)
    stated = tuple(fact if tell else -1 for fact, tell in zip(facts, told, strict=True))
    return Caption(template.format(" ".join(words)), stated)


def is_true(captions: Sequence[Caption], stills: Sequence[Still]) -> NDArray[np.bool_]:
    """Return which caption is true of which still, [stills, captions].

    A short caption is often true of several stills of a batch; these are positives, not negatives.
    """
    stated = np.array([caption.facts for caption in captions])[None]
    facts = np.array([still.facts for still in stills])[:, None]
    return np.asarray(((stated == facts) | (stated < 0)).all(-1))


def draw_batch(rng: np.random.Generator, contrast: float = 1.0) -> tuple[list[Still], list[Caption]]:
    """Draw one training batch of few objects and many stills of each.

    Few objects, because between stills of different objects motion and position never matter.
    """
    stills = draw_stills(rng, contrast)
    return stills, [write_caption(rng, still.facts) for still in stills]


def write_merges(path: Path) -> None:
    """Write the first merges of CLIP's own vocabulary in the form that open_clip reads."""
    with gzip.open(default_bpe(), "rt", encoding="utf-8") as file:
        lines = file.read().split("\n")[: NUM_MERGES + 1]
    # No file name and no time, which would make every build differ; no newline at the end, which
    # would count as an empty merge.
    with path.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as file:
        file.write("\n".join(lines).encode("utf-8"))


def _normalise(stills: Sequence[Still], model: open_clip.CLIP) -> Tensor:
    """Return pictures as the model's normalised input [B, 3, 64, 64]."""
    return normalised(stills, model.visual.image_mean, model.visual.image_std)


def contrastive_loss(image: Tensor, text: Tensor, scale: Tensor, truth: Tensor) -> Tensor:
    """Return CLIP's symmetric loss with every true pair as a positive.

    Args:
        image: Image features [B, D] of unit length.
        text: Text features [B, D] of unit length.
        scale: Factor of the cosine, a scalar.
        truth: Which caption is true of which still, 0 or 1, [B images, B texts].

    Returns:
        The mean of the cross-entropies of both directions.
    """
    logits = scale * image @ text.T
    to_text = functional.cross_entropy(logits, truth / truth.sum(1, keepdim=True))
    to_image = functional.cross_entropy(logits.T, truth.T / truth.T.sum(1, keepdim=True))
    return (to_text + to_image) / 2


def initialise(model: open_clip.CLIP, rng: np.random.Generator) -> None:
    """Give the vision tower a start from which it sees detail and place.

    With the usual start, brightness and colour of a patch drown everything else for thousands of
    batches. So the patch filters start as the principal components of patches of stills, partly
    whitened, and the position embeddings start about as large as the patches' own values.

    Args:
        model: A new model, changed in place.
        rng: Source of the stills whose patches are analysed.
    """
    stills = [still for _ in range(16) for still in draw_batch(rng)[0]]
    filters = model.visual.conv1.weight
    size = filters.shape[-1]
    patches = functional.unfold(_normalise(stills, model), size, stride=size).double()
    patches = patches.transpose(1, 2).flatten(0, 1)
    covariance = torch.cov(patches.T)
    variances, components = torch.linalg.eigh(covariance)
    variances, components = variances[-len(filters) :], components[:, -len(filters) :]
    # The sign of a component is arbitrary and may differ between libraries: fix it.
    largest = components.abs().argmax(0)
    components = components * components[largest, torch.arange(len(filters))].sign()
    components = components / variances.sqrt() ** WHITENING
    outputs = (variances ** (1 - WHITENING)).mean().sqrt()
    with torch.no_grad():
        filters.copy_((components / outputs).T.reshape(filters.shape))
        torch.nn.init.normal_(model.visual.positional_embedding, std=POSITION_STD)


def train(model: open_clip.CLIP, tokenizer: SimpleTokenizer, steps: int, seed: int, progress: bool) -> None:
    """Train a model in place for a number of batches.

    The loss is CLIP's symmetric contrastive one, plus the reading of the facts (see ``FactReader``). The
    contrastive loss alone takes very long to leave the state in which only colour counts: a text learns to
    tell "left" from "right" only once the pictures do, and the other way round. One linear reader shared by
    both kinds gives both the same directions to aim at.
    """
    rng = np.random.default_rng([seed, TRAINING_STREAM])
    reader = FactReader(MODEL_CONFIG["embed_dim"], tuple(FACTS.values()), READING_SCALE)
    parameters = [*model.parameters(), *reader.parameters()]
    decayed = [p for p in parameters if p.ndim >= 2]
    others = [p for p in parameters if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": WEIGHT_DECAY},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=LEARNING_RATE,
        betas=(0.9, 0.98),
    )
    model.train()
    bar = tqdm(range(steps), desc="tiny CLIP", disable=not progress)
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = pretraining_command.learning_rate(LEARNING_RATE, step, steps, WARMUP_STEPS)
        stills, captions = draw_batch(rng, contrast_at(step, steps))
        described, captions = stills[::CAPTIONED], captions[::CAPTIONED]
        image = model.encode_image(_normalise(stills, model), normalize=True)
        text = model.encode_text(tokenizer([caption.text for caption in captions]), normalize=True)
        truth = torch.from_numpy(is_true(captions, described)).float()
        loss = contrastive_loss(image[::CAPTIONED], text, model.logit_scale.exp(), truth)
        reading = reader(image, torch.tensor([still.facts for still in stills])) + reader(
            text, torch.tensor([caption.facts for caption in captions])
        )
        optimizer.zero_grad()
        (loss + READING_WEIGHT * reading).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=math.log(MAX_SCALE))
        if step % 20 == 0:
            bar.set_postfix(loss=f"{loss.item():.3f}", reading=f"{reading.item():.3f}")


@torch.no_grad()
def _accuracy(
    model: open_clip.CLIP,
    tokenizer: SimpleTokenizer,
    texts: Sequence[str],
    labelled: Iterator[tuple[int, Still]],
) -> float:
    labels, stills = zip(*labelled, strict=True)
    image = model.encode_image(_normalise(stills, model), normalize=True)
    text = model.encode_text(tokenizer(list(texts)), normalize=True)
    return float(((image @ text.T).argmax(1) == torch.tensor(labels)).float().mean())


@torch.no_grad()
def evaluate(
    model: open_clip.CLIP, tokenizer: SimpleTokenizer, seed: int = DEFAULT_SEED, count: int = 40
) -> dict[str, float]:
    """Measure a model on held-out stills; benchmark clips play no part.

    Args:
        model: A model that this script or ``open_clip.create_model`` made.
        tokenizer: The tokenizer of its texts.
        seed: The seed of the training, whose held-out stream is drawn.
        count: Stills of each of the 24 kinds with speed lines and of each of the 6 objects without.

    Returns:
        Accuracies in [0, 1], cosines between the texts of different classes, and the logit scale.
    """
    model.eval()
    names = synthetic.CLASS_NAMES
    things = [f"a {colour} {shape}" for colour, shape in synthetic.OBJECTS]
    figures: dict[str, float] = {}
    for label, template in (("", "{}"), ("_video", "a video of {}"), ("_unseen", UNSEEN_TEMPLATE)):
        figures[f"retrieval_24{label}"] = _accuracy(
            model,
            tokenizer,
            [template.format(name) for name in names],
            held_out_stills(seed, synthetic.MOTIONS, count),
        )
    figures["object_6"] = _accuracy(model, tokenizer, things, held_out_stills(seed, ("still",), 4 * count))
    # The six objects differ in colour too; only objects of one colour show what is known of shape.
    shapes = [shape for _, shape in synthetic.OBJECTS]
    rng = np.random.default_rng([seed, HELD_OUT_STREAM, 1])
    figures["shape_6"] = _accuracy(
        model,
        tokenizer,
        [f"an orange {shape}" for shape in shapes],
        (
            (kind, draw_still(rng, "orange", shape, "still"))
            for kind, shape in enumerate(shapes)
            for _ in range(4 * count)
        ),
    )
    for label, template in (("", "{}"), ("_video", "a video of {}")):
        texts = tokenizer([template.format(name) for name in names])
        text = model.encode_text(texts, normalize=True)
        cosines = (text @ text.T)[~torch.eye(len(names), dtype=torch.bool)]
        figures[f"text_cosine_mean{label}"] = float(cosines.mean())
        figures[f"text_cosine_max{label}"] = float(cosines.max())
    figures["logit_scale"] = float(model.logit_scale.exp())
    return figures


def save_weights(model: open_clip.CLIP, path: Path) -> None:
    """Write all weights in half precision."""
    state = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    limit = torch.tensor(MAX_SCALE).log()
    if state["logit_scale"].float() > limit:  # rounded up past the clamp
        below = np.nextafter(np.float16(limit), np.float16(0))
        state["logit_scale"] = torch.tensor(float(below)).half()
    path.write_bytes(save(state))


def _readme(figures: dict[str, float], weights: Path, steps: int, seed: int) -> str:
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    parameters = sum(value.numel() for value in load_file(weights).values())
    stills = steps * BATCH_OBJECTS * STILLS_PER_OBJECT
    return f"""# Tiny CLIP

The embedded backbone: a CLIP of {parameters / 1e6:.2f} M parameters for 64 x 64 pictures, so that
every method runs on a fresh clone, offline and on a CPU. It stands in for a real CLIP in examples
and tests; its scores say nothing about one.

Pretrained on stills only: {stills:,} pictures drawn on the fly ({steps} batches, seed {seed}) of
{len(COLOURS)} colours x {len(SHAPES)} shapes on {len(FAMILIES)} kinds of background, with
captions about colour, shape, motion, position, size and background in {len(SEEN_TEMPLATES)}
templates; one still in {CAPTIONED} meets its caption. Moving objects have speed lines behind them, which the
embedded clips never have. It was trained on no clip and on no frame of one; what its recipe was
chosen by stands in `protocols/README.md`. All background kinds of the clips, those of the test clips
included, occur in the stills, in other draws, and so do all shades, posts and other objects. The
loss is CLIP's symmetric contrastive one with every true caption as a positive, plus a linear reading
of the drawn facts from both features, which is dropped afterwards; place is read from pictures in
{PLACE_BINS} columns and rows, so that frame features hold where a thing is. At the end the projection of
picture features is multiplied by {FEATURE_SCALE}.

| file | |
|---|---|
| `{CONFIG_FILE}` | configuration for `open_clip.add_model_config` |
| `{MERGES_FILE}` | the first {NUM_MERGES} merges of CLIP's vocabulary (OpenAI, MIT licence) |
| `{WEIGHTS_FILE}` | {weights.stat().st_size / 1e6:.2f} MB, float16, sha256 `{digest}` |

```python
open_clip.add_model_config(folder / "{CONFIG_FILE}")
model = open_clip.create_model("{MODEL_NAME}", pretrained=str(folder / "{WEIGHTS_FILE}"))
tokenizer = SimpleTokenizer(str(folder / "{MERGES_FILE}"), context_length={CONTEXT_LENGTH})
```

Any text tokenises, at worst byte by byte. Rebuild this folder with `make tiny-clip` (13 to 15
minutes on one core; the same seed gives the same weights on the same machine and library versions,
and slightly different ones elsewhere).

## Measured on held-out stills

Other draws than those of the training, from the same distribution. Start of the weights, look of the speed
lines and plain backgrounds first were chosen in view of such stills, so the figures say that the
training worked and nothing about other pictures.

| figure | value |
|---|---|
| still with speed lines -> one of the 24 class names | {figures["retrieval_24"]:.3f} |
| same, "a video of ..." | {figures["retrieval_24_video"]:.3f} |
| same, "{UNSEEN_TEMPLATE.format("...")}" (a template it never saw) | \
{figures["retrieval_24_unseen"]:.3f} |
| still without speed lines -> one of the 6 objects ("a red square") | {figures["object_6"]:.3f} |
| six shapes of one colour, which leaves only the shape ("an orange square") | {figures["shape_6"]:.3f} |
| cosine between texts of two class names, mean / max | \
{figures["text_cosine_mean"]:.3f} / {figures["text_cosine_max"]:.3f} |
| same, "a video of ..." | \
{figures["text_cosine_mean_video"]:.3f} / {figures["text_cosine_max_video"]:.3f} |
| logit scale (clamped at {MAX_SCALE:.0f}) | {figures["logit_scale"]:.2f} |
"""


def pretrain(out: Path, steps: int, seed: int, progress: bool = True, count: int = 40) -> dict[str, float]:
    """Make the model's folder: configuration and merges if absent, weights and README always.

    Args:
        out: Target folder.
        steps: Number of training batches of 128 stills.
        seed: Seed of the initial weights and of all stills and captions.
        progress: Whether to show a progress bar.
        count: Held-out stills of each kind, as in ``evaluate``.

    Returns:
        The figures of ``evaluate``, measured with the weights as written.
    """
    out.mkdir(parents=True, exist_ok=True)
    config, merges, weights = out / CONFIG_FILE, out / MERGES_FILE, out / WEIGHTS_FILE
    if not config.exists():
        config.write_text(json.dumps(MODEL_CONFIG, indent=2) + "\n", encoding="utf-8")
    if not merges.exists():
        write_merges(merges)
    open_clip.add_model_config(config)
    tokenizer = SimpleTokenizer(str(merges), context_length=CONTEXT_LENGTH)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = open_clip.create_model(MODEL_NAME)
        initialise(model, np.random.default_rng([seed, INITIAL_STREAM]))
        train(model, tokenizer, steps, seed, progress)
        with torch.no_grad():
            model.visual.proj.mul_(FEATURE_SCALE)
    save_weights(model, weights)
    model.load_state_dict(load_file(weights), strict=True)
    figures = evaluate(model, tokenizer, seed, count)
    readme = _readme(figures, weights, steps, seed)
    (out / README_FILE).write_text(readme, encoding="utf-8")
    return figures


if __name__ == "__main__":
    pretraining_command.run(
        pretrain, DEFAULT_FOLDER, steps=DEFAULT_STEPS, seed=DEFAULT_SEED, threads=NUM_THREADS
    )
