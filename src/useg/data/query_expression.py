"""A `where` expression, checked node by node against what is allowed, and written anew for DuckDB.

Nothing of the user's text reaches DuckDB but constants, quoted. The canonical text is written here too, so that it
(and the digest of a view) stays the same whatever sqlglot's own writer does.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from fractions import Fraction
from math import isfinite
from typing import Any

from sqlglot import exp

from useg.data.query_functions import (
    FUNCTIONS,
    OWN,
    SAMPLING,
    Place,
    below,
    decimal,
    parse_parts,
    parts_text,
    split_sql,
)
from useg.data.query_parsing import ARGUMENTS, ARITHMETIC, COMPARISONS, Dialect, cut, parse, source
from useg.errors import InputError

_LONGEST_PATTERN = 1000
_WORDS = {"number": "a number", "text": "a text", "truth": "true or false", "nothing": "null"}
_CASTS = {
    "VARCHAR": "text",
    "TEXT": "text",
    "INT": "number",
    "BIGINT": "number",
    "DOUBLE": "number",
    "BOOLEAN": "truth",
}
_CAST_SQL = {"TEXT": "VARCHAR", "INT": "BIGINT"}


@dataclass(frozen=True)
class Term:
    """A checked part of an expression.

    Attributes:
        text: canonical.
        sql: for DuckDB.
        kind: "number", "text", "truth" or "nothing" (null).
        value: of a constant.
    """

    text: str
    sql: str
    kind: str
    value: str | float | None = None


@dataclass
class Checked:
    """A checked query.

    Attributes:
        text: canonical.
        sql: one expression for DuckDB.
        limit: how many samples at most.
        columns: the columns it reads, by their name in `sql`.
        places: the places it needs, by their name in `sql`.
    """

    text: str = ""
    sql: str = ""
    limit: int | None = None
    columns: dict[str, str] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)


def check(where: str, kinds: Mapping[str, str], roles: Sequence[str] = ()) -> Checked:
    """Read a query.

    Args:
        where: the user's text.
        kinds: "number", "text" or "truth" for every column there is.
        roles: what `files()` can count.

    Raises:
        InputError: it is not one allowed expression over these columns.
    """
    expression, limit = parse(where)
    writer = _Writer(kinds, roles)
    try:
        term = writer.write(expression)
    except RecursionError:
        raise InputError(f"the query {cut(where)} is too deep; write it more simply") from None
    if term.kind not in ("truth", "nothing"):
        raise InputError(f"the query {cut(where)} gives {_WORDS[term.kind]}; wanted a condition, such as x = 1")
    checked = writer.checked
    checked.text, checked.sql, checked.limit = term.text, term.sql, limit
    if limit is not None:
        checked.text += f" limit {limit}"
    return checked


class _Writer:
    """Checks an expression from the outside in, and writes it from the inside out."""

    def __init__(self, kinds: Mapping[str, str], roles: Sequence[str]) -> None:
        self._kinds, self._roles = kinds, roles
        self.checked = Checked()
        self._handlers: dict[type[Any], Callable[[Any], Term]] = {
            exp.And: self._logic,
            exp.Or: self._logic,
            exp.Not: self._not,
            exp.Paren: lambda node: self.write(node.this),
            exp.Between: self._between,
            exp.In: self._in,
            exp.Is: self._is,
            exp.Like: self._like,
            exp.Literal: _literal,
            exp.Boolean: lambda node: _truth(value=bool(node.this)),
            exp.Null: lambda node: Term("null", "NULL", "nothing"),
            exp.Neg: self._negative,
            exp.Column: self._column,
            exp.Cast: self._cast,
            exp.TryCast: self._cast,
            exp.Anonymous: self._call,
            **dict.fromkeys(COMPARISONS, self._comparison),
            **dict.fromkeys(ARITHMETIC, self._arithmetic),
        }

    def write(self, node: Any) -> Term:
        """A node and all below it."""
        handler = self._handlers.get(type(node))
        if handler is None:
            raise InputError(f"{source(node)} is not allowed in a query")
        unknown = {name for name, value in node.args.items() if value} - ARGUMENTS.get(
            type(node), {"this", "expression"}
        )
        if unknown:
            raise InputError(f"{source(node)}: {', '.join(sorted(unknown))} is not allowed in a query")
        return handler(node)

    def _of_kind(self, node: Any, *kinds: str) -> Term:
        term = self.write(node)
        if term.kind not in (*kinds, "nothing"):
            raise InputError(f"{self._named(term)}; wanted {' or '.join(_WORDS[kind] for kind in kinds)}")
        return term

    def _named(self, term: Term) -> str:
        name = self.checked.columns.get(term.sql)
        return f"{'the column ' if name else ''}{_short(term.text)} is {_WORDS[term.kind]}"

    def _same(self, terms: Sequence[Term]) -> str:
        """The kind that all have."""
        known = [term for term in terms if term.kind != "nothing"]
        for term in known[1:]:
            if term.kind != known[0].kind:
                raise InputError(f"{self._named(known[0])}, but {self._named(term)}: they cannot be compared")
        return known[0].kind if known else "nothing"

    def _logic(self, node: exp.Connector) -> Term:
        # A chain of a thousand conditions is a thousand levels deep, but one operation.
        kind, word = type(node), "and" if isinstance(node, exp.And) else "or"
        operands: list[Any] = []
        rest: list[Any] = [node]
        while rest:
            part = rest.pop()
            while isinstance(part, exp.Paren):
                part = part.this
            if type(part) is kind:
                rest += [part.args["expression"], part.this]
            else:
                operands.append(part)
        terms = [self._of_kind(operand, "truth") for operand in operands]
        return _infix(f" {word} ", terms, "truth")

    def _not(self, node: exp.Not) -> Term:
        term = self._of_kind(node.this, "truth")
        return Term(f"(not {term.text})", f"(NOT {term.sql})", "truth")

    def _comparison(self, node: exp.Binary) -> Term:
        terms = [self.write(node.this), self.write(node.expression)]
        if self._same(terms) == "truth" and not isinstance(node, exp.EQ | exp.NEQ):
            raise InputError(f"{self._named(terms[0])}: true and false have no order")
        return _infix(f" {COMPARISONS[type(node)]} ", terms, "truth")

    def _arithmetic(self, node: exp.Binary) -> Term:
        terms = [self._of_kind(node.this, "number"), self._of_kind(node.expression, "number")]
        found = _infix(f" {ARITHMETIC[type(node)]} ", terms, "number")
        left, right = (term.sql for term in terms)
        if isinstance(node, exp.Div | exp.Mod):
            # Engines and versions disagree about a division by zero: here it gives null.
            sign = "/" if isinstance(node, exp.Div) else "%"
            left = f"CAST({left} AS DOUBLE)" if sign == "/" else left
            return Term(found.text, f"({left} {sign} nullif({right}, 0))", "number")
        return found

    def _negative(self, node: exp.Neg) -> Term:
        term = self._of_kind(node.this, "number")
        value = -term.value if isinstance(term.value, int | float) else None
        return Term(f"(-{term.text})", f"(-{term.sql})", term.kind, value)

    def _between(self, node: exp.Between) -> Term:
        value, low, high = terms = [self.write(node.args[name]) for name in ("this", "low", "high")]
        if self._same(terms) == "truth":
            raise InputError(f"{self._named(value)}: true and false have no order")
        text = f"({value.text} between {low.text} and {high.text})"
        return Term(text, f"({value.sql} BETWEEN {low.sql} AND {high.sql})", "truth")

    def _in(self, node: exp.In) -> Term:
        if not node.expressions:
            raise InputError(f"{source(node)}: wanted a list, such as x in (1, 2)")
        value, *listed = terms = [self.write(part) for part in (node.this, *node.expressions)]
        self._same(terms)
        if any(term.value is None for term in listed):
            raise InputError(f"{source(node)}: wanted a list of constants")
        texts = ", ".join(term.text for term in listed)
        return Term(f"({value.text} in ({texts}))", f"({value.sql} IN ({', '.join(t.sql for t in listed)}))", "truth")

    def _is(self, node: exp.Is) -> Term:
        right = node.expression
        if not isinstance(right, exp.Null | exp.Boolean):
            raise InputError(f"{source(node)}: wanted `is null`, `is true` or `is false`")
        left = self.write(node.this) if isinstance(right, exp.Null) else self._of_kind(node.this, "truth")
        return _infix(" is ", [left, self.write(right)], "truth")

    def _like(self, node: exp.Like) -> Term:
        terms = [self._of_kind(node.this, "text"), self._of_kind(node.expression, "text")]
        if not node.args.get("negate"):
            return _infix(" like ", terms, "truth")
        found = _infix(" like ", terms, "truth")
        return Term(f"(not {found.text})", f"(NOT {found.sql})", "truth")

    def _cast(self, node: exp.Cast) -> Term:
        term = self.write(node.this)
        kind = node.to.sql(dialect=Dialect).upper()
        if kind not in _CASTS:
            raise InputError(f"{source(node)}: wanted a cast to {', '.join(_CASTS).lower()}")
        kind = _CAST_SQL.get(kind, kind)
        return Term(f"cast({term.text} as {kind.lower()})", f"TRY_CAST({term.sql} AS {kind})", _CASTS[kind])

    def _column(self, node: exp.Column) -> Term:
        if not isinstance(node.this, exp.Identifier):
            raise InputError(f"{source(node)} is not allowed in a query")
        parts = [node.args[name] for name in ("catalog", "db", "table") if node.args.get(name)]
        name = self._resolve(".".join(part.name for part in [*parts, node.this]), quoted=bool(node.this.quoted))
        known = {column: sql for sql, column in self.checked.columns.items()}
        sql = known.get(name, f"c{len(known)}")
        self.checked.columns[sql] = name
        return Term(_quoted(name), sql, self._kinds[name])

    def _resolve(self, name: str, *, quoted: bool = False) -> str:
        """The column that is meant: of this name, or the only one but for upper and lower case."""
        if name in self._kinds:
            return name
        alike = [known for known in self._kinds if known.casefold() == name.casefold()]
        if len(alike) == 1:
            return alike[0]
        if len(alike) > 1:
            raise InputError(f"there are the columns {', '.join(map(_quoted, alike))}; write one of them in quotes")
        close = get_close_matches(name.casefold(), [known.casefold() for known in self._kinds], 3)
        close = [known for known in self._kinds if known.casefold() in close]
        hint = f"did you mean {', '.join(map(_quoted, close))}?" if close else ""
        hint = hint or f"there are {', '.join(map(_quoted, list(self._kinds)[:30]))}"
        text = "; texts are written in single quotes" if quoted else ""
        raise InputError(f"there is no column {_quoted(name)[:200]}: {hint}{text}")

    def _call(self, node: exp.Anonymous) -> Term:
        name = str(node.this).lower()
        if name in OWN:
            return {"split": self._split, "sample": self._sample, "files": self._files}[name](node)
        function = FUNCTIONS.get(name)
        if function is None:
            close = get_close_matches(name, [*FUNCTIONS, *OWN], 3) or [*FUNCTIONS, *OWN]
            raise InputError(f"{name[:100]}() is not allowed in a query; there are {', '.join(close)}")
        arguments = node.expressions
        fewest, most = len(function.takes) - function.optional, len(function.takes)
        if function.repeated:
            fewest, most = 1, 100
        if not fewest <= len(arguments) <= most:
            raise InputError(f"{name}() takes {fewest} to {most} arguments, not {len(arguments)}")
        takes = function.takes + function.takes[-1:] * (len(arguments) - len(function.takes))
        terms = [
            self.write(argument) if kind == "same" else self._of_kind(argument, kind)
            for kind, argument in zip(takes, arguments, strict=False)
        ]
        same = self._same(terms) if "same" in function.takes else ""
        for index in function.constant:
            if index < len(terms) and (terms[index].value is None or len(terms[index].text) > _LONGEST_PATTERN):
                raise InputError(
                    f"{name}(): argument {index + 1} must be a constant of at most {_LONGEST_PATTERN} characters"
                )
        texts = ", ".join(term.text for term in terms)
        sqls = [
            f"CAST({term.sql} AS INTEGER)" if kind == "number" and index in function.constant else term.sql
            for index, (kind, term) in enumerate(zip(takes, terms, strict=False))
        ]
        gives = same if function.gives == "same" else function.gives
        return Term(f"{name}({texts})", f"{function.sql or name}({', '.join(sqls)})", gives)

    def _split(self, node: exp.Anonymous) -> Term:
        share, by, seed = self._arguments(node, "split('train:0.8,val:0.1,test:0.1', by=patient, seed=7)")
        if share.kind != "text":
            raise InputError(f"split({_short(share.text)}): wanted a text, such as 'train:0.8,val:0.2'")
        parts = parse_parts(str(share.value))
        column = self._place(Place(by, seed))
        return Term(f"split('{parts_text(parts)}'{_options(by, seed)})", split_sql(parts, column), "text")

    def _sample(self, node: exp.Anonymous) -> Term:
        share, by, seed = self._arguments(node, "sample(0.1, seed=3)")
        if share.kind != "number" or not 0 <= Fraction(share.text) <= 1:
            raise InputError(f"sample({_short(share.text)}): wanted a share from 0 to 1")
        fraction = Fraction(share.text)
        column = self._place(Place(by or "key", seed, SAMPLING))
        return Term(f"sample({decimal(fraction)}{_options(by, seed)})", f"({column} < {below(fraction)})", "truth")

    def _arguments(self, node: exp.Anonymous, example: str) -> tuple[Term, str, int]:
        """A constant, the column after `by=` ("" if none), and the number after `seed=` (0 if none)."""
        first, *rest = node.expressions or [None]
        if not isinstance(first, exp.Literal) or len(first.this) > _LONGEST_PATTERN:
            raise InputError(f"{source(node)}: wanted, for example, {example}")
        given: dict[str, Any] = {}
        for option in rest:
            name = (
                option.this.name.lower() if isinstance(option, exp.EQ) and isinstance(option.this, exp.Column) else ""
            )
            if name not in ("by", "seed") or name in given:
                raise InputError(f"{source(node)}: wanted, for example, {example}")
            given[name] = option.expression
        by, seed = given.get("by"), given.get("seed")
        if seed is not None and not (
            isinstance(seed, exp.Literal) and not seed.is_string and re.fullmatch("[0-9]{1,18}", seed.this)
        ):
            raise InputError(f"{source(node)}: seed is a whole number from 0, not {source(seed)}")
        if by is not None and not (isinstance(by, exp.Column) and isinstance(by.this, exp.Identifier)):
            raise InputError(f"{source(node)}: by is a column, not {source(by)}")
        column = "" if by is None else self._resolve(".".join(part.name for part in by.parts))
        return _literal(first), column, int(seed.this) if seed is not None else 0

    def _place(self, place: Place) -> str:
        known = {place: name for name, place in self.checked.places.items()}
        name = known.get(place, f"p{len(known)}")
        self.checked.places[name] = place
        return name

    def _files(self, node: exp.Anonymous) -> Term:
        columns = [part.name for part in node.expressions if isinstance(part, exp.Column) and not part.table]
        role = columns[0] if len(columns) == len(node.expressions) == 1 else ""
        if role not in self._roles:
            raise InputError(f"{source(node)}: wanted files(ROLE) with one of {', '.join(self._roles)}")
        sql = f"f_{role}"
        self.checked.columns[sql] = f"files({role})"
        return Term(f"files({role})", sql, "number")


def _truth(*, value: bool) -> Term:
    return Term(str(value).lower(), str(value).upper(), "truth", str(value).lower())


def _literal(node: exp.Literal) -> Term:
    text = str(node.this)
    if node.is_string:
        quoted = "'" + text.replace("'", "''") + "'"
        return Term(quoted, quoted, "text", text)
    if re.fullmatch("[0-9]{1,18}", text):
        whole = int(text)
        return Term(str(whole), str(whole), "number", whole)
    if re.fullmatch(r"[0-9]*\.?[0-9]*(e[+-]?[0-9]{1,4})?", text.lower()) and len(text) <= 40:
        number = float(text)
        if isfinite(number):
            shown = repr(number)
            return Term(shown, shown if "e" in shown else shown + "e0", "number", number)
    raise InputError(f"{text[:100]!r} is not a number that a query can have")


def _infix(word: str, terms: Sequence[Term], kind: str) -> Term:
    return Term(
        f"({word.join(term.text for term in terms)})", f"({word.upper().join(term.sql for term in terms)})", kind
    )


def _options(by: str, seed: int) -> str:
    return (f", by={_quoted(by)}" if by else "") + (f", seed={seed}" if seed else "")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _short(text: str) -> str:
    return text if len(text) <= 100 else text[:80] + "…"
