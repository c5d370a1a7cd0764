"""The page of a run, as one HTML file that needs nothing else."""

from useg.experiments.report.page import write_report
from useg.experiments.report.pictures import Picture

__all__ = ["Picture", "write_report"]
