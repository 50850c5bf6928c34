"""Seeded calls of a method: constructs it, grows it and lets it learn, each from a random state of its own.

What a method draws in a task depends on the run's seed and the task alone, so a resumed run draws the same.
"""

from __future__ import annotations

from typing import Any

from vcil_bench.common.random_streams import seed_modules
from vcil_bench.method import Method, RunContext
from vcil_bench.stream import Task


def construct(cls: type[Method], config: Any, context: RunContext, run_seed: int) -> Method:
    """Construct a method on the run's device."""
    seed_modules(run_seed, "init")
    return cls(config, context).to(context.device)


def grow(method: Method, task: Task, run_seed: int) -> None:
    """Let a method make the structure that a task adds."""
    seed_modules(run_seed, "grow", task.index)
    method.grow(task)
    method.to(method.context.device)


def learn(method: Method, task: Task, run_seed: int) -> None:
    """Let a method that has grown learn the task, in training mode."""
    method.train()
    seed_modules(run_seed, "learn", task.index)
    method.learn(task)
