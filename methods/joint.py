"""Joint training: the same network and loss as fine-tuning, on the data of all tasks so far; the upper bound.

Like fine-tuning it runs on the ResNet of TCD's and vCLIMB's tables; the bound of CLIP methods is set likewise.
"""

from __future__ import annotations

from dataclasses import dataclass

from .finetune import Finetune, FinetuneConfig


@dataclass(frozen=True, kw_only=True)
class JointConfig(FinetuneConfig):
    """Fine-tuning's hyper-parameters; each step starts from the last step's weights, as the
    tables' oracle does.

    ``epochs`` counts passes over all data so far, so later steps also take more optimiser steps.
    """


class Joint(Finetune):
    """Fine-tuning that keeps every video it has seen; no VCIL method may do that."""

    name = "joint"
    paper = "upper bound: all data so far, each step warm-started from the last"
    data_access = "cumulative"  # task.train holds the videos of all tasks so far
    Config = JointConfig
