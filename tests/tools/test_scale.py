"""Scale on paper: the page is what its data make of it, and small runs give the operations of whole ones."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import flop_counts
import pytest
import scale
from flop_counts import Step, Visits

from vcil_bench import protocol, registry
from vcil_bench.method import Method

ROOT = Path(__file__).parents[2]
EMBEDDED = "synthetic_3x4"
VIDEOS = 24  # training videos of a class there
FOUND = scale.load()
STREAMS = scale.streams(FOUND)


def method(name: str) -> type[Method]:
    cls = registry.find(name).cls
    assert cls is not None
    return cls


def embedded(data: dict[str, object]) -> scale.Stream:
    spec = protocol.load(EMBEDDED).spec
    tested = sum(data["test_videos"])  # type: ignore[arg-type]
    return scale.Stream(EMBEDDED, spec, tuple(spec.tasks.sizes), VIDEOS * spec.classes.num, tested, spec.memory)


def test_the_page_is_the_one_that_would_be_written() -> None:
    text = (ROOT / scale.PAGE).read_text(encoding="utf-8")
    assert scale.page(text, FOUND, scale.Counts()) == text, "run make scale"


def test_every_protocol_on_real_data_has_a_row_in_every_table_of_hours() -> None:
    text = (ROOT / scale.PAGE).read_text(encoding="utf-8")
    for name in protocol.names():
        if not name.startswith("synthetic"):
            assert text.count(f"| `{name}` |") >= 2, name


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        ("pivot", 1e-3),  # exemplars, and texts of all classes
        pytest.param("dualprompt", 1e-3, marks=pytest.mark.slow),
        pytest.param("l2p", 1e-3, marks=pytest.mark.slow),
        pytest.param("sprompts", 1e-3, marks=pytest.mark.slow),
        # A penalty that is taken once a batch counts for more clips in a small batch.
        pytest.param("coda_prompt", 0.05, marks=pytest.mark.slow),
        # Rows of features are drawn and not visited in proportion to videos, nor with as large batches.
        pytest.param("sfcl", 0.1, marks=pytest.mark.slow),
        pytest.param("essential", 0.2, marks=pytest.mark.slow),
    ],
)
def test_operations_of_a_small_run_give_those_that_the_record_of_a_whole_run_has(
    name: str, tolerance: float
) -> None:
    path = ROOT / "results/reference" / EMBEDDED / name / "default-s1000.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    counted = flop_counts.count(method(name), protocol.load(EMBEDDED), data["weights"]["name"], pretend=False)
    steps = embedded(data).steps(cumulative=False)
    recorded = [step["costs"]["train_flops"] for step in data["steps"]]
    assert [work.train_flops for work in flop_counts.work(counted, steps)] == pytest.approx(recorded, tolerance)


@pytest.mark.parametrize(
    "name", ["simplecil", *(pytest.param(n, marks=pytest.mark.slow) for n in ("tcd", "stpr"))]
)
def test_products_that_are_not_computed_are_counted_alike(name: str) -> None:
    cls, backbone = method(name), "tsm_tiny" if name == "tcd" else "clip_tiny"
    pretended, computed = (
        flop_counts.count(cls, protocol.load(EMBEDDED), backbone, pretend=pretend) for pretend in (True, False)
    )
    assert pretended == computed
    assert all(line.flops > 0 for lines in computed.learn for line in lines)
    assert all(flops > 0 for flops in computed.test)


def test_a_pass_that_leaves_its_last_batch_out_has_fewer_clips() -> None:
    visits = Visits(task=1.0, old=0.5, batch=32)
    assert visits.clips(videos=90, new=0, old=20) == 96
    assert dataclasses.replace(visits, batch=None).clips(videos=90, new=0, old=20) == 100
    assert visits.clips(videos=10, new=0, old=20) == 20  # a batch that is the only one is kept


def test_what_grows_goes_on_growing() -> None:
    assert [flop_counts.growing([1.0, 3.0, 4.0], task) for task in range(5)] == [1, 3, 4, 5, 6]


def test_tasks_share_the_videos_of_all_classes_and_exemplars_grow() -> None:
    steps = STREAMS["tcd_ucf101_10x5"].steps(cumulative=False)
    assert sum(step.videos for step in steps) == pytest.approx(9537)
    assert steps[0] == Step(pytest.approx(9537 * 51 / 101), 255, 0, pytest.approx(3783 * 51 / 101))
    assert (steps[-1].new, steps[-1].old, steps[-1].tested) == (50, 455, pytest.approx(3783))
    assert STREAMS["tcd_ucf101_10x5"].steps(cumulative=True)[-1].videos == pytest.approx(9537)


def test_runs_are_spread_over_gpus_and_the_longest_bounds_them() -> None:
    assert scale.makespan([3, 1, 1, 1], 1) == 6
    assert scale.makespan([3, 1, 1, 1], 2) == 3
    assert scale.makespan([3, 1, 1, 1], 64) == 3


def test_a_video_of_more_pixels_takes_longer_to_decode_and_a_stored_one_does_not() -> None:
    like, long = FOUND.rate_of("kinetics400"), FOUND.rate_of("activitynet")
    assert like.video == pytest.approx(6.8)
    assert long.video == pytest.approx(6.8 * 300 / 3500)
    assert long.store == like.store
