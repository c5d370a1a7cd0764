"""Which field of a run a name means: in full, by an alias, or by any unique part of it.

In this order: a name in full (`config.train.lr`); `score` for `scores`; `score.dice`, `score.iou` and `score` alone for
`scores.mean_dice`, `scores.mean_iou` and `scores.mean_dice`; `score.CLASS.dice` and `score.dice.CLASS` for
`scores.classes.CLASS.dice`; then whatever ends so (`train.lr`, `lr`), and whatever has these parts in this order
(`config.lr`), if there is only one such field. What the journal said last (`last.lr`) counts only where nothing else
is called so.
"""

from collections.abc import Callable, Iterable
from typing import NoReturn

from useg.errors import InputError

RECORDED = frozenset((
    "run", "name", "status", "started", "ended", "seconds", "user", "host", "command", "data", "samples",
    "origin.of", "origin.dataset", "origin.version", "origin.commit", "origin.view", "origin.where", "origin.home",
    "config_digest", "weights", "scores.part", "scores.mean_dice", "scores.mean_iou", "scores.pixel_error", "steps",
    "attempts", "tags", "note", "parent", "error", "removed", "useg", "last.step", "last.loss", "last.mean_dice",
))  # fmt: skip
"""Fields that may be asked for even while no run has them."""
_SHORT = {
    "score": "scores.mean_dice",
    "scores": "scores.mean_dice",
    "scores.dice": "scores.mean_dice",
    "scores.iou": "scores.mean_iou",
}
_MOST_COMPARED = 5_000
_SHOWN = 6


class Names:
    """The fields there are.

    Args:
        has: whether some run has a field of this name.
        all_names: gives all of them; asked only for what `has` does not know.
    """

    def __init__(self, has: Callable[[str], bool], all_names: Callable[[], Iterable[str]]) -> None:
        self._has, self._all_names = has, all_names

    def resolve(self, name: str) -> str:
        """The field that a name means.

        Raises:
            InputError: no field is called so, or several could be meant; names those that are near.
        """
        full = "scores." + name.removeprefix("score.") if name.startswith("score.") else name
        full = _SHORT.get(full, full)
        if full in RECORDED or self._has(full):
            return full
        known = RECORDED | set(self._all_names())
        inside = sorted(each for each in known if each.startswith(full + "."))
        if inside:
            raise InputError(f"{_shown(name)} is a group of fields: wanted one of {_some(inside)}")
        for candidates in (_of_a_class(full, known), _ending_in(full, known), _with_parts(full, known)):
            if len(candidates) == 1:
                return candidates[0]
            if candidates:
                raise InputError(f"{_shown(name)} could be {_some(candidates)}: write more of the name")
        from useg.config import setting_names

        if full in {f"config.{setting}" for setting in setting_names()}:  # which runs of other programs may lack
            return full
        self._refuse(name, full, known)

    def _refuse(self, name: str, full: str, known: set[str] | frozenset[str]) -> NoReturn:
        import difflib

        near = sorted(known | set(_SHORT), key=lambda each: abs(len(each) - len(full)))[:_MOST_COMPARED]
        ends = {each.rpartition(".")[2]: each for each in near}
        found = difflib.get_close_matches(full, near, _SHOWN, 0.6)
        found += [ends[end] for end in difflib.get_close_matches(full.rpartition(".")[2], ends, 3, 0.6)]
        meant = f"; near it: {_some([*dict.fromkeys(found)])}" if found else ""
        raise InputError(f"no run has a field {_shown(name)}{meant}. `useg runs show RUN --json` shows what a run has")


def _of_a_class(full: str, known: Iterable[str]) -> list[str]:
    """A class's score, by the class and what is measured in any order."""
    if not full.startswith("scores."):
        return []
    rest = full.removeprefix("scores.")
    first, last = rest.partition("."), rest.rpartition(".")
    wanted = {f"scores.classes.{rest}", f"scores.classes.{first[2]}.{first[0]}", f"scores.classes.{last[2]}.{last[0]}"}
    return sorted(wanted & set(known))


def _ending_in(full: str, known: Iterable[str]) -> list[str]:
    found = sorted(name for name in known if name.endswith("." + full))
    return [name for name in found if not name.startswith("last.")] or found


def _with_parts(full: str, known: Iterable[str]) -> list[str]:
    """Names that begin and end as this one, with other parts in between."""
    first, dot, rest = full.partition(".")
    if not dot:
        return []
    return sorted(name for name in known if name.startswith(first + ".") and name.endswith("." + rest))


def _shown(name: str) -> str:
    return repr(name if len(name) <= 80 else name[:70] + "…")


def _some(names: list[str]) -> str:
    """Some names, and how many there are besides."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(_plain(name) for name in names[:_SHOWN]) + more


def _plain(name: str) -> str:
    return name if name.isprintable() and len(name) <= 80 else _shown(name)


__all__ = ["RECORDED", "Names"]
