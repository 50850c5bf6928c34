"""What tests of data share: a cache that no other test has written to."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VCIL_BENCH_CACHE", str(tmp_path / "cache"))
