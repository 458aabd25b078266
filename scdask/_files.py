"""Files and stores that are read whole or refused, and written whole or not at all."""

from __future__ import annotations

import json
import os
from contextlib import nullcontext
from pathlib import Path
from shutil import rmtree
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any
from uuid import uuid4
from zipfile import BadZipFile

import numpy as np

from ._extras import require
from .computing import compute
from .core.contract import on_host
from .errors import BitstreamError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

FORMAT = 1  # version of the attributes of a Zarr store


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
    """Let `write` fill a binary file beside `path`, then move it there, so that nobody sees half a file."""
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            write(file)
            file.flush()
            os.chmod(file.name, 0o644)
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def write_zarr(words: Any, store: Any, about: dict[str, Any], *, overwrite: bool, progress: bool) -> None:
    """Write packed words to a Zarr array, and last their attributes `about`, as `Bitstream.to_zarr` says."""
    zarr = require("zarr", "zarr")
    if any(np.isnan(n) for n in words.shape):
        raise BitstreamError("Zarr needs known chunk sizes: call words.compute_chunk_sizes() first")
    if store is None:
        raise BitstreamError("a Zarr store is a path or a store object, not None")
    target = store
    if overwrite:
        if not isinstance(store, str | Path) or "://" in str(store):
            raise BitstreamError(f"only an array at a path of this machine is replaced, not {store}")
        store = Path(store).resolve()
        if store.exists() and not _is_zarr_array(store):
            raise BitstreamError(f"{store} is no Zarr array, and is not replaced")
        target = store.with_name(f".{store.name}.{uuid4().hex}")
    lazy = hasattr(words, "dask")
    try:
        array = zarr.create_array(
            target,
            shape=words.shape,
            chunks=tuple(max(1, n) for n in (words.chunksize if lazy else words.shape)),
            dtype="uint64",
            compressors=None,
            fill_value=0,
        )
    except (zarr.errors.ContainsArrayError, zarr.errors.ContainsGroupError, FileExistsError) as error:
        raise BitstreamError(f"{store} is there already: pass overwrite=True to replace an array") from error
    try:
        if lazy:
            import dask.array as da

            blocks = on_host(words).rechunk(words.chunksize)
            compute(da.store(blocks, array, lock=False, compute=False), name="to-zarr", progress=progress)
        else:
            array[...] = on_host(words)
        array.attrs["scdask"] = {"format": FORMAT, **about, "id": uuid4().hex}
    except BaseException:
        if overwrite:
            rmtree(target, ignore_errors=True)
        raise
    if overwrite:
        old = target.with_name(f"{target.name}.old")
        if store.exists():
            store.rename(old)
        target.rename(store)
        rmtree(old, ignore_errors=True)


def _is_zarr_array(path: Path) -> bool:
    try:
        return bool(json.loads((path / "zarr.json").read_text())["node_type"] == "array")
    except (OSError, ValueError, KeyError, TypeError):
        return False


def open_zarr(store: Any) -> tuple[Any, dict[str, Any]]:
    """The words that `write_zarr` wrote, as a Dask array with a chunk for each Zarr chunk, and their attributes."""
    import dask.array as da
    from dask.base import tokenize

    zarr = require("zarr", "zarr")
    try:
        array = zarr.open_array(store, mode="r")
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
        raise BitstreamError(f"{store} holds no Zarr array: {error}") from error
    about = array.attrs.get("scdask")
    if not isinstance(about, dict):
        raise BitstreamError(f"{store} was not written by scdask, or not to its end: it has no scdask attributes")
    if about.get("format") != FORMAT:
        raise BitstreamError(f"{store} has the format {about.get('format')} of scdask, this version reads {FORMAT}")
    # The name holds the id, so that chunks of an array that was replaced are not taken for those of its successor.
    name = f"open-zarr-{tokenize(str(array.store_path), about.get('id'))}"
    return da.from_zarr(array, name=name), about
