"""A normalisation of scores that divides by zero."""

from right_method import Right


class NanScores(Right):
    name = "nan_scores"

    def predict(self, clips):
        logits = self.logits(clips)
        return {"cnn": logits / logits.sub(logits).sum(dim=1, keepdim=True)}
