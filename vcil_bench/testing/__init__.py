r"""The contract of a method as checks: what every method must do, on small data, in seconds.

In the tests of a plugin::

    def test_contract():
        failed = [result for result in check_method(MyMethod) if result.outcome == "failed"]
        assert not failed, "\n".join(map(str, failed))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .contract import CheckResult as CheckResult
    from .contract import check_method as check_method

__all__ = ["CheckResult", "check_method"]


def __getattr__(name: str) -> Any:
    """Import the checks, and with them the harness, when they are first asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import contract

    return getattr(contract, name)
