"""A callback that records a training by Lightning as a run: `Trainer(callbacks=[Recorded(config)])`."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from useg import runs


class Recorded(Callback):
    """Puts what the module logs into the home, step by step.

    Args:
        config: settings of the run. name: part of its id.
    """

    def __init__(self, config: Mapping[str, Any] | None = None, name: str | None = None) -> None:
        self._config, self._name = config, name
        self._trained: dict[str, Any] = {}
        self._validated: set[str] = set()
        self.run: runs.ActiveRun | None = None

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Begin the run, in the first process only."""
        if trainer.is_global_zero:
            self.run = runs.start(config=self._config or dict(module.hparams), name=self._name)

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *rest: Any) -> None:
        """What was logged in this step; Lightning still holds there what the last validation gave."""
        if self.run is not None:
            there = trainer.logged_metrics.items()
            self._trained = {name: value for name, value in there if name not in self._validated}
            self.run.log(trainer.global_step, self._trained)

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        """What validation gave, without what the last step did."""
        if self.run is not None and not trainer.sanity_checking:
            there = trainer.callback_metrics.items()
            values = {name: value for name, value in there if name not in self._trained}
            self._validated |= values.keys()
            self.run.log(trainer.global_step, values)

    def on_fit_end(self, trainer: Trainer, module: LightningModule) -> None:
        """End the run with its last scores."""
        if self.run is not None:
            self.run.finish({name: float(value) for name, value in trainer.callback_metrics.items()})

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        """End the run as stopped or failed."""
        if self.run is not None:
            stopped = isinstance(exception, KeyboardInterrupt)
            self.run.finish(status="stopped" if stopped else "failed", error="" if stopped else repr(exception))
