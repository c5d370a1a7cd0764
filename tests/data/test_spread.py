"""Which samples stand for all: the same whatever they are called, and each kind of file and label among them."""

import numpy as np
import pyarrow as pa
import pytest
from blake3 import blake3

from useg.data.manifest import FileRef, Manifest, Row
from useg.data.spread import RUN, RUNS, Spread, spread_over
from useg.data.statistics_join import content_digests

COUNT, MOST = 400, 64
USUAL = {"height": 20, "width": 24, "channels": 1, "dtype": "uint8"}


def rows(name: str = "{:05}", twins: int = 0) -> list[Row]:
    def file(kind: str, number: int) -> FileRef:
        content = f"{kind} {number % (COUNT - twins)}".encode()
        return FileRef(f"{kind}/{name.format(number)}.png", "", blake3(content).hexdigest(), 100)

    return [
        Row(name.format(n), {"image": (file("image", n),), "label": (file("label", n),)}, None, None, {}, None, None)
        for n in range(COUNT)
    ]


def counted(samples: list[Row], **columns: list[object]) -> tuple[Manifest, list[str]]:
    """A manifest with statistics, as columns in the order of the samples; and the keys."""
    manifest = Manifest.from_rows(samples)
    place = {row.key: number for number, row in enumerate(samples)}
    contents = content_digests(manifest)
    order = [place[key] for key in contents["key"].to_pylist()]
    given = {
        "height": [20] * COUNT,
        "width": [24] * COUNT,
        "channels": [1] * COUNT,
        "dtype": ["uint8"] * COUNT,
    } | columns
    table = {name: pa.array([values[n] for n in order]) for name, values in given.items()}
    table |= {name: contents[name] for name in ("image", "label")}
    return manifest.with_statistics(pa.table(table)), [row.key for row in samples]


def spread(*arguments: object, most: int = MOST) -> Spread:
    manifest, keys = counted(*arguments) if isinstance(arguments[0], list) else arguments
    found = spread_over(manifest, keys, most)
    assert found is not None
    return found


def test_names_do_not_matter() -> None:
    plain, other = spread(rows()), spread(rows("patient-{:05}"))
    assert [key[-5:] for key in other.keys] == list(plain.keys)
    assert len(plain.keys) == MOST
    assert plain.keys == tuple(sorted(plain.keys))
    thirds = np.bincount([3 * int(key) // COUNT for key in set(plain.keys) - set(plain.neighbours)], minlength=3)
    assert thirds.min() >= 1, "spread over all"


def test_runs_of_neighbours_are_among_them() -> None:
    found = spread(rows())
    numbers = np.array([int(key) for key in found.neighbours]).reshape(RUNS, RUN)
    assert set(found.neighbours) <= set(found.keys)
    assert (np.diff(numbers, axis=1) == 1).all()
    assert (np.diff(numbers[:, 0]) > COUNT // 4).all()


@pytest.mark.parametrize("column", ["pixels.7", "channels", "dtype", "objects"])
def test_what_one_sample_alone_has_is_shown(column: str) -> None:
    usual: dict[str, object] = {"pixels.7": None, "channels": 1, "dtype": "uint8", "objects": None}
    rare: dict[str, object] = {"pixels.7": 480, "channels": 3, "dtype": "uint16", "objects": 40}
    for alone in (5, 211, 399):
        values = [rare[column] if number == alone else usual[column] for number in range(COUNT)]
        manifest, keys = counted(rows(), **{column: values})
        assert f"{alone:05}" in spread(manifest, keys).keys


def test_more_are_taken_where_values_need_it() -> None:
    names = {f"pixels.{n}": [480 if number == n else None for number in range(COUNT)] for n in range(200)}
    manifest, keys = counted(rows(), **names)
    found = spread(manifest, keys)
    assert {f"{n:05}" for n in range(200)} <= set(found.keys)
    assert len(found.keys) <= 200 + RUNS * RUN


def test_label_maps_that_do_not_fit_are_all_among_them() -> None:
    bad = {7, 11, 203, 204, 205, 398}
    background = [25 if number in bad else 400 for number in range(COUNT)]
    manifest, keys = counted(rows(), **{"pixels.0": background, "pixels.3": [80] * COUNT, "pixels.cell": [80] * COUNT})
    found = spread(manifest, keys)
    assert {f"{number:05}" for number in bad} <= set(found.keys)
    assert len(found.keys) == MOST


def test_sizes_of_all_are_known() -> None:
    manifest, keys = counted(rows(), height=list(range(COUNT)))
    assert spread(manifest, keys).spaces["00017"] == (17, 24)
    manifest, keys = counted(rows(), depth=[5] * COUNT)
    assert spread(manifest, keys).spaces["00017"] == (5, 20, 24)


@pytest.mark.parametrize("column", ["height", "depth"])
def test_nothing_stands_for_what_is_not_known(column: str) -> None:
    values = [None if number == 3 else 20 for number in range(COUNT)]
    manifest, keys = counted(rows(), **{column: values})
    assert spread_over(manifest, keys, MOST) is None
    assert spread_over(Manifest.from_rows(rows()), keys, MOST) is None


def test_part_of_the_samples_and_pairs_of_equal_files() -> None:
    manifest, keys = counted(rows(twins=2))
    found = spread(manifest, keys[100:])
    assert set(found.keys) <= set(keys[100:]) == set(found.spaces)
    assert found.same == (), "their twins are not among these"
    assert spread(manifest, keys).same == (("00000", "00398"), ("00001", "00399"))
    few = spread(manifest, keys[:10])
    assert (few.keys, few.neighbours) == (tuple(keys[:10]), ())
