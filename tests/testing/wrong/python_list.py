"""Class means in a Python list, which no state dict holds."""

import torch
from right_method import Right


class PythonList(Right):
    name = "python_list"

    def __init__(self, config, context):
        super().__init__(config, context)
        self.means = []

    def learn(self, task):
        super().learn(task)
        for label in range(task.num_old, task.num_seen):
            (batch,) = self.context.centre_clips(self.memory.of_class(label))
            self.means.append(self.features(batch.clips).mean(dim=0))

    def predict(self, clips):
        return {"cnn": -torch.cdist(self.features(clips), torch.stack(self.means))}
