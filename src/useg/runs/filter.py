"""The language of `useg runs list --where`: comparisons of a run's fields, read by a parser of its own.

    score.dice > 0.8 and config.train.lr < 1e-3
    status = 'finished' and tags has 'paper' and not (name like 'isbi%' or note is null)

A comparison is `=`, `!=`, `<`, `<=`, `>`, `>=`, `like` (`%` any text, `_` one character), `in (...)`, `is null`, or
`has` (an item of a list, a part of a text); `not` may stand before `like`, `in` and `has`. A field alone holds when it
is true. Which field a name means is told in `useg.runs.naming`.

What a run does not have, and NaN, compares false, also with `!=`; `not` then turns that round: `not tags has 'a'`
holds of a run without tags. Numbers compare with numbers, texts with texts; a list compares by any of its items. `=`
with a text that ends in `...`, and of a digest with its first four or more digits, compares the beginning. `started`
and `ended` compare as moments ('2026-11-01', '2026-11-01T13:00', '2026-11-01T13:00+01:00'; without a zone, in this
machine's); `=` and `!=` there compare the beginning of the text.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NoReturn

from useg.errors import InputError

LONGEST = 10_000
"""Characters of a filter."""
DEEPEST = 32
"""Parentheses and `not` in one another."""
TIMES = ("started", "ended")
"""Fields that compare as moments."""

Values = Mapping[str, Any]
Test = Callable[[Values], bool]

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<number>[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?(?![\w.]))
    |(?P<text>'(?:[^']|'')*')
    |(?P<name>(?:[^\W\d][\w-]*|"(?:[^"]|"")+")(?:\.(?:[\w-]+|"(?:[^"]|"")+"))*)
    |(?P<sign><=|>=|!=|<>|==|[=<>(),])
    )""",
    re.VERBOSE,
)
_PART = re.compile(r'"((?:[^"]|"")+)"|([\w-]+)')
_WORDS = {"and", "or", "not", "like", "in", "is", "null", "has", "true", "false"}
_SAME = {"==": "=", "<>": "!="}
_FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MONTH = re.compile(r"\d{4}-\d\d")
_DIGITS = re.compile(r"[0-9a-f]{4,64}")


@dataclass(frozen=True)
class Filter:
    """A filter that was read.

    Attributes:
        names: the fields it asks for, as they are called in the index.
        holds: whether it holds of a run, given the values of these fields; what is missing may be left out or None.
    """

    names: tuple[str, ...]
    holds: Test


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    at: int


@dataclass(frozen=True)
class _Name:
    name: str


@dataclass(frozen=True)
class _Literal:
    """A value in the filter, as each kind it can be compared as; None where it cannot."""

    text: str
    number: float | None = None
    moment: float | None = None
    is_text: bool = False


def parse(where: str, resolve: Callable[[str], str] = lambda name: name) -> Filter:
    """Read a filter.

    Args:
        where: the text.
        resolve: gives the field that a name means, or raises.

    Raises:
        InputError: it cannot be read; says where and what was wanted there.
    """
    return _Parser(where, resolve).filter()


class _Parser:
    def __init__(self, where: str, resolve: Callable[[str], str]) -> None:
        self._where, self._resolve, self._depth = where, resolve, 0
        self._names: dict[str, None] = {}
        self._tokens = self._read()
        self._next = 0

    def filter(self) -> Filter:
        if not self._tokens:
            raise InputError(
                "--where is empty; wanted a condition, such as \"score.dice > 0.8 and status = 'finished'\""
            )
        holds = self._either()
        if self._next < len(self._tokens):
            self._refuse("`and`, `or`, or the end")
        return Filter(tuple(self._names), holds)

    def _read(self) -> list[_Token]:
        if len(self._where) > LONGEST:
            raise InputError(f"--where has {len(self._where)} characters; at most {LONGEST} are read")
        found, at, text = [], 0, self._where.rstrip()
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                raise InputError(
                    f"--where cannot be read from {_cut(text[at:].lstrip())} on: wanted a name, a number, a 'text' or "
                    'one of = != < <= > >= ( ) , (names with other signs stand in double quotes: "scores.cell wall")'
                )
            kind = str(match.lastgroup)
            word, start = match[kind], match.start(kind)
            if kind == "name" and word.lower() in _WORDS:
                kind, word = "word", word.lower()
            found.append(_Token(kind, _SAME.get(word, word), start))
            at = match.end()
        return found

    def _refuse(self, wanted: str) -> NoReturn:
        if self._next < len(self._tokens):
            token = self._tokens[self._next]
            raise InputError(f"--where: wanted {wanted}, found {_cut(self._where[token.at :])}")
        raise InputError(f"--where {_cut(self._where)} ends too early: wanted {wanted}")

    def _take(self, kind: str, *texts: str) -> str | None:
        """The next token if it is of this kind, and one of these."""
        if self._next < len(self._tokens):
            token = self._tokens[self._next]
            if token.kind == kind and (not texts or token.text in texts):
                self._next += 1
                return token.text
        return None

    def _either(self) -> Test:
        sides = [self._all()]
        while self._take("word", "or"):
            sides.append(self._all())
        return sides[0] if len(sides) == 1 else lambda values: any(side(values) for side in sides)

    def _all(self) -> Test:
        sides = [self._not()]
        while self._take("word", "and"):
            sides.append(self._not())
        return sides[0] if len(sides) == 1 else lambda values: all(side(values) for side in sides)

    def _not(self) -> Test:
        self._depth += 1
        if self._depth > DEEPEST:
            raise InputError(f"--where {_cut(self._where)} is too deep; at most {DEEPEST} levels are read")
        try:
            if self._take("word", "not"):
                inner = self._not()
                return lambda values: not inner(values)
            if self._take("sign", "("):
                inner = self._either()
                if not self._take("sign", ")"):
                    self._refuse("`)`")
                return inner
            return self._comparison()
        finally:
            self._depth -= 1

    def _comparison(self) -> Test:
        left = self._operand()
        if isinstance(left, _Name):
            test = self._about(left.name)
            if test is not None:
                return test
        sign = self._take("sign", "=", "!=", "<", "<=", ">", ">=")
        if sign is None:
            if isinstance(left, _Name):
                return _holds_alone(left.name)
            self._refuse("a comparison")
        if self._take("word", "null"):
            self._next -= 1
            self._refuse("a value (for what is missing: `is null`)")
        right = self._operand()
        if isinstance(left, _Literal):
            left, right, sign = right, left, _FLIPPED.get(sign, sign)
        if isinstance(left, _Literal):
            raise InputError(f"--where {_cut(self._where)} compares two values; wanted a field on one side")
        return _compared(left.name, sign, right)

    def _about(self, name: str) -> Test | None:
        """A test that is written with a word; None when a sign follows, or nothing."""
        if self._take("word", "is"):
            is_negated = self._take("word", "not") is not None
            if not self._take("word", "null"):
                self._refuse("`null` or `not null`")
            return lambda values: (values.get(name) is None) != is_negated
        is_negated = self._take("word", "not") is not None
        test: Test
        if self._take("word", "like"):
            matches = _pattern(self._literal().text)
            test = _any_item(name, lambda value: isinstance(value, str) and matches(value))
        elif self._take("word", "has"):
            test = _has(name, self._literal())
        elif self._take("word", "in"):
            equal = [_equal(name, wanted) for wanted in self._literals()]
            test = _any_item(name, lambda value: any(each(value) for each in equal))
        elif is_negated:
            self._refuse("`like`, `in` or `has`")
        else:
            return None
        return (lambda values: values.get(name) is not None and not test(values)) if is_negated else test

    def _literals(self) -> list[_Literal]:
        if not self._take("sign", "("):
            self._refuse("`(` and values, separated by commas")
        found = [self._literal()]
        while self._take("sign", ","):
            found.append(self._literal())
        if not self._take("sign", ")"):
            self._refuse("`,` or `)`")
        return found

    def _literal(self) -> _Literal:
        found = self._operand()
        if isinstance(found, _Name):
            self._next -= 1
            self._refuse("a number, or a text in single quotes")
        return found

    def _operand(self) -> _Name | _Literal:
        if (name := self._take("name")) is not None:
            plain = ".".join(quoted.replace('""', '"') or bare for quoted, bare in _PART.findall(name))
            found = self._resolve(plain)
            self._names[found] = None
            return _Name(found)
        if (text := self._take("number")) is not None:
            return _Literal(text, float(text))
        if (text := self._take("text")) is not None:
            return _literal_text(text[1:-1].replace("''", "'"))
        if (word := self._take("word", "true", "false")) is not None:
            return _Literal(word, float(word == "true"))
        self._refuse("a field, a number, or a text in single quotes")


def _literal_text(text: str) -> _Literal:
    try:
        number = float(text)
    except ValueError:
        number = None
    return _Literal(text, number, moment_of(text), is_text=True)


def moment_of(text: str) -> float | None:
    """Seconds since the epoch of a month's or a day's begin, or of a day and a time; None when it is none of these."""
    try:
        return datetime.fromisoformat(f"{text}-01" if _MONTH.fullmatch(text) else text).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def _holds_alone(name: str) -> Test:
    return lambda values: bool(values.get(name)) and not _is_nan(values.get(name))


def _any_item(name: str, test: Callable[[Any], bool]) -> Test:
    def holds(values: Values) -> bool:
        value = values.get(name)
        return any(map(test, value)) if isinstance(value, list) else value is not None and test(value)

    return holds


def _compared(name: str, sign: str, right: _Name | _Literal) -> Test:
    if isinstance(right, _Name):
        return _compared_fields(name, sign, right.name)
    if sign == "=":
        return _any_item(name, _equal(name, right))
    if sign == "!=":
        equal = _any_item(name, _equal(name, right))
        return lambda values: not _is_nan(values.get(name)) and values.get(name) is not None and not equal(values)
    if name in TIMES:
        if right.moment is None:
            raise InputError(f"--where: {name} is compared with a moment such as '2026-11-01', not {right.text!r}")
        limit = right.moment
        return _any_item(name, lambda value: _ordered(moment_of(str(value)), sign, limit))
    text = right.text if right.is_text else None
    return _any_item(name, lambda value: _ordered(value, sign, text if isinstance(value, str) else right.number))


def _compared_fields(left: str, sign: str, right: str) -> Test:
    """A field compared with another one."""

    def holds(values: Values) -> bool:
        first, second = values.get(left), values.get(right)
        if first is None or second is None or _is_nan(first) or _is_nan(second):
            return False
        if sign in ("=", "!="):
            return bool(first == second) == (sign == "=")
        if {left, right} <= {*TIMES}:
            first, second = moment_of(str(first)), moment_of(str(second))
        return _ordered(first, sign, second)

    return holds


def _ordered(value: Any, sign: str, limit: Any) -> bool:
    if value is None or limit is None or isinstance(value, str) != isinstance(limit, str):
        return False
    if sign.startswith("<"):
        return bool(value < limit or (sign == "<=" and value == limit))
    return bool(value > limit or (sign == ">=" and value == limit))


def _equal(name: str, wanted: _Literal) -> Callable[[Any], bool]:
    """Whether a value is the one wanted, or begins as it says."""
    text = wanted.text.replace("…", "...")
    beginning = text.removesuffix("...") if text.endswith("...") or name in TIMES else None
    is_digest = _DIGITS.fullmatch(text) is not None

    def equal(value: Any) -> bool:
        if not isinstance(value, str):
            return wanted.number is not None and not isinstance(value, list) and bool(value == wanted.number)
        if beginning is not None:
            return value.startswith(beginning)
        return value == wanted.text or (is_digest and value.startswith(text) and bool(_DIGEST.fullmatch(value)))

    return equal


def _has(name: str, wanted: _Literal) -> Test:
    equal = _equal(name, replace(wanted, moment=None))

    def has(values: Values) -> bool:
        value = values.get(name)
        if isinstance(value, str):
            return wanted.text in value
        return isinstance(value, list) and any(map(equal, value))

    return has


def _pattern(like: str) -> Callable[[str], bool]:
    """Whether a text is of this form; in a time that grows with the text's length, whatever the form."""
    first, *rest = (
        re.compile("".join("." if sign == "_" else re.escape(sign) for sign in piece), re.DOTALL)
        for piece in like.split("%")
    )
    lengths = [len(piece) for piece in like.split("%")]

    def matches(text: str) -> bool:
        if not rest:
            return first.fullmatch(text) is not None
        found = first.match(text)
        for piece in rest[:-1]:
            found = found and piece.search(text, found.end())
        start = len(text) - lengths[-1]
        return found is not None and start >= found.end() and rest[-1].match(text, start) is not None

    return matches


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and value != value


def _cut(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:50] + "…")


__all__ = ["DEEPEST", "LONGEST", "TIMES", "Filter", "Values", "moment_of", "parse"]
