"""Which frames of an exemplar are stored and how a clip is made of them, against the authors' code."""

from __future__ import annotations

import numpy as np
import pytest
from golden_files import golden

from vcil_bench.data.clips import exemplar_indices, segment_indices, spread_indices

DATA = golden("tcd_11_exemplars")  # frames count from 1 there
ROWS = range(len(DATA["num_frames"]))
SEGMENTS = pytest.mark.parametrize("segments", [8, 16])


def stored(row: int, segments: int) -> list[int]:
    """Return the frames that the authors' code stored of a video."""
    count = int(DATA[f"S{segments}_exemplar_stored_count"][row])
    return (DATA[f"S{segments}_exemplar_stored_padded"][row, :count] - 1).tolist()


@SEGMENTS
def test_exemplars_are_judged_by_the_authors_validation_rule(segments: int) -> None:
    for row in ROWS:
        found = exemplar_indices(int(DATA["num_frames"][row]), segments)
        assert found.dtype == np.int64
        np.testing.assert_array_equal(found, DATA[f"S{segments}_val_indices"][row] - 1)


@SEGMENTS
def test_the_distinct_frames_are_what_the_authors_store(segments: int) -> None:
    counts = set()
    for row in ROWS:
        frames = exemplar_indices(int(DATA["num_frames"][row]), segments)
        assert sorted(set(frames.tolist())) == stored(row, segments)
        counts.add(len(stored(row, segments)))
    assert counts == {1, segments}  # videos both shorter and longer than the clip


@SEGMENTS
def test_a_stored_exemplar_becomes_the_authors_clip(segments: int) -> None:
    for row in ROWS:
        found = spread_indices(stored(row, segments), segments)
        assert found.dtype == np.int64
        np.testing.assert_array_equal(found, DATA[f"S{segments}_exemplar_reloaded"][row] - 1)


@SEGMENTS
def test_too_few_frames_are_repeated_as_the_authors_do(segments: int) -> None:
    for row in range(segments):
        frames = DATA[f"S{segments}_duplicate_in_padded"][row, : row + 1]
        found = spread_indices(frames.tolist(), segments)
        np.testing.assert_array_equal(found, DATA[f"S{segments}_duplicate_out"][row])


@SEGMENTS
def test_a_video_as_long_as_its_segments_counts_as_short(segments: int) -> None:
    assert exemplar_indices(segments, segments).tolist() == [0] * segments
    assert exemplar_indices(1, segments).tolist() == [0] * segments
    longer = exemplar_indices(segments + 1, segments)
    assert longer.tolist() == segment_indices(segments + 1, segments).tolist()
    assert len(set(longer.tolist())) == segments


@pytest.mark.parametrize("kept", [(4,), (4, 9), (1, 5, 7), tuple(range(0, 32, 2))])
@pytest.mark.parametrize("segments", [1, 2, 3, 8])
def test_a_clip_is_made_of_stored_frames_in_order(kept: tuple[int, ...], segments: int) -> None:
    found = spread_indices(kept, segments).tolist()
    assert len(found) == segments
    assert found == sorted(found)
    assert set(found) <= set(kept)
    if len(kept) <= segments:
        assert set(found) == set(kept)
    elif segments > 1:
        assert (found[0], found[-1]) == (kept[0], kept[-1])
        assert len(set(found)) == segments
