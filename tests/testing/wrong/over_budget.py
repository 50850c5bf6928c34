"""Clips kept beside the memory: two of every class, however many classes there are."""

import torch
from right_method import Right

from vcil_bench.method import MemoryUse


class OverBudget(Right):
    name = "over_budget"

    def __init__(self, config, context):
        super().__init__(config, context)
        self.register_buffer("clips", torch.empty(0, 4, 3, 64, 64, dtype=torch.uint8))

    def grow(self, task):
        super().grow(task)
        self.clips = torch.cat([self.clips, self.clips.new_zeros(2 * task.num_new, 4, 3, 64, 64)])

    def learn(self, task):
        super().learn(task)
        (batch,) = self.context.centre_clips(task.train)
        self.clips[2 * task.num_old :] = batch.clips[:1]

    def memory_use(self):
        return MemoryUse(len(self.clips), 4 * len(self.clips), self.clips.nbytes)
