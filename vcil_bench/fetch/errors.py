"""What can go wrong while data are fetched, by kind; each message says the way out."""

from __future__ import annotations

from vcil_bench.common.errors import UserError


class FetchError(UserError):
    """Data that cannot be fetched."""


class Unreachable(FetchError):
    """An address that does not give its file.

    Attributes:
        status: The HTTP status; None where no answer came.
        lasting: Whether asking again is of no use.
    """

    def __init__(self, message: str, *, status: int | None = None, lasting: bool = False) -> None:
        """Say what came instead of the file."""
        super().__init__(message)
        self.status = status
        self.lasting = lasting


class WrongHash(FetchError):
    """A file that is complete and not the published one."""


class Damaged(FetchError):
    """An archive that cannot be read to its end."""


class Hostile(FetchError):
    """An archive with a member that could be written outside its folder, or that is no file."""


class TooLarge(FetchError):
    """An archive whose content takes more than the space that was announced."""


class DiskFull(FetchError):
    """A disk that has no room for what is to come, or ran full."""


class NotAccepted(FetchError):
    """A licence that was not accepted yet."""
