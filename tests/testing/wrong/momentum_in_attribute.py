"""The loss is smoothed over steps by a number that only the running process knows."""

from right_method import Right


class MomentumInAttribute(Right):
    name = "momentum_in_attribute"

    def learn(self, task):
        self.smooth = 1.0
        super().learn(task)

    def loss(self, clips, labels):
        loss = super().loss(clips, labels)
        self.smooth = 0.5 * self.smooth + 0.5 * float(loss.detach())
        return loss * self.smooth
