"""Class texts are asked of the backbone without a word in ``needs``."""

from right_method import Right


class UndeclaredNeed(Right):
    name = "undeclared_need"

    def grow(self, task):
        super().grow(task)
        self.context.clip.encode_text(task.class_names)
