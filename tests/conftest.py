"""What all tests share: a cache of their own, the number of threads, pictures left blank, the tiny dataset."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

# Tests see no GPU, so that they find the same on every machine; and with one, the first backward pass starts
# threads behind which no forked child can have a pass of its own. To be said before torch looks for GPUs.
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import pytest
import tiny_dataset
import torch
from double_precision import double_precision
from tiny_dataset import Tiny

BLANK = {
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "png": b"\x89PNG",
    "pdf": b"%PDF-1.4",
}


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep rendered clips, manifests and weights of the tests out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("VCIL_BENCH_CACHE", str(folder))
        yield folder


# The nets of tests are too small for more threads, which collapse on a busy machine.
THREADS = int(os.environ.get("VCIL_BENCH_TEST_THREADS", "1"))
torch.set_num_threads(THREADS)


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Put torch's threads back behind each test, so that what several tests share is made by as many, too."""
    yield
    torch.set_num_threads(THREADS)


@pytest.fixture(autouse=True)
def blank_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave figures built but not rendered, a fifth of the suite's time, but in tests marked ``pictures``."""
    if request.node.get_closest_marker("pictures"):
        return
    from matplotlib.figure import Figure

    def savefig(self: Figure, file: BinaryIO, *, format: str, **_: Any) -> None:  # its name there
        file.write(BLANK[format])

    monkeypatch.setattr(Figure, "draw_without_rendering", lambda self: None)
    monkeypatch.setattr(Figure, "savefig", savefig)


@pytest.fixture
def float64() -> Iterator[None]:
    """Let whole runs compute in float64; to be named before fixtures that make networks."""
    with double_precision():
        yield


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """Make the tiny dataset once for all tests."""
    folder = tmp_path_factory.mktemp("protocol")
    return tiny_dataset.make(tmp_path_factory.mktemp("tiny"), folder / "tiny_2x1.yaml")


@pytest.fixture(scope="session")
def stream(tiny: Tiny) -> Any:
    """Join the tiny protocol and its clips, seed 1."""
    from small_runs import stream_of  # finds all methods, which most tests do without

    return stream_of(tiny)
