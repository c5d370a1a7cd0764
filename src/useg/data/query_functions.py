"""What a query may call: a few deterministic functions of SQL, and `split()` and `sample()`, frozen for ever.

Both put every group at a place: a whole number below 2^53, made of the stored hash and the seed by `splits.mix`,
and compare it with whole numbers. `split` uses the places of `splits.place`; so equal fractions and seeds give what
`splits.assign_splits` draws. `sample` mixes the hash with another constant first, so that it is independent.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from useg.data.splits import group_hash
from useg.errors import InputError

PLACES = 1 << 53
SAMPLING = group_hash("useg sample")

_MOST_PARTS = 100
_PART = re.compile(r"\s*([\w][\w.\-]{0,99})\s*:\s*([0-9]{0,3}[.]?[0-9]{1,18})\s*")
_GOLDEN = 0x9E3779B97F4A7C15

Hashes = np.ndarray[Any, np.dtype[np.uint64]]


@dataclass(frozen=True)
class Function:
    """A function of SQL.

    Attributes:
        takes: kinds of its arguments; "same" is any, but all of one kind.
        gives: the kind of its value; "same" is that of its arguments.
        sql: its name in DuckDB.
        optional: how many of the last arguments may be left out.
        repeated: the last argument may be given any number of times.
        constant: places of arguments that must be constants.
    """

    takes: tuple[str, ...]
    gives: str
    sql: str = ""
    optional: int = 0
    repeated: bool = False
    constant: tuple[int, ...] = ()


FUNCTIONS: Mapping[str, Function] = {
    "abs": Function(("number",), "number"),
    "ceil": Function(("number",), "number"),
    "floor": Function(("number",), "number"),
    "round": Function(("number", "number"), "number", optional=1, constant=(1,)),
    "coalesce": Function(("same", "same"), "same", repeated=True),
    "greatest": Function(("same", "same"), "same", repeated=True),
    "least": Function(("same", "same"), "same", repeated=True),
    "lower": Function(("text",), "text"),
    "upper": Function(("text",), "text"),
    "trim": Function(("text",), "text"),
    "length": Function(("text",), "number"),
    "contains": Function(("text", "text"), "truth"),
    "starts_with": Function(("text", "text"), "truth"),
    "ends_with": Function(("text", "text"), "truth"),
    "substr": Function(("text", "number", "number"), "text", optional=1, constant=(1, 2)),
    "split_part": Function(("text", "text", "number"), "text", constant=(1, 2)),
    "regexp_matches": Function(("text", "text"), "truth", constant=(1,)),
    "regexp_extract": Function(("text", "text", "number"), "text", optional=1, constant=(1, 2)),
}
OWN = ("split", "sample", "files")


@dataclass(frozen=True)
class Place:
    """A column of places that a query needs.

    Attributes:
        by: the column whose values stay together; "" is the group, else the key.
        seed: another seed, another draw.
        salt: 0, or what makes places independent of those of splits.
    """

    by: str
    seed: int
    salt: int = 0

    def of(self, hashes: Hashes) -> Hashes:
        """The places that go with these hashes."""
        if self.salt:
            hashes = mixed(hashes, self.salt)
        return mixed(hashes, self.seed) >> np.uint64(11)


def mixed(values: Hashes, seed: int) -> Hashes:
    """`splits.mix` of every value."""
    found = values + np.uint64((seed + 1) * _GOLDEN % (1 << 64))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        found ^= found >> np.uint64(shift)
        found *= np.uint64(factor)
    return found ^ (found >> np.uint64(31))


def parse_parts(text: str) -> dict[str, Fraction]:
    """The parts of a split in the order in which they take places: test, val, others by name, train last.

    >>> parse_parts("train:0.8, val:0.20")
    {'val': Fraction(1, 5), 'train': Fraction(4, 5)}

    Raises:
        InputError: not names with shares that sum to 1.
    """
    wanted = f"split({text[:200]!r}): wanted names with shares that sum to 1, such as 'train:0.8,val:0.1,test:0.1'"
    pieces = text.split(",")
    if len(pieces) > _MOST_PARTS:
        raise InputError(f"{wanted}; {len(pieces)} parts are too many")
    parts: dict[str, Fraction] = {}
    for piece in pieces:
        found = _PART.fullmatch(piece)
        if found is None or found[1] in parts:
            raise InputError(f"{wanted}; {piece.strip()[:100]!r} is {'there twice' if found else 'none'}")
        parts[found[1]] = Fraction(found[2])
    if sum(parts.values()) != 1 or 0 in parts.values():
        raise InputError(f"{wanted}; these sum to {float(sum(parts.values())):g}, or one of them is 0")
    first = {"test": 0, "val": 1, "train": 3}
    return dict(sorted(parts.items(), key=lambda part: (first.get(part[0], 2), part[0])))


def parts_text(parts: Mapping[str, Fraction]) -> str:
    """Parts of a split as they stand in a canonical query."""
    return ",".join(f"{name}:{decimal(share)}" for name, share in parts.items())


def decimal(share: Fraction) -> str:
    """A share with its exact decimals, of which it has at most 18."""
    whole, rest = divmod(share.numerator * 10**18 // share.denominator, 10**18)
    return f"{whole}.{rest:018d}".rstrip("0").rstrip(".")


def split_sql(parts: Mapping[str, Fraction], column: str) -> str:
    """The name of the part whose range a place is in."""
    bound = Fraction(0)
    cases = []
    *others, last = parts
    for name in others:
        bound += parts[name]
        cases.append(f"WHEN {column} < {below(bound)} THEN '{name}'")
    return f"CASE {' '.join(cases)} ELSE '{last}' END" if cases else f"'{last}'"


def below(share: Fraction) -> int:
    """The places of a share of all groups are those below this number."""
    return -(-share.numerator * PLACES // share.denominator)
