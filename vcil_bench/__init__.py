"""vcil-bench: a benchmark harness for Video Class-Incremental Learning.

Results and protocols are read from Python with ``load_records`` and ``load_protocol``, which import no torch.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .protocol import Protocol
    from .record import Record

__version__ = "0.1.0"

# The top-level folders methods/ and protocols/ are installed as vcil_bench.methods and vcil_bench.protocols.
# In a tree that is not installed they lie beside this folder, so the tree's root joins the search path.
if not (Path(__file__).parent / "methods").is_dir():
    __path__.append(str(Path(__file__).resolve().parent.parent))


def load_records(folder: str | Path = "results") -> list[Record]:
    """Return every record below a results folder, sorted by path; partial and failed runs are among them.

    A record that came with the harness (``reference/``) is left out where the folder has its own of the same
    run on the same version of the protocol; a file that cannot be read is left out with a warning that names it.

    Args:
        folder: The folder that ``vcil-bench run --results`` wrote to.
    """
    from .record import load_all

    records, errors = load_all(Path(folder))
    for error in errors:
        warnings.warn(str(error), stacklevel=2)
    return records


def load_protocol(name_or_path: str | Path) -> Protocol:
    """Return a protocol by its name or from a YAML file: its tasks, class names and fingerprint.

    Raises:
        UserError: No such protocol, or the file breaks the schema.
    """
    from .protocol import load

    return load(name_or_path)
