"""Paper-style tables: the published file as it is, our numbers computed another way, and who may stand where."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_records import record_data

from vcil_bench import record
from vcil_bench.common.errors import UserError
from vcil_bench.nets.backbones import BACKBONES
from vcil_bench.protocol import load
from vcil_bench.report import latex, papers, table_text
from vcil_bench.report.comparison_table import BWF, Cell, Table, exemplars_of
from vcil_bench.report.labels import Labels
from vcil_bench.report.layout import of_table

REFERENCE = Path(__file__).parents[2] / "results/reference"
SEEDS = (1000, 1993, 2021)
EMBEDDED: Any = {
    "protocol_name": "synthetic_3x4",
    "data": {"kind": "synthetic"},
    "weights": {"name": "clip_tiny", "source": "embedded", "pretraining": "rendered still pictures"},
    "readouts": ["text"],
}


def _write(folder: Path, method: str, seed: int, **more: Any) -> record.Record:
    """Write a record of real data on tcd_hmdb51_5x5 with two tasks, which suffice for arithmetic."""
    protocol = load(more.pop("protocol_name", "tcd_hmdb51_5x5"))
    readouts = more.pop("readouts", ["cnn", "nme"])
    correct = more.pop("correct", ((30 + seed % 7,), (20 + seed % 5, 10)))
    config = more.pop("config", {})
    overrides = more.pop("overrides", {})
    weights = {"name": "tsm_resnet50", "source": "timm resnet50.tv_in1k", "pretraining": "ImageNet-1k"}
    data: Any = record_data(
        method=method,
        seed=seed,
        correct=correct,
        totals=more.pop("totals", (40, 20)),
        protocol={
            "name": protocol.name,
            "label": protocol.label,
            "fingerprint": protocol.derive(overrides).fingerprint,
            "origin": f"protocols/{protocol.name}.yaml",
            "overrides": overrides,
            "seeds": list(protocol.spec.seeds),
            "spec": {"memory": {"per_class": 5, "total": None, "frames": 8}},
        },
        weights=weights | more.pop("weights", {}),
        **more,
    )
    data["method"]["readouts"] = readouts
    data["method"]["uses_memory"] = method not in ("finetune", "lwf")
    for step in data["steps"]:
        step["correct"] = {name: step["correct"]["cnn"] for name in readouts}
    data["config"] |= {k: {"value": v, "origin": "command line"} for k, v in config.items()}
    name = record.variant_name(config | overrides)
    path = record.record_path(folder / data["weights"]["name"], protocol.label, method, name, seed)
    record.save(path, data)
    return record.load(path)


def _table(records: list[record.Record], name: str = "hce_tcd") -> Table:
    (found,) = [t for t in papers.tables(records) if t.spec.id == name]
    return found


def _cell(table: Table, label: str, column: str, backbone: str | None = None) -> Cell:
    (line,) = [ln for ln in table.lines if ln.label == label and backbone in (None, ln.backbone)]
    (index,) = [i for i, c in enumerate(table.columns) if c.title == column]
    return line.cells[index]


def test_published_numbers_are_shown_as_they_stand_in_the_file() -> None:
    """Every published cell of every table equals one line of the file, read here without pandas."""
    with (Path(papers.__file__).parent / "published.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 447
    known = {(ln["protocol"], ln["method"], ln["metric"], float(ln["value"]), ln["source"]) for ln in lines}
    shown = 0
    for table in papers.tables([]):
        assert not any(line.added for line in table.lines)
        for row, line in zip(table.spec.rows, table.lines, strict=True):
            for column, cell in zip(table.columns, line.cells, strict=True):
                if cell.published is not None:
                    source = cell.source.split(", Table")[0].split(", Main")[0].split(", text")[0]
                    source = source.split(", Ablation")[0].split(", Baselines")[0].split(", Remembering")[0]
                    source = source.split(", Untrimmed")[0]
                    key = (column.protocol, row.published, column.published_metric, cell.published, source)
                    assert key in known
                    shown += 1
    assert shown > 200


def test_every_row_and_column_of_the_tables_finds_a_published_number() -> None:
    """A name misspelt in papers.yaml would quietly leave cells empty."""
    for table in papers.tables([]):
        for line, row in zip(table.lines, table.spec.rows, strict=True):
            assert row.published is None or any(c.published is not None for c in line.cells), row
        if table.spec.sources:
            assert any(cell.published is not None for line in table.lines for cell in line.cells)
        assert bool(table.spec.sources) == bool(table.spec.tables)


def test_a_metric_of_every_step_has_a_column_a_step(tmp_path: Path) -> None:
    table = _table([], "sfcl_steps")
    titles = [column.title for column in table.columns]
    assert titles[0] == "tcd_hmdb51_5x5"
    assert titles[1:3] == [f"tcd_hmdb51_5x5 top-1 after task {i}" for i in (0, 1)]
    assert len(titles) == 1 + 2 * 6
    by_title = dict(zip(titles, table.lines[1].cells, strict=True))  # ACIL
    assert by_title["tcd_hmdb51_5x5 top-1 after task 5"].published == 44.18
    assert by_title["tcd_hmdb51_5x5 forgetting rate after task 5"].published == 4.62
    curve = [cell.published for title, cell in by_title.items() if "top-1" in title]
    assert np.mean(curve) == pytest.approx(51.10, abs=0.01)  # as printed


def test_our_numbers_of_every_step_are_the_records(tmp_path: Path) -> None:
    correct = tuple(tuple(30 - i - 2 * j for j in range(i + 1)) for i in range(6))
    made_run = _write(tmp_path, "acil", 1000, readouts=["ridge"], correct=correct, totals=(40,) * 6)
    table = _table([made_run], "sfcl_steps")
    (line,) = [line for line in table.lines if line.label == "ACIL"]
    totals = made_run.data["test_videos"]
    for column, cell in zip(table.columns, line.cells, strict=True):
        if column.metric == "step_accuracy":
            assert column.step is not None
            step = made_run.data["steps"][column.step]["correct"]["ridge"]
            assert cell.mean == pytest.approx(100 * sum(step) / sum(totals[: column.step + 1]))
        elif column.metric == "forgetting_rate":
            assert column.step is not None
            first, now = (made_run.data["steps"][i]["correct"]["ridge"][0] for i in (0, column.step))
            assert cell.mean == pytest.approx(100 * (first - now) / totals[0])


def test_every_published_number_stands_in_a_table() -> None:
    shown = {
        (column.protocol, row.published, column.published_metric, cell.published)
        for table in papers.tables([])
        for row, line in zip(table.spec.rows, table.lines, strict=True)
        for column, cell in zip(table.columns, line.cells, strict=True)
    }
    with (Path(papers.__file__).parent / "published.csv").open(newline="", encoding="utf-8") as file:
        rest = [
            (line["protocol"], line["method"])
            for line in csv.DictReader(file)
            if (line["protocol"], line["method"], line["metric"], float(line["value"])) not in shown
        ]
    # Two whose protocol the source does not say; the table's note names them.
    assert {protocol for protocol, _ in rest} == {"(column not stated)"}
    (note,) = [spec.note for spec in papers.specs() if spec.id == "stpr_components"]
    assert "21.72" in note
    assert "7.02" in note


def test_a_method_that_no_row_is_about_gets_one_below(tmp_path: Path) -> None:
    made = [_write(tmp_path, "mine", seed) for seed in SEEDS]
    made += [_write(tmp_path, "mine", seed, config={"lr": 0.5}) for seed in SEEDS]
    made += [_write(tmp_path, "other", seed, config={"lr": rate}) for seed in SEEDS for rate in (0.1, 0.2)]
    made += [_write(tmp_path, "tcd", seed, config={"lr": 0.5}) for seed in SEEDS]
    table = _table(made)
    assert [line.label for line in table.lines if line.added] == ["mine", "other (lr=0.1)", "other (lr=0.2)"]
    assert all(line.cells[0].complete for line in table.lines if line.added)
    assert not any(line.added for line in _table(made, "hce_ablations").lines)


MINE = """
- id: mine
  title: Mine
  protocols: [tcd_hmdb51_5x5]
  metric: average_incremental_accuracy
  readouts: {CNN: cnn, NME: nme}
  bwf: true
  rows:
    - {label: NewNet, reported: {tcd_hmdb51_5x5 NME: 61.2, tcd_hmdb51_5x5 BWF: -1.5}, source: "Doe, 2026"}
    - {label: Ours, method: mine}
"""


def test_a_users_table_holds_reported_numbers_and_runs(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(MINE, encoding="utf-8")
    made = [_write(tmp_path / "r", "mine", seed) for seed in SEEDS]
    (table,) = [t for t in papers.tables(made, file) if t.spec.id == "mine"]
    new, ours = table.lines
    assert [cell.published for cell in new.cells] == [None, 61.2, -1.5]
    assert new.cells[1].source == "Doe, 2026"
    assert [cell.complete for cell in ours.cells] == [True] * 3
    assert "$-1.50$" in latex.body(of_table(table))


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (("id: mine", "id: hce_tcd"), "hce_tcd"),
        (("id: mine", "id: ../x"), "../x"),
        (("source:", "sauce:"), "sauce"),
        (("average_incremental_accuracy", "accuracy"), "'accuracy'"),
        (("[tcd_hmdb51_5x5]", "[tcd_hmdb51]"), "tcd_hmdb51"),
        (("- id: mine", "id: mine"), "mine.yaml"),
        ((', source: "Doe, 2026"', ""), "NewNet"),
    ],
)
def test_a_wrong_table_of_a_user_is_refused_by_name(
    changed: tuple[str, str], named: str, tmp_path: Path
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(MINE.replace(*changed), encoding="utf-8")
    with pytest.raises(UserError) as error:
        papers.tables([], file)
    assert named in str(error.value)


def test_methods_and_configs_of_rows_exist() -> None:
    from vcil_bench import registry

    entries = registry.find_all()
    for spec in papers.specs():
        for row in spec.rows:
            if row.method is not None:
                cls = entries[row.method].cls
                assert cls is not None
                for protocol in spec.protocols:
                    cls.resolve_config(protocol, row.config)
                assert set(row.readouts) <= set(cls.readouts)
            assert row.provides is None or any(row.provides in other.provides for other in BACKBONES.values())
        labels = [(row.label, row.exemplars) for row in spec.rows]
        assert len(set(labels)) == len(labels), spec.id  # or readers could not tell them apart


def test_a_row_of_one_kind_of_backbone_takes_no_runs_on_another(tmp_path: Path) -> None:
    clip = {"name": "clip_vit_b16", "source": "openai", "pretraining": "WIT"}
    six = {"correct": [[9] * n for n in range(1, 7)], "totals": (40,) * 6}
    made = [
        _write(tmp_path, "acil", seed, readouts=["ridge"], weights=given, **six)
        for seed in SEEDS
        for given in (clip, {})
    ]
    ours = [line for line in _table(made, "pretrained_features").lines if line.label == "ACIL on CLIP"]
    assert [line.backbone for line in ours] == ["clip_vit_b16"]
    assert {line.backbone for line in _table(made, "sfcl_steps").lines if line.label == "ACIL"} >= {
        "tsm_resnet50"
    }


def test_our_cells_are_means_over_seeds_recomputed_from_the_files(tmp_path: Path) -> None:
    made = [_write(tmp_path, "tcd", seed) for seed in SEEDS]
    cell = _cell(_table(made), "TCD", "tcd_hmdb51_5x5 CNN")
    values = []
    for path in sorted(tmp_path.glob("*/*/*/*.json")):
        data = json.loads(path.read_text())
        steps = [s["correct"]["cnn"] for s in data["steps"]]
        values.append(100 * (steps[0][0] / 40 + sum(steps[1]) / 60) / 2)
    mean = sum(values) / 3
    deviation = (sum((v - mean) ** 2 for v in values) / 2) ** 0.5
    assert cell.measured == f"{mean:.2f} ± {deviation:.2f}"
    assert cell.published == 45.34
    assert cell.difference == pytest.approx(mean - 45.34)
    assert _cell(_table(made), "HCE", "tcd_hmdb51_5x5 CNN").measured == "not run"
    assert _cell(_table(made), "FrameMaker", "tcd_hmdb51_5x5 CNN").measured == "–"
    assert _cell(_table(made), "LwFMC", "tcd_hmdb51_5x5 NME").measured == "–"


def test_a_missing_seed_is_said_and_takes_the_mark_away(tmp_path: Path) -> None:
    strong = [_write(tmp_path, "tcd", s, correct=((40,), (38, 18))) for s in SEEDS]
    weak = [_write(tmp_path, "icarl", s, correct=((20,), (10, 5))) for s in SEEDS]
    weak += [_write(tmp_path, "ucir", s, correct=((10,), (5, 2))) for s in SEEDS]
    table = _table([*strong, *weak])
    assert _cell(table, "TCD", "tcd_hmdb51_5x5 NME").mark == "best"
    assert _cell(table, "iCaRL", "tcd_hmdb51_5x5 NME").mark == "second"
    assert _cell(table, "UCIR", "tcd_hmdb51_5x5 NME").mark == ""
    table = _table([*strong[:2], *weak])
    cell = _cell(table, "TCD", "tcd_hmdb51_5x5 NME")
    assert cell.mark == ""
    assert cell.measured.endswith("(2/3)")
    assert _cell(table, "iCaRL", "tcd_hmdb51_5x5 NME").mark == "best"


def test_clip_is_not_ranked_against_imagenet_nor_compared_with_its_numbers(tmp_path: Path) -> None:
    clip = {"name": "clip_vit_b16", "source": "openai", "pretraining": "OpenAI WIT"}
    made = [_write(tmp_path, "tcd", s) for s in SEEDS]
    made += [_write(tmp_path, "icarl", s, correct=((20,), (10, 5))) for s in SEEDS]
    made += [_write(tmp_path, "tcd", s, correct=((40,), (40, 20)), weights=clip) for s in SEEDS]
    table = _table(made)
    column = "tcd_hmdb51_5x5 CNN"
    assert _cell(table, "TCD", column, "tsm_resnet50").mark == "best"
    other = _cell(table, "TCD", column, "clip_vit_b16")
    assert (other.mark, other.difference, other.published) == ("", None, 45.34)


@pytest.mark.parametrize(
    "more",
    [
        {"data": {"kind": "synthetic"}},
        {"weights": {"source": "random"}},
        {"overrides": {"clip.frames": 16}},
        {"config": {"lambda_1": 0.0}},
        {"status": "partial"},
        {"options": {"run_seed": {"value": 5, "origin": "command line"}}},
        {"options": {"decoder": {"value": "decord", "origin": "command line"}}},
    ],
)
def test_what_is_not_the_papers_run_stays_out(more: dict[str, Any], tmp_path: Path) -> None:
    made = [_write(tmp_path, "tcd", seed, **dict(more)) for seed in SEEDS]
    assert not any(cell.run for line in _table(made).lines for cell in line.cells)


@pytest.mark.parametrize("option", ["tracker", "max_missing", "workers", "eval_batch"])
def test_options_without_effect_keep_a_run_in(option: str, tmp_path: Path) -> None:
    options = {option: {"value": "x", "origin": "command line"}}
    made = [_write(tmp_path, "tcd", seed, options=dict(options)) for seed in SEEDS]
    assert _cell(_table(made), "TCD", "tcd_hmdb51_5x5 CNN").complete


def test_a_methods_own_backbones_share_a_line_and_a_chosen_one_has_its_own(tmp_path: Path) -> None:
    made = [_write(tmp_path, "tcd", seed) for seed in SEEDS]
    small = {"name": "tsm_resnet34", "source": "timm resnet34.tv_in1k"}
    made += [_write(tmp_path, "tcd", s, protocol_name="tcd_ucf101_10x5", weights=small) for s in SEEDS]
    lines = [line for line in _table(made).lines if line.label == "TCD"]
    assert [line.backbone for line in lines] == ["tsm_resnet34 / tsm_resnet50"]
    assert sum(cell.run for cell in lines[0].cells) == 4
    chosen = {"backbone": {"value": "tsm_resnet18", "origin": "command line"}}
    made += [
        _write(tmp_path, "tcd", s, weights=small | {"name": "tsm_resnet18"}, options=dict(chosen)) for s in SEEDS
    ]
    assert len([line for line in _table(made).lines if line.label == "TCD"]) == 2


def test_other_pretraining_is_not_compared(tmp_path: Path) -> None:
    weights = {"pretraining": "Kinetics400"}
    made = [_write(tmp_path, "tcd", seed, weights=dict(weights)) for seed in SEEDS]
    cell = _cell(_table(made), "TCD", "tcd_hmdb51_5x5 CNN")
    assert cell.run
    assert cell.difference is None


def test_a_run_in_several_rows_has_the_same_mark_in_all(tmp_path: Path) -> None:
    made = [_write(tmp_path, "hce", s, correct=((40,), (40, 20))) for s in SEEDS]
    made += [_write(tmp_path, "hce", s, correct=((9,), (9, 2)), config={"refinement": "number"}) for s in SEEDS]
    table = _table(made, "hce_ablations")
    for label in ("CE' + KD + HC", "HAS", "CRM", "scalar 1000"):
        assert _cell(table, label, "tcd_hmdb51_5x5 CNN").mark == "best", label
    assert _cell(table, "number ratio", "tcd_hmdb51_5x5 CNN").mark == ""


def test_stale_runs_are_not_ranked(tmp_path: Path) -> None:
    made = [_write(tmp_path, "tcd", s, correct=((40,), (40, 20))) for s in SEEDS]
    made += [_write(tmp_path, "icarl", s, correct=((9,), (9, 2))) for s in SEEDS]
    for made_one in made[:3]:
        made_one.data["identity"]["vcil_bench.losses"] = "0" * 16
    table = _table(made)
    assert _cell(table, "TCD", "tcd_hmdb51_5x5 CNN").mark == ""
    (line,) = [line for line in table.lines if line.label == "TCD"]
    assert "stale" in line.notes
    assert r"TCD$^\dagger$" in latex.table(of_table(table))


def test_another_fingerprint_stays_out(tmp_path: Path) -> None:
    made = [_write(tmp_path, "tcd", seed) for seed in SEEDS]
    for one in made:
        one.data["protocol"]["fingerprint"] = "0" * 64
    assert not any(cell.run for line in _table(made).lines for cell in line.cells)


def test_ablation_rows_take_the_runs_with_their_config(tmp_path: Path) -> None:
    made = [_write(tmp_path, "hce", s, config={"refinement": "number"}) for s in SEEDS]
    table = _table(made, "hce_ablations")
    assert _cell(table, "number ratio", "tcd_hmdb51_5x5 CNN").run
    assert not _cell(table, "HAS", "tcd_hmdb51_5x5 CNN").run
    assert not _cell(_table(made), "HCE", "tcd_hmdb51_5x5 CNN").run


def test_long_form_says_what_the_cells_say(tmp_path: Path) -> None:
    table = _table([_write(tmp_path, "tcd", seed) for seed in SEEDS])
    lines = table_text.frame(table)
    assert len(lines) == len(table.lines) * len(table.columns)
    (one,) = lines[
        (lines["row"] == "TCD") & (lines["protocol"] == "tcd_hmdb51_5x5") & (lines["readout"] == "cnn")
    ].to_dict("records")
    assert (one["n"], one["seeds"], one["reported"]) == (3, 3, 45.34)
    assert one["measured_mean"] == pytest.approx(_cell(table, "TCD", "tcd_hmdb51_5x5 CNN").mean)
    assert "**" in table_text.markdown(_table([_write(tmp_path, m, s) for m in ("tcd", "icarl") for s in SEEDS]))


def test_latex_escapes_and_has_a_cell_per_column(tmp_path: Path) -> None:
    assert latex.escape('50% of a_b & "c" ± {}') == r"50\% of a\_b \& ``c'' $\pm$ \{\}"
    assert latex.escape("−1 é\x07") == "$-$1 ??"
    for table in papers.tables([_write(tmp_path, "tcd", seed) for seed in SEEDS]):
        layout = of_table(table)
        for tabular in latex.body(layout).split(r"\begin{tabular}")[1:]:
            rows = [ln for ln in tabular.splitlines() if ln.endswith(r" \\") and "multicolumn" not in ln]
            (width,) = {ln.count(" & ") + 1 for ln in rows}
            assert 1 < width <= latex.MAX_COLUMNS + 2 + len(layout.described)


def test_every_number_of_a_table_stands_in_its_latex_body_once_above_and_below(tmp_path: Path) -> None:
    made = [_write(tmp_path, method, seed) for method in ("tcd", "bic") for seed in SEEDS]
    layout = of_table(_table(made))
    assert [block.title for block in layout.blocks] == ["Reported", "Measured here"]
    reported, measured = layout.blocks
    table = _table(made)
    published = sorted(c.published for line in table.lines for c in line.cells if c.published is not None)
    assert sorted(number.mean for row in reported.rows for number in row.cells if number) == published
    assert [row.label for row in measured.rows] == ["TCD", "BiC"]  # the second is no row of the paper's
    text = latex.body(layout)
    assert text.count(r"\input") == text.count(r"\resizebox") == text.count(r"\begin{table}") == 0
    for number in (number for block in layout.blocks for row in block.rows for number in row.cells if number):
        assert f"{number.mean:.2f}".replace("-", "$-") in text


@pytest.mark.slow
def test_pdflatex_compiles_the_tables(tmp_path: Path) -> None:
    if shutil.which("pdflatex") is None:
        pytest.skip("pdflatex is not installed (Debian: texlive-latex-base texlive-latex-recommended)")
    records = [_write(tmp_path / "r", m, s) for m in ("tcd", "icarl", "hce") for s in SEEDS]
    made = papers.tables(records)
    for table in made:
        (tmp_path / f"{table.spec.id}.tex").write_text(latex.table(of_table(table)), encoding="utf-8")
    names = [table.spec.id for table in made]
    (tmp_path / "preview.tex").write_text(latex.preview(names), encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "preview.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
    assert (tmp_path / "preview.pdf").stat().st_size > 10_000


def test_runs_on_the_embedded_clips_stand_in_columns_and_lines_of_their_own(tmp_path: Path) -> None:
    real: Any = {
        "protocol_name": "tcd_ucf101_10x5",
        "weights": {"name": "clip_vit_b16", "source": "openai", "pretraining": "WIT"},
        "readouts": ["text"],
    }
    made = [_write(tmp_path, "stpr", seed, **kind) for seed in SEEDS for kind in (EMBEDDED, real)]
    table = _table(made, "stpr_components")
    ours = [line for line in table.lines if line.label == "full"]
    assert {line.backbone for line in ours} == {"clip_tiny", "clip_vit_b16"}
    for line in ours:
        run = {column.protocol for column, cell in zip(table.columns, line.cells, strict=True) if cell.run}
        assert run == {"synthetic_3x4" if line.backbone == "clip_tiny" else "tcd_ucf101_10x5"}
        for column, cell in zip(table.columns, line.cells, strict=True):
            on_paper = column.protocol != "synthetic_3x4" and column.metric != BWF
            assert (cell.published is not None) == (line.backbone == "clip_vit_b16" and on_paper)


def test_published_numbers_never_stand_in_a_line_of_runs_on_embedded_clips(tmp_path: Path) -> None:
    table = _table([_write(tmp_path, "stpr", seed, **EMBEDDED) for seed in SEEDS], "stpr_components")
    full = [line for line in table.lines if line.label == "full"]
    assert [line.backbone for line in full] == ["–", "clip_tiny"]
    assert [any(cell.published is not None for cell in line.cells) for line in full] == [True, False]
    assert [any(cell.run for cell in line.cells) for line in full] == [False, True]


@pytest.mark.parametrize(("name", "kind"), [("synthetic_3x4", "real"), ("tcd_ucf101_10x5", "synthetic")])
def test_data_that_are_not_those_of_the_protocol_stand_nowhere(tmp_path: Path, name: str, kind: str) -> None:
    made = [_write(tmp_path, "stpr", seed, protocol_name=name, data={"kind": kind}) for seed in SEEDS]
    assert not any(cell.run for line in _table(made, "stpr_components").lines for cell in line.cells)


@pytest.mark.parametrize(
    ("method", "shown"),
    [
        ("essential", "features of 480 frames of 240 videos"),
        ("icarl", "4/class, 8 frames"),
        ("stpr", "0"),
        ("joint", "all videos"),
    ],
)
def test_a_row_says_what_it_keeps(method: str, shown: str) -> None:
    """Of exemplars the budget, which methods share; of features, for which it is none, the use."""
    kept = record.load(REFERENCE / "synthetic_3x4" / method / "default-s1000.json")
    assert exemplars_of(kept) == shown


def test_a_pages_table_is_grouped_by_dataset_and_lacks_columns_without_a_number() -> None:
    dropped = 0
    for table in papers.tables([]):
        plain = table_text.as_plain(table)
        wanted = [
            (column.protocol, i)
            for i, column in enumerate(table.columns)
            if any(line.cells[i].published is not None for line in table.lines)
        ]
        if not wanted:  # a table without any number keeps its form
            assert len(plain["headers"]) == 1 + len(table.columns)
            continue
        dropped += len(table.columns) - len(wanted)
        numbers = [[cell["rest"] for cell in row[-len(wanted) :]] for row in plain["rows"]]
        assert all(any(column) for column in zip(*numbers, strict=True))
        for row, marks in zip(plain["rows"], plain["marks"], strict=True):
            assert len(row) == len(marks) == len(plain["headers"]) == len(plain["groups"])
        assert plain["headers"][0] == "method"
        heads = zip(plain["groups"], plain["headers"], strict=True)
        for (group, header), (protocol, _) in zip([*heads][-len(wanted) :], wanted, strict=True):
            dataset, part = Labels().protocol(protocol)
            assert (group, header.startswith(part)) == (dataset, True)
        # Markdown has them all.
        head = table_text.markdown(table).split("\n|", 1)[1].splitlines()[0]
        assert head.count("|") == len(table.columns) + 1 + len(table_text.described_by(table))
    assert dropped > 0
