"""Out of memory: tells it from other errors and says what helps."""

from __future__ import annotations

import torch

# cuBLAS and cuDNN allocate by themselves; torch raises a plain RuntimeError with the status they give.
STATUSES = (
    *("CUBLAS_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_NOT_INITIALIZED"),
    *("CUDNN_STATUS_ALLOC_FAILED", "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
)


def advice(error: Exception, *, chunks: bool) -> str | None:
    """Return what to do where the device's memory is too small; None for any other error.

    Args:
        error: What ended the run.
        chunks: Whether the run's method and backbone take ``micro_batch``.
    """
    told_by_status = isinstance(error, RuntimeError) and any(status in str(error) for status in STATUSES)
    if not isinstance(error, torch.OutOfMemoryError) and not told_by_status:
        return None
    first = (
        "micro_batch=N lets N clips at a time through the network with the same result, "
        if chunks
        else "this method or backbone takes batches whole; "
    )
    return (
        f"the device's memory is too small: {first}precision=bf16 halves activations, a smaller eval_batch "
        "helps in testing, and PYTORCH_ALLOC_CONF=expandable_segments:True in the environment where much is "
        "reserved but not allocated"
    )
