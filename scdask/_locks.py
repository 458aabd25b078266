"""A lock that a process may fork beside."""

from __future__ import annotations

import os
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from threading import Lock as LockType


def fork_safe_lock() -> LockType:
    """A lock that is open in a forked child, with what it guards in order: a fork waits until no thread holds it.

    Otherwise a child would wait for ever for a thread that it does not have.
    """
    lock = Lock()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
    return lock
