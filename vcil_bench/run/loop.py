"""The one loop: grow, learn, evaluate, checkpoint, record; the same for every method.

What can be refused is refused before any work is done, cheapest check first. The global generators are
seeded anew before each call of a method's code, so what a task does never depends on what ran before it in this
process: a run killed at any moment and started again ends in the same counts.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress

from vcil_bench import record as records
from vcil_bench.common import cpu_cores
from vcil_bench.common.errors import UserError
from vcil_bench.common.files import Busy, check_writable, locked, remove
from vcil_bench.common.progress_bars import bar
from vcil_bench.common.stopping import StopRequest
from vcil_bench.data.loader import ClipLoader, Sample
from vcil_bench.data.manifest import DataError, Manifest
from vcil_bench.data.store.frame_store import FrameStore, default_root
from vcil_bench.memory import exemplars_of
from vcil_bench.method import Method, RunContext
from vcil_bench.nets.compute import ComputeOptions
from vcil_bench.nets.parallel import team as teams
from vcil_bench.nets.parallel.batch_part import computing
from vcil_bench.nets.parallel.team import Team
from vcil_bench.nets.trunk import Trunk
from vcil_bench.protocol import MemorySpec
from vcil_bench.protocol.budget import allowed_videos, exceeds_budget
from vcil_bench.record import Record
from vcil_bench.record_schema import Costs, Memory, MemoryUse, Session
from vcil_bench.stream import Task, TaskStream, class_names
from vcil_bench.trackers import NoTracker, task_scalars
from vcil_bench.trackers import find as find_tracker
from vcil_bench.training import Trainer, TrainingError
from vcil_bench.training import checkpoint as checkpoints
from vcil_bench.training.resume import PhaseSaver, check_identity

from . import determinism, out_of_memory, seeded
from .data import open_split
from .environment import other_device
from .evaluation import EvaluationError, StepResult, evaluate, memory_use
from .files import leftovers, unfinished
from .global_state import left_as_found
from .new_record import new_record
from .plan import Plan, RunError, plain_values
from .reuse import finished
from .time_left import OuterBar, work_of

Say = Callable[[str], None]

DEFAULT_THREADS = torch.get_num_threads()  # before any run of this process set another number


def run(
    plan: Plan,
    *,
    data: Path | None,
    force: bool,
    progress: Progress,
    say: Say,
    stop: StopRequest | None = None,
) -> list[Record]:
    """Run a plan: reuse finished records, resume unfinished ones, do the rest.

    Code that calls ``os._exit`` ends the process without a word, whatever its exit code says; a grid looks at
    the record.

    Args:
        plan: What to run.
        data: Root of the dataset; None where the dataset needs none.
        force: Move records that are there aside, drop checkpoints of unfinished runs, and run anew.
        progress: Progress bars.
        say: Takes the lines a user reads.
        stop: Tells whether the process was asked to stop; None where nobody listens.

    Returns:
        The records of all seeds, in order.

    Raises:
        UserError: Stale or corrupt records, missing data or weights.
    """
    if plan.device.type == "cuda":
        torch.cuda.set_device(plan.device)  # or what names no device makes a context on the first GPU as well
    stop = stop or StopRequest()
    team = teams.init(plan.device, plan.options.rank_timeout_minutes)
    if not team.is_main:
        say = _silent
    split = open_split(
        plan.protocol.spec.dataset,
        data,
        lambda text: bar(progress, text),
        max_missing=plan.options.max_missing,
        way_out="--data ROOT",
    )
    if data is not None:  # data that are named are checked, even where nothing is left to run on them
        with team.leader_first():
            class_names(plan.protocol, split.manifest)
    named = split.manifest if data is not None else None
    todo = [seed for seed in plan.seeds if force or not finished(plan, seed, named, say)]
    if todo:
        for seed in todo:
            check_writable(plan.path(seed).parent)
        with team.leader_first():
            split.check_listed()
        trunk = _trunk(plan)
        with team.leader_first():
            manifest = split.manifest
        store = _store(plan, manifest)
        streams = {seed: TaskStream(plan.protocol, manifest, seed) for seed in todo}
        say(_counts(manifest))
        say(f"backbone {trunk.name}: weights {trunk.weights.source}, {trunk.weights.pretraining}")
        if plan.options.feature_cache_mb and plan.device.type == "cuda":
            say("feature_cache_mb is for CPUs: a GPU computes features sooner than a processor looks clips up")
        threads = plan.options.threads or plan.backbone.threads
        torch.set_num_threads(threads or cpu_cores.threads(DEFAULT_THREADS))
        steps = min(plan.options.max_tasks or len(streams[todo[0]]), len(streams[todo[0]]))
        cumulative = plan.method.data_access == "cumulative"
        outer = OuterBar(progress, todo, work_of(streams[todo[0]], steps, cumulative=cumulative))
        for seed in todo:
            stop.follow()
            with computing(None):  # whatever an earlier run of this process, broken off, has left
                run = _Run(plan, seed, manifest, streams[seed], trunk, store, team, progress, outer, say, stop)
                run.go(force)
    team.shutdown()
    return [records.load(plan.path(seed)) for seed in plan.seeds]


def _silent(line: str) -> None:
    """What a process says that does not lead: nothing."""


def _trunk(plan: Plan) -> Trunk:
    """Load the backbone."""
    options = plan.options
    compute = ComputeOptions(
        precision=options.precision,
        micro_batch=options.micro_batch,
        feature_cache_mb=options.feature_cache_mb,
        compile=options.compile,
    )
    trunk = plan.backbone.load(options.weights, compute)
    if options.micro_batch is not None and not trunk.supports_micro_batch:
        raise RunError(
            f"micro_batch: backbone {trunk.name!r} normalises over the batch while it trains, so parts of it "
            "would give another result; leave micro_batch out, or lower batch_size, which is another experiment"
        )
    return trunk.to(plan.device)


def _store(plan: Plan, manifest: Manifest) -> FrameStore | None:
    """Open the frame store if the run is to read from it.

    Raises:
        UserError: There is none, or it lacks videos or parts of them.
    """
    if not plan.options.store:
        return None
    store = FrameStore.open(Path(plan.options.store_dir) if plan.options.store_dir else default_root())
    missing = store.missing(manifest)
    if missing:
        raise DataError(
            f"{store.root}: {len(missing)} videos of {manifest.dataset} are not in the frame store (first: "
            f"{missing[0]}); 'vcil-bench prepare {manifest.dataset} {manifest.root} --store' adds them"
        )
    if cut := store.without_frames(manifest):
        raise DataError(
            f"{store.root}: keeps {store.settings['max_frames']} frames of a video, none in {len(cut)} "
            f"intervals of {manifest.dataset} (first: {cut[0]}); make one of all frames: 'vcil-bench prepare "
            f"{manifest.dataset} {manifest.root} --store NEW_FOLDER'"
        )
    return store


def _counts(manifest: Manifest) -> str:
    """Say how many videos a run uses and leaves out."""
    left_out = manifest.left_out()
    return (
        f"data {manifest.dataset}: {len(manifest.usable('train'))} training and "
        f"{len(manifest.usable('test'))} test videos, {len(left_out)} left out"
        + (f" (first: {left_out[0].id}: {left_out[0].problem})" if left_out else "")
    )


class _Run:
    """One seed of a plan."""

    def __init__(
        self,
        plan: Plan,
        seed: int,
        manifest: Manifest,
        stream: TaskStream,
        trunk: Trunk,
        store: FrameStore | None,
        team: Team,
        progress: Progress,
        outer: OuterBar,
        say: Say,
        stop: StopRequest,
    ) -> None:
        self.plan = plan
        self.stop = stop
        self.trunk = trunk
        self.team = team
        self.progress = progress
        self.outer = outer
        self.seed = seed
        self.stream = stream
        self.manifest = manifest
        self.say = say
        self.path = plan.path(seed).absolute()  # whatever becomes of the working directory
        options = plan.options
        self.run_seed = seed if options.run_seed is None else options.run_seed
        workers = options.workers
        if workers is None:
            workers = cpu_cores.decode_workers(on_gpu=plan.device.type == "cuda")
        self.loader = ClipLoader(
            plan.protocol.spec.clip,
            decoder=options.decoder,
            workers=workers,
            device=plan.device,
            seed=self.run_seed,
            store=store,
            team=team,
        )
        self.record = new_record(plan, seed, self.run_seed, manifest, stream, trunk.weights, store, team.size)
        every_s = 60 * options.checkpoint_minutes
        self.saver = PhaseSaver(self.path, self.record["identity"], every_s, team, stop)
        self.top: dict[str, NDArray[Any]] = {}

    def go(self, force: bool) -> None:
        """Run the seed to its end, or leave a partial or failed record behind that can be resumed.

        Args:
            force: Move a record that is there aside and drop the checkpoint of an unfinished run.
        """
        try:
            with locked(self.path) if self.team.is_main else contextlib.nullcontext():
                # Only now is it certain that no other run works on this seed, or has just finished it.
                done = (
                    self.team.is_main and not force and finished(self.plan, self.seed, self.manifest, self.say)
                )
                if self.team.is_main:
                    if force and self.path.exists():
                        self.say(f"moved aside: {records.supersede(self.path)}")
                    for path in leftovers(self.path) if force or done else unfinished(self.path):
                        remove(path)
                if not self.team.broadcast(done):
                    self._go()
                self.team.barrier()
        except Busy as error:
            raise RunError(f"{error}; else wait for it, or choose another --seed or --results DIR") from error

    def _go(self) -> None:
        determinism.apply(self.plan.options.determinism, self.plan.options.precision)
        context = self._make_context()
        try:
            method, start = self._restore(context)
            change = other_device(self.record["sessions"])
            if change is not None:
                self.say(f"seed {self.seed}: {change}")
            last = min(self.plan.options.max_tasks or len(self.stream), len(self.stream))
            if self.team.is_main:
                # What this session trains may get into the result, and the next thing that happens be its end.
                records.save(self.path, self.record)
            self.outer.begin_seed(self.record["steps"])
            for step in range(start, last):
                self.outer.begin_step(self.seed, step)
                self._step(method, step)
                self.outer.end_step(self.record["steps"][-1])
                self.stop.follow()
        except KeyboardInterrupt:
            done = len(self.record["steps"])
            self.say(_where_stopped(done, inside=self.saver.any_saved()))
            raise
        except UserError:
            raise
        except BaseException as error:  # SystemExit, too: whoever ends Python has not finished the run
            if self.stop.asked and self.team.size > 1:
                raise KeyboardInterrupt from None  # another process was asked as well, and has gone
            explained = self._explained(error)
            self._save_as_failed(explained or error)
            if explained is not None:
                raise explained from error
            raise
        finally:
            context.trainer.flops.stop()
            self.loader.close()
            context.trainer.tracker.close()
        if len(self.record["steps"]) == len(self.stream) and self.team.is_main:
            self._finish()

    def _explained(self, error: BaseException) -> TrainingError | None:
        """Return an error that says what a user can do about another; None where nothing can be added."""
        if not isinstance(error, Exception):
            return TrainingError(
                f"{self.plan.method.name}: code of the method, or below it, ended Python with "
                f"{type(error).__name__}: {error}"
            )
        why = _advice(error, self.plan.method, self.trunk)
        return None if why is None else TrainingError(f"{str(error).splitlines()[0]}; {why}")

    def _make_context(self) -> RunContext:
        """Make what the method may use, and the trainer."""
        plan, options = self.plan, self.plan.options
        tracker = None
        kind = find_tracker(options.tracker)
        if kind is not NoTracker and self.team.is_main:
            config = plain_values(plan.config) | plain_values(options)
            tracker = kind(self.record["run_id"], self.path.with_suffix("") / "tracking", config)
        trainer = Trainer(
            plan.device,
            options.precision,
            self.loader,
            team=self.team,
            saver=self.saver,
            tracker=tracker,
            progress=self.progress,
            count_flops=not options.compile,
            say=lambda line: self.say(f"seed {self.seed}: {line}"),
        )
        spec = plan.protocol.spec
        return RunContext(
            plan.device,
            options.precision,
            self.loader,
            self.trunk,
            spec.memory,
            trainer,
            len(spec.tasks.sizes),
        )

    def _save_as_failed(self, error: BaseException) -> None:
        """Leave a record that says why the run ended."""
        self.record["status"] = "failed"
        self.record["reason"] = f"{type(error).__name__}: {error}"
        if self.team.is_main:
            records.save(self.path, self.record)

    def _restore(self, context: RunContext) -> tuple[Method, int]:
        """Construct the method; if there is a checkpoint of this run, bring it back to where that was."""
        cumulative = self.plan.method.data_access == "cumulative"
        with left_as_found(self.plan.method.name, "__init__"):
            method = seeded.construct(self.plan.method, self.plan.config, context, self.run_seed)
        path = records.checkpoint_path(self.path)
        earlier = self._earlier_sessions()
        if not path.exists():
            self._join_sessions(earlier)
            return method, 0
        saved = checkpoints.load(path)
        check_identity(path, saved.identity, self.record["identity"])
        done = len(saved.steps)
        for step in range(done):
            with left_as_found(method.name, "grow"):
                seeded.grow(method, self.stream.task(step, cumulative=cumulative), self.run_seed)
        method.load_state_dict(saved.state)
        self.record["steps"], self.top = saved.steps, saved.top
        self._join_sessions(earlier or saved.sessions)
        context.trainer.resume(sum(len(step["losses"]) for step in saved.steps), saved.scaler)
        self.say(f"seed {self.seed}: resuming after task {done} of {len(self.stream)}")
        return method, done

    def _earlier_sessions(self) -> list[Session]:
        """Return the sessions of this same run that the record on disk tells of, killed ones among them."""
        if not self.path.exists():
            return []
        stored = records.load(self.path).data
        return stored["sessions"] if stored["identity"] == self.record["identity"] else []

    def _join_sessions(self, earlier: list[Session]) -> None:
        self.record["sessions"] = [*earlier, *self.record["sessions"]]
        self.record["started"] = self.record["sessions"][0]["started"]

    def _step(self, method: Method, step: int) -> None:
        """Learn one task, test on all tasks so far, and make both safe on disk."""
        task = self.stream.task(step, cumulative=method.data_access == "cumulative")
        state, train_s = self._learn(method, task)
        tests = [self.stream.test(i) for i in range(step + 1)]
        result, eval_s = self._test(method, task, tests, state)
        self.record["steps"].append(
            {
                "step": step,
                "classes_seen": task.num_seen,
                "correct": result.correct,
                "costs": self._costs(method, task, state, train_s, eval_s, result.clip_flops),
                "losses": list(method.context.trainer.losses),
            }
        )
        self.top |= {f"{step}/{name}": ranked for name, ranked in result.top.items()}
        self._save_step(method, state)
        total = sum(len(t) for t in tests)
        told = task_scalars(self.record["steps"], self.record["test_videos"])
        method.context.trainer.tracker.scalars(told, step + 1)
        headline = sum(result.correct[method.readouts[0]])
        of = f" ({method.readouts[0]})" if len(method.readouts) > 1 else ""
        self.say(
            f"seed {self.seed}, task {step + 1}/{len(self.stream)}: {task.num_seen} classes seen, "
            f"top-1{of} {100 * headline / total:.1f} % of {total} videos "
            f"({train_s:.0f} s training, {eval_s:.0f} s testing)"
        )

    def _learn(self, method: Method, task: Task) -> tuple[dict[str, torch.Tensor], float]:
        """Let the method grow and learn; return a copy of its state, and the seconds that it took.

        Raises:
            TrainingError: ``learn`` made structure, or changed settings around it.
        """
        trainer = method.context.trainer
        trainer.begin_task(task.index)
        with within_reach(method, method.context, task):
            with left_as_found(method.name, "grow"):
                seeded.grow(method, task, self.run_seed)
            shapes = {name: tensor.shape for name, tensor in method.state_dict().items()}
            with left_as_found(method.name, "learn"):
                seeded.learn(method, task, self.run_seed)
        trainer.flops.stop()
        self.stop.follow()
        floating = [name for name, buffer in method.named_buffers() if buffer.is_floating_point()]
        self.team.check_alike(method.state_dict(), [name for name in floating if name in shapes])
        train_s = trainer.train_s()
        state = {name: tensor.clone() for name, tensor in method.state_dict().items()}
        _check_structure(method, shapes, state)
        return state, train_s

    def _test(
        self, method: Method, task: Task, tests: Sequence[Sequence[Sample]], state: dict[str, torch.Tensor]
    ) -> tuple[StepResult, float]:
        """Test on all tasks so far; return the counts, and the seconds that it took.

        Raises:
            EvaluationError: Scores cannot be ranked, or ``predict`` changed the method's state.
        """
        started = time.perf_counter()
        with left_as_found(method.name, "predict"):
            result = evaluate(method, method.context, tests, task.num_seen, self.plan.options.eval_batch)
        self.stop.follow()
        eval_s = time.perf_counter() - started
        if any(not torch.equal(tensor, state[name]) for name, tensor in method.state_dict().items()):
            raise EvaluationError(f"{method.name}: predict changed the method's state; it must not")
        return result, eval_s

    def _costs(
        self,
        method: Method,
        task: Task,
        state: dict[str, torch.Tensor],
        train_s: float,
        eval_s: float,
        test_clip_flops: int | None,
    ) -> Costs:
        """Return what the step cost, its exemplars checked against the protocol's budget.

        Raises:
            TrainingError: It keeps too many.
        """
        trainer = method.context.trainer
        memory = memory_use(method)
        _check_budget(method, memory, self.plan.protocol.spec.memory, task.num_seen)
        return {
            "train_s": round(train_s, 3),
            "eval_s": round(eval_s, 3),
            "data_wait_s": round(trainer.waited_s(), 3),
            "peak_device_mb": round(trainer.peak_mb(), 1) if self.plan.device.type == "cuda" else None,
            "parameters": self.trunk.num_parameters + sum(p.numel() for p in method.parameters()),
            "trainable": sum(p.numel() for p in method.parameters() if p.requires_grad),
            "state_bytes": sum(t.numel() * t.element_size() for t in state.values()),
            "memory": cast("Memory", dataclasses.asdict(memory)),
            "train_flops": None if trainer.flops.total is None else round(trainer.flops.total),
            "test_clip_flops": test_clip_flops,
        }

    def _save_step(self, method: Method, state: dict[str, torch.Tensor]) -> None:
        """Write checkpoint and record, then drop the states inside the task."""
        if self.team.is_main:
            checkpoints.save(
                records.checkpoint_path(self.path),
                checkpoints.Checkpoint(
                    self.record["identity"],
                    self.record["steps"],
                    self.top,
                    state,
                    self.record["sessions"],
                    method.context.trainer.scaler.state_dict(),
                ),
            )
            records.save(self.path, self.record)
        self.saver.end_task()
        self.team.barrier()  # or another process, in the next task already, would read a state that is going

    def _finish(self) -> None:
        """Write the predictions and the complete record, then drop the checkpoint."""
        tests = [self.stream.test(i) for i in range(len(self.stream))]
        arrays: dict[str, NDArray[Any]] = {f"top5/{k}": v for k, v in self.top.items()}
        samples = [(i, s) for i, task in enumerate(tests) for s in task]
        arrays["videos"] = np.array([s.id for _, s in samples])
        arrays["labels"] = np.array([s.label for _, s in samples], dtype=np.int16)
        arrays["task"] = np.array([i for i, _ in samples], dtype=np.int16)
        target = records.predictions_path(self.path)
        self.record["predictions"] = {
            "file": target.name,
            "sha256": records.save_predictions(target, arrays),
        }
        self.record["status"] = "complete"
        self.record["finished"] = records.now()
        records.save(self.path, self.record)
        for path in leftovers(self.path):
            remove(path)


def _where_stopped(done: int, *, inside: bool) -> str:
    """Say where a run was stopped, and from where it goes on.

    Args:
        done: Tasks that are done.
        inside: Whether a state inside the next task is saved.
    """
    if inside:
        return f"stopped in task {done + 1}; run the same command to continue inside task {done + 1}"
    if done:
        return f"stopped; run the same command to continue after task {done}"
    return "stopped in task 1, of which nothing is saved yet; the same command starts from the beginning"


def _advice(error: Exception, method: type[Method], trunk: Trunk) -> str | None:
    """Return what a user can do about an error that is not the method's fault; None for any other."""
    chunks = trunk.supports_micro_batch and "maps" not in method.needs
    return out_of_memory.advice(error, chunks=chunks) or (
        determinism.advice(error) if isinstance(error, RuntimeError) else None
    )


def within_reach(method: Method, context: RunContext, task: Task) -> contextlib.AbstractContextManager[None]:
    """Keep the loader from old videos that are not in the method's exemplar memory."""
    if method.data_access == "cumulative":
        return contextlib.nullcontext()
    return context.loader.limited_to(task.train, lambda: exemplars_of(method))


def _check_structure(method: Method, shapes: dict[str, torch.Size], state: dict[str, torch.Tensor]) -> None:
    """Refuse structure made in ``learn``, which a resumed run could not rebuild.

    Raises:
        TrainingError: Names what appeared, vanished or changed its shape.
    """
    now = {name: tensor.shape for name, tensor in state.items()}
    changed = sorted(name for name in now.keys() | shapes.keys() if now.get(name) != shapes.get(name))
    if changed:
        raise TrainingError(
            f"{method.name}: {changed[0]!r} was made or reshaped in learn; make it in grow, so that a run can "
            "be resumed"
        )


def _check_budget(method: Method, use: MemoryUse, budget: MemorySpec | None, num_seen: int) -> None:
    """Refuse exemplars beyond what the protocol allows.

    Raises:
        TrainingError: Says what is kept and what is allowed.
    """
    if exceeds_budget(budget, use, num_seen):
        raise TrainingError(
            f"{method.name}: keeps {use.videos} videos with {use.frames} frames, the protocol allows "
            f"{allowed_videos(budget, num_seen)} videos after {num_seen} classes"
            + (f" of {budget.frames} frames each" if budget is not None else " (no exemplars)")
        )
