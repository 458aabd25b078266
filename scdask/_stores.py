"""Zarr arrays of packed words, which are at a path whole or not at all."""

from __future__ import annotations

import ctypes
import errno
import glob
import json
import math
import os
import platform
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Any
from uuid import uuid4
from zlib import crc32

import numpy as np

from ._extras import require
from ._files import reason, refused_as
from .computing import compute
from .core.contract import on_host
from .errors import BitstreamError, MissingBackendError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

FORMAT = 1  # version of the attributes of a Zarr store
MOST_CHUNKS = 10**8  # chunks of an array, beyond which Dask could not hold its graph
FEW = 512  # words that are looked at first
EXCHANGE = 2  # the flag RENAME_EXCHANGE of Linux


def write_zarr(words: Any, store: Any, about: dict[str, Any], *, overwrite: bool, progress: bool) -> None:
    """Write packed words to a Zarr array, and last their attributes `about`, as `Bitstream.to_zarr` says."""
    require("zarr", "zarr")
    if any(np.isnan(n) for n in words.shape):
        raise BitstreamError("Zarr needs known chunk sizes: call words.compute_chunk_sizes() first")
    place = _place(store)
    if not isinstance(place, Path):
        if overwrite:
            raise BitstreamError(f"only an array at a path of this machine is replaced, not {store}")
        _fill(words, place, store, about, progress)
        return
    if place.exists() and (overwrite or not place.is_dir() or any(place.iterdir())):
        _refuse_to_replace(place, overwrite)
    with _folder_beside(place) as beside:
        _fill(words, beside, place, about, progress)
        _publish(beside, place, overwrite)


@contextmanager
def _folder_beside(path: Path) -> Iterator[Path]:
    """An empty folder beside a path, which is removed after an error, as is what killed processes of this host left."""
    start = f".{path.name[:50]}.{crc32(platform.node().encode()):08x}."
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f"{glob.escape(start)}*"):
        with suppress(OSError), _locked(left):  # The lock of a process that was killed is free.
            _discard(left)
    with ExitStack() as stack:
        while True:
            beside = path.with_name(f"{start}{uuid4().hex}")
            beside.mkdir()
            try:
                stack.enter_context(_locked(beside))
            except (BlockingIOError, FileNotFoundError):  # Another process is removing it as a left-over.
                continue
            except OSError:  # The file system has no locks of folders, so that nobody takes it for one.
                pass
            if beside.exists():
                break
        try:
            yield beside
        except BaseException:
            _discard(beside)
            raise


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    opened = os.open(folder, os.O_RDONLY)
    try:
        import fcntl

        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(opened)


def _discard(path: Path) -> None:
    """Remove an array, without which tasks that still run write nothing."""
    with suppress(OSError):
        (path / "zarr.json").unlink()
    rmtree(path, ignore_errors=True)


def _place(store: Any) -> Any:
    """The path of a store on this machine, or the URL or store object itself."""
    from zarr import Array, Group
    from zarr.storage import LocalStore, StorePath

    root, within = (store.store, store.path) if isinstance(store, StorePath) else (store, "")
    if isinstance(root, LocalStore) and not root.read_only:
        return (root.root / within).resolve()
    if store is None or isinstance(store, Array | Group):
        kind = "None" if store is None else f"an open zarr.{type(store).__name__}"
        raise BitstreamError(f"a Zarr store is a path, a URL or a store object, not {kind}")
    if not isinstance(store, str | os.PathLike):
        return store
    text = os.fspath(store)
    if not text or not isinstance(text, str):
        raise BitstreamError(f"a Zarr store is at a path, but the path is {text!r}")
    for scheme in ("file://", "local://"):
        text = text.removeprefix(scheme)
    if "://" in text or "::" in text:
        return text
    try:
        path = Path(text).expanduser().resolve()
    except (ValueError, RuntimeError) as error:  # It holds a NUL, or there is no such home.
        raise BitstreamError(f"{text!r} is no path: {error}") from None
    _finish_exchange(path)
    return path


def _fill(words: Any, place: Any, store: Any, about: dict[str, Any], progress: bool) -> None:
    """Write a whole new array; `store` is what an error calls it."""
    import zarr

    lazy = hasattr(words, "dask")
    if lazy and _in_memory(place) and (runner := _other_processes(place)):
        raise BitstreamError(
            f"{runner} cannot write to {store}, which is in the memory of this process: give it a path, or compute in "
            'threads (dask.config.set(scheduler="threads"))'
        )
    try:
        array = zarr.create_array(
            place,
            shape=words.shape,
            chunks=tuple(max(1, n) for n in (words.chunksize if lazy else words.shape)),
            dtype="uint64",
            compressors=None,
            fill_value=0,
            config={"write_empty_chunks": True},  # A chunk of zeros has a file, so that one without is lost.
        )
    except (zarr.errors.ContainsArrayError, zarr.errors.ContainsGroupError, FileExistsError):
        raise BitstreamError(f"{store} is there already: nothing but an array at a path is replaced") from None
    except ImportError as error:
        raise MissingBackendError(f"{store} needs a package that is not installed: {reason(error)}") from error
    except OSError:
        raise
    except Exception as error:
        raise BitstreamError(f"{store} cannot hold a Zarr array: {reason(error)}") from error
    if lazy:
        import dask.array as da

        blocks = on_host(words).rechunk(words.chunksize)
        target = _Shared(array, place) if isinstance(place, Path) else array
        compute(da.store(blocks, target, lock=False, compute=False), name="to-zarr", progress=progress)
        if not isinstance(place, Path) and (there := array.nchunks_initialized) != array.nchunks:
            raise BitstreamError(f"{store} got {there} of {array.nchunks} chunks: the others were written elsewhere")
    else:
        array[...] = on_host(words)
    array.attrs["scdask"] = {"format": FORMAT, **about, "id": uuid4().hex, "all_chunks": True}


@dataclass(frozen=True)
class _Shared:
    """A Zarr array at a path that each process which writes to it must see."""

    array: Any
    path: Path

    def __setitem__(self, region: Any, block: Any) -> None:
        if self._there():
            self.array[region] = block
        else:
            raise BitstreamError(
                f"{platform.node()}, where a chunk is computed, does not see {self.path.parent} as the caller does: "
                "take a folder that all workers share"
            )
        if not self._there():  # Another task failed, and the array was removed while this one wrote.
            rmtree(self.path, ignore_errors=True)

    def _there(self) -> bool:
        return (self.path / "zarr.json").exists()


def _in_memory(place: Any) -> bool:
    """Whether what other processes write to a store is lost, or spoils it."""
    from zarr.storage import MemoryStore, StorePath, WrapperStore, ZipStore

    if isinstance(place, StorePath):
        return _in_memory(place.store)
    if isinstance(place, WrapperStore):
        return _in_memory(place._store)
    return isinstance(place, dict | MemoryStore | ZipStore) or _in_fsspec_memory(place)


def _in_fsspec_memory(place: Any) -> bool:
    protocols = np.atleast_1d(getattr(getattr(place, "fs", None), "protocol", ()))
    return str(place).startswith("memory://") or "memory" in protocols


def _other_processes(place: Any) -> str | None:
    """What computes blocks outside of this process's memory, if that is so."""
    import dask.array as da
    import dask.multiprocessing
    from dask.base import get_scheduler

    get = get_scheduler(cls=da.Array)
    client: Any = getattr(get, "__self__", None)
    if hasattr(client, "scheduler_info"):
        # A cluster within this process copies stores, but not what fsspec has in memory.
        within = _in_fsspec_memory(place) and str(client.scheduler.address).startswith("inproc://")
        return None if within else "a Dask cluster"
    pool = getattr(next(iter(getattr(get, "args", ())), None), "__self__", None)
    processes = get is dask.multiprocessing.get or isinstance(pool, ProcessPoolExecutor)
    return "Dask's scheduler of processes" if processes else None


def _refuse_to_replace(path: Path, overwrite: bool) -> None:
    if not overwrite:
        raise BitstreamError(f"{path} is there already: pass overwrite=True to replace an array")
    if not _is_zarr_array(path) and path.exists():
        raise BitstreamError(f"{path} is no Zarr array, and is not replaced")


def _is_zarr_array(path: Path) -> bool:
    try:
        return bool(json.loads((path / "zarr.json").read_text())["node_type"] == "array")
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def _publish(new: Path, path: Path, overwrite: bool) -> None:
    """Move a folder to a path, where the old or the new one is at any time, also if others do the same."""
    moved = False
    while not moved:
        try:
            if path.exists() and (not path.is_dir() or any(path.iterdir())):
                _refuse_to_replace(path, overwrite)
            if overwrite and _exchange(new, path):
                rmtree(new, ignore_errors=True)
                return
            if overwrite and path.exists():
                rmtree(_old(path), ignore_errors=True)
                path.rename(_old(path))
            new.rename(path)  # This replaces nothing but an empty folder.
            moved = True
        except OSError as error:  # Another writer may have been quicker.
            if error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST) or not new.exists():
                raise
    rmtree(_old(path), ignore_errors=True)


def _old(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def _finish_exchange(path: Path) -> None:
    """Bring back what was moved away, if the writer was killed before it moved its own folder there."""
    if not path.exists() and _old(path).exists():
        with suppress(OSError):  # Another process may have done so.
            _old(path).rename(path)


def _exchange(new: Path, path: Path) -> bool:
    """Let two folders change places in one step, if the system and the file system can do so."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, TypeError, OSError):
        return False
    at = ctypes.c_int(-100)  # AT_FDCWD
    return bool(rename(at, os.fsencode(new), at, os.fsencode(path), ctypes.c_uint(EXCHANGE)) == 0)


def open_zarr(store: Any) -> tuple[Any, dict[str, Any]]:
    """The words that `write_zarr` wrote, as a Dask array with a chunk for each Zarr chunk, and their attributes."""
    import dask.array as da
    from dask.base import tokenize

    zarr = require("zarr", "zarr")
    place = _place(store)
    try:
        with refused_as(f"{store} holds no Zarr array"):
            array = zarr.open_array(place, mode="r")
            about = array.attrs.get("scdask")
            chunks, number = array.chunks, math.prod(array.cdata_shape)
    except BitstreamError as error:
        if isinstance(error.__cause__, ImportError):
            raise MissingBackendError(f"{store} needs a package that is not installed: {error.__cause__}") from error
        raise
    if not isinstance(about, dict):
        raise BitstreamError(f"{store} was not written by scdask, or not to its end: it has no scdask attributes")
    if about.get("format") != FORMAT:
        raise BitstreamError(f"{store} has the format {about.get('format')} of scdask, this version reads {FORMAT}")
    if number > MOST_CHUNKS:
        raise BitstreamError(f"{store} says that it has {number} chunks, and at most {MOST_CHUNKS} are read")
    # The name holds the id, so that chunks of an array that was replaced are not taken for those of its successor.
    name = f"open-zarr-{tokenize(str(array.store_path), about.get('id'))}"
    with refused_as(f"{store} holds no words"):
        source = _Chunks(array, str(store), about.get("all_chunks") is True)
        meta = np.empty((0,) * array.ndim, array.dtype)
        return da.from_array(source, chunks, name=name, fancy=False, meta=meta), about


@dataclass(frozen=True)
class _Chunks:
    """A Zarr array as Dask reads it, which refuses to read a chunk that is lost as zeros."""

    array: Any
    store: str
    whole: bool  # whether each chunk was written, which those of zeros were not by 0.1.0

    def __getattr__(self, name: str) -> Any:
        if name not in ("shape", "dtype", "ndim"):
            raise AttributeError(name)
        return getattr(self.array, name)

    def __getitem__(self, region: tuple[Any, ...]) -> NDArray[Any]:
        where = ", ".join(f"{part.start}:{part.stop}" if isinstance(part, slice) else str(part) for part in region)
        chunk = f"the chunk [{where}] of {self.store}"
        try:
            block: NDArray[Any] = np.asarray(self.array[region])
            # Zarr fills a chunk that is not there: what is all zeros is read with another filling too. A few words show
            # that most chunks are not.
            zeros = self.whole and not block.reshape(-1)[:FEW].any() and not block.any()
            lost = zeros and np.any(self._filled_with_ones()[region])
        except OSError:
            raise
        except Exception as error:
            raise BitstreamError(f"{chunk} cannot be read: {reason(error)}") from error
        if lost:
            raise BitstreamError(f"{chunk} is lost: it has no file")
        return block

    def _filled_with_ones(self) -> Any:
        metadata = self.array.metadata.to_dict() | {"fill_value": 2**64 - 1}
        return type(self.array).from_dict(self.array.store_path, metadata)
