"""What happened: journals and records, of trainings by `useg train` and of one's own loops by `start`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from useg.runs.active import ActiveRun, start

__all__ = ["ActiveRun", "start"]


def __getattr__(name: str) -> Any:
    # the keeper of a run is one of this package's modules and must stay light
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from useg.runs import active

    return getattr(active, name)
