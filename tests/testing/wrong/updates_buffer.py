"""A running mean of the features, updated by the test videos, too."""

import torch
from right_method import Right


class UpdatesBuffer(Right):
    name = "updates_buffer"

    def __init__(self, config, context):
        super().__init__(config, context)
        self.register_buffer("running_mean", torch.zeros(3))

    def predict(self, clips):
        self.running_mean.mul_(0.9).add_(0.1 * self.features(clips).mean(dim=0))
        return super().predict(clips)
