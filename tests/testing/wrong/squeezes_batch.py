"""A batch of one clip loses its dimension."""

from right_method import Right


class SqueezesBatch(Right):
    name = "squeezes_batch"

    def loss(self, clips, labels):
        features = self.features(clips).squeeze()
        return super().loss(clips, labels) + 0 * features[:, 0].sum()
