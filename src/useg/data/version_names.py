"""How a version is called: the name of its data set, and what may stand after `@`."""

import re

from useg.errors import InputError

DATASET_NAME = re.compile(r"[\w][\w.\-]{0,99}", re.ASCII)
STEPS_BACK = re.compile(r"~(\d*)$")


def split_name(text: str) -> tuple[str, str]:
    """Data set and ref of `NAME` or `NAME@REF`; the ref is "" where none is given.

    Raises:
        InputError: `~n` stands after the name, and not after `@`.
    """
    name, at, ref = text.partition("@")
    steps = STEPS_BACK.search(name)
    if steps and not at and DATASET_NAME.fullmatch(name[: steps.start()]):
        raise InputError(f"{text}: there is no such data set; {name[: steps.start()]}@{steps[0]} was probably meant")
    return name, ref


__all__ = ["DATASET_NAME", "STEPS_BACK", "split_name"]
