"""Weights come by the backbone's own loader into the place where runs look, and nothing else is kept there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from archive_factory import write

from vcil_bench.common.files import file_sha256
from vcil_bench.fetch import weights as module
from vcil_bench.fetch.errors import FetchError
from vcil_bench.fetch.weights import fetch_weights
from vcil_bench.nets.backbones import BACKBONES
from vcil_bench.nets.weights import BackboneError

NAME = "tsm_resnet34"


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """Keep what the loader is asked for; it takes files that hold ``weights`` and fills the hub's cache."""
    monkeypatch.setenv("VCIL_BENCH_CACHE", str(tmp_path / "cache"))
    asked: list[str | None] = []
    cached = tmp_path / "hub/model.safetensors"

    def load(weights: str | None, *_: Any) -> None:
        asked.append(weights)
        if weights is None:
            write(cached, b"weights of the hub")
        elif b"weights" not in Path(weights).read_bytes():
            raise BackboneError("others")

    monkeypatch.setattr(BACKBONES[NAME], "load", load)
    monkeypatch.setattr(module, "hub_files", lambda chosen: ("timm/resnet34", ("model.safetensors",)))
    monkeypatch.setattr(
        module.huggingface_hub, "try_to_load_from_cache", lambda *_: str(cached) if cached.is_file() else None
    )
    return asked


def test_weights_are_loaded_from_the_hub_and_kept(loaded: list[str | None], tmp_path: Path) -> None:
    path, sha256, there = fetch_weights(NAME)
    assert path == BACKBONES[NAME].local_file()
    assert path.read_bytes() == b"weights of the hub"
    assert (sha256, there, loaded) == (file_sha256(path), False, [None])
    assert fetch_weights(NAME) == (path, sha256, True)
    assert loaded == [None, str(path)]


def test_weights_of_a_folder_are_loaded_before_they_are_kept(loaded: list[str | None], tmp_path: Path) -> None:
    with pytest.raises(FetchError):
        fetch_weights(NAME, tmp_path)
    write(tmp_path / "model.safetensors", b"of something else")
    with pytest.raises(BackboneError):
        fetch_weights(NAME, tmp_path)
    assert not BACKBONES[NAME].local_file().exists()
    write(tmp_path / "model.safetensors", b"weights")
    assert fetch_weights(NAME, tmp_path)[0].read_bytes() == b"weights"


@pytest.mark.slow
def test_a_real_loader_finds_what_was_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import timm
    from safetensors.torch import save_file

    monkeypatch.setenv("VCIL_BENCH_CACHE", str(tmp_path / "cache"))
    save_file(timm.create_model("resnet34").state_dict(), tmp_path / "model.safetensors")
    path, sha256, _ = fetch_weights(NAME, tmp_path)
    trunk = BACKBONES[NAME].load(None)
    assert (trunk.weights.sha256, trunk.weights.source) == (sha256, BACKBONES[NAME].own_source)
    assert path == BACKBONES["tsn_resnet34"].local_file()
