"""The pretrained weights themselves are made to require gradients."""

from right_method import Right


class UnfreezesBackbone(Right):
    name = "unfreezes_backbone"

    def learn(self, task):
        self.context.backbone.model.requires_grad_(True)
        super().learn(task)
