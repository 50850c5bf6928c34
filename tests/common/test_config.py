"""Errors of configs: they say whose key it is, what it may be, and which name was meant."""

from __future__ import annotations

import pytest

from vcil_bench import registry
from vcil_bench.common.config import ConfigError
from vcil_bench.common.errors import did_you_mean


@pytest.mark.parametrize(
    ("method", "key", "value", "problem"),
    [
        ("ranpac", "expansion", -5, "expansion: -5 must be 0 or greater"),
        ("ranpac", "expansion", 2.5, "expansion: 2.5 is not a whole number below 2^53"),
        ("ranpac", "ridge", -1.0, "ridge: -1.0 must be above 0, or null to choose it per task"),
        ("acil", "gamma", 0, "gamma: 0.0 must be greater than 0"),
        ("bic", "held_out", 1.0, "held_out: 1.0 must be at least 0 and below 1"),
        (
            "ewc",
            "reg_lambda",
            1e39,
            "reg_lambda: 1e+39 is nothing that numbers of 32 bits can hold; they reach from 1.2e-38 to 3.4e38",
        ),
    ],
)
def test_an_error_of_a_value_names_the_method(method: str, key: str, value: float, problem: str) -> None:
    cls = registry.find(method).cls
    assert cls is not None
    with pytest.raises(ConfigError) as caught:
        cls.resolve_config("synthetic_3x4", {key: value})
    assert str(caught.value) == f"config of method {method!r}: {problem}"


@pytest.mark.parametrize(
    ("value", "allowed", "meant"),
    [
        ("adapt", ["adapter_lr", "adapter_scale"], None),
        ("epoch", ["epochs", "epochs_first"], "epochs"),
        ("adapter_rl", ["adapter_lr", "adapter_scale"], "adapter_lr"),
        ("tns", ["alphabetical", "tsn"], "tsn"),
        ("ucf", ["ucf101", "hmdb51"], "ucf101"),
    ],
)
def test_only_a_near_name_is_suggested(value: str, allowed: list[str], meant: str | None) -> None:
    assert did_you_mean(value, allowed) == (f" (did you mean '{meant}'?)" if meant else "")
