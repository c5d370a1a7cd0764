"""How long work tells how far it is."""

from typing import Protocol


class Progress(Protocol):
    """Told how much is done; `useg.cli.output.Advance` is one."""

    def __call__(self, completed: float, *, total: float | None = None, status: str = "") -> None:
        """Say that so much of the total is done."""
