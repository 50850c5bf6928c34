"""Pickles of plain data, read without running anything that they hold.

Only published lists that exist in no other form are read this way; the project itself writes no pickle. A pickle
does harm by naming a function to call, so every name is refused, and with it every object that is not made of
dictionaries, lists, strings and numbers.
"""

from __future__ import annotations

import io
import pickle
from typing import Any, NoReturn

from vcil_bench.common.errors import UserError


class PlainPickleError(UserError):
    """A pickle that is damaged or holds more than plain data."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> NoReturn:
        raise PlainPickleError(f"names {module}.{name}, which plain data do not need; nothing of it was run")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise PlainPickleError("refers to an object outside of the file; nothing of it was run")


def load(content: bytes) -> Any:
    """Return the plain data of a pickle.

    Raises:
        PlainPickleError: The pickle is damaged, or names a class, a function or an outside object.
    """
    try:
        return _Unpickler(io.BytesIO(content)).load()
    except PlainPickleError:
        raise
    except Exception as error:  # damaged bytes raise nearly anything
        raise PlainPickleError(f"is not a whole pickle ({type(error).__name__}: {error})") from error
