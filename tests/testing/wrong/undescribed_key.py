"""A Config key that nobody explains."""

from dataclasses import dataclass

from right_method import Config, Right


@dataclass(frozen=True, kw_only=True)
class MoreConfig(Config):
    """The parent's."""

    strength: float = 1.0


class UndescribedKey(Right):
    name = "undescribed_key"
    Config = MoreConfig
