"""The course of a sweep: which trial comes next, which is given up, when it is enough; all of it in the log first."""

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from typing import Any, TypeGuard

from useg.errors import InputError
from useg.experiments.listening import Listener
from useg.experiments.sweep.asked import Sweep
from useg.experiments.sweep.log import SweepLog
from useg.experiments.sweep.space import Settings, draw, flat, grid
from useg.experiments.sweep.stopping import EarlyStopping, is_hopeless
from useg.experiments.sweep.tpe import propose
from useg.experiments.sweep.trials import Ended, Trial, Trials
from useg.runs.facts import flattened
from useg.runs.naming import Names
from useg.runs.verdict import less_is_better

Points = list[tuple[float, float]]
Clock = Callable[[], float]


class Course:
    """One session of a sweep.

    Args:
        sweep: what is asked. log: of the sweep, open. trials: where they run. listener: words, and the wish to stop.
        clock: seconds that never go back.
    """

    def __init__(
        self, sweep: Sweep, log: SweepLog, trials: Trials, listener: Listener, clock: Clock = time.monotonic
    ) -> None:
        self.sweep, self.log, self.trials, self.listener, self._clock = sweep, log, trials, listener, clock
        self._since, self._spent_before = clock(), log.known.spent_s
        self._running: dict[int, Trial] = {}
        self._curves: dict[int, Points] = {}

    def run(self) -> str:
        """Go on until the budget is spent or there is nothing left to try.

        Returns:
            "finished", or "stopped" where somebody asked to stop.

        Raises:
            InputError: the metric is none of the runs'. ResourceError: the log cannot be written.
        """
        again = sorted(self.log.known.begun - self.log.known.ended.keys())
        order, told_to_stop = self._order(), False
        while True:
            while not self.listener.stop.asked and self.trials.has_room():
                following = self._trial(again.pop(0)) if again else None if self._is_spent() else next(order, None)
                if following is None:
                    break
                self._begin(following)
            if not self._running:
                return "stopped" if self.listener.stop.asked else "finished"
            if self.listener.stop.asked and not told_to_stop:
                told_to_stop = True
                for number in self._running:
                    self.trials.stop(number)
            self._look()

    def _look(self) -> None:
        """Wait a moment, and take note of what came of it."""
        self.trials.wait()
        for number, curve in self.trials.curves().items():
            self._curves[number] = live_points(self.sweep, curve)
        for end in self.trials.ended():
            self._end(end)
        rule = self.sweep.asked.early_stopping
        if rule is not None and not self.listener.stop.asked:
            self._give_up(rule)

    def _begin(self, trial: Trial) -> None:
        known = self.log.known
        if trial.number not in known.begun:
            self.log.write(event="begun", trial=trial.number, configuration=trial.configuration)
        self._running[trial.number] = trial
        self.trials.begin(trial, is_given_up=trial.number in known.given_up)
        said = known.drawn[trial.configuration] | {
            key: trial.settings[key] for key in ("seed", "fold") if key in trial.settings
        }
        self.listener.note(f"trial {trial.number}: " + ", ".join(f"{key}={value}" for key, value in said.items()))

    def _end(self, end: Ended) -> None:
        """Write down how a trial ended; of one that stops because the sweep does, nothing: it will go on."""
        trial = self._running.pop(end.number)
        live = self._curves.pop(end.number, None)
        is_given_up = end.number in self.log.known.given_up
        if end.state == "stopped" and not is_given_up and self.listener.stop.asked:
            return
        state = "given up" if is_given_up and end.state != "finished" else end.state
        score = self._score(end.values) if state == "finished" else None
        self.log.write(
            event="ended", trial=end.number, configuration=trial.configuration, state=state, run=end.run, score=score,
            seconds=end.seconds, live=live, version=end.values.get("origin.version"), lines=list(end.lines),
        )  # fmt: skip
        said = (
            f": {self.sweep.asked.metric} {score:.4g}" if score is not None else "".join(f"\n  {x}" for x in end.lines)
        )
        self.listener.note(("warning: " if state == "failed" else "") + f"trial {end.number} {state}{said}")

    def _score(self, values: Mapping[str, Any]) -> float | None:
        """The metric of a run that finished; None where it is no number.

        Raises:
            InputError: it has no such field.
        """
        try:
            value = values.get(Names(values.__contains__, values.keys).resolve(self.sweep.asked.metric))
        except InputError as error:
            raise InputError(f"metric: {error}; what was trained stays in the home") from error
        return value if _is_number(value) else None

    def _give_up(self, rule: EarlyStopping) -> None:
        """Stop what is worse than other configurations were with the same seed, on the same fold."""
        known = self.log.known
        curves = {number: end["live"] for number, end in known.ended.items() if end.get("live")} | self._curves
        for number in self._running.keys() & self._curves.keys() - known.given_up:
            twins = [other for other in curves if other != number and (other - number) % self.sweep.repeats == 0]
            others = [curves[other] for other in twins]
            if is_hopeless(rule, self._curves[number], others):
                share, live = self._curves[number][-1]
                self.log.write(event="given up", trial=number, share=share, live=live, others=len(others))
                self.trials.stop(number)

    def _is_spent(self) -> bool:
        """Whether one trial more, as long as those before it, would go beyond the budget."""
        budget, known = self.sweep.asked.budget, self.log.known
        took = [end["seconds"] for end in known.ended.values() if end["state"] == "finished"]
        until_s = self._spent_before + self._clock() - self._since + (statistics.fmean(took) if took else 0.0)
        most_s = min(
            60 * (budget.minutes or math.inf), 3600 * (budget.machine_hours or math.inf) / self.trials.machines
        )
        return bool(known.begun) and (len(known.begun) >= (budget.trials or math.inf) or until_s > most_s)

    def _order(self) -> Iterator[Trial]:
        """The trials that were not begun, configuration by configuration; drawn when their turn comes."""
        known = self.log.known
        points = grid(self.sweep.space) if self.sweep.asked.method == "grid" else None
        for number in count():
            settings = next(points, None) if points is not None else known.drawn.get(number) or self._drawn(number)
            if settings is None:
                return
            if number not in known.drawn:
                self.log.write(event="drawn", configuration=number, settings=settings)
            trials = self.sweep.trials_of(number)
            for trial in trials:
                if trial not in known.begun and known.given_up.isdisjoint(trials):
                    yield self._trial(trial)

    def _drawn(self, number: int) -> Settings | None:
        """A new point, by the sweep, its number, and for TPE the scores so far; None where all were tried."""
        drawn, seed = [*self.log.known.drawn.values()], f"{self.sweep.digest}/{number}"
        if self.sweep.asked.method == "tpe":
            settings = propose(self.sweep.space, seed, self._known_points())
            if settings not in drawn:
                return settings
        return draw(self.sweep.space, seed, drawn)

    def _known_points(self) -> list[tuple[Settings, float]]:
        """Configurations and their scores; what is not known, was given up, or failed, counts as the worst so far."""
        known, sign = self.log.known, -1.0 if self.sweep.is_less_better else 1.0
        scores: dict[int, float] = {}
        for number in known.drawn:
            trials = self.sweep.trials_of(number)
            there = [
                sign * known.ended[each]["score"]
                for each in trials
                if _is_number(known.ended.get(each, {}).get("score"))
            ]
            if there and known.given_up.isdisjoint(trials):
                scores[number] = statistics.fmean(there)
        worst = min(scores.values(), default=0.0)
        return [(known.drawn[number], scores.get(number, worst)) for number in sorted(known.drawn)] if scores else []

    def _trial(self, number: int) -> Trial:
        asked, (configuration, place) = self.sweep.asked, divmod(number, self.sweep.repeats)
        fixed = {"seed": 0} | flat(asked.settings)
        seed, fold = divmod(place, asked.folds)
        # all seeds are scored on the same samples
        settings = {"data.split_seed": fixed["seed"]} | fixed | self.log.known.drawn[configuration]
        folds = {"folds": asked.folds, "fold": fold} if asked.folds > 1 else {}
        return Trial(number, configuration, settings | folds | {"seed": fixed["seed"] + seed})


def live_points(sweep: Sweep, curve: list[tuple[float, dict[str, Any]]]) -> Points:
    """The live score that decides about early stopping, such that more is better."""
    name = "mean_dice" if sweep.asked.early_stopping is None else sweep.asked.early_stopping.live
    values = [(share, dict(flattened(scores, "live")).get(f"live.{name}")) for share, scores in curve]
    return [(share, -value if less_is_better(name) else value) for share, value in values if _is_number(value)]


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
