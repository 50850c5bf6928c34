"""A loss that is no number from the second task on."""

from right_method import Right


class NanLoss(Right):
    name = "nan_loss"

    def loss(self, clips, labels):
        return super().loss(clips, labels) * (float("nan") if labels.max() > 1 else 1)
