"""Noise from a generator that nobody has seeded."""

import numpy as np
from right_method import Right


class Unseeded(Right):
    name = "unseeded"

    def learn(self, task):
        super().learn(task)
        noise = np.random.default_rng().normal(size=len(self.head.bias))
        self.head.bias.data += self.head.bias.new_tensor(noise)
