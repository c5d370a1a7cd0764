"""The text of a query as a tree of sqlglot's, bounded in length and depth before it is parsed."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from sqlglot import TokenType, exp
from sqlglot.dialects.duckdb import DuckDB
from sqlglot.errors import SqlglotError

from useg.errors import InputError

LONGEST = 100_000
"""Characters of a query."""
DEEPEST = 32
"""Parentheses in one another."""

_MOST_ROWS = 1 << 62
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_OPENING = {TokenType.L_PAREN, TokenType.L_BRACKET, TokenType.L_BRACE}
_CLOSING = {TokenType.R_PAREN, TokenType.R_BRACKET, TokenType.R_BRACE}
_PREFIXES = {"NOT", "-", "+", "~", "CASE"}

COMPARISONS: Mapping[type[Any], str] = {
    exp.EQ: "=",
    exp.NEQ: "<>",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.GT: ">",
    exp.GTE: ">=",
}
ARITHMETIC: Mapping[type[Any], str] = {exp.Add: "+", exp.Sub: "-", exp.Mul: "*", exp.Div: "/", exp.Mod: "%"}
ARGUMENTS: Mapping[type[Any], set[str]] = {
    # what is not listed takes `this` and `expression`; a part that is not known could turn the meaning round
    exp.Not: {"this"},
    exp.Paren: {"this"},
    exp.Neg: {"this"},
    exp.Between: {"this", "low", "high"},
    exp.In: {"this", "expressions"},
    exp.Like: {"this", "expression", "negate"},
    exp.Literal: {"this", "is_string"},
    exp.Boolean: {"this"},
    exp.Column: {"this", "table", "db", "catalog"},
    exp.Cast: {"this", "to"},
    exp.TryCast: {"this", "to", "safe"},
    exp.Anonymous: {"this", "expressions"},
    exp.Div: {"this", "expression", "typed", "safe"},
}


class Dialect(DuckDB):
    """DuckDB's syntax, in which every function is just a name: which are allowed is not decided here."""

    class Parser(DuckDB.Parser):  # type: ignore[valid-type, misc]
        """Knows casts, and no function."""

        FUNCTIONS: ClassVar[Mapping[str, Any]] = {}
        NO_PAREN_FUNCTIONS: ClassVar[Mapping[Any, Any]] = {}
        NO_PAREN_FUNCTION_PARSERS: ClassVar[Mapping[str, Any]] = {}
        FUNCTION_PARSERS: ClassVar[Mapping[str, Any]] = {
            name: parser for name, parser in DuckDB.Parser.FUNCTION_PARSERS.items() if name in ("CAST", "TRY_CAST")
        }


def parse(where: str) -> tuple[Any, int | None]:
    """The expression, and the number after `limit`.

    Raises:
        InputError: it is not one expression, has a comment, or is too long or too deep.
    """
    if len(where) > LONGEST:
        raise InputError(f"the query has {len(where)} characters; at most {LONGEST} are read")
    if found := _CONTROL.search(where):
        raise InputError(f"the query {cut(where)} has the character {found[0]!r}, which no query needs")
    try:
        tokens = list(Dialect().tokenize(where))
    except SqlglotError as error:
        raise InputError(f"the query {cut(where)} cannot be read: {_plain(error)}") from None
    _check_tokens(where, tokens)
    limit = None
    if len(tokens) >= 2 and tokens[-2].token_type == TokenType.LIMIT and tokens[-1].token_type == TokenType.NUMBER:
        if not tokens[-1].text.isdecimal() or not tokens[-1].text.isascii() or int(tokens[-1].text) > _MOST_ROWS:
            raise InputError(f"limit {tokens[-1].text}: wanted a whole number")
        limit = int(tokens[-1].text)
        tokens = tokens[:-2]
        if not tokens:
            return exp.Boolean(this=True), limit
    if not tokens:
        raise InputError("the query is empty; wanted a condition, such as split = 'train'")
    try:
        found_all = Dialect().parser().parse_into(exp.Condition, tokens, where)
    except RecursionError:
        raise InputError(f"the query {cut(where)} is too deep; write it more simply") from None
    except (SqlglotError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        raise InputError(f"the query {cut(where)} cannot be read: {_plain(error)}") from None
    if len(found_all) != 1 or found_all[0] is None:
        raise InputError(f"the query {cut(where)} is not one expression")
    return found_all[0], limit


def _plain(error: Exception) -> str:
    """What sqlglot says, without the colours and the text around it."""
    details = getattr(error, "errors", None)
    if details:
        return f"{details[0].get('description', '').rstrip('.')} near {details[0].get('highlight', '')!r}"
    return re.sub(r"\x1b\[\d*m", "", str(error)).splitlines()[0][:200]


def _check_tokens(where: str, tokens: Sequence[Any]) -> None:
    """Refuse, before anything is parsed, what is too deep, several statements, and comments."""
    depth = prefixes = 0
    for token in tokens:
        if token.token_type == TokenType.SEMICOLON:
            raise InputError(f"the query {cut(where)} has a ';'; wanted one expression")
        if token.comments:
            raise InputError(f"the query {cut(where)} has a comment; leave it out")
        depth += (token.token_type in _OPENING) - (token.token_type in _CLOSING)
        prefixes = prefixes + 1 if token.text.upper() in _PREFIXES else 0
        if depth > DEEPEST or prefixes > DEEPEST:
            raise InputError(f"the query {cut(where)} is too deep; at most {DEEPEST} levels are read")


def cut(text: str) -> str:
    """A text for a message."""
    return repr(text if len(text) <= 120 else text[:100] + "…")


def source(node: Any) -> str:
    """What a refused part is, for a message."""
    name = type(node).__name__.lower()
    try:
        text = node.sql(dialect=DuckDB) if hasattr(node, "sql") else name
    except (SqlglotError, RecursionError, ValueError, TypeError, AttributeError):
        text = name
    return repr(text if len(text) <= 100 else text[:80] + "…")
