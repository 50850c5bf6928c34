"""The bounds stand among their like: on a table's protocol they run on the backbone of its other rows."""

from __future__ import annotations

import pytest
from small_runs import method_class

from vcil_bench import protocol

NAMES = protocol.names()


@pytest.mark.parametrize("bound", ["finetune", "joint", "replay"])
@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("synthetic_")])
def test_a_bound_runs_on_the_resnet_of_the_protocols_table(name: str, bound: str) -> None:
    # Replay has vCLIMB's own recipe on its protocols, which is iCaRL's there.
    like = "icarl" if bound == "replay" and name.startswith("vclimb_") else "lwf"
    cls, classifier = method_class(bound), method_class(like)
    assert cls.backbone_for(name)[0] == classifier.backbone_for(name)[0]
    config, shared = (each.resolve_config(name, {})[0] for each in (cls, classifier))
    assert config.temporal == "mean"
    for key in ("lr", "batch_size", "epochs_first", "epochs"):
        assert getattr(config, key) == getattr(shared, key), key


@pytest.mark.parametrize("bound", ["finetune", "joint", "replay"])
def test_a_bound_of_clip_methods_elsewhere_has_an_adapter_methods_parts(bound: str) -> None:
    for name in ("synthetic_3x4", "mine"):
        assert method_class(bound).backbone_for(name) == method_class("stpr").backbone_for(name)
        assert method_class(bound).resolve_config(name, {})[0].temporal == "encoder"
