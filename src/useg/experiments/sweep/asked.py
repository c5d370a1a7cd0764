"""What is asked of a sweep: the file SWEEP.toml, read and checked as a whole; every problem is named with its place."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import orjson
from blake3 import blake3
from pydantic import Field, ValidationError

from useg.config import Checked, load_config, near, put_setting, read_toml, setting_names
from useg.errors import ConfigError
from useg.experiments.sweep.space import Parameter, Settings, flat, grid
from useg.experiments.sweep.stopping import EarlyStopping
from useg.runs.verdict import less_is_better

_MOST_POINTS = 10_000
_AXES = {"seed": "seeds", "fold": "folds", "folds": "folds"}


class Budget(Checked):
    """What may be spent; whatever is spent first ends the sweep. What runs then, still finishes."""

    trials: int | None = Field(default=None, ge=1)
    """Runs in all, seeds and folds counted."""
    minutes: float | None = Field(default=None, gt=0)
    """Time that the sweep runs."""
    machine_hours: float | None = Field(default=None, gt=0)
    """The same times the number of machines."""


class Asked(Checked):
    """The keys of SWEEP.toml."""

    data: str = Field(min_length=1)
    """As for `useg train`: a folder, or NAME[@REF] of a data set."""
    where: str | None = None
    transforms: tuple[str, ...] = ()
    method: Literal["grid", "random", "tpe"] = "random"
    seeds: int = Field(default=1, ge=1, le=1000)
    """Runs of each configuration that differ by their seed alone."""
    folds: int = Field(default=1, ge=1, le=20)
    """Each configuration is cross-validated; each fold is a run of its own."""
    metric: str = Field(default="score.dice", min_length=1)
    """A field of a run, as `useg runs list --where` names it."""
    direction: Literal["max", "min"] | None = None
    """By default that of the metric."""
    budget: Budget = Budget()
    early_stopping: EarlyStopping | None = None
    settings: dict[str, Any] = Field(default={})
    """Those of every run."""
    search: dict[str, Any] = Field(min_length=1)
    """Those that are searched."""


@dataclass(frozen=True)
class Sweep:
    """A sweep as it was asked for, checked.

    Attributes:
        asked: the keys of the file. data: the data as it was found: a path, or a data set's commit. name: of the file.
    """

    asked: Asked
    data: str
    name: str = "sweep"

    @property
    def space(self) -> tuple[Parameter, ...]:
        """The parameters, those first that others depend on."""
        return tuple(_parameter(key, given) for key, given in flat(self.asked.search).items())

    @property
    def repeats(self) -> int:
        """Trials of each configuration."""
        return self.asked.seeds * self.asked.folds

    def trials_of(self, configuration: int) -> range:
        """Their numbers."""
        return range(configuration * self.repeats, (configuration + 1) * self.repeats)

    @property
    def is_less_better(self) -> bool:
        """Whether low scores are good."""
        given = self.asked.direction
        return less_is_better(self.asked.metric.rpartition(".")[2]) if given is None else given == "min"

    @property
    def digest(self) -> str:
        """Of all that decides which trials there are; the budget is not part of it, so that it can be raised."""
        asked = self.asked.model_dump(mode="json", exclude={"budget"}) | {"data": self.data}
        return str(blake3(orjson.dumps(asked, option=orjson.OPT_SORT_KEYS)).hexdigest())

    @property
    def id(self) -> str:
        """The same for the same sweep."""
        return f"{self.name}-{self.digest[:8]}"


def read_sweep(path: Path) -> Asked:
    """Read a sweep's file.

    Raises:
        ConfigError: it is not TOML, or something in it cannot be; all problems at once.
    """
    tree = read_toml(path)
    problems: list[str] = []
    asked = None
    try:
        asked = Asked.model_validate(tree)
    except ValidationError as error:
        problems += [_explained(each) for each in error.errors()]
    fixed, searched = (flat(tree.get(name, {})) for name in ("settings", "search"))
    problems += _of_settings(fixed, searched) + _of_search(searched)
    if asked is not None and not problems:
        problems += _of_points(asked, fixed, [_parameter(*item) for item in searched.items()])
    if problems or asked is None:
        raise ConfigError("\n".join([f"{path}: cannot be run as a sweep", *(f"  - {each}" for each in problems)]))
    return asked


def _of_settings(fixed: Settings, searched: Settings) -> list[str]:
    known = setting_names()
    problems = [f"[settings] {key}: unknown setting{near(key, known)}" for key in fixed if key not in known]
    axes = [key for key in fixed if key in ("fold", "folds")]
    problems += [f"[settings] {key}: is an axis of its own: write folds = N at the top" for key in axes]
    problems += [f"[settings] {key}: is searched, too" for key in fixed if key in searched]
    fitting = {key: value for key, value in fixed.items() if key in known}
    return problems + [f"[settings] {line}" for line in _refused(fitting)]


def _of_search(searched: Settings) -> list[str]:
    known, before = setting_names(), dict[str, Any]()
    problems = []
    for key, given in searched.items():
        found = []
        if key in _AXES:
            found = [f"is an axis of its own: write {_AXES[key]} = N at the top"]
        elif key not in known:
            found = [f"unknown setting{near(key, known)}"]
        else:
            try:
                made = _parameter(key, given)
                values = made.values or made.ends
                found = list(dict.fromkeys(line for value in values for line in _refused({key: value})))
                lost = "when names {!r}, which does not stand in [search] before it"
                found += [lost.format(other) + near(other, before) for other in made.when if other not in before]
            except ValidationError as error:
                found = [_explained(each, Parameter) for each in error.errors()]
        problems += [f"[search] {key}: {each.removeprefix(f'setting {key}: ')}" for each in found]
        before[key] = given
    return problems


def _of_points(asked: Asked, fixed: Settings, space: Sequence[Parameter]) -> list[str]:
    if asked.method != "grid":
        method = f'[budget]: method = "{asked.method}" has no end of its own: give trials, minutes or machine_hours'
        return [method] if asked.budget == Budget() else []
    if endless := [each.key for each in space if not each.points()]:
        return [f"[search] {key}: a grid wants a list, or a step between low and high" for key in endless]
    points = list(islice(grid(space), _MOST_POINTS + 1))
    if len(points) > _MOST_POINTS:
        return [f"[search]: a grid of more than {_MOST_POINTS:,} points; take random or tpe"]
    refused = [(point, line) for point in points for line in _refused(fixed | point)]
    return [f"[search] {point}: {line}" for point, line in refused[:1]]


def _parameter(key: str, given: Any) -> Parameter:
    """Raises ValidationError."""
    if not isinstance(given, dict):  # of a value alone the list is missing
        return Parameter(key=key, values=given)
    when = {"when": flat(given["when"])} if isinstance(given.get("when"), dict) else {}
    return Parameter(**given | when | {"key": key})


def _refused(settings: Settings) -> list[str]:
    """What is wrong with some settings."""
    try:
        load_config(**settings_tree(settings))
    except ConfigError as error:
        return str(error).splitlines()
    return []


def settings_tree(settings: Settings) -> dict[str, Any]:
    """Dotted names as tables in tables."""
    tree: dict[str, Any] = {}
    for name, value in settings.items():
        put_setting(tree, name, value)
    return tree


def _explained(problem: Any, part: Any = Asked) -> str:
    *above, last = [str(each) for each in problem["loc"]] or [""]
    place = f"[{'.'.join(above)}] {last}: " if above else f"{last}: " if last else ""
    if problem["type"] == "extra_forbidden":
        part = {"budget": Budget, "early_stopping": EarlyStopping}[above[0]] if above else part
        return f"{place}unknown key{near(last, set(part.model_fields) - {'key'})}"
    return f"{place}{problem['msg'].removeprefix('Value error, ')}" + (f", not {problem['input']!r}" if last else "")
