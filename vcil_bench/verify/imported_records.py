"""Import of records from elsewhere: copies checked ones into the results, with the file of their origin."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from vcil_bench import __version__
from vcil_bench import origin as origins
from vcil_bench.common.errors import UserError
from vcil_bench.common.files import StorageError
from vcil_bench.origin import Origin
from vcil_bench.record import now, predictions_path, read, record_path

from .record_checks import Check


def take_in(
    files: Sequence[Path], checks: Sequence[Check], results: Path, *, name: str, who: str, source: str
) -> Path:
    """Copy records and their predictions to ``results/elsewhere/NAME/``, all of them or none.

    Args:
        files: Records of which no check failed.
        checks: What was checked.
        results: The results folder.
        name: Short name of who sent them, the folder's.
        who: Who made them.
        source: Where they were had from.

    Returns:
        The folder.

    Raises:
        UserError: There is such a folder, or the name is none.
        StorageError: It cannot be written.
    """
    unchecked = dict.fromkeys(check.check for check in checks if check.outcome == "unchecked")
    origin = Origin(
        name=name,
        who=who,
        source=source,
        received=now().partition("T")[0],
        checked=__version__,
        unchecked=list(unchecked),
    )
    folder = results / origins.ELSEWHERE / name
    if folder.exists():
        raise UserError(f"{folder} is there already; move it away, or take these in under another --name")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Hidden from who reads the results until all of it is there.
        with tempfile.TemporaryDirectory(dir=folder.parent.parent, prefix=".elsewhere.") as place:
            made = Path(place, name)
            for path in files:
                data = read(path).data
                target = record_path(
                    made, data["protocol"]["label"], data["method"]["name"], data["variant"], data["seed"]
                )
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
                shutil.copyfile(predictions_path(path), predictions_path(target))
            origins.write(made, origin)
            made.replace(folder)
    except OSError as error:
        raise StorageError(f"{folder}: cannot be written ({error.strerror or error})") from error
    return folder
