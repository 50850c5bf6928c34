"""Requests to stop: heard wherever they fall, followed where nothing is lost, and at once when asked twice."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forked
import pytest

from vcil_bench import record
from vcil_bench.common.stopping import StopRequest
from vcil_bench.run import loop
from vcil_bench.training import Epoch, checkpoint

LONG = ["epochs=2", "epochs_first=5000", "batch_size=2", "checkpoint_minutes=60"]
QUICK = ["epochs=1", "epochs_first=1", "batch_size=4"]
BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


def _ask(number: int) -> None:
    os.kill(os.getpid(), number)


def test_a_request_may_come_by_no_signal() -> None:
    stop = StopRequest()
    stop.ask()
    with pytest.raises(KeyboardInterrupt):
        stop.follow()


@BOTH
def test_a_request_is_raised_at_once_held_back_or_followed_later(number: int) -> None:
    stop = StopRequest()
    before = signal.getsignal(number)
    with stop.heard():
        with pytest.raises(KeyboardInterrupt):
            _ask(number)
        assert stop.asked
        stop.asked = False
        with stop.held_back():
            _ask(number)
            assert stop.asked
        with pytest.raises(KeyboardInterrupt):
            stop.follow()
    assert signal.getsignal(number) == before


def test_a_second_ctrl_c_is_not_held_back() -> None:
    stop = StopRequest()
    with stop.heard(), stop.held_back():
        _ask(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            _ask(signal.SIGINT)


def test_what_comes_twice_by_itself_is_held_back() -> None:
    """A scheduler repeats SIGTERM; torchrun passes on the SIGINT that its processes have had already."""
    stop = StopRequest()
    with stop.heard(), stop.held_back():
        _ask(signal.SIGTERM)
        _ask(signal.SIGTERM)
    with stop.heard(), stop.held_back(even_twice=True):
        _ask(signal.SIGINT)
        _ask(signal.SIGINT)


class _Dropping:
    """Is asked to stop where Python drops exceptions, as in the callbacks of an import."""

    def __del__(self) -> None:
        _ask(signal.SIGINT)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_request_that_python_drops_is_followed() -> None:
    stop = StopRequest()
    with stop.heard():
        _Dropping()
        with pytest.raises(KeyboardInterrupt):
            stop.follow()


def _run(tiny: Any, folder: Path, *sets: str, before: Callable[[], None] = lambda: None) -> Callable[[], int]:
    def work() -> int:
        before()
        return int(tiny.run("finetune", folder, "--set", *sets))

    return work


def _marked(marker: Path, act: Callable[[], None]) -> Callable[..., Any]:
    def reached(*_: Any, **__: Any) -> None:
        marker.touch()
        act()

    return reached


@pytest.mark.parametrize("group", [pytest.param(False, marks=pytest.mark.slow), True])
@BOTH
def test_inside_a_task_the_state_is_saved_first(
    number: signal.Signals, group: bool, tiny: Any, tmp_path: Path
) -> None:
    """Also where the signal reaches the decoding processes, as a terminal's and many schedulers' do."""
    marker = tmp_path / "training"
    original = Epoch.step

    def step(epoch: Epoch, *arguments: Any, **more: Any) -> None:
        original(epoch, *arguments, **more)
        marker.touch()

    def before() -> None:
        os.setpgid(0, 0)
        Epoch.step = step  # type: ignore[method-assign]

    with forked.running(
        _run(tiny, tmp_path / "r", *LONG, "workers=1", before=before), tmp_path / "out"
    ) as child:
        child.until(marker.exists)
        os.killpg(child.pid, number) if group else child.send(number)
        assert child.wait() == 130, child.text()
    assert "continue inside task 1" in child.text()
    (saved,) = (tmp_path / "r").glob("*/finetune/*.phase-1.safetensors")
    assert checkpoint.read(saved)[1]["epoch"] < 5000


def test_a_second_ctrl_c_ends_a_step_that_takes_long(tiny: Any, tmp_path: Path) -> None:
    marker, heard = tmp_path / "training", tmp_path / "heard"
    original = StopRequest._hear

    def hear(*arguments: Any) -> None:
        heard.touch()
        original(*arguments)

    def before() -> None:
        Epoch.step = _marked(marker, lambda: time.sleep(600))  # type: ignore[method-assign]
        StopRequest._hear = hear  # type: ignore[method-assign]

    with forked.running(_run(tiny, tmp_path / "r", *LONG, before=before), tmp_path / "out") as child:
        child.until(marker.exists)
        child.send(signal.SIGINT)
        child.until(heard.exists)  # or both might arrive as one
        child.send(signal.SIGINT)
        assert child.wait() == 130, child.text()


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_in_a_test_the_run_ends_at_once_and_goes_on_from_the_end_of_training(
    number: signal.Signals, tiny: Any, tmp_path: Path
) -> None:
    marker = tmp_path / "testing"

    def before() -> None:
        loop.evaluate = _marked(marker, lambda: time.sleep(600))

    with forked.running(_run(tiny, tmp_path / "r", *QUICK, before=before), tmp_path / "out") as child:
        child.until(marker.exists)
        child.send(number)
        assert child.wait() == 130, child.text()
    assert "continue inside task 1" in child.text()


@pytest.mark.slow
@pytest.mark.parametrize("moment", [0.3 * step for step in range(1, 13)])
def test_no_ctrl_c_is_forgotten_while_python_starts(moment: float, tiny: Any, tmp_path: Path) -> None:
    """A process of its own, whose imports take seconds; the first tenths are Python's."""
    import subprocess
    import sys

    command = [sys.executable, "-m", "vcil_bench", "run", "finetune", str(tiny.protocol)]
    command += [*tiny.arguments(tmp_path), "--seed", "1", "--set", *LONG]
    with subprocess.Popen(command, stderr=subprocess.PIPE, cwd=Path(__file__).parents[2]) as process:
        time.sleep(moment)
        process.send_signal(signal.SIGINT)
        try:
            _, rest = process.communicate(timeout=forked.LIMIT_S)
        finally:
            process.kill()
    assert process.returncode in (130, -signal.SIGINT, 1), rest
    assert not list(tmp_path.rglob("*.ckpt.safetensors"))


def test_a_request_that_is_dropped_in_a_test_ends_the_run(tiny: Any, tmp_path: Path) -> None:
    original = loop.evaluate

    def before() -> None:
        def drop(*arguments: Any, **more: Any) -> Any:
            _Dropping()
            return original(*arguments, **more)

        loop.evaluate = drop

    assert forked.run(_run(tiny, tmp_path / "r", *QUICK, before=before), tmp_path / "out") == 130
    (path,) = (tmp_path / "r").glob("*/finetune/*.json")
    assert record.load(path).data["status"] == "partial"
