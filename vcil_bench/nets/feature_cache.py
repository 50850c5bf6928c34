"""Features of clips that a frozen network has seen before, found by the content of the clips."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor


class FeatureCache:
    """The features used last, as many as fit in a number of bytes."""

    def __init__(self, limit: int) -> None:
        """Start empty.

        Args:
            limit: Bytes of features that are kept at most.
        """
        self.limit = limit
        self.bytes = 0
        self._features: OrderedDict[bytes, Tensor] = OrderedDict()

    def get(self, clips: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the features of clips, computed where they are not known.

        Args:
            clips: [B, T, 3, S, S] uint8.
            compute: Takes the clips that are not known [b, T, 3, S, S] and returns their features [b, ...],
                the same for the same clip at every call.

        Returns:
            [B, ...]. What other clips share a batch may move a feature's last digit; a feature that is found
            is the one of the batch in which the clip came first.
        """
        keys = [hashlib.blake2b(clip.numpy(), digest_size=16).digest() for clip in clips.cpu().contiguous()]
        found = {key: self._features[key] for key in keys if key in self._features}
        new = [i for i, key in enumerate(keys) if key not in found]
        if new:
            # Ordinary tensors also where the caller is in inference mode, since training may find them later.
            with torch.inference_mode(False), torch.no_grad():
                some = clips if len(new) == len(keys) else clips[new]
                computed = compute(some)
                found |= {keys[i]: feature.clone() for i, feature in zip(new, computed, strict=True)}
        for key, feature in found.items():
            self._keep(key, feature)
        return torch.stack([found[key] for key in keys])

    def _keep(self, key: bytes, feature: Tensor) -> None:
        if key not in self._features:
            self._features[key] = feature
            self.bytes += feature.nbytes
        self._features.move_to_end(key)
        while self.bytes > self.limit:
            self.bytes -= self._features.popitem(last=False)[1].nbytes
