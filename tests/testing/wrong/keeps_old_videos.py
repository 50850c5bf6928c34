"""All videos so far are trained on again, whatever the budget."""

import dataclasses

from right_method import Right


class KeepsOldVideos(Right):
    name = "keeps_old_videos"
    seen = ()

    def learn(self, task):
        super().learn(dataclasses.replace(task, train=(*self.seen, *task.train)))
        self.seen = (*self.seen, *task.train)
