"""One attempt of a run: the loop's events to the journal, checkpoints, live scores, the clock's decisions."""

import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any

from useg.arrays import Labels
from useg.data.samples import Loaded
from useg.errors import ResourceError
from useg.experiments.ensemble import Member
from useg.experiments.listening import Listener
from useg.experiments.overlay import label_overlay, picture_of
from useg.experiments.prepare import Prepared
from useg.experiments.validation import live_scores, member_of
from useg.home.folder import writing
from useg.runs.journal import Event, Journal, read_attempt
from useg.runs.pictures import keep_picture
from useg.runs.record import RunFolder
from useg.train.batches import Batches
from useg.train.bundle import save_bundle
from useg.train.checkpoint import Checkpoints
from useg.train.loop import Trainer
from useg.train.plan import Plan
from useg.train.planning import training_seconds

SNAPSHOTS = 5
"""Models of the last validations that are kept, to see how steady the end was."""

SHOWN = 3
"""Validation samples whose prediction is kept as a picture at each validation."""

_LATE = 1.05
"""The clock shortens a run when it would take this many times the budget for training."""


@dataclass(frozen=True)
class Budget:
    """Seconds for steps and validations, from the start of the run; None without a clock."""

    seconds: float | None

    def steps_that_fit(self, spent_s: float, steps: int, steps_left: int) -> int:
        """How many of the steps left there is time for, at the mean pace so far.

        Nothing is decided before half of the time is over: what is slow for a minute may be fast afterwards.
        """
        if self.seconds is None:
            return steps_left
        allowed = self.seconds
        pace = spent_s / max(1, steps)
        if spent_s < 0.5 * allowed or spent_s + steps_left * pace <= _LATE * allowed:
            return steps_left
        return max(1, min(steps_left, int((allowed - spent_s) / pace)))


class Attempt:
    """A training that starts, or goes on from the newest readable checkpoint of earlier attempts.

    Args:
        folder: of the run, or of the fold. plan: frozen. prepared: the data.
        batches: to train on. validate_on: items that are scored. budget: of time.
        number: of the attempt, which the run has claimed.
        world: how many processes train together.
        decisions: of another run, to be taken again at the same steps; the clock is not asked then.
    """

    def __init__(
        self,
        folder: RunFolder,
        plan: Plan,
        prepared: Prepared,
        batches: Batches,
        validate_on: list[int],
        budget: Budget,
        *,
        number: int,
        world: int = 1,
        decisions: Sequence[Event] | None = None,
    ) -> None:
        self.folder, self.plan, self.prepared, self.batches, self.budget = (folder, plan, prepared, batches, budget)
        self.validate_on = validate_on
        spread = max(1, len(validate_on) // plan.validation_samples)
        self.live_on = validate_on[::spread][: plan.validation_samples]
        self.history: list[Event] = folder.journal()
        self.trainer = Trainer(plan, world=world)
        self.constant: str | None = None
        self._warned = False
        self._number, self._decisions = number, decisions
        self._shown_keys: list[str] = []
        self._pending: list[Event] = []
        self._known = 0

    @property
    def has_history(self) -> bool:
        """Whether an earlier attempt took steps."""
        return any(event["event"] == "step" for event in self.history)

    @property
    def member(self) -> Member:
        """The averaged network as it stands."""
        return member_of(self.trainer, self.plan, self.prepared.mapping)

    def steps_for(self, minutes: float | None, epochs: float | None) -> int:
        """Steps to take beyond the end of a run (those after its rate began to fall are taken again besides)."""
        if epochs is not None:
            return max(1, round(epochs * self.plan.patches_per_epoch / (self.plan.micro_batch * self.plan.count)))
        taken = [event["seconds"] for event in self.history if event["event"] == "step"]
        step_s = sum(taken) / len(taken) if taken else self.plan.seconds_per_step or 1.0
        return max(1, int(training_seconds(60 * (minutes or 0)) / step_s))

    def run(
        self, listener: Listener, *, label: str, more_steps: int | None = None, minutes: float | None = None
    ) -> None:
        """Train to the end, or until a stop is asked for.

        Args:
            listener: where words and progress go. label: of the progress.
            more_steps: to go on for beyond the end; minutes: that they may take, None for any time.
        """
        trainer = self.trainer
        decisions = standing_decisions(self.history) if self._decisions is None else self._decisions
        resuming = self.has_history
        if more_steps is None:
            checked = (e["step"] for e in self.history if e["event"] == "validation")
            self._known = max(checked, default=0)
        self._restore(more_steps)
        for decision in decisions:
            if decision["step"] > trainer.step and decision["stop"] < trainer.stop:
                self._pending.append(decision)
            else:
                self._apply(decision)
            if "seconds_allowed" in decision:
                self.budget = Budget(decision["seconds_allowed"])
        if trainer.step >= trainer.stop and more_steps is None:
            return
        place = self.folder.path / "attempts" / str(self._number)
        with writing(place):
            place.mkdir(parents=True, exist_ok=True)
        journal = Journal(place / "journal.jsonl", lambda text: listener.note(f"warning: {text}"))
        checkpoints = Checkpoints(place / "checkpoints")
        trainer.share_state()
        try:
            told = {"world": trainer.world}
            if resuming:
                journal.write({"event": "resumed", "step": trainer.step, **told}, sync=True)
            else:
                journal.write({"event": "started", "step": 0, "plan": self.plan.steps, **told}, sync=True)
            if more_steps is not None:
                allowed = None if minutes is None else self._spent() + training_seconds(60 * minutes)
                self.budget = Budget(allowed)
                end = self._pending[-1]["stop"] if self._pending else trainer.stop
                self._pending.clear()  # what shortened the run before does not shorten what is asked for now
                self._decide(journal, end + more_steps, "extended by the user", seconds_allowed=allowed)
            with listener.progress(label) as advance:
                self._steps(journal, checkpoints, listener, advance)
        finally:
            journal.close()

    def _spent(self) -> float:
        return sum(float(e.get("seconds", 0.0)) for e in self.history if e.get("step", 0) <= self.trainer.step)

    def _steps(self, journal: Journal, checkpoints: Checkpoints, listener: Listener, advance: Any) -> None:
        trainer = self.trainer
        spent = self._spent()
        saved = clock = time.monotonic()
        with closing(trainer.steps(self.batches)) as events:
            for event in events:
                journal.write(event)
                while self._pending and self._pending[0]["step"] <= trainer.step:
                    self._apply(self._pending.pop(0))
                advance(trainer.step, total=trainer.stop, status=f"loss {event['loss']:.3f}" + self._shown())
                last = trainer.step >= trainer.stop
                if trainer.step % self.plan.validate_every == 0 or last:
                    self._validate(journal, listener)
                    self._look_at_clock(journal, spent + time.monotonic() - clock)
                anchor = trainer.step == trainer.cooldown_start
                asked = listener.stop.asked and not last
                if last or anchor or asked or time.monotonic() - saved > self.plan.checkpoint_seconds:
                    self._save(checkpoints, listener, anchor=anchor, needed=last or asked)
                    saved = time.monotonic()
                spent += time.monotonic() - clock
                clock = time.monotonic()
                if asked:
                    journal.write({"event": "stopped", "step": trainer.step}, sync=True)
                    return
        journal.write({"event": "finished", "step": trainer.step}, sync=True)

    def _shown(self) -> str:
        scores = next((e["scores"] for e in reversed(self.history) if e["event"] == "validation"), None)
        return f", Dice {scores['mean_dice']:.3f}" if scores and scores["mean_dice"] is not None else ""

    def _validate(self, journal: Journal, listener: Listener) -> None:
        started = time.perf_counter()
        member = self.member
        live = live_scores(member, self.prepared.samples, self.live_on, self._picture)
        event = {
            "event": "validation",
            "step": self.trainer.step,
            "scores": live.scores,
            "seconds": round(time.perf_counter() - started, 3),
        }
        journal.write(event)
        self.history.append(event)
        if live.constant is not None and live.constant != self.constant and self.trainer.step > self.trainer.stop // 3:
            listener.note(f"warning: at step {self.trainer.step} every pixel is predicted as {live.constant!r}")
        self.constant = live.constant
        with suppress(ResourceError):  # the next checkpoint says so
            self._keep_snapshot()

    def _picture(self, loaded: Loaded, predicted: Labels) -> None:
        """Keep how the first samples are predicted now, so that one can watch them over time."""
        if loaded.key not in self._shown_keys:
            if len(self._shown_keys) == SHOWN:
                return
            self._shown_keys.append(loaded.key)
        image = loaded.image
        if image.ndim == 4:
            middle = image.shape[1] // 2
            image, predicted = image[:, middle], predicted[middle]
        picture = label_overlay(picture_of(image), predicted, self.prepared.mapping.palette)
        with suppress(ResourceError):  # the next checkpoint says so
            keep_picture(self.folder.path, loaded.key, self.trainer.step, picture)

    def _keep_snapshot(self) -> None:
        place = self.folder.path / "snapshots"
        with writing(place):
            place.mkdir(exist_ok=True)
        save_bundle(
            place / f"step-{self.trainer.step:08d}.useg", self.plan, self.prepared.mapping, self.trainer.average,
            about={"run": self.folder.id, "step": self.trainer.step},
        )  # fmt: skip
        for old in sorted(place.glob("step-*.useg"))[:-SNAPSHOTS]:
            old.unlink(missing_ok=True)

    def _look_at_clock(self, journal: Journal, spent: float) -> None:
        trainer = self.trainer
        left = trainer.stop - trainer.step
        if left <= 0 or trainer.step <= self._known or self._decisions is not None:
            return  # where an earlier attempt looked at the clock, its decisions are replayed
        fit = self.budget.steps_that_fit(spent, trainer.step, left)
        if fit < left:
            pace = spent / trainer.step
            self._decide(journal, trainer.step + fit, f"the machine is slower than probed: {pace:.3f} s a step")

    def _decide(self, journal: Journal, stop: int, why: str, **more: float | None) -> None:
        """Change where the run ends; the decision is on disk before it takes effect, and resume replays it."""
        trainer = self.trainer
        ahead = stop - trainer.step
        cooldown = min(trainer.cooldown_start, stop) if trainer.step >= trainer.cooldown_start else None
        if cooldown is None or stop > trainer.stop:
            share = self.plan.cooldown_steps / self.plan.steps
            cooldown = max(trainer.step, stop - round(share * min(ahead / max(1e-9, 1 - share), stop)))
        decision = {
            "event": "decision",
            "step": trainer.step,
            "stop": stop,
            "cooldown_start": cooldown,
            "why": why,
            **more,
        }
        journal.write(decision, sync=True)
        self.history.append(decision)
        self._apply(decision)

    def _apply(self, decision: Event) -> None:
        self.trainer.stop, self.trainer.cooldown_start = decision["stop"], decision["cooldown_start"]

    def _save(self, checkpoints: Checkpoints, listener: Listener, *, anchor: bool, needed: bool) -> None:
        """Write a checkpoint. One that is not the last may fail: the one before it is intact, and training goes on.

        Raises:
            ResourceError: it is needed, and could not be written.
        """
        try:
            checkpoints.save(self.trainer.step, self.trainer.tensors(), self.trainer.state())
            if anchor:
                Checkpoints(self.folder.path / "before-cooldown", keep=1).save(
                    self.trainer.step, self.trainer.tensors(), self.trainer.state()
                )
        except ResourceError as error:
            if needed:
                raise ResourceError(f"{error}. Go on with: useg train --resume {self.folder.id}") from error
            if not self._warned:
                self._warned = True
                listener.note(f"warning: step {self.trainer.step} has no checkpoint: {error}. Training goes on")

    def _restore(self, more_steps: int | None) -> None:
        """Load the newest readable checkpoint; to extend a run, the one before its rate began to fall."""
        attempts = sorted(
            (p for p in (self.folder.path / "attempts").glob("*") if p.name.isdigit()),
            key=lambda p: int(p.name),
            reverse=True,
        )
        found, limit = None, None
        if more_steps is not None:
            found = Checkpoints(self.folder.path / "before-cooldown").latest()
        for place in attempts:
            found = found or Checkpoints(place / "checkpoints").latest(limit)
            # What an earlier attempt did after the step from which this one went on does not count.
            begun = next((e["step"] for e in read_attempt(place / "journal.jsonl")), None)
            if begun is not None:  # else it took no step: this one, or one that scored anew
                limit = begun if limit is None else min(limit, begun)
        found = found or Checkpoints(self.folder.path / "before-cooldown").latest(limit)
        step = 0
        if found is not None:
            step, tensors, state = found
            self.trainer.restore(tensors, state)
        self.history = [e for e in self.history if e.get("step", 0) <= step or e["event"] == "decision"]


def standing_decisions(history: Sequence[Event]) -> list[Event]:
    """The decisions that count: one that was taken farther back replaces those ahead of it."""
    standing: list[Event] = []
    for event in history:
        if event["event"] == "decision":
            standing = [e for e in standing if e["step"] <= event["step"]] + [event]
    return standing
