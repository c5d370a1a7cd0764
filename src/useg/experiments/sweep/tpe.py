"""The tree-structured Parzen estimator: where to look next, from the scores so far; only this module knows Optuna."""

from collections.abc import Sequence
from typing import Any

from blake3 import blake3

from useg.experiments.sweep.space import Parameter, Settings


def propose(space: Sequence[Parameter], seed: str, known: Sequence[tuple[Settings, float]]) -> Settings:
    """The next point to try; the same question always has the same answer.

    Args:
        space: those first that others depend on. seed: whatever tells this question from others.
        known: points and their scores, of which the highest is best.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    number = int(blake3(seed.encode()).hexdigest(length=4), 16)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=number))
    kinds = {each.key: _distribution(optuna.distributions, each) for each in space}
    for settings, score in known:
        told = {
            p.key: p.values.index(settings[p.key]) if p.values else settings[p.key] for p in space if p.key in settings
        }
        study.add_trial(
            optuna.trial.create_trial(params=told, distributions={key: kinds[key] for key in told}, value=score)
        )
    trial, found = study.ask(), Settings()
    for each in space:
        if each.exists(found):
            value: Any = trial._suggest(each.key, kinds[each.key])
            found[each.key] = each.values[value] if each.values else each.rounded(value)
    return found


def _distribution(kinds: Any, parameter: Parameter) -> Any:
    if parameter.values:
        return kinds.CategoricalDistribution(range(len(parameter.values)))  # places: a value may be a list
    kind = kinds.IntDistribution if parameter.is_whole else kinds.FloatDistribution
    step = {"step": parameter.step} if parameter.step is not None else {}
    return kind(*parameter.ends, log=parameter.log, **step)
