"""Files that are read whole or refused, and written whole or not at all."""

from __future__ import annotations

import errno
import io
import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from .errors import BitstreamError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray


def read_npz(file: Any) -> dict[str, NDArray[Any]]:
    """The arrays of an npz file, which may be a pipe; nothing in it is unpickled."""
    apart = (FileNotFoundError, PermissionError)
    with refused_as(f"{file} is not an npz file of plain arrays", apart), seekable(file) as opened:
        arrays = np.load(opened)
        if isinstance(arrays, np.ndarray):
            raise ValueError("it holds one array without a name")
        with arrays:
            return {name: array for name, array in arrays.items() if isinstance(array, np.ndarray)}


@contextmanager
def seekable(file: Any) -> Iterator[Any]:
    """A file that NumPy can seek in: a pipe and the like is read to its end."""
    if isinstance(file, str | os.PathLike):
        with Path(file).expanduser().open("rb") as opened, seekable(opened) as rewindable:
            yield rewindable
    elif hasattr(file, "read") and not (hasattr(file, "seekable") and file.seekable()):
        yield io.BytesIO(file.read())
    else:
        yield file


@contextmanager
def refused_as(what: str, apart: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Let any error be one sentence: what reads a file of others may raise anything if the file is corrupt."""
    try:
        yield
    except Exception as error:
        if isinstance(error, (BitstreamError, *apart)):
            raise
        raise BitstreamError(f"{what}: {reason(error)}") from error


def reason(error: Exception) -> str:
    """The first line of an error, or its name."""
    return str(error).strip().partition("\n")[0][:500] or type(error).__name__


def some(names: Any) -> str:
    """A few of many names, for a message."""
    names = list(map(str, names))
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "") or "none"


def write_whole(path: Path, write: Callable[[Any], object]) -> None:
    """Let `write` fill a binary file beside `path`, then move it there, so that nobody sees half a file.

    A symbolic link stays one, and a file keeps its permissions. A pipe or a device is written to.
    """
    path = path.expanduser().resolve()
    if path.exists() and not path.is_file():
        whole = io.BytesIO()
        write(whole)
        with path.open("wb") as pipe:  # A folder is refused here.
            pipe.write(whole.getbuffer())
        return
    if path.exists() and not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    beside = _beside(path)
    try:
        with beside.open("xb") as file:
            write(file)
        if path.exists():
            shutil.copymode(path, beside)
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def write_npz(file: Any, arrays: dict[str, NDArray[Any]]) -> None:
    """Write arrays to an npz file, whole or not at all. As NumPy does, a name gets the suffix .npz if it has none."""
    contents: dict[str, Any] = {"allow_pickle": False, **arrays}

    def write(opened: Any) -> None:
        np.savez(opened, **contents)

    if not isinstance(file, str | os.PathLike):
        whole = io.BytesIO()
        write(whole)
        file.write(whole.getbuffer())
        return
    path = Path(file).expanduser()
    named = path.name.endswith(".npz") or (path.exists() and not path.is_file())
    write_whole(path if named else path.with_name(f"{path.name}.npz"), write)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name[:50]}.{uuid4().hex}")
