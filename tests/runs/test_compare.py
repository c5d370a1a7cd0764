"""What differs between runs: settings, plan, code, data, environment, machine, curves."""

import json
import math
import sys
from types import ModuleType

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.runs.making import add_entry, finished, write_run

from useg.data.manifest import FileRef, Manifest, Row
from useg.data.versions import Contents, Dataset
from useg.errors import DamagedFile, InputError
from useg.home.objects import Objects
from useg.home.store import Folder
from useg.runs.compare import compare, curve, differing, read_runs

NESTED = st.recursive(
    st.none() | st.integers(-3, 3) | st.text("ab", max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("xyz"), inner, max_size=3),
    max_leaves=6,
)


def step(number, loss, **more):
    return {"event": "step", "step": number, "loss": loss, "seconds": 0.5, **more}


def put(folder, name, content):
    (folder / name).write_bytes(orjson.dumps(content))


def scores(values, part="test"):
    return {
        "part": part,
        "mean_over": ["cell"],
        "samples": {key: {"mean_dice": value} for key, value in values.items()},
    }


@pytest.fixture
def home(tmp_path):
    """Two runs that differ in some of everything."""
    for name, lr, extra in (("one", 0.1, 0.0), ("two", 0.2, 0.1)):
        record = finished(0, config={"seed": 0, "train": {"lr": lr, "count": 1}}, machine={"cores": 2}, weights=name)
        journal = [{"event": "started", "step": 0}, *(step(n, 1 / n + extra) for n in range(1, 11))]
        journal.append({"event": "validation", "step": 10, "scores": {"mean_dice": 0.5 + extra}, "seconds": 2})
        folder = write_run(tmp_path, name, record, journal=journal)
        put(folder, "scores.json", scores({f"s{n}": 0.5 + n / 100 + extra for n in range(8)}))
        put(folder, "splits.json", [{f"s{n}": "test" for n in range(8)} | {"t": "train" if name == "one" else "val"}])
    return Folder(tmp_path)


def both(home, metric=None):
    return compare(read_runs([(home, "one"), (home, "two")]), metric)


def test_what_differs_and_nothing_else(home):
    found = both(home)
    assert [(row["label"], row["run"], row["steps"]) for row in found["runs"]] == [("A", "one", 10), ("B", "two", 10)]
    assert found["config"] == {"train.lr": {"A": 0.1, "B": 0.2}}
    assert found["plan"] == found["machine"] == found["code"]["facts"] == {}
    assert found["data"][0]["moved"] == {"t": ["train", "val"]}
    assert found["verdict"]["sentence"].startswith("B is better than A on mean Dice by 0.100")
    assert json.loads(json.dumps(found)) == found


def test_a_run_is_not_compared_with_itself_or_alone(home):
    with pytest.raises(InputError, match=r"each once: .*/one"):
        read_runs([(home, "one"), (home, "two"), (home, "one")])
    with pytest.raises(InputError, match="two or more runs"):
        read_runs([(home, "one")])


def test_damaged_files_are_named(home):
    (home.root / "runs" / "one" / "scores.json").write_text("{")
    with pytest.raises(DamagedFile, match=r"runs/one/scores.json: not JSON"):
        both(home)


def test_runs_of_ones_own_loop_have_no_verdict(home, tmp_path):
    write_run(tmp_path, "own", {"run": "own", "status": "finished", "config": {"lr": 1}, "scores": {"mean_dice": 0.9}})
    found = compare(read_runs([(home, "one"), (home, "own")]))
    assert found["verdict"]["sentence"] == "No verdict: B has no scores of single samples."
    assert found["config"]["lr"] == {"B": 1}
    assert found["data"][0]["compared"] == "no"


def test_seeds_of_one_configuration_are_found(home, tmp_path):
    for seed in (1, 2):
        folder = write_run(
            tmp_path,
            f"seed{seed}",
            finished(0, config={"seed": seed, "train": {"lr": 0.1, "count": 1}}, weights=f"w{seed}"),
        )
        put(folder, "scores.json", scores({f"s{n}": 0.5 + n / 100 + seed / 1000 for n in range(8)}))
        for name in ("splits.json",):
            (folder / name).write_bytes((tmp_path / "runs" / "one" / name).read_bytes())
    places = [(home, name) for name in ("one", "seed1", "seed2", "two")]
    found = compare(read_runs(places))
    assert found["verdict"]["spreads"] == {"A+B+C": {"spread": pytest.approx(0.001), "runs": 3}}
    assert "D is better than A+B+C" in found["verdict"]["sentence"]
    add_entry(tmp_path / "runs" / "seed2", {"code": {"useg": {"commit": "other"}}})
    add_entry(tmp_path / "runs" / "seed1", {"status": "stopped"})
    apart = compare(read_runs(places))["verdict"]
    assert apart["spreads"] == {}
    assert {each["first"] for each in apart["comparisons"]} >= {"A", "B", "C"}


@pytest.mark.parametrize(("key", "is_seed"), [("steps", True), ("seconds_per_step", True), ("lr", False)])
def test_what_a_clock_decided_does_not_tell_configurations_apart(home, tmp_path, key, is_seed):
    for name, seed in (("one", 0), ("seed1", 1)):
        config = {"seed": seed, "minutes": 5}
        folder = write_run(tmp_path, name, finished(0, config=config, plan={key: seed}, weights=name))
        put(folder, "scores.json", scores({f"s{n}": 0.5 + n / 100 + seed / 1000 for n in range(8)}))
        (folder / "splits.json").write_bytes((tmp_path / "runs" / "two" / "splits.json").read_bytes())
    notes = compare(read_runs([(home, "one"), (home, "seed1")]))["verdict"]["notes"]
    assert any("one configuration" in note for note in notes) == is_seed


@given(NESTED)
def test_nothing_differs_from_itself(value):
    assert differing({"A": value, "B": value, "C": value}) == {}


@given(NESTED, NESTED)
def test_what_is_said_to_differ_makes_one_from_the_other(one, other):
    changes = differing({"A": one, "B": other})
    assert bool(changes) == (dict(_flat(one)) != dict(_flat(other)))
    for values in changes.values():
        assert len(values) == 1 or values["A"] != values["B"]


def _flat(value, name="value"):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, key if name == "value" else f"{name}.{key}")
    elif value is not None or name != "value":
        yield name, value


def test_numbers_are_equal_whether_whole_or_not_and_truths_are_none():
    assert differing({"A": {"x": 1, "y": math.nan}, "B": {"x": 1.0, "y": math.nan}}) == {}
    assert differing({"A": {"x": 1}, "B": {"x": True}}) == {"x": {"A": 1, "B": True}}
    assert differing({"A": {"x": None}, "B": {}}) == {"x": {"A": None}}


def test_a_resumed_run_is_one_curve(tmp_path):
    first = [{"event": "started", "step": 0}, step(1, 1.0), step(2, 0.9), step(3, 0.8)]
    folder = write_run(tmp_path, "r", finished(), journal=first)
    (folder / "attempts" / "2").mkdir()
    again = [{"event": "resumed", "step": 2}, step(3, 0.7), step(4, "NaN"), step(5, 0.5)]
    (folder / "attempts" / "2" / "journal.jsonl").write_bytes(b"".join(orjson.dumps(e) + b"\n" for e in again))
    write_run(tmp_path, "s", finished())
    run, empty = read_runs([(Folder(tmp_path), "r"), (Folder(tmp_path), "s")])
    points = curve(run.events, "step", "loss")
    assert [point[0] for point in points] == [1, 2, 3, 4, 5]
    assert [point[1] for point in points] == [0.5, 1.0, 1.5, 2.0, 2.5]
    assert points[2][2] == 0.7
    assert math.isnan(points[3][2])
    assert curve(empty.events, "step", "loss") == []
    rows = compare([run, empty])["curves"]
    assert [(row["step"], row["loss"]) for row in rows["A"]] == [(1, 1.0), (2, 0.9), (3, 0.7), (5, 0.5)]
    assert rows["B"] == []


def test_time_is_that_of_work_whatever_the_clock_does():
    events = [
        {"event": "started", "step": 0, "time": 1000.0},
        {"event": "step", "step": 1, "loss": 3, "time": 1001.0},
        {"event": "step", "step": 2, "loss": 2, "time": 500.0},
        {"event": "resumed", "step": 2, "time": 9000.0},
        {"event": "step", "step": 3, "loss": 1, "time": 9002.0},
    ]
    assert curve(events, "step", "loss") == [(1, 1.0, 3.0), (2, 1.0, 2.0), (3, 3.0, 1.0)]


def test_folds_are_one_curve_of_means():
    events = [{"event": "started", "step": 0, "fold": 0}, step(1, 1.0, fold=0), step(2, 0.5, fold=0)]
    events += [{"event": "started", "step": 0, "fold": 1}, step(1, 2.0, fold=1), step(2, 1.5, fold=1)]
    assert curve(events, "step", "loss") == [(1, 0.5, 1.5), (2, 1.0, 1.0)]


def test_steps_out_of_order_are_put_in_order_and_texts_are_none():
    events = [step(2, 0.5), step(1, 0.7), step(3, "much"), step(4, True), {"event": "step", "loss": 1.0}]
    assert [point[0] for point in curve(events, "step", "loss")] == [1, 2]


def _row(key, label=0, image=0, **metadata):
    files = {
        "image": (FileRef(f"images/{key}.png", "", f"{image:064x}", 10),),
        "label": (FileRef(f"labels/{key}.png", "", f"{label:064x}", 5),),
    }
    return Row(key, files, None, None, metadata, None, None)


def _on_versions(home, first, second, **origin):
    dataset = Dataset.open(home, Objects(home), "cells")
    base = None
    for name, rows in (("one", first), ("two", second)):
        base = dataset.commit(Contents(Manifest.from_rows(rows), None), name, base=base, author="me")
        told = {"of": "view", "dataset": "cells", "version": base.digest, "commit": base.commit, **origin}
        add_entry(home.root / "runs" / name, {"origin": told})


def test_relabelled_samples_are_told_and_not_paired(home):
    same = [_row(f"s{n}") for n in range(2, 8)]
    _on_versions(
        home,
        [_row("s0"), _row("s1"), *same, _row("t")],
        [_row("s0", label=1), _row("s1", image=1), *same, _row("t", x=1), _row("unused")],
    )
    found = both(home)
    (data,) = found["data"]
    assert (data["compared"], data["same_version"]) == ("versions", False)
    assert (data["relabelled"], data["changed"], data["metadata"], data["added"]) == (["s0"], ["s1"], ["t"], [])
    (one,) = found["verdict"]["comparisons"]
    assert one["not_the_same"] == ["s0", "s1"]
    assert one["samples"] == 6


def test_relabelled_samples_are_not_paired_among_later_runs(home, tmp_path):
    write_run(tmp_path, "zero", finished(3))
    rows = [_row(f"s{n}") for n in range(1, 8)]
    _on_versions(home, [_row("s0"), *rows], [_row("s0", label=1), *rows])
    put(tmp_path / "runs" / "zero", "scores.json", scores({f"s{n}": 0.9 for n in range(8)}))
    found = compare(read_runs([(home, "zero"), (home, "one"), (home, "two")]))
    told = {(each["first"], each["second"]): each["not_the_same"] for each in found["verdict"]["comparisons"]}
    assert told == {("A", "B"): [], ("A", "C"): [], ("B", "C"): ["s0"]}


def test_the_same_version_needs_no_look_at_it(home):
    for name in ("one", "two"):
        add_entry(home.root / "runs" / name, {"origin": {"dataset": "gone", "version": "v", "commit": "c"}})
    (data,) = both(home)["data"]
    assert (data["same_version"], data["compared"], data["note"]) == (True, "versions", "")


def test_versions_that_are_gone_are_told(home):
    for name in ("one", "two"):
        add_entry(home.root / "runs" / name, {"origin": {"dataset": "gone", "version": name, "commit": 64 * "0"}})
    (data,) = both(home)["data"]
    assert (data["same_version"], data["compared"]) == (False, "samples")
    assert data["note"].startswith("contents are not compared: ")


def test_without_versions_samples_are_compared_by_name(home):
    put(home.root / "runs" / "two", "splits.json", [{"s0": "test", "new": "train"}])
    (data,) = both(home)["data"]
    assert (data["same_version"], data["compared"]) == (None, "samples")
    assert (data["added"], data["removed"]) == (["new"], [*(f"s{n}" for n in range(1, 8)), "t"])
    assert "contents are not compared" in data["note"]


def test_images_that_were_changed_before_are_other_images(home):
    add_entry(home.root / "runs" / "two", {"origin": {"transforms": ["resize=256"]}})
    assert both(home)["verdict"]["sentence"].endswith(
        "A on the test part and B on the test, changed by resize=256, part."
    )


def test_code_is_compared_line_by_line_where_the_home_has_it(home):
    objects = Objects(home)
    with objects.writer() as writer:
        kept = [writer.put(text) for text in (b"def f():\n    return 1\n", b"def f():\n    return 2\n", b"\xff\xfe")]
        writer.commit()
    for name, digest, binary in (("one", kept[0], kept[1]), ("two", kept[1], kept[2])):
        files = [
            {"path": "train.py", "digest": digest},
            {"path": "data.bin", "digest": binary if name == "two" else kept[2]},
        ]
        code = {"useg": {"commit": name, "patch": f"line\n{name}\n"}, "user": {"files": files, "missing": 64 * "a"}}
        add_entry(home.root / "runs" / name, {"code": code})
    code = both(home)["code"]
    assert code["facts"]["useg.commit"] == {"A": "one", "B": "two"}
    assert "user.missing" not in code["facts"]
    diffs = {diff["name"]: diff["lines"] for diff in code["diffs"]}
    assert set(diffs) == {"useg.patch", "user.files.train.py"}
    assert diffs["user.files.train.py"][-2:] == ["-    return 1", "+    return 2"]
    assert diffs["useg.patch"][-2:] == ["-one", "+two"]


def test_long_differences_are_cut(home):
    for name in ("one", "two"):
        add_entry(home.root / "runs" / name, {"code": {"user": {"patch": "\n".join(f"{name}{n}" for n in range(999))}}})
    lines = both(home)["code"]["diffs"][0]["lines"]
    assert len(lines) == 401
    assert lines[-1].endswith("more lines")


def test_environments_are_compared_by_who_knows_them(home, monkeypatch):
    fake = ModuleType("useg.runs.environment")
    fake.environment_difference = lambda before, after: [f"torch {before['torch']} -> {after['torch']}"]
    monkeypatch.setitem(sys.modules, "useg.runs.environment", fake)
    assert both(home)["environment"] == [{"first": "A", "second": "B", "differences": ["torch 2 -> 3"]}]


@pytest.fixture(autouse=True)
def _environments(request):
    if "environments" not in request.node.name:
        return
    root = request.getfixturevalue("home").root
    for name, torch in (("one", 2), ("two", 3)):
        add_entry(root / "runs" / name, {"environment": {"torch": torch}})


def test_what_belongs_to_a_place_is_no_difference(home):
    for name in ("one", "two"):
        place = {
            "root": f"/home/{name}",
            "branch": name,
            "remote": f"{name}.example:x.git",
            "left_out": [{"path": name}],
        }
        add_entry(
            home.root / "runs" / name,
            {
                "code": {"useg": place | {"installed": name, "version": "1"}, "user": place | {"commit": 40 * "a"}},
                "environment": {
                    "python": {"executable": f"/{name}/bin/python", "version": "3.11.7"},
                    "packages": {"own": "1"},
                    "sources": {"own": {"path": f"/{name}/own", "editable": True, "commit": 40 * "a"}},
                },
            },
        )
    found = both(home)
    assert found["code"] == {"facts": {}, "diffs": []}
    assert found["environment"] == []
    add_entry(home.root / "runs" / "two", {"code": {"useg": {"root": "/b", "version": "2"}}})
    assert set(both(home)["code"]["facts"]) == {"useg.version", "user.commit"}
