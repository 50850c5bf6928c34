"""The second task's rate depends on what the first left in a plain attribute."""

from right_method import Right


class OldLossInAttribute(Right):
    name = "old_loss_in_attribute"
    factor = 1.0

    def learn(self, task):
        super().learn(task)
        self.factor *= 0.5

    def loss(self, clips, labels):
        return self.factor * super().loss(clips, labels)
