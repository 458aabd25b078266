"""What brings the function of a campaign, and its data, to each worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distributed.diagnostics.plugin import WorkerPlugin

if TYPE_CHECKING:
    from .cells import Given


class Giver(WorkerPlugin):  # type: ignore[misc]
    """Holds what cells are computed with, where they are computed."""

    def __init__(self, given: Given, name: str) -> None:
        self.given, self.name = given, name

    def setup(self, worker: Any) -> None:
        """There is nothing to set up."""
