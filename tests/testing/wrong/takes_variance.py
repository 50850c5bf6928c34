"""A variance over the new videos, of which there may be one."""

from right_method import Right


class TakesVariance(Right):
    name = "takes_variance"

    def learn(self, task):
        super().learn(task)
        if len(task.train) == 1:
            self.head.bias.data[-task.num_new :] /= self.head.bias.new_tensor(len(task.train) - 1)
