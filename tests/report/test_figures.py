"""Figures from records: the values drawn are those of the records, a method always looks the same."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_records import record_data
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from vcil_bench import record as records
from vcil_bench.common.errors import UserError
from vcil_bench.origin import Origin
from vcil_bench.record import Record, RecordError
from vcil_bench.registry import methods_folder
from vcil_bench.report import build, figure_cache, figures, group_figures, style
from vcil_bench.report.curves import Look, curves_figure, draw, frame, legends
from vcil_bench.report.figure_cache import Kept
from vcil_bench.report.labels import Labels
from vcil_bench.report.style import built_in, line_styles, style_of
from vcil_bench.report.tables import Group, Row, groups, rows

pytestmark = pytest.mark.pictures

# Two tasks, of classes 0 and 1 with 4 videos and of class 2 with 2, and what their videos are taken for.
LABELS, TASKS = [0, 0, 1, 1, 2, 2], [0, 0, 0, 0, 1, 1]
BEST = [[0, 1, 1, 0], [0, 2, 2, 1, 2, 0]]
CORRECT = [[2], [2, 1]]  # counted from these


def costs(size: int, trainable: int, seconds: float) -> dict[str, Any]:
    return {"train_s": seconds, "trainable": trainable, "memory": {"videos": 1, "frames": 1, "bytes": size}}


def saved(
    results: Path,
    *,
    best: Sequence[Sequence[int]] | None = None,
    cost: dict[str, Any] | None = None,
    **made: Any,
) -> Record:
    """Save a made-up record, its predictions and costs where given, and read it."""
    data = record_data(**made)
    path = records.record_path(results, "made_up", data["method"]["name"], data["variant"], data["seed"])
    for step in data["steps"]:
        step["costs"] |= cost or {}  # type: ignore[typeddict-item]
    if best is not None:
        arrays = {
            f"top5/{i}/cnn": np.stack([np.array(one)] * 5, axis=1).astype(np.int16) for i, one in enumerate(best)
        }
        arrays |= {"videos": np.array([f"v{i}" for i in range(len(LABELS))])}
        arrays |= {"labels": np.array(LABELS, np.int16), "task": np.array(TASKS, np.int16)}
        npz = records.predictions_path(path)
        data["predictions"] = {"file": npz.name, "sha256": records.save_predictions(npz, arrays)}
    records.save(path, data)
    return records.load(path)


def group(*found: Record) -> Group:
    (one,) = groups(found)
    return one


def made(**changes: Any) -> Record:
    return Record(Path("nowhere.json"), record_data(**changes))


def lines(axes: Axes) -> dict[str, Any]:
    """Return the lines of a panel that have a name."""
    return {
        str(line.get_label()): line for line in axes.get_lines() if not str(line.get_label()).startswith("_")
    }


def write_all(one: Group, out: Path) -> group_figures.Drawn:
    """Draw a group's figures as a report does."""
    kept = Kept(out)
    planned = group_figures.plan(one, out, kept)
    kept.draw()
    return planned.drawn()


def digests(files: Sequence[Path]) -> dict[str, str]:
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_every_built_in_method_has_a_look_of_its_own() -> None:
    looks = [style_of(method) for method in built_in()]
    assert {path.stem for path in methods_folder().glob("[a-z]*.py")} == set(built_in())
    assert len(set(looks)) == len(looks)
    assert len({look.glyph for look in looks}) == len({look.marker for look in looks})


def test_methods_of_a_family_differ_in_colour_too() -> None:
    looks = [style_of(method) for method in built_in()]
    assert len({look.colour for look in looks}) == len(looks)


def test_other_methods_never_look_like_a_built_in_one() -> None:
    taken = {style_of(method) for method in built_in()}
    others = [style_of(f"mine_{i}") for i in range(200)]
    assert taken.isdisjoint(others)
    assert len(set(others)) > 40


def test_a_method_keeps_its_look_whatever_is_beside_it() -> None:
    def colours(*methods: str) -> dict[str, tuple[str, str]]:
        figure = curves_figure(rows(group(*(made(method=m) for m in methods))), "t")
        assert figure
        drawn = lines(figure.axes[0])
        return {
            name.split()[0].lower(): (to_hex(line.get_color()), line.get_marker())
            for name, line in drawn.items()
        }

    few, many = colours("tcd", "mine"), colours("tcd", "stpr", "alpha", "mine", "zz", "finetune")
    assert few == {name: many[name] for name in few}
    assert few["tcd"] == (style_of("tcd").colour.lower(), style_of("tcd").marker)


def test_readouts_differ_by_line_and_variants_by_marker() -> None:
    given = [
        ("tcd", "a=1", "cnn"),
        ("tcd", "default", "cnn"),
        ("tcd", "default", "nme"),
        ("stpr", "default", "nme"),
    ]
    changed, plain, nearest, other = line_styles([*given, *(("tcd", f"b={i}", "cnn") for i in range(3))])[:4]
    assert changed["linestyle"] == plain["linestyle"] == "-"
    assert nearest["linestyle"] == other["linestyle"] != "-"
    assert plain["fillstyle"] == nearest["fillstyle"] == "full"
    assert plain["markerfacecolor"] == plain["color"]
    assert changed["markerfacecolor"] == "white"
    assert len({(look["color"], look["marker"]) for look in (changed, plain, nearest)}) == 1


def test_every_colour_is_dark_enough_for_white_paper() -> None:
    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for name in [*built_in(), *(f"mine_{i}" for i in range(50))]:
        assert 1.05 / (luminance(style_of(name).colour) + 0.05) >= 3, name


def test_names_at_the_ends_of_lines_keep_apart_and_in_order() -> None:
    assert style.spread([0.2, 0.5, 1.9], 0.1, 2.0) == pytest.approx([0.2, 0.5, 1.9])
    assert style.spread([1.0, 1.0, 1.0], 0.1, 2.0) == pytest.approx([0.9, 1.0, 1.1])
    assert style.spread([1.95, 1.98], 0.1, 2.0) == pytest.approx([1.9, 2.0])
    assert style.spread([0.0, 0.0, 0.05], 0.5, 1.0) == pytest.approx([0.0, 0.5, 1.0])


def test_ticks_stand_where_something_was_measured() -> None:
    (row,) = rows(group(made(correct=[[1] * (i + 1) for i in range(5)], totals=[2] * 5)))
    figure = curves_figure([row], "t")
    assert figure
    for axes in figure.axes:
        assert [int(tick) for tick in axes.get_xticks()] == [2, 3, 4, 5, 6]
        assert [text.get_text() for text in axes.texts] == ["alpha (1/3 seeds)"]


def test_a_figure_has_the_size_that_is_asked_for_or_says_why_not() -> None:
    found = rows(group(made(correct=[[4], [2, 1]]), made(method="beta")))
    look = Look(width=3.3, height=2.2, quantities=("accuracy",), legend="below")
    figure = curves_figure(found, "", look)
    assert figure
    np.testing.assert_allclose(figure.get_size_inches(), [3.3, 2.2])
    assert len(figure.axes) == 1
    for look in (Look(width=1.5), Look(width=6.0, height=0.6)):
        with pytest.raises(UserError):
            curves_figure(found, "", look)
    for draw_it in (figures.task_forgetting_figure, figures.cost_figure):
        with pytest.raises(UserError):
            draw_it(found, "", Look(width=3.0, height=0.3))


def test_curves_draw_the_mean_and_name_missing_seeds() -> None:
    found = rows(group(made(seed=1, correct=[[4], [2, 1]]), made(seed=2, correct=[[2], [2, 2]])))
    figure = curves_figure(found, "t")
    assert figure
    left, right = figure.axes
    line = lines(left)["alpha (2/3 seeds)"]
    np.testing.assert_allclose(line.get_xdata(), [2, 3])
    np.testing.assert_allclose(line.get_ydata(), [75, (50 + 400 / 6) / 2])
    np.testing.assert_allclose(lines(right)["alpha (2/3 seeds)"].get_ydata(), [0, 25])


def test_rows_of_equal_name_are_told_apart_by_backbone(tmp_path: Path) -> None:
    found = rows(group(made(), made(weights={"name": "clip_vit_b16", "source": "openai"})))
    assert len(set(legends(found))) == 2
    assert len(set(group_figures.file_names(found))) == 2


def test_every_name_holds_its_backbone_where_a_figure_mixes_them() -> None:
    resnet = {"name": "tsm_tiny", "source": "embedded"}
    chosen = {"backbone": {"value": "tsm_tiny", "origin": "command line"}}
    found = [
        *(made(method=method, weights=resnet) for method in ("acil", "ewc")),
        made(method="ewc", variant="backbone=tsm_tiny+lr=1", weights=resnet, options=chosen),
        *(made(method="ranpac", variant=variant) for variant in ("default", "a=1")),
    ]
    assert [name.removesuffix(" (1/3 seeds)") for name in legends(rows(group(*found)))] == [
        *("acil on tsm_tiny", "ewc backbone=tsm_tiny+lr=1", "ewc on tsm_tiny"),
        *("ranpac a=1 on clip_tiny", "ranpac on clip_tiny"),
    ]
    assert legends(rows(group(*found[:2]))) == ["acil (1/3 seeds)", "ewc (1/3 seeds)"]


def test_every_task_is_a_line() -> None:
    found = rows(group(made(correct=[[4], [2, 1]]), made(seed=2, correct=[[2], [2, 2]]), made(method="beta")))
    figure = figures.task_forgetting_figure(found, "t")
    assert figure
    panel = figure.axes[0]
    assert panel.get_title() == "alpha (2/3 seeds)"
    first, second = panel.get_lines()
    np.testing.assert_allclose(first.get_xydata(), [[1, 75], [2, 50]])
    np.testing.assert_allclose(second.get_xydata(), [[2, 75]])
    assert figure.axes[1].get_title() == "beta (1/3 seeds)"


def test_accuracy_matrix_shows_what_was_tested() -> None:
    (row,) = rows(group(made(correct=[[4], [2, 1]]), made(seed=2, correct=[[2], [2, 2]])))
    figure = figures.accuracy_matrix_figure(row, "t")
    assert figure
    cells = figure.axes[0].collections[0].get_array()
    assert cells is not None
    np.testing.assert_allclose(np.ma.filled(cells, -1), [[75, -1], [50, 75]])
    assert [text.get_text() for text in figure.axes[0].texts] == ["75", "50", "75"]


def test_many_tasks_have_no_numbers() -> None:
    tasks = 26
    data = record_data(correct=[[1] * (i + 1) for i in range(tasks)], totals=[2] * tasks)
    data["classes_per_task"], data["class_order"] = [1] * tasks, list(range(tasks))
    (row,) = rows(group(Record(Path("nowhere.json"), data)))
    figure = figures.accuracy_matrix_figure(row, "t")
    assert figure
    assert not figure.axes[0].texts
    figure = figures.task_forgetting_figure([row], "t")
    assert figure
    assert len(figure.axes[0].get_lines()) == tasks


def test_confusion_counted_by_hand(tmp_path: Path) -> None:
    found = figures.predictions(saved(tmp_path, best=BEST, correct=CORRECT), "cnn")
    assert found
    np.testing.assert_allclose(figures.task_confusion(found), [[2 / 4, 2 / 4], [1 / 2, 1 / 2]])
    np.testing.assert_allclose(figures.old_new_confusion(found), [[np.nan, np.nan], [2 / 4, 1 / 2]])


def test_confusion_is_the_mean_over_seeds_with_predictions(tmp_path: Path) -> None:
    right = [LABELS[:4], LABELS]
    (row,) = rows(
        group(
            saved(tmp_path, seed=1, best=BEST, correct=CORRECT),
            saved(tmp_path, seed=2, best=right, correct=[[4], [4, 2]]),
            saved(tmp_path, seed=3),
        )
    )
    figure = figures.confusion_figure(row, "t")
    assert figure
    left, _, right_panel = figure.axes
    cells = left.collections[0].get_array()
    assert cells is not None
    np.testing.assert_allclose(cells, [[75, 25], [25, 75]])
    drawn = lines(right_panel)
    np.testing.assert_allclose(drawn["old classes taken for new ones"].get_xydata(), [[2, 25]])
    np.testing.assert_allclose(drawn["new classes taken for old ones"].get_xydata(), [[2, 25]])
    assert "predictions of 2 of 3 runs" in figure.get_suptitle().replace("\n", " ")


def test_predictions_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    found = saved(tmp_path, best=BEST, correct=CORRECT)
    path = records.predictions_path(found.path)
    with np.load(path) as stored:
        arrays = dict(stored)
    arrays["top5/0/cnn"][0, 0] = 2  # a class of the second task after the first
    for content in (arrays, None):
        if content:
            records.save_predictions(path, content)
        else:
            path.write_bytes(b"PK\x03\x04 and no more")
        with pytest.raises(RecordError) as caught:
            figures.predictions(found, "cnn")
        assert str(path) in str(caught.value)


def points(figure: Figure, panels: int = 3) -> list[dict[str, tuple[float, float]]]:
    """Return the points of the first panels of the cost figure by colour."""
    return [
        {
            to_hex(one.lines[0].get_color()).upper(): tuple(one.lines[0].get_xydata()[0])
            for one in axes.containers
            if isinstance(one, ErrorbarContainer)
        }
        for axes in figure.axes[:panels]
    ]


def test_the_memory_of_a_run_is_exemplars_and_statistics(tmp_path: Path) -> None:
    cost = costs(1000, 10, 1.0)
    assert figures.costs(saved(tmp_path, method="a", cost=cost))["memory"] == 1000  # of before there were any
    cost["memory"]["statistics_bytes"] = 24
    assert figures.costs(saved(tmp_path, method="b", cost=cost))["memory"] == 1024


def test_what_is_frozen_after_the_first_task_was_trainable(tmp_path: Path) -> None:
    record = saved(tmp_path, cost=costs(0, 10, 1.0))
    record.data["steps"][0]["costs"]["trainable"] = 70
    assert figures.costs(record)["trainable"] == 70


def test_flops_are_summed_and_drawn_where_they_were_counted(tmp_path: Path) -> None:
    counted, other = (saved(tmp_path, method=method) for method in ("tcd", "finetune"))
    assert figures.costs(counted)["train_flops"] == 2 * 4_000_000
    other.data["steps"][1]["costs"]["train_flops"] = None
    found = rows(group(counted, other))
    figure = figures.cost_figure(found, "t")
    assert figure
    *others, flops = points(figure, 4)
    assert [panel.keys() for panel in others] == [{style_of("tcd").colour, style_of("finetune").colour}] * 3
    assert {colour: x for colour, (x, _) in flops.items()} == {style_of("tcd").colour: 8_000_000}
    del counted.data["steps"][0]["costs"]["train_flops"]  # as in older records
    figure = figures.cost_figure(found, "t")
    assert figure
    assert len(figure.axes) == 3


def test_cost_draws_the_last_memory_and_all_the_time(tmp_path: Path) -> None:
    joint = saved(tmp_path, method="joint", cost=costs(0, 10, 500.0), correct=[[4], [4, 2]])
    joint.data["method"]["data_access"] = "cumulative"
    found = rows(
        group(
            saved(tmp_path, method="tcd", seed=1, cost=costs(1000, 10, 1.0), correct=[[4], [2, 1]]),
            saved(tmp_path, method="tcd", seed=2, cost=costs(3000, 10, 2.0), correct=[[2], [2, 2]]),
            saved(tmp_path, method="finetune", cost=costs(0, 0, 30.0), correct=[[4], [0, 2]]),
            joint,
        )
    )
    figure = figures.cost_figure([row for row in found if row.method != "joint"], "t")
    assert figure
    tcd, finetune = style_of("tcd").colour, style_of("finetune").colour
    accuracy = (75 + 175 / 3) / 2, (100 + 100 / 3) / 2
    for panel, x in zip(points(figure), ((2000, 0), (10, 0), (3, 60)), strict=True):
        assert panel[tcd] == pytest.approx((x[0], accuracy[0]))
        assert panel[finetune] == pytest.approx((x[1], accuracy[1]))
    figure = figures.cost_figure([row for row in found if row.method == "joint"], "t")
    assert figure
    memory, *others = points(figure)
    assert not memory  # its exemplars are all videos, which is not what its memory of zero bytes says
    assert all(len(panel) == 1 for panel in others)
    assert "Joint training (1/3 seeds) [keeps all videos]" in [
        t.get_text() for t in figure.legends[0].get_texts()
    ]


@pytest.mark.parametrize("values", [(0.0,), (5.0,), (5.0, 6.0), (0.0, 5.0), (0.0, 1.0, 1e8), (3.0, 4e9)])
def test_every_cost_lies_on_its_axis_between_readable_ticks(tmp_path: Path, values: Sequence[float]) -> None:
    found = [
        saved(tmp_path, method=f"m{i}", cost=costs(int(value), int(value), value / 2))
        for i, value in enumerate(values)
    ]
    figure = figures.cost_figure(rows(group(*found)), "t")
    assert figure
    for axes in figure.axes[:3]:
        low, high = axes.get_xlim()
        ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
        assert low < min(values)
        assert max(values) < high
        assert 1 <= len(ticks) <= 6
        assert (0 in ticks) == (low <= 0)


def test_runs_from_elsewhere_have_names_of_their_own() -> None:
    sent = Record(Path("nowhere.json"), record_data(), Origin(name="lab", who="", source="", received=""))
    ours, theirs = rows(group(made(), sent))
    assert (ours.origin, theirs.origin) == ("", "lab")
    assert legends([ours, theirs], Labels({"alpha": "A"})) == ["A (1/3 seeds)", "A [lab] (1/3 seeds)"]
    assert group_figures.file_names([ours, theirs]) == ["alpha--default--cnn", "alpha--lab--default--cnn"]
    numbers = frame([ours, theirs])
    assert dict(zip(numbers["origin"], numbers["label"], strict=True)) == {"": "alpha", "lab": "alpha"}


def test_file_names_are_safe_and_differ() -> None:
    def row(variant: str, readout: str = "cnn", backbone: str = "b") -> Row:
        return Row("alpha", variant, backbone, readout, [], [], 1, [])

    given = [row("default"), row("a/../b"), row("a_.._b"), row("x--y", "z"), row("x", "y--z"), row("x-", "y")]
    given += [row("x", "-y"), row("l" * 300), row("l" * 301), row("default", backbone="other")]
    found = group_figures.file_names(given)
    assert len({name.lower() for name in found}) == len(found)
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_.=+") for name in found)
    assert max(map(len, found)) < 130
    assert group_figures.file_names(given[1:5]) == found[1:5]
    assert group_figures.file_names([row("lr=1e-3")]) == ["alpha--lr=1e-3--cnn"]


@pytest.mark.slow
def test_a_methods_variants_have_a_figure_of_their_own(tmp_path: Path) -> None:
    default, changed, other = (
        saved(tmp_path / "r", method=method, variant=variant)
        for method, variant in (("alpha", "default"), ("alpha", "a=1"), ("beta", "default"))
    )

    def shown(*found: Record) -> dict[str, list[str]]:
        drawn = write_all(group(*found), tmp_path / "out")
        texts = {p.svg: p.svg.read_text() for p in drawn.pictures if p.kind in ("curves", "variants")}
        names = ("alpha a=1", "beta")
        return {str(f.relative_to(tmp_path / "out")): [n for n in names if n in t] for f, t in texts.items()}

    assert shown(default, changed, other) == {
        "curves.svg": ["beta"],
        "variants/alpha.svg": ["alpha a=1"],
    }
    assert shown(changed) == {"curves.svg": ["alpha a=1"]}  # there is nothing else to show
    assert shown(changed, other) == {"curves.svg": ["alpha a=1", "beta"]}


@pytest.mark.slow
def test_a_bound_on_another_backbone_stands_among_the_methods_under_its_name(tmp_path: Path) -> None:
    other = {"name": "tsm_tiny", "source": "embedded", "sha256": "3" * 64, "pretraining": "pictures"}
    found = [
        saved(tmp_path / "r", method="joint"),
        saved(
            tmp_path / "r",
            method="joint",
            variant="backbone=tsm_tiny+lr=0.1",
            weights=other,
            options={"backbone": {"value": "tsm_tiny", "origin": "command line"}},
        ),
    ]
    drawn = write_all(group(*found), tmp_path / "out")
    curves = (tmp_path / "out" / "curves.svg").read_text()
    assert "Joint training on tsm_tiny" in curves
    assert "lr=0.1" not in curves
    assert not [picture for picture in drawn.pictures if picture.kind == "variants"]


@pytest.mark.slow
def test_write_all_writes_what_it_can_and_says_what_not(tmp_path: Path) -> None:
    results, out = tmp_path / "results", tmp_path / "out"
    one = group(
        saved(results, method="tcd", best=BEST, correct=CORRECT, cost=costs(1, 2, 3.0)),
        saved(results, method="stpr", cost=costs(1, 2, 3.0)),
        saved(results, method="hce", status="failed", correct=[]),
    )
    drawn = write_all(one, out)
    names = {str(file.relative_to(out)) for file in drawn.files}
    matrices = [f"accuracy_matrix/{method}--default--cnn" for method in ("tcd", "stpr")]
    stems = ["curves", "task_forgetting", "cost", *matrices, "confusion/tcd--default--cnn"]
    suffixes = {stem: (".svg", ".png") if "/" in stem else (".svg", ".png", ".pdf") for stem in stems}
    assert names == {stem + suffix for stem in stems for suffix in suffixes[stem]}
    assert names == {str(file.relative_to(out)) for file in out.rglob("*.*")}
    failed, missing = drawn.notes
    assert "hce" in failed
    assert "no finished run" in failed
    assert "stpr" in missing
    assert "no predictions of seed 1" in missing
    assert [picture.row.method for picture in drawn.pictures if picture.row] == ["stpr", "tcd", "tcd"]
    first = digests(drawn.files)
    assert digests(write_all(one, out).files) == first


def test_user_settings_change_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib as mpl

    found = rows(group(made()))
    first = [file.read_bytes() for file in draw(found, "t", tmp_path / "a")]
    with mpl.rc_context({"font.size": 20, "lines.linewidth": 9, "svg.hashsalt": "other", "savefig.dpi": 30}):
        assert [file.read_bytes() for file in draw(found, "t", tmp_path / "a")] == first


def test_nothing_is_drawn_of_nothing(tmp_path: Path) -> None:
    (row,) = rows(group(made(status="partial")))
    assert draw([], "t", tmp_path / "x") == draw([row], "t", tmp_path / "x") == []
    for function in (figures.task_forgetting_figure, figures.cost_figure):
        assert function([], "t") is None
        assert function([row], "t") is None
    for one in (figures.accuracy_matrix_figure, figures.confusion_figure):
        assert one(row, "t") is None
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_single_task_can_be_drawn(tmp_path: Path) -> None:
    data = record_data(correct=[[2]], totals=[4])
    data["classes_per_task"], data["class_order"], data["class_names"] = [3], [2, 0, 1], ["a", "b", "c"]
    data["steps"][0]["costs"] |= costs(0, 0, 0.0)  # type: ignore[typeddict-item]
    path = records.record_path(tmp_path, "made_up", "alpha", "default", 1)
    data["steps"][0]["classes_seen"] = 3
    arrays = {"labels": np.array([0, 0, 1, 2]), "task": np.zeros(4, int), "top5/0/cnn": np.zeros((4, 5), int)}
    arrays["videos"] = np.array(["a", "b", "c", "d"])
    npz = records.predictions_path(path)
    data["predictions"] = {"file": npz.name, "sha256": records.save_predictions(npz, arrays)}
    records.save(path, data)
    drawn = write_all(group(records.load(path)), tmp_path / "out")
    assert [picture.kind for picture in drawn.pictures] == [
        *("curves", "task_forgetting", "cost", "accuracy_matrix", "confusion")
    ]
    assert not drawn.notes


def test_a_figure_is_drawn_again_when_what_it_is_made_of_or_its_file_changed(tmp_path: Path) -> None:
    drawn = 0

    def make() -> Figure:
        nonlocal drawn
        drawn += 1
        return Figure(figsize=(1, 1))

    def draws(title: str, found: list[Row]) -> int:
        before, keeping = drawn, Kept(tmp_path)
        asked = keeping.ask(tmp_path / "a" / "x", title, found, make)
        keeping.draw()
        assert [file.name for file in asked.files] == ["x.svg", "x.png", "x.pdf"]
        keeping.write()
        return drawn - before

    (row,) = rows(group(made()))
    (other,) = rows(group(made(correct=[[3], [2, 1]])))
    assert [draws("t", [row]), draws("t", [row]), draws("u", [row]), draws("u", [row])] == [1, 0, 1, 0]
    assert [draws("u", [other]), draws("u", [other]), draws("u", [other, row])] == [1, 0, 1]
    (tmp_path / "a" / "x.png").write_bytes(b"changed by hand")
    assert [draws("u", [other, row]), draws("u", [other, row])] == [1, 0]
    for content in ("{", "[]", '{"a/x": 3}'):
        (tmp_path / figure_cache.NAME).write_text(content, encoding="utf-8")
        assert draws("u", [other, row]) == 1
    nothing = Kept(tmp_path)
    asked = nothing.ask(tmp_path / "y", "t", [row], lambda: None)
    nothing.draw()
    assert asked.files == []


@pytest.mark.slow
def test_only_what_changed_is_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results, out = tmp_path / "results", tmp_path / "out"
    saved(results, method="tcd", best=BEST, correct=CORRECT, cost=costs(1, 2, 3.0))
    saved(results, method="stpr")
    written = build.write(results, out)
    first = digests(written.files)
    drawn: list[str] = []
    whole = style.save
    monkeypatch.setattr(
        figure_cache, "save", lambda figure, stem, *more: drawn.append(stem.name) or whole(figure, stem, *more)
    )

    def again() -> list[str]:
        drawn.clear()
        build.write(results, out)
        return sorted(drawn)

    assert again() == []
    assert digests(written.files) == first
    stpr = "stpr--default--cnn"
    (out / "made_up" / "accuracy_matrix" / f"{stpr}.png").unlink()
    (out / "made_up" / "curves.svg").write_text("changed by hand", encoding="utf-8")
    assert again() == ["curves", stpr]
    assert digests(written.files) == first
    saved(results, method="stpr", correct=[[3], [2, 1]])
    assert again() == ["cost", "curves", stpr, "task_forgetting"]
    records.predictions_path(next(results.glob("*/tcd/*.json"))).unlink()
    assert "tcd--default--cnn" in again()
