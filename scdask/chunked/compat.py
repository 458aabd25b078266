"""What scdask needs of Dask beyond its public names, and the one mode of Dask that it does not support."""

from __future__ import annotations

import dask.array as da
from dask.array.core import unify_chunks
from dask.array.utils import meta_from_array
from dask.layers import ArraySliceDep

from ..errors import ScdaskError

__all__ = ["ArraySliceDep", "meta_from_array", "unify_chunks"]

if da._array_expr_enabled():
    raise ScdaskError(
        "scdask does not support Dask's array expressions: set the Dask option array.query-planning to False "
        "(or DASK_ARRAY__QUERY_PLANNING=False) before dask.array is imported"
    )
