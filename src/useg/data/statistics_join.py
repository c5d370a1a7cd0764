"""What was counted in files, once for each content, brought to the samples that have it."""

from typing import TYPE_CHECKING

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from blake3 import blake3

from useg.data.manifest_digest import digest_bytes
from useg.data.manifest_rows import FILE_TYPE, TYPES, list_lengths
from useg.errors import InputError

if TYPE_CHECKING:
    from useg.data.manifest import Manifest

_NONE = bytes(32)


def content_digests(manifest: "Manifest") -> pa.Table:
    """Columns `key`, `image` and `label`: 32 bytes that stand for the contents of images and of annotations.

    That of a single whole file is its own digest. Of several, or of parts of files, it is BLAKE3 over the JSON of
    their roles, parts and digests. Samples without any have 32 zero bytes.
    """
    table = manifest.columns(["key", "image", "label", "objects", "region"])
    labels = _contents(table, ["label", "objects", "region"])
    return pa.table({"key": table["key"], "image": _contents(table, ["image"]), "label": labels})


def _contents(table: pa.Table, roles: list[str]) -> pa.Array:
    columns = [table[role].combine_chunks() for role in roles]
    lengths = [list_lengths(column) for column in columns]
    found = np.zeros((len(table), 32), np.uint8)
    several = np.sum(lengths, axis=0) > 1
    for column, counts in zip(columns, lengths, strict=True):
        files = column.flatten() if len(column) else pa.array([], FILE_TYPE)
        single = (counts == 1) & ~several
        in_part = pc.not_equal(files.field("part"), "").to_numpy(zero_copy_only=False).astype(bool)
        first = (np.cumsum(counts) - counts)[single]
        found[single] = digest_bytes(files.field("digest"))[:].reshape(-1, 32)[first]
        rows = np.repeat(np.arange(len(table)), counts)
        several[rows[in_part]] = True
    for row in np.flatnonzero(several).tolist():
        named = [
            [role, [[file["part"], file["digest"].hex()] for file in column[row].as_py() or ()]]
            for role, column in zip(roles, columns, strict=True)
        ]
        found[row] = np.frombuffer(blake3(orjson.dumps(named)).digest(), np.uint8)
    return pa.Array.from_buffers(pa.binary(32), len(table), [None, pa.py_buffer(found)])


def aligned(manifest: "Manifest", statistics: pa.Table) -> pa.Table:
    """The statistics of each sample, in order of key; null where a content was not counted.

    Raises:
        InputError: the table has not the columns wanted.
    """
    names = [name for name in statistics.column_names if name not in ("image", "label")]
    wrong = [name for name in names if statistics[name].type not in TYPES.values()]
    if len(names) != statistics.num_columns - 2 or wrong:
        raise InputError(f"statistics are columns image, label, and numbers or texts, not {statistics.schema}")
    contents = content_digests(manifest)
    places = pc.index_in(_pairs(contents), _pairs(statistics))
    return pa.table({name: statistics[name].combine_chunks().take(places) for name in names})


def _pairs(table: pa.Table) -> pa.Array:
    image, label = (pc.fill_null(table[name].cast(pa.binary()), _NONE).combine_chunks() for name in ("image", "label"))
    return pc.binary_join_element_wise(image, label, b"")
