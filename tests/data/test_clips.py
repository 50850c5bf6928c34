from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden_files import golden

from vcil_bench.data import clips
from vcil_bench.data.clips import (
    clip_positions,
    dist_indices,
    evaluation_crops,
    interpolated,
    planes,
    second_clip_positions,
    segment_indices,
    segment_starts,
    thinned_indices,
    training_pixels,
    training_window,
)
from vcil_bench.data.crops import Box, crop_boxes, multiscale_choices, multiscale_offsets, training_box
from vcil_bench.protocol import ClipSpec

ROWS = range(len(golden("tcd_11")["num_frames"]))


class Recorded:
    """A generator that hands out recorded draws, and only in the way the authors drew them."""

    def __init__(self, draws: np.ndarray, high: int) -> None:
        self.draws, self.high = draws, high

    def integers(self, high: int, size: int) -> np.ndarray:
        assert (high, size) == (self.high, len(self.draws))
        return self.draws


def picture(height: int, width: int, frames: int = 3) -> np.ndarray:
    """Draw frames [T, H, W, 3] whose red is the column, green the row and blue the frame's number."""
    rows, columns = np.mgrid[0:height, 0:width]
    drawn = np.empty((frames, height, width, 3), np.uint8)
    drawn[..., 0], drawn[..., 1] = columns, rows
    drawn[..., 2] = np.arange(frames)[:, None, None]
    return drawn


def spec(**changes: object) -> ClipSpec:
    return ClipSpec(**{"frames": 3, "size": 32, **changes})


# --- which frames


@pytest.mark.parametrize("segments", [8, 16])
def test_segment_middles_equal_the_authors_test_rule(segments: int) -> None:
    data = golden("tcd_11")
    for row in ROWS:
        frames = int(data["num_frames"][row])
        expected = data[f"S{segments}_test_indices"][row] - 1  # theirs count from 1
        actual = segment_indices(frames, segments)
        assert actual.dtype == np.int64
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("segments", [8, 16])
def test_middles_then_starts_are_the_authors_twice_sample(segments: int) -> None:
    data = golden("tcd_11")
    for row in ROWS:
        frames = int(data["num_frames"][row])
        actual = np.concatenate([segment_indices(frames, segments), segment_starts(frames, segments)])
        np.testing.assert_array_equal(actual, data[f"S{segments}_test_twice_indices"][row] - 1)


@pytest.mark.parametrize("segments", [8, 16])
def test_training_indices_equal_the_authors_for_their_draws(segments: int) -> None:
    data = golden("tcd_11")
    for row in ROWS:
        frames = int(data["num_frames"][row])
        draws = Recorded(data[f"S{segments}_train_draws"][row], high=frames // segments)
        expected = data[f"S{segments}_train_indices"][row] - 1
        actual = segment_indices(frames, segments, draws)
        assert actual.dtype == np.int64
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize(("frames", "segments"), [(8, 8), (17, 8), (100, 8), (5, 2), (30, 1)])
def test_training_draws_reach_all_of_each_segment_and_nothing_else(frames: int, segments: int) -> None:
    rng = np.random.default_rng(0)
    drawn = np.stack([segment_indices(frames, segments, rng) for _ in range(300)])
    length = frames // segments
    for k in range(segments):
        assert set(drawn[:, k]) == set(range(k * length, (k + 1) * length))


def test_a_video_shorter_than_its_segments_repeats_frames() -> None:
    assert segment_indices(3, 8, np.random.default_rng(0)).tolist() == [0] * 8
    assert segment_indices(3, 8).tolist() == [0, 0, 0, 1, 1, 2, 2, 2]
    assert segment_starts(3, 8).tolist() == [0, 0, 0, 1, 1, 1, 2, 2]


@pytest.mark.parametrize(("frames", "segments"), [(0, 8), (8, 0), (-1, 8)])
def test_no_frames_or_no_segments_are_refused(frames: int, segments: int) -> None:
    with pytest.raises(ValueError, match="cannot take"):
        segment_indices(frames, segments)


class Drawn:
    """A generator of recorded numbers."""

    def __init__(self, draws: np.ndarray) -> None:
        self.draws = draws

    def random(self, size: int) -> np.ndarray:
        assert size == len(self.draws)
        return self.draws


def test_dists_frames_are_the_authors() -> None:
    data = golden("dist_03")
    dense = int(data["dense"])
    for i, length in enumerate(data["num_frames"].tolist()):
        assert dist_indices(length, dense).tolist() == data["test_1view"][i].tolist()
        for view in range(3):
            expected = data[f"test_3view_{view}"][i].tolist()
            assert dist_indices(length, dense, views=3, view=view).tolist() == expected
        drawn: Any = Drawn(data["train_draws"][i])
        assert dist_indices(length, dense, rng=drawn).tolist() == data["train"][i].tolist()
    assert data["sparse_positions"].tolist() == list(range(0, dense, int(data["alpha"])))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((0, 8), "8 frames of 0"),
        ((8, 0), "0 frames of 8"),
        ((8, 8, 3, 3), "view 3 of 3"),
        ((8, 8, 1, -1), "view -1"),
    ],
)
def test_frames_that_dist_cannot_take_are_refused(arguments: tuple[int, ...], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        dist_indices(*arguments)


# --- vCLIMB's clips, whose frames count from 1 in the recorded numbers; 0 stands for a blank clip

VCLIMB_ROWS = range(len(golden("vclimb_33")["num_frames"]))


def stored_list(data: dict[str, np.ndarray], row: int) -> np.ndarray:
    """Return the frames that are there of a video, from 1: thinned out if it is in a memory of few frames."""
    frames, kept = int(data["num_frames"][row]), int(data["frames_kept"][row])
    if kept > 0 and data["is_memory"][row]:
        return thinned_indices(frames, kept) + 1
    return np.arange(frames) + 1


@pytest.mark.parametrize("row", VCLIMB_ROWS)
def test_clips_of_stored_frames_equal_vclimb(row: int) -> None:
    data = golden("vclimb_33")
    if data["num_frames"][row] < 8:
        assert not data["stored_frames"][row].any()  # such a video is dropped
        return
    stored = stored_list(data, row)
    np.testing.assert_array_equal(stored, data["stored_frames"][row][data["stored_frames"][row] > 0])
    positions = clip_positions(len(stored), 8, data["own_clip_draws"][row])
    assert positions.dtype == np.int64
    np.testing.assert_array_equal(stored[positions], data["clip_frames"][row])
    np.testing.assert_array_equal(stored[clip_positions(len(stored), 8)], data["val_frames"][row])


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("row", VCLIMB_ROWS)
def test_second_clips_equal_vclimb_as_meant_and_as_released(row: int, released: bool) -> None:
    data = golden("vclimb_33")
    if data["num_frames"][row] < 8:
        return
    stored, kept = stored_list(data, row), int(data["frames_kept"][row])
    expected = data["aug_frames" if released else "own_aug_frames_intended"][row]
    positions = second_clip_positions(len(stored), kept, 8, data["own_aug_draws"][row], released)
    if positions is None:
        assert not expected.any()
    else:
        np.testing.assert_array_equal(stored[positions], expected)


def test_a_list_shorter_than_the_clip_takes_no_draws() -> None:
    assert clip_positions(4, 8).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert clip_positions(4, 8, np.full(8, -1)).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert clip_positions(3, 8).tolist() == [0, 0, 0, 1, 1, 1, 2, 2]


# --- which window


@pytest.mark.parametrize("crops", [3, 5, 10])
def test_test_crops_equal_the_authors(crops: int) -> None:
    data = golden("tcd_14")
    size = int(data["crop_size"])
    sizes, expected = data["oversample_sizes_wh"], data[f"crops{crops}_boxes_flip"]
    for (width, height), boxes in zip(sizes.tolist(), expected.tolist(), strict=True):
        found = crop_boxes(width, height, size, crops)
        assert [[b.left, b.top, b.left + b.width, b.top + b.height, b.mirror] for b in found] == boxes


@pytest.mark.parametrize("size", [32, 33])
def test_the_centre_crop_is_that_of_torchvision(size: int) -> None:
    from torchvision.transforms import CenterCrop  # half a second that most tests do without

    crop = CenterCrop(size)
    for width in range(size, size + 12):
        for height in range(size, size + 12):
            places = torch.arange(width * height).view(1, height, width)
            (box,) = crop_boxes(width, height, size, 1)
            assert crop(places)[0, 0, 0] == box.top * width + box.left, (width, height)


def test_multiscale_windows_equal_the_authors() -> None:
    data = golden("tcd_14")
    size = int(data["crop_size"])
    for row, (width, height) in enumerate(data["image_sizes_wh"].tolist()):
        pairs = multiscale_choices(width, height, size)
        assert pairs == [tuple(pair) for pair in data["multiscale_pairs_wh"][row].tolist()]
        for number, pair in enumerate(pairs):
            offsets = data["multiscale_offsets_xy"][row, number].tolist()
            assert multiscale_offsets(width, height, *pair) == [tuple(xy) for xy in offsets]


def test_training_windows_are_drawn_from_all_sizes_and_places() -> None:
    rng = np.random.default_rng(0)
    drawn = {training_box(340, 256, 224, rng) for _ in range(4000)}
    assert drawn == {
        Box(x, y, w, h)
        for w, h in multiscale_choices(340, 256, 224)
        for x, y in multiscale_offsets(340, 256, w, h)
    }


# --- the clip


def training_clip(frames: np.ndarray, spec: ClipSpec, rng: np.random.Generator) -> torch.Tensor:
    """Make a training clip [T, 3, S, S] of whole frames, as the loader does of a decoder's or a store's."""
    window = training_window(frames.shape[2], frames.shape[1], spec, rng)
    return planes(training_pixels(frames if window is None else window.of(frames), spec, rng))


def views_of(frames: np.ndarray, spec: ClipSpec, crops: int) -> torch.Tensor:
    """Make the crops [crops, T, 3, S, S] that a clip is evaluated on."""
    return planes(evaluation_crops(frames, spec, crops))


@pytest.mark.parametrize("train_crop", ["multiscale", "center"])
@pytest.mark.parametrize(("height", "width"), [(48, 64), (64, 48), (32, 32), (20, 30)])
def test_training_clip_has_the_protocols_shape(train_crop: str, height: int, width: int) -> None:
    clip = training_clip(picture(height, width), spec(train_crop=train_crop), np.random.default_rng(0))
    assert clip.shape == (3, 3, 32, 32)
    assert clip.dtype == torch.uint8


@pytest.mark.parametrize("crops", [1, 3, 5, 10])
def test_evaluation_crops_have_the_protocols_shape(crops: int) -> None:
    views = views_of(picture(48, 64), spec(short_side=40), crops)
    assert views.shape == (crops, 3, 3, 32, 32)
    assert views.dtype == torch.uint8


def test_channels_and_frames_stay_in_order() -> None:
    clip = training_clip(picture(32, 32), spec(train_crop="center", flip=False), np.random.default_rng(0))
    np.testing.assert_array_equal(clip.permute(0, 2, 3, 1), picture(32, 32))


def test_all_frames_of_a_training_clip_share_window_and_mirror() -> None:
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(20):
        clip = training_clip(picture(48, 64), spec(), rng)
        assert clip[:, 2].float().mean(dim=(1, 2)).tolist() == [0, 1, 2]
        assert (clip[:, :2] == clip[:1, :2]).all()
        seen.add(clip[0].numpy().tobytes())
    assert len(seen) > 10  # but from clip to clip they differ


@pytest.mark.parametrize("train_crop", ["multiscale", "center"])
@pytest.mark.parametrize("flip", [True, False])
def test_training_clips_are_mirrored_half_the_time_if_at_all(train_crop: str, flip: bool) -> None:
    rng = np.random.default_rng(0)
    chosen = spec(train_crop=train_crop, flip=flip)
    runs = [training_clip(picture(40, 64, frames=1), chosen, rng)[0, 0, 0] for _ in range(100)]
    mirrored = sum(bool(row[0] > row[-1]) for row in runs)
    assert 30 < mirrored < 70 if flip else mirrored == 0


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("height", "width"), [(45, 61), (32, 40), (20, 30), (32, 32)])
def test_pictures_are_resized_as_torch_does_it(height: int, width: int, interpolation: str) -> None:
    frames = np.random.default_rng(0).integers(256, size=(3, height, width, 3), dtype=np.uint8)
    chosen = spec(flip=False, interpolation=interpolation)
    clip = training_pixels(frames, chosen, np.random.default_rng(0))
    as_torch = F.interpolate(planes(torch.from_numpy(frames)), (32, 32), mode=interpolation, antialias=True)
    assert torch.equal(planes(clip), as_torch)


@pytest.mark.parametrize("train_crop", ["multiscale", "center"])
@pytest.mark.parametrize(("height", "width"), [(45, 61), (32, 32)])
def test_clips_in_memory_that_is_given_are_those_in_their_own(train_crop: str, height: int, width: int) -> None:
    frames = np.random.default_rng(0).integers(256, size=(3, height, width, 3), dtype=np.uint8)
    chosen = spec(train_crop=train_crop, short_side=40)
    for seed in range(6):  # mirrored and not
        out = torch.zeros(3, 32, 32, 3, dtype=torch.uint8)
        alone = training_pixels(frames, chosen, np.random.default_rng(seed))
        assert training_pixels(frames, chosen, np.random.default_rng(seed), out).data_ptr() == out.data_ptr()
        assert torch.equal(out, alone)
    views = torch.zeros(10, 3, 32, 32, 3, dtype=torch.uint8)
    evaluation_crops(frames, chosen, 10, views)
    assert torch.equal(views, evaluation_crops(frames, chosen, 10))


def test_training_clip_is_a_function_of_its_generator() -> None:
    first, second = (training_clip(picture(48, 64), spec(), np.random.default_rng(5)) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("height", "width", "left", "top"), [(32, 64, 16, 0), (64, 32, 0, 16), (32, 37, 2, 0), (32, 32, 0, 0)]
)
def test_one_crop_is_the_centre(height: int, width: int, left: int, top: int) -> None:
    view = views_of(picture(height, width), spec(), 1)[0, 0]  # no resizing: the short side fits
    assert view[0].unique().tolist() == list(range(left, left + 32))
    assert view[1].unique().tolist() == list(range(top, top + 32))


def test_centre_crop_lies_inside_a_larger_short_side() -> None:
    view = views_of(picture(40, 60), spec(short_side=40), 1)[0, 0]
    assert (view[0, 0, 0], view[1, 0, 0]) == (14, 4)  # (60 - 32) / 2, (40 - 32) / 2


def test_crops_are_cut_where_their_boxes_say() -> None:
    views = views_of(picture(40, 60), spec(short_side=40), 10)[:, 0, :2]
    for view, box in zip(views, crop_boxes(60, 40, 32, 10), strict=True):
        columns = list(range(box.left, box.left + 32))
        assert view[0, 0].tolist() == (columns[::-1] if box.mirror else columns)
        assert view[1, :, 0].tolist() == list(range(box.top, box.top + 32))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("height", "width"), [(64, 128), (128, 64)])
def test_resizing_the_short_side_keeps_the_aspect(height: int, width: int, interpolation: str) -> None:
    view = views_of(picture(height, width), spec(interpolation=interpolation), 1)[0, 0].float()
    # Halved to 32 x 64 and cut in the middle: a pixel's centre j lies at 2 j + 0.5 of the original.
    along, across = (view[0, 0], view[1, :, 0]) if width > height else (view[1, :, 0], view[0, 0])
    j = torch.arange(4, 28)
    assert (along[4:28] - (2 * (j + 16) + 0.5)).abs().max() <= 1
    assert (across[4:28] - (2 * j + 0.5)).abs().max() <= 1


@pytest.mark.parametrize(
    ("height", "width", "long"),
    [
        (240, 320, 298),
        (320, 240, 298),
        (240, 427, 398),
        (256, 340, 297),
        pytest.param(320, 340, 238),
    ],
)
def test_long_side_is_rounded_down_once(
    monkeypatch: pytest.MonkeyPatch, height: int, width: int, long: int
) -> None:
    sizes = []

    def boxes(width: int, height: int, size: int, crops: int) -> list[Box]:
        sizes.append((width, height))
        return crop_boxes(width, height, size, crops)

    monkeypatch.setattr(clips, "crop_boxes", boxes)
    views_of(np.zeros((1, height, width, 3), np.uint8), spec(size=224), 1)
    assert sizes == [(long, 224) if width > height else (224, long)]


@pytest.mark.parametrize(
    ("height", "width"),
    [
        (48, 64),
        (32, 32),
        (24, 40),
        pytest.param(
            *(31, 48),
        ),
    ],
)
def test_training_windows_show_at_least_the_smallest_scale(height: int, width: int) -> None:
    frames = picture(height, width, frames=1) * np.uint8(4)
    rng = np.random.default_rng(0)
    for _ in range(100):
        clip = training_clip(frames, spec(), rng)[0, :2].float()
        shown = clip.amax(dim=(1, 2)) - clip.amin(dim=(1, 2))
        assert shown.min() >= 4 * (0.6 * min(height, width) - 2)


def test_no_global_generator_is_touched() -> None:
    legacy, state = np.random.get_state(), torch.get_rng_state()
    rng = np.random.default_rng(0)
    segment_indices(50, 8, rng)
    training_clip(picture(48, 64), spec(), rng)
    views_of(picture(48, 64), spec(), 5)
    np.testing.assert_array_equal(np.random.get_state()[1], legacy[1])
    assert np.random.get_state()[2:] == legacy[2:]
    assert torch.equal(torch.get_rng_state(), state)


# --- clips filled from fewer frames


@pytest.mark.parametrize("segments", [4, 5, 8, 16])
@pytest.mark.parametrize("stored", [1, 2, 3, 4])
def test_few_frames_are_interpolated_linearly(stored: int, segments: int) -> None:
    frames = torch.from_numpy(picture(5, 7, stored)) * 37
    filled = interpolated(frames, segments)
    assert (filled.dtype, tuple(filled.shape)) == (torch.uint8, (segments, 5, 7, 3))
    places, given = np.linspace(0, stored - 1, segments), np.arange(stored)
    exact = np.empty((segments, 5, 7, 3))
    for index in np.ndindex(5, 7, 3):
        at = (slice(None), *index)
        exact[at] = np.interp(places, given, frames[at].numpy())
    assert np.abs(filled.numpy() - exact).max() <= 0.5 + 1e-9
    assert torch.equal(filled[0], frames[0])
    assert torch.equal(filled[-1], frames[-1])


def test_halves_between_two_frames_are_rounded_up() -> None:
    frames = torch.tensor([[0], [1], [255]], dtype=torch.uint8)
    assert interpolated(frames, 5).flatten().tolist() == [0, 1, 1, 128, 255]
