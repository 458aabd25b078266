"""Locks that a process may fork beside."""

from __future__ import annotations

import os
from typing import Any, TypeVar

L = TypeVar("L", bound=Any)


def fork_safe(lock: L) -> L:
    """The lock, which a fork from now on waits for, so that it is open in the child, and what it guards is in order.

    Otherwise a child would wait for ever for a thread that it does not have.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
    return lock
