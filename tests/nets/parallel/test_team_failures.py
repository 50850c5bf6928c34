"""What can go wrong among several processes on one run: it ends in minutes, with a line, and nothing is lost."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import forked
import pytest
import torch

from vcil_bench import record
from vcil_bench.common.config import ConfigError
from vcil_bench.nets.parallel import team as teams
from vcil_bench.options import build_options
from vcil_bench.run.plan import RunError, make_plan
from vcil_bench.training import Epoch, checkpoint
from vcil_bench.training.resume import PhaseSaver

LONG = ["epochs=2", "epochs_first=5000", "batch_size=4", "checkpoint_minutes=60"]
QUICK = ["epochs=1", "epochs_first=1", "batch_size=4"]


@contextlib.contextmanager
def _two(
    tiny: Any, folder: Path, *sets: str, before: Callable[[int], None] = lambda rank: None
) -> Iterator[list[forked.Child]]:
    """Start two processes on one run; ``before`` is called in each with its rank."""

    def work(rank: int) -> int:
        before(rank)
        return int(tiny.run("finetune", folder, "--set", "threads=1", *sets))

    with forked.team(work, folder.parent) as processes:
        yield processes


def _marking(marker: Path) -> Callable[[int], None]:
    """Touch a file after every step."""
    original = Epoch.step

    def before(rank: int) -> None:
        def step(epoch: Epoch, *arguments: Any, **more: Any) -> None:
            original(epoch, *arguments, **more)
            marker.with_name(f"{marker.name}{rank}").touch()

        Epoch.step = step  # type: ignore[method-assign]

    return before


@pytest.mark.slow
def test_a_process_that_hangs_ends_the_run_with_a_line(tiny: Any, tmp_path: Path) -> None:
    """A node without power or network answers as little as a stopped process."""
    marker = tmp_path / "trained"
    sets = [*LONG, "rank_timeout_minutes=0.05"]
    with _two(tiny, tmp_path / "r", *sets, before=_marking(marker)) as (first, second):
        first.until(marker.with_name("trained1").exists)
        second.send(signal.SIGSTOP)
        assert first.wait() == 1
    assert first.text().splitlines()[-1].startswith("vcil-bench: the run failed: another process of this run")
    (path,) = (tmp_path / "r").glob("*/finetune/*.json")
    assert record.load(path).data["status"] == "failed"
    assert "TeamError" in str(record.load(path).data["reason"])


@pytest.mark.slow
def test_no_process_reads_the_states_of_a_task_that_is_over(tiny: Any, tmp_path: Path) -> None:
    """The first process is slow to delete them, the second slow between seeing and reading one."""
    clear, read = PhaseSaver.clear, checkpoint.read

    def before(rank: int) -> None:
        def slow_clear(saver: PhaseSaver) -> None:
            time.sleep(0.5)
            clear(saver)

        def slow_read(*arguments: Any) -> Any:
            time.sleep(1)
            return read(*arguments)

        if rank == 0:
            PhaseSaver.clear = slow_clear  # type: ignore[method-assign]
        else:
            checkpoint.read = slow_read

    with _two(tiny, tmp_path / "r", *QUICK, before=before) as processes:
        assert [process.wait() for process in processes] == [0, 0], processes[1].text()


def test_all_processes_follow_a_request_to_any_after_the_first_has_saved(tiny: Any, tmp_path: Path) -> None:
    marker = tmp_path / "trained"
    with _two(tiny, tmp_path / "r", *LONG, before=_marking(marker)) as (first, second):
        first.until(marker.with_name("trained0").exists)
        second.send(signal.SIGTERM)
        assert (first.wait(), second.wait()) == (130, 130), first.text() + second.text()
    assert "continue inside task 1" in first.text()
    (saved,) = (tmp_path / "r").glob("*/finetune/*.phase-1.safetensors")
    assert checkpoint.read(saved)[1]["epoch"] < 5000


def _last_parameter(epoch: Epoch) -> torch.nn.Parameter:
    """Return a parameter of the head, which every process trains by itself."""
    found: torch.nn.Parameter = epoch._optimiser.param_groups[-1]["params"][-1]
    return found


@pytest.mark.slow
def test_a_parameter_that_is_not_the_same_everywhere_is_named(tiny: Any, tmp_path: Path) -> None:
    original = Epoch.step

    def before(rank: int) -> None:
        def step(epoch: Epoch, *arguments: Any, **more: Any) -> None:
            original(epoch, *arguments, **more)
            if rank == 1:
                _last_parameter(epoch).data.view(-1)[0] += 1e-3

        Epoch.step = step  # type: ignore[method-assign]

    with _two(tiny, tmp_path / "r", *QUICK, before=before) as processes:
        assert [process.wait() for process in processes] == [1, 1]
    assert "process 1 holds another 'head." in processes[0].text()


@pytest.mark.slow
def test_gradients_that_drift_apart_are_brought_together(tiny: Any, tmp_path: Path) -> None:
    """As on GPUs, whose kernels add in another order each time."""
    original = Epoch.step

    def before(rank: int) -> None:
        def step(epoch: Epoch, losses: Any, **more: Any) -> None:
            parameter = _last_parameter(epoch)
            if rank == 1 and not hasattr(parameter, "drifts"):
                parameter.register_hook(lambda gradient: gradient * (1 + 1e-5))
                parameter.drifts = True  # type: ignore[attr-defined]
            original(epoch, losses, **more)

        Epoch.step = step  # type: ignore[method-assign]

    with _two(tiny, tmp_path / "r", *QUICK, before=before) as processes:
        assert [process.wait() for process in processes] == [0, 0], processes[0].text()


def _compare(tmp_path: Path, state: Callable[[int], dict[str, torch.Tensor]], computed: list[str]) -> list[str]:
    """Return what ``check_alike`` says in each of two processes; "" where it is content."""

    def work(rank: int) -> int:
        team = teams.init(torch.device("cpu"), 1)
        own = state(rank)
        try:
            team.check_alike(own, computed)
        except teams.TeamError as error:
            sys.stdout.write(f"{error}\n")
            return 1
        assert all(torch.equal(own[name], state(0)[name]) for name in own)
        team.shutdown()
        return 0

    with forked.team(work, tmp_path) as both:
        codes = [child.wait() for child in both]
    assert all(code == 0 or "holds another" in child.text() for code, child in zip(codes, both, strict=True))
    return [child.text() for child in both]


def test_the_first_tensor_that_differs_is_named_by_all(tmp_path: Path) -> None:
    def state(rank: int) -> dict[str, torch.Tensor]:
        weight = torch.arange(6.0).reshape(2, 3)
        weight[1, 2] += rank * 1e-6
        return {"same": torch.ones(3), "weight": weight, "chosen": torch.tensor([1 + rank])}

    assert all("process 1 holds another 'weight'" in text for text in _compare(tmp_path, state, []))


def test_rounding_of_what_is_computed_is_taken_from_the_first(tmp_path: Path) -> None:
    def state(rank: int) -> dict[str, torch.Tensor]:
        flags = torch.tensor([True, False])
        return {"mean": torch.ones(3) + rank * 1e-6, "none": torch.empty(0, 2), "flags": flags}

    assert _compare(tmp_path, state, ["mean", "none"]) == ["", ""]


def test_more_than_rounding_is_named(tmp_path: Path) -> None:
    def state(rank: int) -> dict[str, torch.Tensor]:
        return {"mean": torch.ones(3) + rank * 0.5}

    assert all("'mean'" in text for text in _compare(tmp_path, state, ["mean"]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.bool, torch.int64])
def test_every_bit_and_its_place_count(dtype: torch.dtype) -> None:
    tensor = torch.tensor([1, 0, 0, 1, 1]).to(dtype)
    assert teams._bits(tensor) == teams._bits(tensor.clone())
    assert teams._bits(tensor) != teams._bits(tensor.flip(0).clone().roll(1))
    assert teams._bits(tensor) != teams._bits(torch.tensor([1, 0, 0, 1, 0]).to(dtype))


@pytest.mark.parametrize(
    ("minutes", "told"),
    [
        (0, "must be more than 0 and at most 10080"),
        (-1.0, "must be more than 0 and at most 10080"),
        (1e9, "must be more than 0 and at most 10080"),
        (float("inf"), "inf"),  # refused of any option, before its own bounds are looked at
        (float("nan"), "nan"),
    ],
)
def test_a_time_that_nobody_can_wait_is_refused(minutes: float, told: str) -> None:
    with pytest.raises(ConfigError, match=f"rank_timeout_minutes: .*{told}"):
        build_options({"rank_timeout_minutes": minutes})


def test_one_gpu_for_all_processes_is_refused(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RunError, match=r"--device cuda:0.*CUDA_VISIBLE_DEVICES"):
        make_plan(
            "finetune",
            str(tiny.protocol),
            seed=1,
            assignments={"backbone": "clip_tiny"},
            results=tmp_path,
            device="cuda:0",
        )
