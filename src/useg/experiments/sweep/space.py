"""The space that a sweep searches: lists and ranges by setting, some only where another has a value; and its points."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from blake3 import blake3
from pydantic import Field, model_validator

from useg.config import Checked, setting_names

if TYPE_CHECKING:
    import numpy as np

Settings = dict[str, Any]
"""Values by dotted name."""
Number = int | float
_TRIES = 1_000


class Parameter(Checked):
    """One setting that is searched: a list of values, or a range."""

    key: str
    """Dotted name."""
    values: tuple[Any, ...] | None = Field(default=None, min_length=1)
    low: Number | None = None
    high: Number | None = None
    """Ends of a range, both of them in it; with whole numbers for both it has whole numbers alone."""
    step: Number | None = Field(default=None, gt=0)
    """Between the values of a range; by default any will do."""
    log: bool = False
    """Equally likely on a logarithmic scale."""
    when: dict[str, Any] = Field(default={})
    """It exists only where each of these settings has this value, or one of this list."""

    @model_validator(mode="after")
    def _is_a_list_or_a_range(self) -> "Parameter":
        if (self.values is None) == (self.low is None or self.high is None):
            raise ValueError("wanted either a list of values, or low and high")
        if self.values is not None and any(each in self.values[:place] for place, each in enumerate(self.values)):
            raise ValueError("a value stands there twice")
        if self.values is None and not (
            self.ends[0] < self.ends[1] and (self.step or 0) <= self.ends[1] - self.ends[0]
        ):
            raise ValueError("low must be below high, and step not beyond it")
        if self.log and (self.values is not None or self.ends[0] <= 0 or self.step is not None):
            raise ValueError("log wants a range with low above 0, and no step")
        return self

    @property
    def ends(self) -> tuple[Number, Number]:
        """Low and high."""
        return self.low or 0, self.high or 0

    @property
    def is_whole(self) -> bool:
        """Whether a range has whole numbers alone."""
        return all(isinstance(each, int) for each in (*self.ends, self.step or 1))

    def exists(self, settings: Mapping[str, Any]) -> bool:
        """Whether it exists beside these values of the others."""
        wanted = {key: each if isinstance(each, list) else [each] for key, each in self.when.items()}
        return all(key in settings and settings[key] in values for key, values in wanted.items())

    def points(self) -> tuple[Any, ...]:
        """Its values where they can be counted, else none."""
        if self.values is not None or self.log or (self.step is None and not self.is_whole):
            return self.values or ()
        step, (low, high) = self.step or 1, self.ends
        return tuple(self.rounded(low + place * step) for place in range(1 + math.floor((high - low) / step + 1e-9)))

    def rounded(self, value: float) -> Number:
        """A number of the range, with no more digits than anybody needs."""
        low, high = self.ends
        return min(high, max(low, round(value) if self.is_whole else float(f"{value:.6g}")))

    def draw(self, random: "np.random.Generator") -> Any:
        """One value, each as likely as any other."""
        if points := self.points():
            return points[int(random.integers(len(points)))]
        low, high = self.ends
        if self.log:  # each whole number has the room up to its neighbours
            room = 0.5 if self.is_whole else 0.0
            return self.rounded(math.exp(random.uniform(math.log(low - room), math.log(high + room))))
        return self.rounded(random.uniform(low, high))


def grid(space: Sequence[Parameter], settings: Settings | None = None) -> Iterator[Settings]:
    """Every point of a space, the last parameter changing fastest."""
    settings = settings or {}
    if not space:
        yield settings
    elif not space[0].exists(settings):
        yield from grid(space[1:], settings)
    else:
        for value in space[0].points():
            yield from grid(space[1:], settings | {space[0].key: value})


def draw(space: Sequence[Parameter], seed: str, drawn: Sequence[Settings]) -> Settings | None:
    """A random point that was not drawn before; None where none is found. The same seed always gives the same."""
    import numpy as np

    random = np.random.default_rng(int(blake3(seed.encode()).hexdigest(length=16), 16))
    for _ in range(_TRIES):
        settings: Settings = {}
        for parameter in space:
            if parameter.exists(settings):
                settings[parameter.key] = parameter.draw(random)
        if settings not in drawn:
            return settings
    return None


def flat(table: Any, prefix: str = "") -> Settings:
    """A TOML table by dotted names: tables are opened as long as there are settings below them; else nothing."""
    found: Settings = {}
    for key, value in table.items() if isinstance(table, Mapping) else ():
        name = prefix + key
        if isinstance(value, dict) and any(each.startswith(name + ".") for each in setting_names()):
            found |= flat(value, name + ".")
        else:
            found[name] = value
    return found
