"""What happened: journals and records, of trainings by `useg train` and of one's own loops by `start`."""

from useg.runs.active import ActiveRun, start

__all__ = ["ActiveRun", "start"]
