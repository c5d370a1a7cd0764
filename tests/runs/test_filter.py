"""The filter of runs, against a slow twin and by example."""

import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from useg.errors import InputError
from useg.runs.filter import DEEPEST, LONGEST, moment_of, parse

RUN: dict[str, Any] = {
    "scores.mean_dice": 0.9,
    "config.train.lr": 1e-4,
    "tags": ["paper", "new"],
    "empty": [],
    "name": "isbi-3",
    "status": "finished",
    "started": "2026-11-22T20:49:56+0000",
    "origin.version": "ab12" + "0" * 60,
    "removed": True,
    "loss": math.nan,
    "top": math.inf,
    "steps": 300,
    "last.step": 200,
    "note": None,
    "cell wall": "it's 100%",
}


@pytest.mark.parametrize(
    "where",
    [
        "scores.mean_dice > 0.8 and config.train.lr < 1e-3",
        "0.8 < scores.mean_dice",
        "scores.mean_dice>=.9 AND scores.mean_dice<=9e-1",
        "scores.mean_dice = '0.9'",
        "status = 'finished' and tags has 'paper'",
        "tags = 'paper' and tags != 'old'",
        "tags like 'pap%' and tags in ('x', 'new')",
        "not (empty has 'a') and not nothing has 'a'",
        "name like 'isbi%' and name like '%b_-3' and name like 'isbi-3' and name not like 'b%'",
        "name has 'bi-'",
        "started > '2026-11-01' and started < '2026-12' and started >= '2026-11-22T20:49:56+00:00'",
        "started < '2026-11-22T22:49:57+02:00'",
        "started = '2026-11-22'",
        "origin.version = 'ab12...' and origin.version = 'ab12' and origin.version = 'ab…'",
        "status in ('failed', 'finished') and steps in (300)",
        "status not in ('failed')",
        "note is null and nothing is null and name is not null",
        "removed and removed = true and not loss and not nothing",
        "top > 1e300",
        "last.step < steps and not (last.step = steps) and name != status",
        "\"cell wall\" = 'it''s 100%'",
        "nothing = 1 or name = 'isbi-3' and status != 'failed'",
        "not name = 'x' and not not name = 'isbi-3'",
    ],
)
def test_it_holds(where: str) -> None:
    assert parse(where).holds(RUN)
    assert not parse(f"not ({where})").holds(RUN)


@pytest.mark.parametrize(
    "where",
    [
        "nothing > 1",
        "nothing != 1",
        "nothing not like 'a'",
        "nothing not in ('a')",
        "loss = loss",
        "loss > 0",
        "loss <= 0",
        "loss != 1",
        "name > 5",
        "name = 5",
        "steps like '3%'",
        "origin.version = 'ab1'",
        "started > '2026-11-22T22:49:57+01:00'",
        "name like 'ISBI%'",
        "name like '_isbi%'",
    ],
)
def test_it_does_not_hold(where: str) -> None:
    assert not parse(where).holds(RUN)


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("", "--where is empty"),
        ("scores.mean_dice >", "ends too early: wanted a field"),
        ("a b", "wanted `and`, `or`, or the end, found 'b'"),
        ("a = 'x", 'cannot be read from "\'x" on'),
        ("a; drop table runs", "cannot be read from '; drop table runs' on"),
        ("1 = 2", "compares two values"),
        ("1", "wanted a comparison"),
        ("a = null", "for what is missing: `is null`"),
        ("(a = 1", "wanted `\\)`"),
        ("a in 3", "wanted `\\(` and values"),
        ("a in (b)", "wanted a number, or a text in single quotes, found 'b\\)'"),
        ("a in (1 2)", "wanted `,` or `\\)`"),
        ("a is 3", "wanted `null` or `not null`"),
        ("a not 3", "wanted `like`, `in` or `has`"),
        ("started > 'yesterday'", "compared with a moment such as '2026-11-01', not 'yesterday'"),
        ("(" * (DEEPEST + 1) + "a", "too deep; at most 32 levels"),
        ("not " * 10 * DEEPEST + "a", "too deep"),
        ("a" * (LONGEST + 1), "has 10001 characters; at most 10000"),
    ],
)
def test_what_is_refused_is_told(where: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse(where)


def test_the_fields_it_asks_for() -> None:
    found = parse('a > 1 and (b.c.0-x = \'q\' or not a < 5) and "it ""is"".".x is null', lambda name: f"x.{name}")
    assert found.names == ("x.a", "x.b.c.0-x", 'x.it "is"..x')


def test_long_forms_of_text_take_no_long_time() -> None:
    assert not parse("name like '%a%a%a%a%a%a%a%a%a%a%a%a%b'").holds({"name": "a" * 200_000})


def test_moments() -> None:
    assert moment_of("2026-11-22T20:49:56+0000") == moment_of("2026-11-22T21:49:56+01:00")
    assert moment_of("2026-11") == moment_of("2026-11-01")
    assert moment_of("soon") is None


@given(text=st.text("ab%_\n", max_size=8), like=st.text("ab%_", max_size=6))
def test_like_is_that_of_sql(text: str, like: str) -> None:
    twin = "".join({"%": ".*", "_": "."}.get(sign, re.escape(sign)) for sign in like)
    assert parse(f"t like '{like}'").holds({"t": text}) == bool(re.fullmatch(twin, text, re.DOTALL))


VALUES = {"a": 1, "b": 2.5, "c": None, "d": "x"}
COMPARISONS = st.tuples(
    st.sampled_from("abcd"),
    st.sampled_from(["=", "!=", "<", "<=", ">", ">="]),
    st.sampled_from([0, 1, 2.5, 3, "x", "y"]),
)


@st.composite
def expressions(draw: Any, depth: int = 3) -> tuple[str, bool]:
    kind = draw(st.sampled_from(["is", "not", "and", "or"] if depth else ["is"]))
    if kind == "is":
        name, sign, right = draw(COMPARISONS)
        left = VALUES[name]
        comparable = left is not None and isinstance(left, str) == isinstance(right, str)
        python = {"=": "==", "!=": "!="}.get(sign, sign)
        holds = eval(f"left {python} right") if comparable else left is not None and sign == "!="
        return f"{name} {sign} {right!r}", holds
    if kind == "not":
        text, holds = draw(expressions(depth - 1))
        return f"not ({text})", not holds
    (first, one), (second, two) = draw(expressions(depth - 1)), draw(expressions(depth - 1))
    return f"({first}) {kind} ({second})", (one and two) if kind == "and" else (one or two)


@given(expressions())
def test_expressions_mean_what_they_say(made: tuple[str, bool]) -> None:
    where, holds = made
    assert parse(where).holds(VALUES) == holds


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(where: str) -> None:
    said = "--where"
    try:
        parse(where).holds(RUN)
    except InputError as error:
        said = str(error)
    assert said.startswith("--where")
