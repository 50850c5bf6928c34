"""Class means are made while learning, so that a resumed run has no place for them."""

import torch
from right_method import Right


class StructureInLearn(Right):
    name = "structure_in_learn"

    def learn(self, task):
        super().learn(task)
        self.register_buffer(f"mean_{task.index}", torch.ones(task.num_new, 3))
