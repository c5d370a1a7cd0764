"""Where a training's words and progress go, and how it is asked to stop."""

import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from types import FrameType

Note = Callable[[str], None]
Progress = Callable[[str], AbstractContextManager[Callable[..., None]]]


@dataclass
class Stop:
    """Whether someone asked to stop: Ctrl-C, SIGTERM or a terminal that is gone, once; a second one ends at once."""

    asked: bool = False

    def install(self) -> None:
        """Listen to the signals, in the main thread."""

        def handler(number: int, frame: FrameType | None) -> None:
            if self.asked:
                raise KeyboardInterrupt
            self.asked = True
            print("\nstopping after this step; once more to stop at once", file=sys.stderr)

        signal.signal(signal.SIGINT, handler)
        signal.signal(signal.SIGTERM, handler)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as `nohup` leaves it
            signal.signal(signal.SIGHUP, handler)


@dataclass
class Listener:
    """Where words and progress go; silent by default.

    Attributes:
        note: one line the user should know.
        progress: a bar: `with progress("reading") as advance: advance(done, total=n)`.
        stop: whether someone asked to stop.
        keep_output: whether stdout and stderr of the process are kept with the run.
    """

    note: Note = lambda text: None
    progress: Progress = lambda text: nullcontext(lambda *a, **k: None)
    stop: Stop = field(default_factory=Stop)
    keep_output: bool = False
