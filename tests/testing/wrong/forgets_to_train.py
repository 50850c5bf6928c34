"""A scale that requires gradients and has no part in the loss."""

import torch
from right_method import Right
from torch import nn


class ForgetsToTrain(Right):
    name = "forgets_to_train"

    def __init__(self, config, context):
        super().__init__(config, context)
        self.scale = nn.Parameter(torch.ones(1))
