"""Files are written next to the data, and the way back is forgotten."""

import os

from right_method import Right


class ChangesDirectory(Right):
    name = "changes_directory"

    def learn(self, task):
        os.chdir("/")
        super().learn(task)
