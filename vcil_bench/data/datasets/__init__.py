"""Dataset adapters: from a folder as its publishers ship it to a list of labelled videos.

An adapter only reads lists and names; whether the files are there and sound is the manifest's business. Class
names are given as the dataset writes them, ids come from the protocol.
"""

from __future__ import annotations

from vcil_bench.common.errors import did_you_mean

from .activitynet import ActivityNet
from .base import Adapter, DatasetError, Listed, VideosMissing
from .folder import Folder, Synthetic
from .hmdb51 import Hmdb51
from .kinetics400 import Kinetics400
from .ssv2 import SomethingV2
from .ucf101 import Ucf101

__all__ = ["ADAPTERS", "Adapter", "DatasetError", "Listed", "VideosMissing", "adapter"]

ADAPTERS: dict[str, Adapter] = {
    a.name: a for a in (Ucf101(), Hmdb51(), SomethingV2(), Kinetics400(), ActivityNet(), Folder(), Synthetic())
}


def adapter(name: str) -> Adapter:
    """Return the adapter of a dataset.

    Raises:
        DatasetError: There is none; names those there are.
    """
    if name not in ADAPTERS:
        raise DatasetError(
            f"no adapter for dataset {name!r}{did_you_mean(name, ADAPTERS)}; known: {', '.join(ADAPTERS)}; "
            "any other data can be read from a CSV by a protocol file of your own with dataset 'folder'"
        )
    return ADAPTERS[name]
