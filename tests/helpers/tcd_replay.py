"""Our TCD on the inputs of a recorded run of the authors' code, compared with it step by step.

Everything that a run does is the project's: protocol, data set, tasks, loader, memory, method, evaluation. What
is shared with the recording are its inputs (``tcd_trajectory_inputs``): draws are replaced where they are made,
and dropout by a module that drops what was dropped there. In float64: in float32 rounding alone flips ReLUs.
"""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tcd_trajectory_inputs as inputs
import torch
import yaml
from PIL import Image
from torch import Tensor, nn

from vcil_bench import protocol
from vcil_bench.data import clips as clip_rules
from vcil_bench.data import loader as loading
from vcil_bench.data.crops import Box
from vcil_bench.data.datasets import adapter
from vcil_bench.data.loader import Batch, ClipLoader, Sample
from vcil_bench.data.prepare import prepare
from vcil_bench.method import RunContext
from vcil_bench.methods import tcd
from vcil_bench.nets.heads import CosineHead
from vcil_bench.nets.tsm import TSMTrunk
from vcil_bench.nets.weights import WeightsInfo
from vcil_bench.run.evaluation import evaluate
from vcil_bench.run.loop import within_reach
from vcil_bench.stream import Task, TaskStream
from vcil_bench.training import Epoch, Trainer

KINDS = {"": "train", "importance": "importance", "balanced": "balanced"}  # end of a phase's name: theirs
LOSSES = {"balanced": "nca"}  # where our name of a loss term is another
LOSS = SUMS = SCORES = 1e-10
NORMS = 1e-8
STORED = 1e-6  # of arrays that were stored in float32
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Enough(Exception):
    """Ends a replay early."""


class Recording:
    """A recorded run: settings, names, arrays."""

    def __init__(self, path: Path) -> None:
        """Read the file; its videos must be those that the inputs' functions make."""
        with np.load(path, allow_pickle=False) as arrays:
            self.arrays = {key: arrays[key] for key in arrays.files}
        assert str(self.arrays["precision"]) == "float64"
        self.case: inputs.Case = json.loads(str(self.arrays["case"]))
        self.videos: list[str] = self.arrays["videos"].tolist()

    def __getitem__(self, key: str) -> np.ndarray:
        """Return an array."""
        return self.arrays[key]

    def names(self, key: str, *at: int) -> list[str]:
        """Return the videos to which an array's numbers point; -1 for none is left out."""
        return [self.videos[number] for number in self[key][at].tolist() if number >= 0]


def write_videos(recording: Recording, root: Path) -> None:
    """Write the videos as folders of PNG pictures, and their list."""
    case, rows = recording.case, []
    for name, facts in inputs.videos(case).items():
        frames = inputs.pixels(case, name, facts)
        number = recording.videos.index(name)
        assert frames.sum(dtype=np.int64) == recording["video_sum"][number]
        assert (len(frames), facts["class_id"]) == (
            recording["video_frames"][number],
            recording["video_class"][number],
        )
        (root / name).mkdir()
        for i, frame in enumerate(frames, 1):
            Image.fromarray(frame).save(root / name / f"img_{i:05d}.png", compress_level=1)
        rows.append((name, f"c{facts['class_id']:03d}", facts["split"]))
    with (root / "videos.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "class", "split"), *rows])


def write_protocol(case: inputs.Case, path: Path) -> None:
    """Write the protocol that the recorded run followed."""
    spec = {
        "name": "trajectory",
        "version": 1,
        "dataset": {"name": "folder", "split": "videos.csv"},
        "classes": {"num": case["classes"], "order": {"kind": "numpy_shuffle"}},
        "tasks": {"sizes": case["sizes"]},
        "seeds": [case["seed"]],
        "clip": {
            "frames": case["frames"],
            "size": case["size"],
            "short_side": case["height"],
            "test_views": {"crops": case["crops"]},
        },
        "memory": {
            "unit": "videos",
            "per_class" if case["budget"] == "class" else "total": case["exemplars"],
            "frames": case["frames"] if case["store"] == "uniform" else "all",
        },
        "metrics": {"headline": "average_incremental_accuracy"},
    }
    path.write_text(yaml.safe_dump(spec), encoding="utf-8")


class Draws:
    """Stands in for a clip's generator: gives the frames, the place and the mirror of the recorded run."""

    def __init__(self, frames: np.random.RandomState, box: tuple[int, int, bool]) -> None:
        self._frames = frames
        self.left, self.top, self._mirror = box

    def integers(self, high: int, size: int) -> np.ndarray:
        """Draw the frame within each segment."""
        return self._frames.randint(high, size=size)

    def random(self) -> float:
        """Draw whether the clip is mirrored."""
        return 0.0 if self._mirror else 1.0


class Shuffle:
    """Stands in for the generator of an epoch's order."""

    def __init__(self, order: list[int]) -> None:
        self._order = order

    def permutation(self, count: int) -> np.ndarray:
        """Return the order."""
        assert count == len(self._order)
        return np.array(self._order)


class NotedLoader(ClipLoader):
    """A loader that knows which videos a phase has and which of its batches is in work.

    Attributes:
        names: Videos of every phase.
        now: Task, kind, epoch and batch.
        taken: Called with every batch.
    """

    names: dict[str, list[str]]
    now: tuple[int, str, int, int]
    taken: Callable[[Batch], None]

    def training(
        self, samples: Sequence[Sample], epochs: int, batch_size: int, phase: str, **more: Any
    ) -> Iterator[Batch]:
        """Yield the batches, and note which is the last that was taken."""
        self.names[phase] = [sample.id for sample in samples]
        per_epoch = loading.batches_per_epoch(len(samples), batch_size, drop_last=more.get("drop_last", False))
        for number, batch in enumerate(super().training(samples, epochs, batch_size, phase, **more)):
            self.now = (*_place(phase), *divmod(number, per_epoch))
            self.taken(batch)
            yield batch

    def whole(self) -> ClipLoader:
        """Return itself: there is one process."""
        return self


class KeyedDropout(nn.Module):
    """Drops the features that the recorded run dropped in the step that is in work."""

    def __init__(self, case: inputs.Case, loader: NotedLoader) -> None:
        super().__init__()
        self._case, self._loader = case, loader

    def forward(self, x: Tensor) -> Tensor:
        """Drop of frame features [B, T, D]."""
        if not self.training:
            return x
        p = self._case["dropout"]
        keep = inputs.dropout_keep(self._case, *self._loader.now, x.numel(), p)
        return x * torch.from_numpy(keep.reshape(x.shape)) / (1 - p)


class NotedTCD(tcd.TCD):
    """TCD that shows what it has at the points of its order at which the recorded run was looked at.

    Attributes:
        seen: Takes the name of the point and the task.
    """

    seen: Callable[[str, Task], None]

    def imprint(self, head: CosineHead, task: Task) -> None:
        """Imprint, then show the proxies."""
        super().imprint(head, task)
        self.seen("imprint", task)

    def choose_exemplars(self, task: Task, rank: Any) -> None:
        """Show what training and the importance pass have left, then choose."""
        self.seen("train", task)
        super().choose_exemplars(task, rank)

    def _tune_head(self, task: Task) -> None:
        """Fine-tune, then show the head."""
        super()._tune_head(task)
        self.seen("balanced", task)


class Replay:
    """One replay; every comparison raises ``AssertionError`` with the place at which the runs part."""

    def __init__(self, recording: Recording, folder: Path, patch: pytest.MonkeyPatch, **changes: Any) -> None:
        """Make data, network and method.

        Args:
            recording: The authors' run.
            folder: An empty one, for the videos.
            patch: Puts the inputs in place.
            changes: Of our config, to see that the comparison can fail.
        """
        self.recording, self.case = recording, recording.case
        (folder / "videos").mkdir()
        write_videos(recording, folder / "videos")
        write_protocol(self.case, folder / "trajectory.yaml")
        followed = protocol.load(folder / "trajectory.yaml")
        manifest = prepare(adapter("folder"), folder / "videos", "videos.csv")
        self.stream = TaskStream(followed, manifest, self.case["seed"])
        assert self.stream.order == recording["class_order"].tolist()

        spec, cpu = followed.spec, torch.device("cpu")
        self.loader = NotedLoader(spec.clip, decoder="pyav", workers=0, device=cpu, seed=self.case["seed"])
        self.loader.names = {}
        self.loader.taken = self._compare_batch
        patch.setattr(loading, "numpy_stream", self._draws)
        patch.setattr(clip_rules, "training_box", lambda w, h, size, rng: Box(rng.left, rng.top, size, size))
        trainer = Trainer(cpu, "fp32", self.loader)
        self.context = RunContext(cpu, "fp32", self.loader, self._trunk(), spec.memory, trainer)
        config = dataclasses.replace(self._config(), **changes)
        self.method = NotedTCD(config, self.context)
        self.method.seen = self._compare_point
        self.method.model.dropout = KeyedDropout(self.case, self.loader)  # type: ignore[assignment]  # in its place

        self.step, self.measured, self.upto = 0, 0, len(recording["steps_at"])
        self.norm = np.nan
        self.losses: dict[str, Tensor] = {}
        patch.setattr(Epoch, "backward", self._noting_backward(Epoch.backward))
        patch.setattr(Epoch, "update", self._noting_update(Epoch.update))
        for name in ("get_total_norm", "clip_grad_norm_"):  # with what has piled up, and without
            patch.setattr(nn.utils, name, self._noting_norm(getattr(nn.utils, name)))
        patch.setattr(tcd, "nca_loss", self._noting_nca(tcd.nca_loss))

    def run(self, upto: int | None = None) -> None:
        """Learn and test task by task.

        Args:
            upto: Steps of the optimiser after which to end; None for the whole run.
        """
        self.upto = self.upto if upto is None else upto
        try:
            for index in range(len(self.stream)):
                self._task(self.stream.task(index))
        except Enough:
            return
        assert self.step == len(self.recording["steps_at"])
        if self.case["importance"]:
            assert self.measured == len(self.recording["importance_at"])

    def _task(self, task: Task) -> None:
        """Do what the runner does with a task."""
        method, recording = self.method, self.recording
        method.grow(task)
        if task.index == 0:
            rows, dim = method.model.head.weight.shape
            method.model.head.weight.data = torch.from_numpy(inputs.first_proxies(self.case, rows, dim))
        method.train()
        with within_reach(method, self.context, task):
            method.learn(task)
        method.eval()
        t = task.index
        for label in range(task.num_seen):
            kept = method.memory.of_class(label)
            place = f"exemplars of class {label} after task {t}"
            assert [sample.id for sample in kept] == recording.names(f"exemplars_{t}", label), place
            for i, sample in enumerate(kept):
                frames = recording[f"exemplar_frames_{t}"][label, i]
                stored = range(sample.frames) if sample.stored is None else sample.stored
                assert list(stored) == frames[frames >= 0].tolist(), f"frames of {sample.id}, {place}"
        near(method.exemplar_means, recording[f"means_{t}"], STORED, f"class means after task {t}")
        self._test(task)

    def _test(self, task: Task) -> None:
        """Test on all tasks so far through the project's evaluation; compare scores and predictions."""
        t, recording = task.index, self.recording
        raw: dict[str, list[Tensor]] = {name: [] for name in self.method.readouts}
        predict = self.method.predict

        def noting(clips: Tensor) -> dict[str, Tensor]:
            scores = predict(clips)
            for name, matrix in scores.items():
                raw[name].append(matrix.unflatten(0, (-1, self.case["crops"])).mean(dim=1))
            return scores

        self.method.predict = noting  # type: ignore[method-assign]
        tests = [self.stream.test(i) for i in range(t + 1)]
        found = evaluate(self.method, self.context, tests, task.num_seen, batch=8)
        self.method.predict = predict  # type: ignore[method-assign]
        names = [sample.id for each in tests for sample in each]
        theirs = recording.names(f"test_videos_{t}")
        rows = [theirs.index(name) for name in names]
        assert len(rows) == len(theirs)
        labels = recording[f"test_labels_{t}"][rows]
        assert [s.label for each in tests for s in each] == labels.tolist()
        scores = {"cnn": torch.cat(raw["cnn"]).softmax(dim=1), "nme": torch.cat(raw["nme"])}
        sizes = np.cumsum([len(each) for each in tests])[:-1]
        for name, matrix in scores.items():
            expected = recording[f"test_{name}_{t}"][rows]
            near(matrix, expected, SCORES, f"scores {name} after task {t}")
            best = expected.argmax(axis=1)
            assert found.top[name][:, 0].tolist() == best.tolist(), f"predictions {name} after task {t}"
            hits = [int(part.sum()) for part in np.split(best == labels, sizes)]
            assert found.correct[name] == hits

    def _compare_point(self, point: str, task: Task) -> None:
        """Compare what the method has at a point of its order."""
        t, recording, method = task.index, self.recording, self.method
        if point == "imprint":
            near(method.model.head.weight, recording[f"imprint_{t}"], STORED, f"imprinted proxies of task {t}")
            return
        if point == "train" and self.case["importance"]:
            for i, found in enumerate(method.importance_maps()):
                near(found, recording[f"importance_{t}_{i}"], STORED, f"importance {i} of task {t}")
        state = method.model.state_dict()
        names = [key for key in recording.arrays if key.startswith(f"state_{t}_{point}/")]
        assert names
        for key in names:
            expected = recording[key]
            limit = STORED if expected.dtype == np.float32 else SUMS
            near(state[key.partition("/")[2]], expected, limit, key)

    def _noting_backward(self, backward: Callable[..., None]) -> Callable[..., None]:
        """Return ``Epoch.backward`` that keeps the losses."""

        def noting(epoch: Epoch, losses: dict[str, Tensor]) -> None:
            self.losses = losses
            backward(epoch, losses)

        return noting

    def _noting_update(self, update: Callable[..., None]) -> Callable[..., None]:
        """Return ``Epoch.update`` that compares each step with the recorded one."""

        def noting(epoch: Epoch, *clip_norm: Any) -> None:
            recording, at, losses = self.recording, self.step, self.losses
            task, kind, number, batch = self.loader.now
            place = f"step {at} (task {task}, {kind}, epoch {number}, batch {batch})"
            assert recording["steps_at"][at].tolist() == [task, int(kind == "balanced"), number, batch], place
            update(epoch, *clip_norm)
            expected = dict(zip(recording["loss_names"].tolist(), recording["steps_losses"][at], strict=True))
            weights = self._weights(task) if kind == "train" else {}
            found = {LOSSES.get(k, k): float(v.detach()) / weights.get(k, 1.0) for k, v in losses.items()}
            assert {k for k, v in expected.items() if not np.isnan(v)} == set(found), place
            for name, value in found.items():
                near(value, expected[name], LOSS * abs(expected[name]), f"loss {name} of {place}")
            norm = recording["steps_norm"][at]
            near(self.norm, norm, NORMS * norm, f"gradient norm of {place}")
            self._compare_optimiser(epoch._optimiser, place)
            self._compare_sums(place)
            self.step += 1
            if self.step == self.upto:
                raise Enough

        return noting

    def _compare_batch(self, batch: Batch) -> None:
        """Compare labels and pixels of a training batch: which videos, which of their frames, which crop."""
        recording, at = self.recording, self.step
        if self.loader.now[1] == "importance":
            return
        place, size, facts = f"batch of step {at}", self.case["size"], inputs.videos(self.case)
        names = recording.names("steps_videos", at)
        assert len(names) == len(batch.clips), place
        assert batch.labels.tolist() == recording["steps_labels"][at, : len(names)].tolist(), place
        for i, name in enumerate(names):
            left, top, mirror = recording["steps_boxes"][at, i]
            frames = inputs.pixels(self.case, name, facts[name])[recording["steps_frames"][at, i]]
            clip = frames[:, top : top + size, left : left + size].transpose(0, 3, 1, 2)
            clip = clip[..., ::-1] if mirror else clip
            assert (batch.clips[i].numpy() == clip).all(), f"clip of {name} in the {place}"

    def _compare_optimiser(self, optimiser: torch.optim.Optimizer, place: str) -> None:
        """Compare rate, decay and how often each shown parameter stands in the optimiser."""
        groups = {id(p): group for group in optimiser.param_groups for p in group["params"]}
        state = dict(self.method.model.named_parameters())
        for i, name in enumerate(self.recording["shown"].tolist()):
            group = groups.get(id(state.get(name)))
            found = [0.0, 0.0, 0.0]
            if group is not None and state[name].numel() and not group.get("piles_up"):
                found = [group["lr"], group["weight_decay"], 1.0 + group.get("repeated", False)]
            expected = self.recording["steps_rate"][self.step, i]
            np.testing.assert_allclose(found, expected, rtol=1e-12, err_msg=f"optimiser of {name} in {place}")

    def _compare_sums(self, place: str) -> None:
        """Compare the sum and the sum of squares of the shown parameters and buffers after a step."""
        state = self.method.model.state_dict()
        for i, name in enumerate(self.recording["shown"].tolist()):
            expected = self.recording["steps_sum"][self.step, i]
            if np.isnan(expected).any():
                assert not state[name].numel()
                continue
            found = [state[name].sum(), state[name].square().sum()]
            for value, target in zip(found, expected, strict=True):
                near(value, target, SUMS * max(1.0, abs(target)), f"sums of {name} after {place}")

    def _weights(self, task: int) -> dict[str, float]:
        """Return what each loss term of a task was multiplied with; the recording holds them without."""
        case = self.case
        old, new = sum(case["sizes"][:task]), case["sizes"][task]
        shares = {"nca": new / (old + new), "features": old / (old + new)}
        geo = {"features": case["lambda_0"] * (old / new) ** 0.5}
        kinds = {"geo": geo, "fix": {"features": case["lambda_0"]}, "arith": shares}
        terms = kinds[case["lambda_kind"]] if old else {}
        return {"maps": case["lambda_1"], "decorrelation": case["lambda_2"], **terms}

    def _noting_norm(self, clip: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def noting(*given: Any) -> Tensor:
            norm = clip(*given)
            self.norm = float(norm)
            return norm

        return noting

    def _noting_nca(self, loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """Return the NCA loss that compares its value where importance is measured."""

        def noting(*given: Any) -> Tensor:
            value = loss(*given)
            task, kind, _, batch = self.loader.now
            if kind == "importance":
                place = f"importance pass of task {task}, batch {batch}"
                assert self.recording["importance_at"][self.measured].tolist() == [task, batch], place
                expected = self.recording["importance_losses"][self.measured]
                near(value, expected, LOSS * abs(expected), f"loss of the {place}")
                self.measured += 1
            return value

        return noting

    def _draws(self, *key: Any) -> Shuffle | Draws:
        """Return the recorded draws of a key of the loader's."""
        _, what, phase, epoch, *video = key
        task, kind = _place(phase)
        if what == "shuffle":
            names = self.loader.names[phase]
            order = inputs.order_of(self.case, names, task, kind, epoch)
            self._compare_order([names[i] for i in order], task, kind, epoch)
            return Shuffle(order)
        return Draws(*inputs.clip_draws(self.case, task, kind, epoch, video[0]))

    def _compare_order(self, names: list[str], task: int, kind: str, epoch: int) -> None:
        """Compare the videos of an epoch, which tells membership and order, with the recorded batches."""
        if kind == "importance":
            rows = np.flatnonzero(self.recording["importance_at"][:, 0] == task)
            key = "importance_videos"
        else:
            at = [task, int(kind == "balanced"), epoch]
            rows = np.flatnonzero((self.recording["steps_at"][:, :3] == at).all(axis=1))
            key = "steps_videos"
        recorded = [name for row in rows for name in self.recording.names(key, row)]
        assert names[: len(recorded)] == recorded, f"videos of task {task}, {kind}, epoch {epoch}"

    def _config(self) -> tcd.TCDConfig:
        """Return the recorded run's settings."""
        case = self.case
        return tcd.TCDConfig(
            lr=case["lr"],
            momentum=case["momentum"],
            weight_decay=case["weight_decay"],
            batch_size=case["batch"],
            epochs_first=case["epochs"],
            epochs=case["epochs"],
            milestones=tuple(case["milestones"]),
            clip_norm=case["clip"],
            dropout=case["dropout"],
            importance=case["importance"],
            lambda_0=case["lambda_0"],
            lambda_kind=case["lambda_kind"],
            lambda_1=case["lambda_1"],
            lambda_2=case["lambda_2"],
            proxies=case["proxies"],
            balanced_epochs=case["cbf_epochs"],
            balanced_lr=case["lr"],
        )

    def _trunk(self) -> TSMTrunk:
        """Return the backbone with the recorded run's first weights."""
        import timm

        net: Any = timm.create_model(self.case["arch"], pretrained=False, num_classes=0)
        shapes = {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
        weights = inputs.first_weights(self.case, shapes)
        net.load_state_dict({k: torch.from_numpy(np.asarray(v)) for k, v in weights.items()}, strict=False)
        info = WeightsInfo(self.case["arch"], "drawn", "", "none")
        return TSMTrunk(self.case["arch"], net, MEAN, STD, self.case["size"], info)


def near(found: Any, expected: Any, limit: float, place: str) -> None:
    """Compare; arrays relative to their largest value, numbers absolutely."""
    ours = found.detach().numpy() if isinstance(found, Tensor) else np.asarray(found)
    theirs = np.asarray(expected, dtype=np.float64)
    assert ours.shape == theirs.shape, f"{place}: shape {ours.shape}, recorded {theirs.shape}"
    size = np.abs(theirs).max() if theirs.ndim else 1.0
    gap = np.abs(ours - theirs).max()
    assert gap <= limit * size, f"{place}: off by {gap:.1e}, allowed {limit * size:.1e}"


def _place(phase: str) -> tuple[int, str]:
    """Return the recorded run's task and kind of a phase of ours, such as ``task 2 balanced``."""
    _, number, *end = phase.split()
    return int(number) - 1, KINDS["".join(end)]
