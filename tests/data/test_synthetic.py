from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import av
import numpy as np
import open_clip
import pretrain_tiny_clip as pretraining
import pytest
import stills
import torch
from numpy.typing import NDArray
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import load_file

from vcil_bench.common.errors import UserError
from vcil_bench.data import synthetic
from vcil_bench.data.synthetic import drawing

FOLDER = pretraining.DEFAULT_FOLDER
FIRST = {"train": 3, "test": 1}  # clips of a class that quick tests render


def decode(path: Path) -> NDArray[np.uint8]:
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack(frames)


def read_manifest(root: Path) -> list[dict[str, str]]:
    with (root / synthetic.MANIFEST).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def few_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "CLIPS_PER_CLASS", {"train": 1, "test": 1})


def paths(motion: str, count: int, key: int) -> NDArray[np.floating]:
    """Return paths of a motion at the 8 frames that a protocol samples [count, 8, 2]."""
    rngs = (np.random.default_rng([key, synthetic.MOTIONS.index(motion), i]) for i in range(count))
    return np.stack([synthetic.trajectory(rng, motion)[1::2] for rng in rngs])


def blue_centre(frame: NDArray[np.uint8]) -> NDArray[np.floating]:
    """Find a blue object by the mean of its pixels; nothing else in a clip is as blue."""
    rgb = frame.astype(float)
    mask = rgb[..., 2] - rgb[..., :2].max(-1) > 70
    assert mask.any()
    grid = np.arange(drawing.SIZE)
    return np.array([(mask.sum(axis) * grid).sum() / mask.sum() for axis in (0, 1)])


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first clips of every class, an eighth of the data."""
    root = tmp_path_factory.mktemp("data") / synthetic.FOLDER_NAME
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "CLIPS_PER_CLASS", FIRST)
        synthetic.render(root)
    return root


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("whole") / synthetic.FOLDER_NAME
    synthetic.render(root)
    return root


@pytest.fixture(scope="module")
def tokenizer() -> SimpleTokenizer:
    return SimpleTokenizer(str(FOLDER / pretraining.MERGES_FILE), context_length=pretraining.CONTEXT_LENGTH)


@pytest.fixture(scope="module")
def model() -> open_clip.CLIP:
    open_clip.add_model_config(FOLDER / pretraining.CONFIG_FILE)
    return open_clip.create_model(
        pretraining.MODEL_NAME, pretrained=str(FOLDER / pretraining.WEIGHTS_FILE)
    ).eval()


def test_class_names_are_six_objects_times_four_motions() -> None:
    assert len(set(synthetic.CLASS_NAMES)) == 24
    assert len(synthetic.OBJECTS) == 6
    assert len({colour for colour, _ in synthetic.OBJECTS}) == 6
    assert len({shape for _, shape in synthetic.OBJECTS}) == 6
    assert synthetic.MOTIONS == ("left", "right", "up", "down")
    assert synthetic.CLASS_NAMES[0] == "a red square moving left"
    assert len({synthetic.class_slug(name) for name in synthetic.CLASS_NAMES}) == 24


def check_manifest(root: Path, each: dict[str, int]) -> None:
    rows = read_manifest(root)
    counts = Counter((row["class"], row["split"]) for row in rows)
    assert counts == {(name, split): count for name in synthetic.CLASS_NAMES for split, count in each.items()}
    assert len({row["group"] for row in rows}) == len(rows)
    files = {str(path.relative_to(root)) for path in root.rglob("*.mp4")}
    assert files == {row["path"] for row in rows}
    assert str(synthetic.VERSION) in root.name


def test_manifest_lists_every_clip_once(rendered: Path) -> None:
    check_manifest(rendered, FIRST)


@pytest.mark.slow
def test_the_whole_data_have_as_many_clips_of_a_class_as_they_say(whole: Path) -> None:
    check_manifest(whole, synthetic.CLIPS_PER_CLASS)


@pytest.mark.slow
def test_every_video_has_16_frames_of_64_by_64(whole: Path) -> None:
    for row in read_manifest(whole):
        with av.open(str(whole / row["path"])) as container:
            stream = container.streams.video[0]
            assert stream.codec_context.name == "h264"
            assert stream.codec_context.pix_fmt == "yuv420p"
            assert stream.average_rate == synthetic.FPS
            frames = list(container.decode(stream))
        assert [(frame.width, frame.height) for frame in frames] == [(64, 64)] * 16


def test_no_frame_is_predicted_from_another(rendered: Path) -> None:
    row = read_manifest(rendered)[0]
    with av.open(str(rendered / row["path"])) as container:
        assert all(packet.is_keyframe for packet in container.demux(video=0) if packet.size)


@pytest.mark.slow
def test_rendering_twice_gives_the_same_frames(
    rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few_clips(monkeypatch)
    # Another amount before a clip and another state of numpy must not change it.
    np.random.seed(1)
    synthetic.render(tmp_path / "again")
    rows = read_manifest(tmp_path / "again")
    assert len(rows) == 48
    for row in rows:
        np.testing.assert_array_equal(decode(tmp_path / "again" / row["path"]), decode(rendered / row["path"]))


RENDER = """
import hashlib
from vcil_bench.data import synthetic
digest = hashlib.sha256()
for split in ("train", "test"):
    for number in range(len(synthetic.CLASS_NAMES)):
        for index in range(4):
            digest.update(synthetic.clip_frames(split, number, index).tobytes())
print(digest.hexdigest())
"""


@pytest.mark.slow
def test_clips_do_not_depend_on_the_processor() -> None:
    """Numpy takes its plainest kernels where the better ones are put out of use."""
    from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

    usable = " ".join(name for name in __cpu_dispatch__ if __cpu_features__.get(name))
    digests = [
        subprocess.run(
            [sys.executable, "-c", RENDER],
            env={**os.environ, "NPY_DISABLE_CPU_FEATURES": disabled},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for disabled in ("", usable)
    ]
    assert digests[0] == digests[1]


def test_encoding_keeps_the_picture(rendered: Path) -> None:
    row = read_manifest(rendered)[0]
    drawn = synthetic.clip_frames("train", 0, 0).astype(float)
    assert np.abs(decode(rendered / row["path"]) - drawn).mean() < 6


def test_complete_data_is_left_alone(rendered: Path) -> None:
    manifest = rendered / synthetic.MANIFEST
    before = manifest.stat()
    synthetic.render(rendered)
    assert manifest.stat().st_mtime_ns == before.st_mtime_ns
    assert manifest.stat().st_ino == before.st_ino


def test_foreign_folder_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(UserError, match="not the embedded dataset"):
        synthetic.render(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_interrupted_rendering_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few_clips(monkeypatch)

    def stop(done: int, total: int) -> None:
        assert total == 48
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthetic.render(tmp_path / "data", progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_second_simultaneous_rendering_keeps_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few_clips(monkeypatch)
    root = tmp_path / "data"

    def overtake(done: int, total: int) -> None:
        if done == total:
            root.mkdir()
            (root / synthetic.MANIFEST).write_text("the other's")

    synthetic.render(root, progress=overtake)
    assert (root / synthetic.MANIFEST).read_text() == "the other's"
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.slow
def test_train_and_test_clips_differ() -> None:
    assert not set(synthetic.BACKGROUNDS["train"]) & set(synthetic.BACKGROUNDS["test"])
    clips = {
        synthetic.clip_frames(split, class_id, index).tobytes()
        for split in ("train", "test")
        for class_id in range(24)
        for index in range(5)
    }
    assert len(clips) == 240


def test_the_order_of_the_places_tells_the_motion() -> None:
    """A linear reader of true places in their order tells all motions."""
    places = np.concatenate([paths(motion, 1000, key=1) for motion in synthetic.MOTIONS])
    labels = np.repeat(np.arange(4), 1000)
    mean = places.mean((0, 1))

    def inputs(clips: NDArray[np.floating]) -> NDArray[np.floating]:
        return np.c_[(clips - mean).reshape(len(clips), -1), np.ones(len(clips))]

    weights = np.linalg.lstsq(inputs(places), np.eye(4)[labels])[0]
    clips = np.concatenate([paths(motion, 1000, key=2) for motion in synthetic.MOTIONS])
    assert ((inputs(clips) @ weights).argmax(1) == labels).mean() > 0.99


@pytest.mark.parametrize(
    ("there", "back"),
    [pytest.param("left", "right", marks=pytest.mark.slow), pytest.param("up", "down", marks=pytest.mark.slow)],
)
def test_without_their_order_places_tell_the_axis_and_not_the_direction(there: str, back: str) -> None:
    """Extents and centres of paths: those of two directions of one axis are drawn alike, of two axes not."""

    def extents(motion: str, key: int) -> NDArray[np.floating]:
        return np.ptp(paths(motion, 4000, key=key), axis=1)

    def centres(motion: str, key: int) -> NDArray[np.floating]:
        return paths(motion, 4000, key=key).mean(axis=1)

    along = extents(there, 1) @ np.abs(np.array(drawing.MOTIONS[there]))
    across = extents(there, 1) @ np.abs(np.array(drawing.MOTIONS[there])[::-1])
    assert (along > across).all()
    for measured in (extents, centres):
        quantiles = np.linspace(0.05, 0.95, 19)
        one, other = (np.quantile(measured(m, k), quantiles, axis=0) for m, k in ((there, 1), (back, 2)))
        # Pixels: the eight frames that a protocol takes begin a frame behind a path's start and end with it.
        assert np.abs(one - other).max() < 3.0


@pytest.mark.slow
@pytest.mark.parametrize("frame", [0, 3, 7])
def test_the_place_in_one_frame_says_little_of_the_motion(frame: int) -> None:
    def counts(motion: str, key: int) -> NDArray[np.floating]:
        x, y = paths(motion, 2000, key)[:, frame].T
        return np.histogram2d(x, y, bins=8, range=[[0, drawing.SIZE]] * 2)[0]

    train, test = (np.stack([counts(motion, key) for motion in synthetic.MOTIONS]) for key in (3, 4))
    best = train.argmax(0)  # the likeliest motion of each place
    right = np.take_along_axis(test, best[None], axis=0).sum() / test.sum()
    assert right < 0.5  # guessing: 0.25


@pytest.mark.parametrize("motion", synthetic.MOTIONS)
def test_trajectory_goes_where_its_name_says_and_weaves_across(motion: str) -> None:
    direction = np.array(drawing.MOTIONS[motion])
    (shortest, longest), (least, most) = synthetic.LENGTH, synthetic.WEAVE
    for seed in range(50):
        path = synthetic.trajectory(np.random.default_rng(seed), motion)
        assert path.shape == (16, 2)
        assert path.min() > synthetic.BORDER - 1e-4
        assert path.max() < drawing.SIZE - synthetic.BORDER + 1e-4
        along, across = path @ direction, path @ np.abs(direction[::-1])
        assert (np.diff(along) > 0).all()
        assert shortest - 1e-3 < np.ptp(along) < longest + 1e-3
        # Half way, where it turns, lies between two frames.
        assert least - 0.05 < np.ptp(across) / np.ptp(along) < most + 0.01
        assert abs(np.polyfit(np.arange(16), across, 1)[0]) < 1e-4  # there and back: no direction


@pytest.mark.parametrize("motion", synthetic.MOTIONS)
def test_object_in_the_file_moves_as_named(rendered: Path, motion: str) -> None:
    name = f"a blue circle moving {motion}"
    rows = [row for row in read_manifest(rendered) if row["class"] == name]
    for row in rows[:8]:
        centres = np.stack([blue_centre(frame) for frame in decode(rendered / row["path"])])
        step = np.polyfit(np.arange(16), centres, 1)[0]
        assert step @ np.array(drawing.MOTIONS[motion]) > 2 * np.abs(step).min()


def test_other_objects_are_unlike_those_of_the_classes_and_smaller() -> None:
    assert len(synthetic.OTHER_COLOURS) == 4
    assert len(synthetic.OTHER_SHAPES) == 4
    assert not set(synthetic.OTHER_COLOURS) & {colour for colour, _ in synthetic.OBJECTS}
    assert synthetic.OTHER_RADIUS[1] < synthetic.RADIUS[0]


def test_some_clips_hold_another_object_and_some_a_post(monkeypatch: pytest.MonkeyPatch) -> None:
    objects, posts = [], []
    draw_object, draw_post = drawing.object_mask, drawing.post_mask
    monkeypatch.setattr(
        drawing, "object_mask", lambda shape, **keys: (objects.append(shape), draw_object(shape, **keys))[1]
    )
    monkeypatch.setattr(drawing, "post_mask", lambda rng: (posts.append(1), draw_post(rng))[1])
    for index in range(100):
        synthetic.clip_frames("train", index % len(synthetic.CLASS_NAMES), index)
    assert 30 < len(objects) - 100 < 70
    assert 30 < len(posts) < 70


def test_shades_of_test_clips_are_unlike_those_of_training() -> None:
    """Distance to the line from black through a colour, by which brightness and light move a shade."""
    rng = np.random.default_rng(0)

    def apart(drawn: list[NDArray[np.floating]], colour: NDArray[np.floating]) -> NDArray[np.floating]:
        along = np.stack(drawn) @ colour / (colour @ colour)
        return np.linalg.norm(np.stack(drawn) - along[:, None] * colour, axis=1)

    for name, _ in synthetic.OBJECTS:
        of = {
            split: apart([drawing.shade(rng, name, shift) for _ in range(2000)], np.array(drawing.COLOURS[name]))
            for split, shift in synthetic.OBJECT_SHIFT.items()
        }
        assert of["train"].max() <= synthetic.OBJECT_SHIFT["train"][1] + 1e-9
        assert of["test"].min() > of["train"].max()
    greys = {
        split: apart([drawing.muted(rng, shift) for _ in range(2000)], np.ones(3))
        for split, shift in synthetic.BACKGROUND_SHIFT.items()
    }
    assert greys["test"].min() > greys["train"].max()


def test_shapes_have_about_the_same_area() -> None:
    areas = [
        drawing.object_mask(shape, np.array([[32.0, 32.0]]), radius=9).sum() for _, shape in synthetic.OBJECTS
    ]
    assert max(areas) < 2 * min(areas)


@pytest.mark.parametrize("motion", synthetic.MOTIONS)
def test_speed_lines_lie_behind_the_object(motion: str) -> None:
    plain = stills.draw_still(np.random.default_rng(3), "red", "square", "still")
    moving = stills.draw_still(np.random.default_rng(3), "red", "square", motion)
    assert (plain.image != moving.image).any()
    lines = drawing.trail_mask(motion, np.array([32.0, 32.0]), radius=8, length=14, period=5)
    weight = lines.sum()
    grid = np.arange(drawing.SIZE)
    mean = np.array([(lines.sum(0) * grid).sum(), (lines.sum(1) * grid).sum()]) / weight
    offset = (mean - 32) @ np.array(drawing.MOTIONS[motion])
    assert offset < -5
    captions = [pretraining.write_caption(np.random.default_rng(i), moving.facts).text for i in range(50)]
    assert any(f"moving {motion}" in caption for caption in captions)
    assert not any("still" in caption for caption in captions)


def test_captions_are_true_of_their_own_still_and_of_every_other_they_fit() -> None:
    drawn, captions = pretraining.draw_batch(np.random.default_rng(0))
    truth = pretraining.is_true(captions, drawn)
    assert truth.shape == (128, 128)
    assert truth.diagonal().all()
    assert truth.sum() > 128
    for i, j in np.argwhere(truth):
        assert drawn[i].facts[:2] == drawn[j].facts[:2]
    texts: dict[str, NDArray[np.bool_]] = {}
    for caption, column in zip(captions, truth.T, strict=True):
        np.testing.assert_array_equal(texts.setdefault(caption.text, column), column)


def test_contrastive_loss_is_least_for_the_true_pairs() -> None:
    features, truth = torch.eye(4), torch.eye(4)
    scale = torch.tensor(50.0)
    right = pretraining.contrastive_loss(features, features, scale, truth)
    wrong = pretraining.contrastive_loss(features, features.roll(1, 0), scale, truth)
    assert right < 1e-3
    assert wrong > 10


def test_tokenizer_covers_class_names_and_any_other_text(tokenizer: SimpleTokenizer) -> None:
    assert tokenizer.vocab_size == pretraining.MODEL_CONFIG["text_cfg"]["vocab_size"]
    assert tokenizer.eot_token_id == tokenizer.vocab_size - 1
    for name in synthetic.CLASS_NAMES:
        assert tokenizer.decode(tokenizer.encode(name)).strip() == name
    for text in ("Apply Eye Makeup", "pommel horse", "faire du vélo", "打篮球"):
        assert tokenizer.decode(tokenizer.encode(text)).strip() == text.lower()


def test_shipped_configuration_and_merges_are_what_the_script_writes(tmp_path: Path) -> None:
    config = json.loads((FOLDER / pretraining.CONFIG_FILE).read_text(encoding="utf-8"))
    assert config == pretraining.MODEL_CONFIG
    pretraining.write_merges(tmp_path / "merges")
    assert (tmp_path / "merges").read_bytes() == (FOLDER / pretraining.MERGES_FILE).read_bytes()


def test_shipped_weights_fit_strictly_and_are_small(model: open_clip.CLIP) -> None:
    path = FOLDER / pretraining.WEIGHTS_FILE
    assert path.stat().st_size <= 5_000_000
    state = load_file(path)
    assert {value.dtype for value in state.values()} == {torch.float16}
    assert state.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name].float())
    assert model.logit_scale.exp() <= 100


def test_shipped_weights_know_objects_and_tell_class_names_apart(
    model: open_clip.CLIP, tokenizer: SimpleTokenizer
) -> None:
    figures = pretraining.evaluate(model, tokenizer, seed=99, count=5)
    assert figures["object_6"] > 0.9
    assert figures["retrieval_24"] > 0.8
    assert figures["retrieval_24_video"] > 0.8
    assert figures["text_cosine_max"] < 0.9
    assert figures["text_cosine_max_video"] < 0.9


@pytest.mark.slow
def test_two_steps_of_pretraining(tmp_path: Path) -> None:
    state = torch.random.get_rng_state()
    figures = pretraining.pretrain(tmp_path / "model", steps=2, seed=5, progress=False, count=2)
    assert torch.equal(torch.random.get_rng_state(), state)
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert names == {"clip_tiny.json", "merges.txt.gz", "weights.safetensors", "README.md"}
    assert 0 <= figures["object_6"] <= 1
    assert figures["logit_scale"] <= 100


def test_a_disk_that_cannot_hold_the_clips_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise av.error.OSError(28, "No space left on device")

    monkeypatch.setattr(synthetic, "write_video", full)
    with pytest.raises(UserError, match="No space left"):
        synthetic.render(tmp_path / synthetic.FOLDER_NAME)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a file").touch()
    with pytest.raises(UserError, match="cannot write there"):
        synthetic.render(tmp_path / "a file" / synthetic.FOLDER_NAME)
