"""A pretended GPU: device ``cuda`` on a machine without one, strict about what a real one refuses or waits at.

Tensors "on the device" are ordinary tensors of the processor whose memory is marked, so that kernels, autograd,
optimisers and views are torch's own; what is pretended is the border. Every operation passes through here
(``TorchDispatchMode``, in backward passes too) and its results lie where its inputs lie. Refused, naming the
operation and the line:

- operands on both sides of the border, with the exceptions CUDA makes: a number that is a 0-dim host tensor in
  a pointwise operation, host indices, copies;
- ``numpy`` on device memory, and reading host memory into which a copy is still on its way;
- a host generator for device tensors, or the other way round;
- any use in a forked process;
- inside a training step (``steps``) every wait for the device: ``item``, ``tolist``, truth, ``nonzero`` and
  indexing by a mask, ``equal``, copies that block. Waits elsewhere are counted in ``waits``.

Memory that was allocated and never written holds NaN. The device has random state of its own, and autocast has
CUDA's lists. ``torch.cuda`` and tensors answer as they would on a machine with one GPU, so that the harness runs
as a user runs it, with ``--device cuda`` and nothing else.

Not pretended: streams, kernels of CUDA (their numbers, what cuDNN and strict determinism refuse), NCCL, Triton,
and the amount of memory. ``vcil-bench doctor --gpu`` is for a machine that has them.
"""

from __future__ import annotations

import contextlib
import enum
import os
import sys
import types
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors
from torch.utils._python_dispatch import TorchDispatchMode

from vcil_bench.training import flops

CUDA = torch.device("cuda", 0)
_TORCH = str(Path(torch.__file__).parent)
_Base = torch._C.TensorBase

# What waits for the device whatever its arguments: the size or the value of the result is needed on the host.
# Under inference mode torch hands composite operations over whole, so these stand beside their parts.
_WAITING = {
    *("_local_scalar_dense", "item", "is_nonzero", "equal", "allclose", "masked_select"),
    *("nonzero", "nonzero_numpy", "argwhere", "bincount", "histc", "_linalg_eigh", "_linalg_svd"),
    *("_unique", "_unique2", "unique_dim", "unique_consecutive", "unique_dim_consecutive"),
}
_ALLOCATING = {"empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "empty_permuted"}
_FROM_DATA = {torch.tensor, torch.as_tensor, torch.asarray, torch.Tensor.new_tensor}
# Operations whose 0-dim operands may lie on the host though torch does not mark them as pointwise.
_TAKES_NUMBERS = (
    "_foreach_",
    "_fused_",
    "_amp_",
    "fill",
    "masked_fill",
    "index_fill",
    "index_put",
    "_index_put",
)

# CUDA's autocast lists (torch's page on automatic mixed precision), as far as networks of video classifiers go.
_LOW = (
    *("linear", "matmul", "mm", "mv", "bmm", "addmm", "addmv", "addbmm", "baddbmm", "prelu"),
    *("conv1d", "conv2d", "conv3d", "conv2d.padding", "conv3d.padding", "scaled_dot_product_attention"),
)
_FP32 = (
    *("layer_norm", "native_layer_norm", "group_norm", "softmax.int", "log_softmax.int", "exp", "expm1", "log"),
    *("log1p", "rsqrt", "reciprocal", "pow.Tensor_Scalar", "pow.Tensor_Tensor", "cosine_similarity", "cdist"),
    *("nll_loss", "kl_div", "mse_loss", "l1_loss", "smooth_l1_loss", "binary_cross_entropy_with_logits"),
    *("sum", "sum.dim_IntList", "prod", "cumsum", "linalg_vector_norm", "logsumexp", "softplus", "dist"),
    *("norm.Scalar", "norm.ScalarOpt_dim", "upsample_bilinear2d", "upsample_nearest2d"),
)
_WIDEST = ("cat", "stack", "addcmul", "addcdiv", "dot", "tensordot", "scatter_add", "index_put", "grid_sampler")


class PretendedDeviceError(Exception):
    """What a real GPU would refuse, or would wait at; ``operation``, ``file`` and ``line`` say where."""

    def __init__(self, operation: str, why: str, file: str, line: int) -> None:
        super().__init__(f"{operation}: {why} ({file}:{line})")
        self.operation, self.file, self.line = operation, file, line


class _Memory(enum.Enum):
    """What is known of memory; that of which nothing is known is the host's."""

    DEVICE = "on the device"
    EITHER = "made by torch's own code without saying where"  # joins what it is first used with
    PINNED = "pinned on the host"
    ARRIVING = "on the host, a copy from the device being on its way"


@dataclass(frozen=True)
class Wait:
    """A moment at which the host waited for the device.

    Attributes:
        operation: What it waited at.
        file: Source file of the first line outside torch.
        line: Its number.
    """

    operation: str
    file: str
    line: int


class PretendedDevice(TorchDispatchMode):
    """The border between host and device, while it is entered through ``pretending``.

    Attributes:
        waits: Every wait so far.
        copies: Bytes copied to the device so far, by whether the host went on meanwhile.
        warns: Whether waits warn, as in torch's sync debug mode.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[Wait] = []
        self.copies = {"blocking": 0, "asynchronous": 0}
        self.warns = False
        self._memory: dict[int, tuple[StorageWeakRef, _Memory]] = {}
        self._arriving: list[int] = []
        self._largest = 4096
        self._wanted: list[_Memory | None] = []  # where the factories that are being called shall put tensors
        self._in_step = self._asked = False
        self._process = os.getpid()
        self._generators: list[torch.Generator] = []
        self._draws = torch.Generator().manual_seed(0).get_state()

    def steps(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Yield batches; what is done with each, until the next is asked for, is a training step."""
        for batch in batches:
            self._in_step = True
            try:
                yield batch
            finally:
                self._in_step = False

    # What lies where

    def memory(self, tensor: Tensor) -> _Memory | None:
        """Return what is known of a tensor's memory, None for the host's."""
        with torch._C.DisableTorchFunction():
            found = self._memory.get(_Base.untyped_storage(tensor)._cdata)
        return None if found is None else found[1]

    def on_device(self, tensor: Tensor) -> bool:
        """Tell whether a tensor lies on the device."""
        return self.memory(tensor) is _Memory.DEVICE

    def mark(self, tensor: Tensor, memory: _Memory | None) -> None:
        """Note what a tensor's memory is."""
        with torch._C.DisableTorchFunction():
            storage = _Base.untyped_storage(tensor)
            if memory is None:
                self._memory.pop(storage._cdata, None)
                return
            # The reference keeps the address from being given to other memory while it is noted here.
            self._memory[storage._cdata] = (StorageWeakRef(storage), memory)
            if memory is _Memory.ARRIVING:
                self._arriving.append(storage._cdata)
        if len(self._memory) > self._largest:
            self._memory = {key: kept for key, kept in self._memory.items() if not kept[0].expired()}
            self._largest = max(4096, 2 * len(self._memory))

    # What is done

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        with torch._C.DisableTorchFunction():
            return self._do(func, args, kwargs or {})

    def _do(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = func._schema.name.removeprefix("aten::")
        given = list(_tensors(args, kwargs))
        if kwargs.get("device") is not None and torch.device(kwargs["device"]).type == "cuda":
            kwargs = kwargs | {"device": torch.device("cpu")}
            self._wanted.append(_Memory.DEVICE)
            try:
                return self._do(func, args, kwargs)
            finally:
                self._wanted.pop()
        if name == "copy_":
            return self._copy(func, *args, **kwargs)
        if name == "set_" and isinstance(args[1], torch.UntypedStorage):
            before, out = self.memory(args[0]), func(*args, **kwargs)
            if self.memory(out) is None:
                self.mark(out, before)  # memory that was made without an operation, as deepcopy does
            return out
        memory = self._common(name, func, args, given)
        into = self._wanted[-1] if self._wanted else memory if given else _Memory.EITHER
        self._check_generators(name, args, kwargs, into)
        if memory is _Memory.DEVICE:
            self._check_waiting(name, args, kwargs)
        if into is _Memory.DEVICE and torch.Tag.nondeterministic_seeded in func.tags:
            with self._device_draws():
                out = func(*args, **kwargs)
        else:
            out = func(*args, **kwargs)
        known = {_Base.untyped_storage(t)._cdata for t in given}
        for made in _tensors(out if isinstance(out, (tuple, list)) else (out,), {}):
            if into is None or _Base.untyped_storage(made)._cdata in known:
                continue
            self.mark(made, into)
            if name in _ALLOCATING and into is _Memory.DEVICE and made.is_floating_point():
                made.fill_(torch.nan)
        return out

    def _common(self, name: str, func: Any, args: tuple[Any, ...], given: list[Tensor]) -> _Memory | None:
        """Return where the operands lie, or refuse a mixture of them."""
        found = [(tensor, self.memory(tensor)) for tensor in given]
        there = [tensor for tensor, memory in found if memory is _Memory.DEVICE]
        either = [tensor for tensor, memory in found if memory is _Memory.EITHER]
        here = [tensor for tensor, memory in found if memory not in (_Memory.DEVICE, _Memory.EITHER)]
        if not func.is_view and any(memory is _Memory.ARRIVING for _, memory in found):
            raise self._error(name, "reads host memory before the copy from the device has arrived")
        if there and os.getpid() != self._process:
            raise self._error(name, "uses the device in a forked process")
        if there and here:
            indices = name in ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index")
            of_index = {id(tensor) for tensor in _tensors((args[1],), {})} if indices else set()
            numbers = torch.Tag.pointwise in func.tags or name.startswith(_TAKES_NUMBERS)
            wrong = [t for t in here if id(t) not in of_index and not (numbers and t.dim() == 0)]
            if wrong:
                shapes = [f"{tuple(t.shape)} {'device' if self.on_device(t) else 'host'}" for t in given]
                raise self._error(name, f"operands lie on both sides of the border: {', '.join(shapes)}")
            if any(id(t) in of_index for t in here):
                self.wait(f"{name} by host indices")
        if not there and not here:
            return _Memory.EITHER if either else None
        for tensor in either:
            self.mark(tensor, _Memory.DEVICE if there else None)
        return _Memory.DEVICE if there else None

    def _check_waiting(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if name in _WAITING and not self._asked:
            self.wait("item" if name == "_local_scalar_dense" else name)
        if name == "repeat_interleave" and kwargs.get("output_size") is None:
            self.wait(name)
        if name == "where" and len(args) == 1:
            self.wait(name)
        if name in ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"):
            masks = [i for i in args[1] if i is not None and i.dtype in (torch.bool, torch.uint8)]
            # One number put at a mask is a masked_fill.
            filled = name != "index" and len(masks) == len(args[1]) == 1 and args[2].dim() == 0
            if masks and not filled:
                self.wait(f"{name} by a mask")

    def _check_generators(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], into: _Memory | None
    ) -> None:
        for generator in (g for g in (*args, *kwargs.values()) if isinstance(g, torch.Generator)):
            ours = any(generator._cdata == known._cdata for known in self._generators)
            if ours != (into is _Memory.DEVICE):
                kinds = ("device", "host") if ours else ("host", "device")
                raise self._error(
                    name, f"draws from a generator of the {kinds[0]} for tensors of the {kinds[1]}"
                )

    def _copy(self, func: Any, into: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
        to, of = self.on_device(into), self.on_device(source)
        for tensor in (into, source):
            if self.memory(tensor) is _Memory.EITHER:
                to = of = to or of
                self.mark(tensor, _Memory.DEVICE if to else None)
        if (to or of) and os.getpid() != self._process:
            raise self._error("copy_", "uses the device in a forked process")
        if to != of:
            self._pass(source, to_device=to, non_blocking=non_blocking)
        done = func(into, source)
        if of and not to and non_blocking:
            self.mark(into, _Memory.ARRIVING)
        return done

    def _pass(self, source: Tensor, *, to_device: bool, non_blocking: bool) -> None:
        """Count a copy over the border, and the wait that it is unless it is asynchronous."""
        memory = self.memory(source)
        if memory is _Memory.ARRIVING:
            raise self._error("copy", "reads host memory before the copy from the device has arrived")
        free = non_blocking and (not to_device or memory is _Memory.PINNED)
        if to_device:
            self.copies["asynchronous" if free else "blocking"] += source.nbytes
        if not free:
            self.wait(f"a copy {'to' if to_device else 'from'} the device")

    def move(self, tensor: Tensor, to_device: bool, non_blocking: bool = False, **changes: Any) -> Tensor:
        """Copy a tensor over the border."""
        if to_device and os.getpid() != self._process:
            raise self._error("to", "uses the device in a forked process")
        self._pass(tensor, to_device=to_device, non_blocking=non_blocking)
        into = _Memory.DEVICE if to_device else _Memory.ARRIVING if non_blocking else None
        return _Over.apply(tensor, self, into, changes)  # type: ignore[no-any-return]

    # Waiting

    def wait(self, operation: str) -> None:
        """Count a wait for the device, or refuse it inside a training step."""
        file, line, passed = _caller()
        self.waits.append(Wait(operation, file, line))
        if self.warns:
            warnings.warn("called a synchronizing CUDA operation", stacklevel=2)
        # torch's GradScaler asks whether a step overflowed; that wait is fp16's own.
        if self._in_step and not any(name.endswith("grad_scaler.py") for name in passed):
            raise self._error(operation, "waits for the device inside a training step")
        self.synchronise()

    def synchronise(self, device: Any = None) -> None:
        """Let all copies arrive."""
        for key in self._arriving:
            self._memory.pop(key, None)
        self._arriving.clear()

    def _error(self, operation: str, why: str) -> PretendedDeviceError:
        file, line, _ = _caller()
        return PretendedDeviceError(operation, why, file, line)

    # Drawing

    @contextlib.contextmanager
    def _device_draws(self) -> Iterator[None]:
        """Let torch's kernels of the processor draw from the device's own state."""
        host = torch.get_rng_state()
        torch.set_rng_state(self._draws)
        try:
            yield
        finally:
            self._draws = torch.get_rng_state()
            torch.set_rng_state(host)

    def seed(self, seed: int) -> None:
        """Seed the device's random state."""
        self._draws = torch.Generator().manual_seed(seed).get_state()

    def get_draws(self, device: Any = None) -> Tensor:
        """Return the device's random state, a host tensor."""
        return self._draws.clone()

    def set_draws(self, state: Tensor, device: Any = None) -> None:
        """Put the device's random state back."""
        if self.on_device(state):
            raise self._error("set_rng_state", "takes a state that lies on the host")
        self._draws = state.clone()

    def generators(self) -> type:
        """Return what stands in for ``torch.Generator``: it makes generators of the device too."""
        real, made = torch.Generator, self._generators

        class Kind(type):
            def __call__(cls, device: Any = "cpu") -> torch.Generator:
                generator = real()
                if torch.device(device).type == "cuda":
                    made.append(generator)
                return generator

            def __instancecheck__(cls, instance: Any) -> bool:
                return isinstance(instance, real)

        return Kind("Generator", (), {})


class _Over(torch.autograd.Function):
    """A copy over the border; gradients go back over it."""

    @staticmethod
    def forward(
        context: Any, source: Tensor, device: PretendedDevice, into: _Memory | None, changes: dict[str, Any]
    ) -> Tensor:
        context.device, context.dtype = device, source.dtype
        context.back = None if into is _Memory.DEVICE else _Memory.DEVICE
        copied = _Base.to(source, **changes, copy=True)
        device.mark(copied, into)
        return copied

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        back = context.device.move(gradient, context.back is _Memory.DEVICE, dtype=context.dtype)
        return back, None, None, None


class _Factories(TorchFunctionMode):
    """Tells factories called in Python, which mean the host unless told otherwise, from those inside torch."""

    def __init__(self, device: PretendedDevice) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        device = self.device
        wanted = kwargs.get("device")
        if func is torch.nn.functional.one_hot and kwargs.get("num_classes", args[-1]) != -1:
            return self._unasked(func, args, kwargs)  # the processor's checks of the labels; CUDA has none
        if func is torch._C._nn._parse_to or (wanted is None and func not in _device_constructors()):
            return func(*args, **kwargs)
        on_gpu = wanted is not None and torch.device(wanted).type == "cuda"
        if wanted is not None:
            kwargs = kwargs | {"device": torch.device("cpu")}
        if func in _FROM_DATA:
            if isinstance(args[0], Tensor):
                kwargs.pop("device", None)
                made = func(*args, **kwargs)
                return made if wanted is None else made.to(wanted)
            made = func(*args, **kwargs)
            device.mark(made, None)
            return device.move(made, True) if on_gpu else made
        device._wanted.append(_Memory.DEVICE if on_gpu else None)
        try:
            return func(*args, **kwargs)
        finally:
            device._wanted.pop()

    def _unasked(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        device = self.device
        before, device._asked = device._asked, True
        try:
            return func(*args, **kwargs)
        finally:
            device._asked = before


@contextlib.contextmanager
def pretending() -> Iterator[PretendedDevice]:
    """Let this process have a GPU, as far as Python code can see."""
    device = PretendedDevice()
    with contextlib.ExitStack() as stack:
        for owner, name, stand_in in _stand_ins(device, stack):
            stack.enter_context(mock.patch.object(owner, name, stand_in, create=True))
        stack.enter_context(device)
        stack.enter_context(_Factories(device))
        yield device


def _stand_ins(device: PretendedDevice, until: contextlib.ExitStack) -> Iterator[tuple[Any, str, Any]]:
    """Yield what answers in the place of torch, until pretending ends: owner, name, replacement."""

    def to(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        copy = kwargs.pop("copy", False)
        if args and isinstance(args[0], Tensor):
            args = (args[0].device, args[0].dtype, *args[1:])
        elif "other" in kwargs:
            other = kwargs.pop("other")
            args = (other.device, other.dtype, *args)
        if len(args) == 4:
            copy, args = args[3], args[:3]
        wanted, dtype, non_blocking, layout = torch._C._nn._parse_to(*args, **kwargs)
        changes = {"dtype": dtype or self.dtype}
        if layout is not None:
            changes["memory_format"] = layout
        if wanted is None or (wanted.type == "cuda") == device.on_device(self):
            return _Base.to(self, **changes, copy=copy)
        if wanted.type not in ("cpu", "cuda"):
            return _Base.to(self, wanted, **changes)
        return device.move(self, wanted.type == "cuda", non_blocking, **changes)

    def pin_memory(self: Tensor, *args: Any) -> Tensor:
        if device.on_device(self):
            raise device._error("pin_memory", "is for host memory")
        pinned = _Base.clone(self)
        device.mark(pinned, _Memory.PINNED)
        return pinned

    def numpy(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        if device.on_device(self):
            raise device._error("numpy", "reads device memory on the host; copy it with .cpu() first")
        if device.memory(self) is _Memory.ARRIVING:
            raise device._error("numpy", "reads host memory before the copy from the device has arrived")
        return _Base.numpy(self, *args, **kwargs)

    def array(self: Tensor, dtype: Any = None) -> Any:
        return numpy(self) if dtype is None else numpy(self).astype(dtype, copy=False)

    def tolist(self: Tensor) -> Any:
        if device.on_device(self):
            device.wait("tolist")
            self = device_to_host(self)
        if device.memory(self) is _Memory.ARRIVING:
            raise device._error("tolist", "reads host memory before the copy from the device has arrived")
        return _Base.tolist(self)

    def device_to_host(tensor: Tensor) -> Tensor:
        copied = _Base.clone(tensor.detach())
        device.mark(copied, None)
        return copied

    def representation(self: Tensor, *, tensor_contents: Any = None) -> str:
        if device.on_device(self):
            device.wait("print")
            return real_repr(device_to_host(self))[:-1] + ", device='cuda:0')"
        return real_repr(self, tensor_contents=tensor_contents)

    real_repr = Tensor.__repr__
    yield Tensor, "device", property(lambda self: CUDA if device.on_device(self) else _Base.device.__get__(self))
    yield Tensor, "is_cuda", property(device.on_device)
    yield Tensor, "is_cpu", property(lambda self: not device.on_device(self))
    yield Tensor, "get_device", lambda self: 0 if device.on_device(self) else -1
    yield Tensor, "to", to
    yield Tensor, "cpu", lambda self: to(self, "cpu")
    yield Tensor, "cuda", lambda self, index=None, non_blocking=False: to(self, CUDA, non_blocking=non_blocking)
    yield Tensor, "pin_memory", pin_memory
    yield Tensor, "is_pinned", lambda self: device.memory(self) is _Memory.PINNED
    yield Tensor, "numpy", numpy
    yield Tensor, "__array__", array
    yield Tensor, "tolist", tolist
    yield Tensor, "__repr__", representation
    yield torch, "Generator", device.generators()

    def grouped(lists: list[list[Tensor]], with_indices: bool = False) -> Any:
        groups = real_grouped(lists, with_indices)
        return {(group[0][0][0].device, dtype): group for (_, dtype), group in groups.items()}

    real_grouped = torch._C._group_tensors_by_device_and_dtype
    yield torch._C, "_group_tensors_by_device_and_dtype", grouped

    real_autocast, taken_over = torch.autocast, list[torch.library.Library]()
    real_enabled, real_dtype = torch.is_autocast_enabled, torch.get_autocast_dtype

    class Autocast(real_autocast):  # type: ignore[misc, valid-type]
        def __init__(self, device_type: str, dtype: Any = None, enabled: bool = True, **kwargs: Any) -> None:
            super().__init__(_kind(device_type), dtype, enabled, **kwargs)
            if enabled and not taken_over:  # late, since it takes half a second
                library = torch.library.Library("aten", "IMPL")
                taken_over.append(library)
                until.callback(library._destroy)
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", ".*verrid")  # torch says that kernels are taken over
                    _take_over_autocast(device, library)

    yield torch, "autocast", Autocast
    yield torch.amp, "autocast", Autocast
    yield torch, "is_autocast_enabled", lambda device_type="cpu": real_enabled(_kind(device_type))
    yield torch, "get_autocast_dtype", lambda device_type: real_dtype(_kind(device_type))

    properties = types.SimpleNamespace(
        name="pretended GPU", total_memory=2**34, major=9, minor=0, multi_processor_count=1, uuid="pretended"
    )
    yield torch.cuda, "set_sync_debug_mode", lambda mode: setattr(device, "warns", mode == "warn")
    yield torch.cuda, "is_available", lambda: True
    yield torch.cuda, "is_initialized", lambda: True
    yield torch.cuda, "_lazy_init", lambda: None
    yield torch.cuda, "is_current_stream_capturing", lambda: False  # Adam asks
    yield torch.cuda, "_is_in_bad_fork", lambda: os.getpid() != device._process
    yield torch.cuda, "device_count", lambda: 1
    yield torch.cuda, "current_device", lambda: 0
    yield torch.cuda, "set_device", lambda chosen: None
    yield torch.cuda, "device", lambda chosen: contextlib.nullcontext()
    yield torch.cuda, "get_device_name", lambda chosen=None: properties.name
    yield torch.cuda, "get_device_properties", lambda chosen=None: properties
    yield torch.cuda, "is_bf16_supported", lambda including_emulation=True: True
    yield torch.cuda, "synchronize", device.synchronise
    yield torch.cuda, "manual_seed", device.seed
    yield torch.cuda, "manual_seed_all", device.seed
    yield torch.cuda, "get_rng_state", device.get_draws
    yield torch.cuda, "set_rng_state", device.set_draws
    yield torch.cuda, "max_memory_allocated", lambda chosen=None: 0
    yield torch.cuda, "memory_allocated", lambda chosen=None: 0
    yield torch.cuda, "reset_peak_memory_stats", lambda chosen=None: None
    yield torch.cuda, "empty_cache", lambda: None


def _take_over_autocast(device: PretendedDevice, library: torch.library.Library) -> None:
    """Give the processor's autocast, which stands in for CUDA's, CUDA's lists, for tensors of the device."""
    excluded = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU)

    def casting(name: str, choose: Callable[[list[Tensor]], torch.dtype]) -> Callable[..., Any]:
        packet, _, overload = name.partition(".")
        operation = getattr(getattr(torch.ops.aten, packet), overload or "default")

        def kernel(*args: Any, **kwargs: Any) -> Any:
            def cast(value: Any) -> Any:
                if isinstance(value, (list, tuple)):
                    return type(value)(cast(each) for each in value)
                return _Base.to(value, dtype) if isinstance(value, Tensor) and eligible(value) else value

            with torch._C._ExcludeDispatchKeyGuard(excluded):
                found = [tensor for tensor in _tensors(args, kwargs) if eligible(tensor)]
                if found:
                    dtype = choose(found)
                    args = tuple(cast(value) for value in args)
                    kwargs = {key: cast(value) for key, value in kwargs.items()}
                return operation(*args, **kwargs)

        return kernel

    def eligible(tensor: Tensor) -> bool:
        return tensor.is_floating_point() and tensor.dtype != torch.float64 and device.on_device(tensor)

    def widest(tensors: list[Tensor]) -> torch.dtype:
        return torch.float32 if any(t.dtype == torch.float32 for t in tensors) else tensors[0].dtype

    for names, choose in (
        (_LOW, lambda tensors: torch.get_autocast_dtype("cpu")),
        (_FP32, lambda tensors: torch.float32),
        (_WIDEST, widest),
    ):
        for name in names:
            library.impl(name, casting(name, choose), "AutocastCPU")


def _kind(device_type: str) -> str:
    return "cpu" if torch.device(device_type).type == "cuda" else device_type


def _tensors(args: Iterable[Any], kwargs: dict[str, Any]) -> Iterator[Tensor]:
    """Yield the tensors among an operation's arguments or results, also those in lists."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from (each for each in value if isinstance(each, Tensor))


def _caller() -> tuple[str, int, list[str]]:
    """Return file and line of the innermost frame outside torch and this file, and the files passed before."""
    frame, passed = sys._getframe(1), []
    while frame.f_back is not None and (frame.f_code.co_filename.startswith(_TORCH) or _is_own(frame)):
        passed.append(frame.f_code.co_filename)
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno, passed


def _is_own(frame: types.FrameType) -> bool:
    passed = (__file__, contextlib.__file__, flops.__file__)
    return frame.f_code.co_filename in passed or "<" in frame.f_code.co_filename
