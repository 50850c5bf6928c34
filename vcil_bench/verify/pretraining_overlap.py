"""Pretraining overlap: judges whether weights may have been trained on the test videos.

A number on videos that the weights were trained on says little about a method. Mostly nothing can be proved, and
then this table says so, rather than nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from vcil_bench.nets.backbones import BACKBONES
from vcil_bench.nets.weights import WeightsInfo, is_path

Verdict = Literal["known", "excluded", "not known"]

# How texts about pretraining name the data sets that protocols test on.
TESTED = {
    "kinetics400": r"kinetics|\bk[4-7]00\b",
    "activitynet": r"activitynet|\banet\b",
    "ssv2": r"something-?something|\bssv2\b",
    "ucf101": r"\bucf",
    "hmdb51": r"\bhmdb",
}


@dataclass(frozen=True)
class Seen:
    """Weights by their source, what they were trained on, and what follows for real videos."""

    source: str  # regular expression on ``WeightsInfo.source``
    verdict: Verdict
    data: str


SEEN = (
    Seen("random", "excluded", "random weights have seen nothing"),
    Seen("embedded", "excluded", "trained on pictures drawn by this package, and on nothing else"),
    Seen(
        "openai",
        "not known",
        "trained on 400M images with texts from the web, never published: overlap cannot be excluded",
    ),
    Seen(
        r"timm .*(in21k|in22k|in12k|ig1b|yfcc|laion|jft|dfn|webli).*",
        "not known",
        "trained on more images from the web than ImageNet-1k: overlap cannot be excluded",
    ),
    Seen(
        r"timm .*[._]in1k",
        "not known",
        "trained on ImageNet-1k, 1.28M labelled stills from the web and no video; whether frames of the test "
        "videos are among them has not been examined",
    ),
)


def overlap(weights: WeightsInfo, dataset: str) -> tuple[Verdict, str]:
    """Tell whether weights may have seen the videos they are tested on.

    Args:
        weights: What is known of the weights.
        dataset: The dataset that the protocol tests on.

    Returns:
        The verdict and a sentence with its reason.
    """
    who = f"{weights.name}, weights {weights.source}"
    if dataset in TESTED and re.search(TESTED[dataset], weights.pretraining, re.IGNORECASE):
        return "known", f"{who}: trained on {weights.pretraining}, and tested on {dataset}"
    seen = next((entry for entry in SEEN if re.fullmatch(entry.source, weights.source)), None)
    if seen is None:
        what = weights.pretraining or "unknown data"
        return "not known", f"{who}: trained on {what}; overlap with {dataset} cannot be excluded"
    if seen.source == "embedded" and dataset == "synthetic":
        return "not known", f"{who}: trained on pictures of the same objects as in the embedded clips"
    return seen.verdict, f"{who}: {seen.data}"


def stated(backbone: str, weights: str | None) -> WeightsInfo:
    """Say which weights a backbone would take, without loading them; the hash stays empty.

    Args:
        backbone: One of ``BACKBONES``.
        weights: As ``--set weights=`` names them, None for the backbone's own.
    """
    if weights is None:
        return WeightsInfo(backbone, BACKBONES[backbone].own_source, "", "")
    if is_path(weights):
        return WeightsInfo(backbone, weights, "", "unknown data (a local file)")
    source = weights if weights in ("random", "openai") else f"timm {weights}"
    return WeightsInfo(backbone, source, "", "")


def fitting(size: int) -> list[WeightsInfo]:
    """Return the own weights of all backbones that take frames of a size, each source once."""
    by_source = {
        stated(name, None).source: stated(name, None)
        for name, entry in sorted(BACKBONES.items(), reverse=True)
        if entry.image_size == size
    }
    return list(reversed(by_source.values()))
