"""A constructor that asks the context for what is not there."""

from right_method import Right


class FailsToConstruct(Right):
    name = "fails_to_construct"

    def __init__(self, config, context):
        super().__init__(config, context)
        self.classes = context.num_classes
