"""Manifests with millions of samples: a query, a small commit, a difference.

The samples are made up (an image and a label each, ten samples a patient, three free fields); digests are random.
Times are of the second of two runs, in the same process, from the stored files' bytes to the answer.
"""

import argparse
import json
import time
from typing import Any

ROWS = {
    "manifest_query_10m": ["query", "10000000"],
    "manifest_commit_1m": ["commit", "1000000"],
    "manifest_diff_1m": ["diff", "1000000"],
}

WHERE = (
    "stain = 'HE' and age > 30 and split('train:0.8,val:0.1,test:0.1', by=group, seed=7) = 'train' "
    "and sample(0.1, seed=3)"
)


def made_up(size: int) -> Any:
    """A table of a manifest's form, sorted by key."""
    import numpy as np
    import pyarrow as pa

    from useg.data.manifest_rows import FILE_TYPE, FIXED
    from useg.data.splits import group_hash

    random = np.random.default_rng(0)
    keys = [f"sample{index:08d}" for index in range(size)]
    patients = [f"patient{index:07d}" for index in range((size + 9) // 10)]
    of_patient = np.arange(size) // 10
    offsets = pa.array(np.arange(size + 1), pa.int32())

    def files(folder: str) -> Any:
        digests = pa.Array.from_buffers(pa.binary(32), size, [None, pa.py_buffer(random.bytes(32 * size))])
        values = [
            pa.array([f"{folder}/{key}.png" for key in keys]),
            pa.array([""]).take(pa.array(np.zeros(size, np.int64))),
            digests,
            pa.array(random.integers(1_000, 100_000, size)),
        ]
        return pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays(values, fields=list(FILE_TYPE)))

    hashes = np.array([group_hash(patient) for patient in patients], np.uint64)[of_patient]
    nothing = {name: pa.nulls(size, kind) for name, kind in FIXED.items()}
    return pa.table(
        nothing
        | {
            "key": pa.array(keys),
            "group": pa.array(patients).take(pa.array(of_patient)),
            "hash": pa.array(hashes),
            "key_hash": pa.array(np.array([group_hash(key) for key in keys], np.uint64)),
            "image": files("images"),
            "label": files("masks"),
            "age": pa.array(random.integers(20, 90, size)),
            "score": pa.array(random.random(size)),
            "stain": pa.array(["HE", "IHC"]).take(pa.array(random.integers(0, 2, size))),
        }
    )


def relabelled(table: Any, share: float) -> Any:
    """The table with other digests for the labels of a share of the samples."""
    import numpy as np
    import pyarrow as pa

    random = np.random.default_rng(1)
    label = table["label"].combine_chunks()
    files = label.flatten()
    digests = np.frombuffer(files.field("digest").buffers()[1], np.uint8).reshape(-1, 32).copy()
    chosen = random.choice(len(table), round(share * len(table)), replace=False)
    digests[chosen] = random.integers(0, 256, (len(chosen), 32), np.uint8)
    changed = pa.Array.from_buffers(pa.binary(32), len(table), [None, pa.py_buffer(digests)])
    fields = [files.field("path"), files.field("part"), changed, files.field("bytes")]
    values = pa.StructArray.from_arrays(fields, fields=list(files.type))
    return table.set_column(table.column_names.index("label"), "label", pa.ListArray.from_arrays(label.offsets, values))


def timed(action: Any) -> tuple[float, Any]:
    """Seconds of the second run, and what it gave."""
    for _ in range(2):
        begin = time.perf_counter()
        found = action()
        seconds = time.perf_counter() - begin
    return seconds, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["query", "commit", "diff"])
    parser.add_argument("samples", type=int)
    given = parser.parse_args()
    from useg.data.manifest import Manifest
    from useg.data.query import query

    table = made_up(given.samples)
    before = Manifest(table)
    begin = time.perf_counter()
    digest = before.digest()
    result: dict[str, Any] = {"samples": given.samples, "digest_s": round(time.perf_counter() - begin, 3)}
    begin = time.perf_counter()
    base = before.encode()
    result |= {"encode_s": round(time.perf_counter() - begin, 3), "base_bytes": [len(blob) for blob in base.blobs]}
    if given.what == "query":
        seconds, view = timed(lambda: query(Manifest.decode(base.blobs[0]), WHERE))
        if view.version != digest:
            raise RuntimeError("the stored version is another")
        opened = Manifest.decode(base.blobs[0])
        opened.table  # noqa: B018
        again, _ = timed(lambda: query(opened, WHERE))
        result |= {"open_and_query_s": round(seconds, 3), "query_s": round(again, 3), "chosen": len(view.keys)}
    else:
        after = Manifest(relabelled(table, 0.01))
        begin = time.perf_counter()
        small = after.encode(before)
        seconds = time.perf_counter() - begin
        moved = sum(map(len, small.blobs))
        result |= {"commit_s": round(seconds, 3), "commit_bytes": moved, "deltas": len(small.deltas)}
        delta = small.blobs[0]
        if given.what == "diff":

            def difference() -> Any:
                return Manifest.decode(base.blobs[0]).diff(Manifest.decode(base.blobs[0], [delta]))

            seconds, found = timed(difference)
            again, _ = timed(lambda: before.diff(after))
            result |= {"open_and_diff_s": round(seconds, 3), "diff_s": round(again, 3)}
            result["relabelled"] = len(found.relabelled)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
