"""useg turns a folder of images and label masks into a trained, measured, reproducible U-Net."""

import os

__version__ = "0.1.0"


def let_threads_sleep() -> None:
    """Threads of OpenMP that wait go to sleep soon, unless the environment says how they wait; before torch is loaded.

    Those that sleep at once make a training step longer by a third, those that spin on by a factor of 4 to 10 as
    soon as anything else runs (docs/decisions/0005-threads-that-sleep.md).
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # about a third of a millisecond, with GNU's OpenMP
