"""Scores of the newest classes alone, as if the task were known."""

from right_method import Right


class WrongShape(Right):
    name = "wrong_shape"

    def learn(self, task):
        self.num_new = task.num_new
        super().learn(task)

    def predict(self, clips):
        return {"cnn": self.logits(clips)[:, -self.num_new :]}
