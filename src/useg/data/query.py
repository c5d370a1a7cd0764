"""Which samples of a version a `where` expression chooses: the same for ever, in order of key.

DuckDB evaluates one checked expression over the columns it needs, in memory, with its configuration locked and
without access to files, within bounds of time and memory.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Timer
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from blake3 import blake3

from useg.data.manifest_digest import json_texts
from useg.data.manifest_rows import ROLES, list_lengths, text_of
from useg.data.query_expression import Checked, check
from useg.data.query_functions import Hashes, Place
from useg.data.splits import group_hash
from useg.data.transforms import Transform
from useg.errors import InputError, ResourceError

if TYPE_CHECKING:
    from useg.data.manifest import Manifest

VIEW_DOMAIN = b"useg view 1\n"
TIMEOUT_S = 60.0
MEMORY_MIB = 1024

_KINDS = {pa.string(): "text", pa.bool_(): "truth", pa.int64(): "number", pa.float64(): "number"}
_PLAIN = ("key", "group", "split", "dtype")
_SPACE = {"width": 1, "height": 2, "depth": 3}
_DERIVED = {"path": "text", "bytes": "number", **dict.fromkeys(_SPACE, "number")}


@dataclass(frozen=True)
class View:
    """Samples of a version, and what is done to them while loading.

    Attributes:
        version: the version's digest.
        where: canonical; "true" for all samples.
        transforms: applied in this order.
        keys: the samples, in order of key.
        digest: over version, query and transforms; equal ones give the same samples for ever.
    """

    version: str
    where: str
    transforms: tuple[Transform, ...]
    keys: tuple[str, ...]
    digest: str


def query(
    manifest: "Manifest",
    where: str | None = None,
    transforms: Sequence[Transform] = (),
    *,
    timeout_s: float = TIMEOUT_S,
    memory_mib: int = MEMORY_MIB,
) -> View:
    """The samples for which an expression holds.

    Args:
        manifest: the version.
        where: an expression over its columns in SQL's words, see `query_functions` for what it may call; then
            possibly `limit N`. None: all samples.
        transforms: declared changes, which belong to the view.
        timeout_s: bound on the time of the evaluation.
        memory_mib: bound on its memory beyond the columns themselves.

    Raises:
        InputError: the expression is not allowed, or does not fit the columns.
        ResourceError: it took too long or too much memory.
    """
    seen, canonical = "", "true"
    keys = manifest.columns(["key"])["key"]
    if where is not None:
        columns = _Columns(manifest)
        checked = check(where, columns.kinds, ROLES)
        canonical = checked.text
        chosen = np.flatnonzero(_evaluate(checked, columns, len(keys), timeout_s, memory_mib))
        keys = keys.take(pa.array(chosen[: checked.limit]))
        seen = columns.seen(checked.columns.values())
    texts = [str(transform) for transform in transforms]
    digest = view_digest(manifest.digest(), canonical, texts, statistics=seen)
    return View(manifest.digest(), canonical, tuple(transforms), tuple(keys.to_pylist()), digest)


def view_digest(version: str, where: str, transforms: Sequence[str], *, statistics: str = "") -> str:
    """BLAKE3 over `useg view 1`, a line feed, and JSON of version, query, transforms and the statistics asked for."""
    content = json.dumps([version, where, list(transforms), statistics], ensure_ascii=False, separators=(",", ":"))
    return str(blake3(VIEW_DOMAIN + content.encode()).hexdigest())


class _Columns:
    """What a query can ask of a manifest: its columns, its statistics, and a few things derived from files.

    A free field comes before a statistic of the same name, and that before what is derived.
    """

    def __init__(self, manifest: "Manifest") -> None:
        self._manifest = manifest
        self._statistics = manifest.statistics if manifest.statistics is not None else pa.table({})
        fields = manifest.field_types
        self._fields = set(fields)
        self.kinds: dict[str, str] = dict.fromkeys(_PLAIN, "text")
        for types in (fields, {f.name: f.type for f in self._statistics.schema}):
            self.kinds |= {name: _KINDS[kind] for name, kind in types.items() if name not in self.kinds}
        self.kinds |= {name: kind for name, kind in _DERIVED.items() if name not in self.kinds}

    def seen(self, names: Any) -> str:
        """A digest of the statistics among these columns; "" if none is."""
        used = sorted(name for name in names if name in self._statistics.column_names and not self._is_own(name))
        hasher = blake3()
        for name in used:
            texts = json_texts(self._statistics[name].combine_chunks())
            hasher.update(json.dumps([name, len(texts)]).encode())
            hasher.update(
                pc.binary_join(pa.LargeListArray.from_arrays([0, len(texts)], texts), _NEWLINE)[0].as_buffer()
            )
        return str(hasher.hexdigest()) if used else ""

    def _is_own(self, name: str) -> bool:
        return name in _PLAIN or name in self._fields

    def read(self, names: Sequence[str]) -> dict[str, Any]:
        """The columns of these names."""
        own = [name for name in names if self._is_own(name)]
        table = self._manifest.columns(own)
        return {name: table[name] if name in own else self._made(name) for name in names}

    def _made(self, name: str) -> Any:
        if name in self._statistics.column_names:
            return self._statistics[name]
        if name.startswith("files("):
            return pa.array(list_lengths(self._one(name[6:-1])))
        if name in _SPACE:
            return _from_end(self._one("shape"), _SPACE[name])
        files = self._one("image")
        lengths = list_lengths(files)
        if name == "path":
            firsts = pa.array((np.cumsum(lengths) - lengths), mask=lengths == 0)
            return files.flatten().field("path").take(firsts)
        sums = np.concatenate([[0], np.cumsum(files.flatten().field("bytes").to_numpy())])
        ends = np.cumsum(lengths)
        return pa.array(sums[ends] - sums[ends - lengths])

    def _one(self, name: str) -> pa.Array:
        return self._manifest.columns([name])[name].combine_chunks()

    def places(self, place: Place) -> Hashes:
        """A place for every sample."""
        return place.of(self._hashes(place.by))

    def _hashes(self, by: str) -> Hashes:
        table = self._manifest.columns(["hash", "key_hash"])
        if by in ("", "group"):
            return _numbers(table["hash"])
        own = _numbers(pc.coalesce(table["key_hash"], table["hash"]))
        if by == "key":
            return own
        values = pc.dictionary_encode(_whole(self.read([by])[by]))
        hashes = np.array([group_hash(text_of(value)) for value in values.dictionary.to_pylist()], np.uint64)
        found = own.copy()
        there = pc.is_valid(values.indices).to_numpy(zero_copy_only=False)
        found[there] = hashes[values.indices.drop_null().to_numpy()]
        return found


_NEWLINE = pa.scalar("\n", pa.large_string())


def _from_end(shapes: pa.Array, place: int) -> pa.Array:
    """One of each list's numbers, counted from its end; null where the list is shorter."""
    lengths = list_lengths(shapes)
    at = np.cumsum(lengths) - place
    return shapes.flatten().cast(pa.int64()).take(pa.array(at, mask=lengths < place))


def _numbers(column: pa.ChunkedArray) -> Hashes:
    return np.asarray(column.to_numpy(), np.uint64)


def _whole(column: Any) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _evaluate(
    checked: Checked, columns: _Columns, size: int, timeout_s: float, memory_mib: int
) -> "np.ndarray[Any, np.dtype[np.bool_]]":
    """For every sample whether the expression holds."""
    names = list(dict.fromkeys(checked.columns.values()))
    read = columns.read(names)
    table: Mapping[str, Any] = {
        **{sql: read[name] for sql, name in checked.columns.items()},
        **{sql: pa.array(columns.places(place)) for sql, place in checked.places.items()},
        **({} if checked.columns or checked.places else {"none": pa.nulls(size)}),
    }
    with _engine(memory_mib) as connection:
        connection.register("samples", pa.table(table))
        connection.execute("SET lock_configuration = true")
        timer = Timer(timeout_s, connection.interrupt)
        timer.start()
        try:
            found = connection.execute(f"SELECT coalesce({checked.sql}, false) AS chosen FROM samples").fetchnumpy()
        except duckdb.InterruptException:
            raise ResourceError(f"the query took longer than {timeout_s:g} s; ask for less at once") from None
        except duckdb.OutOfMemoryException:
            raise ResourceError(f"the query needs more than {memory_mib} MiB; ask for less at once") from None
        except duckdb.Error as error:
            raise InputError(f"the query {checked.text[:200]} cannot be evaluated: {_first(error)}") from None
        finally:
            timer.cancel()
    return np.asarray(found["chosen"], bool)


def _first(error: Exception) -> str:
    return str(error).splitlines()[0][:300]


@contextmanager
def _engine(memory_mib: int) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB of our own that reaches nothing outside of its memory."""
    connection = duckdb.connect(
        ":memory:",
        config={
            "enable_external_access": "false",
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "allow_community_extensions": "false",
            "python_enable_replacements": "false",
            "preserve_insertion_order": "true",
            "memory_limit": f"{memory_mib}MiB",
            "temp_directory": "",
        },
    )
    try:
        yield connection
    finally:
        connection.close()
