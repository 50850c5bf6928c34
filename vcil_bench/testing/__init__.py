r"""The contract of a method as checks: what every method must do, on small data, in seconds.

In the tests of a plugin::

    def test_contract():
        failed = [result for result in check_method(MyMethod) if result.outcome == "failed"]
        assert not failed, "\n".join(map(str, failed))
"""

from .contract import CheckResult, check_method

__all__ = ["CheckResult", "check_method"]
