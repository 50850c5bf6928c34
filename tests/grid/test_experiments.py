"""Experiments: sweeps give every combination, tables every cell that is run, as the paper's table takes them."""

from __future__ import annotations

import dataclasses
import json

import pytest
from small_runs import method_class

from vcil_bench import protocol
from vcil_bench.common.config import ConfigError, parse_assignments
from vcil_bench.common.errors import UserError
from vcil_bench.grid import experiments
from vcil_bench.grid.experiments import Experiment, of_table, product, sweep
from vcil_bench.options import split_assignments
from vcil_bench.protocol import Protocol
from vcil_bench.report import papers
from vcil_bench.report.comparison_table import FREE_OPTIONS
from vcil_bench.report.table_file import TableSpec

ALL = ["all"]
RUNNABLE = [spec for spec in papers.specs() if any(row.method for row in spec.rows)]


@pytest.mark.parametrize(
    ("assignments", "combinations"),
    [
        ([], [()]),
        (["lr=0.01"], [("lr=0.01",)]),
        (["lr=0.01,0.02"], [("lr=0.01",), ("lr=0.02",)]),
        (
            ["lr=0.01, 0.02", "fssd=true,false"],
            [
                ("lr=0.01", "fssd=true"),
                ("lr=0.01", "fssd=false"),
                ("lr=0.02", "fssd=true"),
                ("lr=0.02", "fssd=false"),
            ],
        ),
        (["milestones=[20,40]"], [("milestones=[20,40]",)]),
        (["milestones=[20,40],[30]"], [("milestones=[20,40]",), ("milestones=[30]",)]),
        (['template="a clip of {}, slowly"'], [('template="a clip of {}, slowly"',)]),
        (["template='{}, a','{}'"], [("template='{}, a'",), ("template='{}'",)]),
        (["protocol.memory={per_class: 5, frames: 8}"], [("protocol.memory={per_class: 5, frames: 8}",)]),
        (["names=['a, b','c']"], [("names=['a, b','c']",)]),
        (["template=a dog's {}"], [("template=a dog's {}",)]),
        (["lr=1,1"], [("lr=1",)]),
    ],
)
def test_commas_part_the_values_of_a_sweep(assignments: list[str], combinations: list[tuple[str, ...]]) -> None:
    assert sweep(assignments) == combinations


@pytest.mark.parametrize("text", ["lr=0.01,", "lr=,0.01", "lr=1,,2"])
def test_an_empty_value_of_a_sweep_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is empty"):
        sweep([text])


def test_a_product_has_everything_once() -> None:
    made = product(["a", "b", "a"], ["p", "q"], ["x=1,2"])
    assert len(made) == len(set(made)) == 8
    assert made[0] == Experiment("a", "p", ("x=1",))


@pytest.mark.parametrize("spec", RUNNABLE, ids=lambda spec: spec.id)
def test_every_run_of_a_table_belongs_to_one_of_its_rows(spec: TableSpec) -> None:
    """What a run is started with is, read as the run reads it, what the table asks of its record."""
    made = of_table(spec.id, ALL, ALL, [])
    loaded = {name: protocol.load(name) for name in spec.protocols}
    for experiment in made:
        cls = method_class(experiment.method)
        given = parse_assignments(list(experiment.assignments))
        overrides, options, config = split_assignments(given, cls.Config, experiment.method)
        cls.resolve_config(experiment.protocol, config)
        Protocol(loaded[experiment.protocol]._raw, "a test", overrides)
        assert options.keys() <= FREE_OPTIONS
        rows = [row for row in spec.rows if row.method == experiment.method]
        assert any((row.config, row.overrides) == (config, overrides) for row in rows), experiment
    wanted = {
        (row.method, name, json.dumps([row.config, row.overrides, row.provides]))
        for row in spec.rows
        if row.method
        for name in spec.protocols
    }
    assert len(made) == len(set(made)) <= len(wanted)
    assert {(method, name) for method, name, _ in wanted} == {(e.method, e.protocol) for e in made}


def test_the_ablation_of_components_has_its_variants() -> None:
    made = of_table("stpr_components", ["stpr"], ["synthetic_3x4"], ["precision=bf16"])
    assert {experiment.assignments for experiment in made} == {
        ("adapters=false", "moe=false", "precision=bf16"),
        ("fssd=false", "moe=false", "precision=bf16"),
        ("moe=false", "precision=bf16"),
        ("adapters=false", "precision=bf16"),
        ("fssd=false", "precision=bf16"),
        ("precision=bf16",),
    }


@pytest.mark.parametrize(("name", "on"), [("tcd_ucf101_10x5", "clip_vit_b16"), ("synthetic_3x4", None)])
def test_a_row_on_clip_names_it_where_the_method_takes_another_backbone(name: str, on: str | None) -> None:
    made = of_table("pretrained_features", ["finetune"], [name], [])
    chosen = {parse_assignments(list(e.assignments)).get("backbone") for e in made}
    assert chosen == {on}


@pytest.mark.parametrize(
    ("name", "methods", "protocols", "assignments", "says"),
    [
        ("stpr_component", ALL, ALL, [], "did you mean 'stpr_components'"),
        ("stpr_components", ["tcd"], ALL, [], "method 'tcd' is not in table stpr_components"),
        ("stpr_components", ALL, ["tcd_ucf101_5x10"], [], "did you mean 'tcd_ucf101_10x5'"),
        ("stpr_components", ALL, ALL, ["moe=true"], "row 'frozen CLIP' of table stpr_components sets moe=False"),
    ],
)
def test_slips_name_the_value_and_the_way_out(
    name: str, methods: list[str], protocols: list[str], assignments: list[str], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        of_table(name, methods, protocols, assignments)


def test_a_table_of_numbers_alone_cannot_be_run(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = next(spec for spec in papers.specs() if spec.id == "sfcl_components")
    rows = [row for row in spec.rows if row.method is None]
    monkeypatch.setattr(experiments, "specs", lambda: [dataclasses.replace(spec, rows=rows)])
    with pytest.raises(UserError, match="published numbers alone"):
        of_table("sfcl_components", ALL, ALL, [])
