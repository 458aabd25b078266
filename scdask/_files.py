"""Files that are read whole or refused, and written whole or not at all."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from .errors import BitstreamError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


def read_npz(file: Any) -> dict[str, NDArray[Any]]:
    """The arrays of an npz file; nothing in it is unpickled."""
    given = isinstance(file, str | os.PathLike)
    try:
        # NumPy leaves a file open that it cannot read.
        with Path(file).open("rb") if given else nullcontext(file) as opened, np.load(opened) as arrays:
            return dict(arrays)
    except (FileNotFoundError, PermissionError):
        raise
    except (ValueError, BadZipFile, EOFError, TypeError, AttributeError, RuntimeError, OSError) as error:
        raise BitstreamError(f"{file} is not an npz file of plain arrays") from error


def write_whole(path: Path, write: Callable[[Any], None]) -> None:
    """Let `write` fill a binary file beside `path`, then put it in place, so that nobody sees a half of it."""
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            write(file)
            file.flush()
            os.chmod(file.name, 0o644)
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise
