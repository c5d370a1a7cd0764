import re
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from useg.data.manifest import FileRef, Manifest, Row
from useg.data.merging import merge_manifests, merge_row
from useg.data.versions import BothChanged, Contents, Dataset, list_datasets, split_name
from useg.errors import DataError, InputError
from useg.home.objects import Objects
from useg.home.refs import Moved
from useg.home.store import Memory


def dataset(name="cells", store=None):
    store = store or Memory()
    return Dataset.open(store, Objects(store), name)


def row(key, label=0, image=0, *, group=None, split=None, **metadata):
    files = {
        "image": (FileRef(f"images/{key}.png", "", f"{image:064x}", 10),),
        "label": (FileRef(f"labels/{key}.png", "", f"{label:064x}", 5),),
    }
    return Row(key, files, group, split, metadata, None, None)


def contents(*rows, mapping=None):
    return Contents(Manifest.from_rows(list(rows)), mapping)


def keys(cells, ref=""):
    return [row.key for row in cells.contents(cells.resolve(ref)).manifest.rows()]


def test_a_line_of_versions_and_all_their_names():
    cells = dataset()
    assert cells.head() is None
    first = cells.commit(contents(row("a")), "first", base=None, author="me")
    second = cells.commit(contents(row("a"), row("b")), "second", base=first)
    cells.tag("v1", "~1")
    cells.branch("trial", "main~1")
    for ref, wanted in {
        "": second,
        "main": second,
        "~1": first,
        "~": first,
        "main~1": first,
        "v1": first,
        "trial": first,
        first.digest[:12]: first,
        first.digest: first,
        second.commit: second,
        f"{second.digest}~1": first,
    }.items():
        assert cells.resolve(ref) == wanted, ref
    assert [version.message for version in cells.log()] == ["second", "first"]
    assert [version.message for version in cells.log("v1")] == ["first"]
    assert second.parents == (first.commit,)
    said = first.summary()
    assert said.pop("time").endswith("Z")
    assert said == {
        "digest": first.digest,
        "parents": [],
        "message": "first",
        "author": "me",
        "samples": 1,
        "linked": False,
        "commit": first.commit,
    }
    assert second.summary()["parents"] == [first.digest]
    assert keys(cells) == ["a", "b"]
    assert list_datasets(cells.store) == ["cells"]
    assert split_name("cells@main~1") == ("cells", "main~1")
    assert split_name("cells") == ("cells", "")
    assert split_name("cells@~1") == ("cells", "~1")


@pytest.mark.parametrize(("text", "meant"), [("em~1", "em@~1"), ("a.b-c~", "a.b-c@~"), ("em~12", "em@~12")])
def test_steps_back_after_the_name_are_told_what_was_meant(text, meant):
    with pytest.raises(InputError, match=rf"^{re.escape(text)}: .*; {re.escape(meant)} was probably meant$"):
        split_name(text)


def test_another_process_sees_the_same():
    cells = dataset()
    first = cells.commit(contents(row("a", stain="HE"), mapping="ignore = [3]\n"), "first", base=None)
    again = dataset(store=cells.store)
    assert again.resolve() == first
    assert list(again.contents(first).manifest.rows()) == list(contents(row("a", stain="HE")).manifest.rows())
    assert again.contents(first).mapping == "ignore = [3]\n"


def test_names_that_name_nothing():
    cells = dataset()
    with pytest.raises(InputError, match=r"no data set 'cells' in memory:.* \(there: none\)"):
        cells.resolve()
    first = cells.commit(contents(row("a")), "first", base=None)
    with pytest.raises(InputError, match="no branch, tag or digest of this name"):
        cells.resolve("nothing")
    with pytest.raises(InputError, match="no branch, tag or digest"):
        cells.resolve("../up")
    with pytest.raises(InputError, match="not as long as that"):
        cells.resolve("~3")
    cells.tag("v1")
    with pytest.raises(InputError, match="has a tag 'v1' already"):
        cells.branch("v1")
    with pytest.raises(InputError, match="has a branch 'main' already"):
        cells.tag("main")
    cells.delete("v1")
    with pytest.raises(InputError, match="no branch or tag 'v1'"):
        cells.delete("v1")
    cells.tag("v1")
    assert cells.resolve("v1") == first
    for name in ("", "a/b", "..", "a@b", "x" * 101, "-a"):
        with pytest.raises(InputError, match="a data set's name"):
            dataset(name)


def test_a_commit_of_the_same_changes_nothing_and_one_may_go_back():
    cells = dataset()
    first = cells.commit(contents(row("a")), "first", base=None)
    assert cells.commit(contents(row("a")), "again", base=first) == first
    second = cells.commit(contents(row("a", 1)), "second", base=first)
    back = cells.restore("~1")
    assert back.digest == first.digest
    assert back.commit != first.commit
    assert [version.commit for version in cells.log()] == [back.commit, second.commit, first.commit]
    assert cells.resolve(first.digest[:8]) == back


def test_a_clock_that_goes_back_does_not_turn_the_history_round(monkeypatch):
    cells = dataset()
    version = None
    for number, now in enumerate([1000.0, 500.0, 2000.0, 1.0]):
        monkeypatch.setattr(cells.store, "time", lambda now=now: now)
        version = cells.commit(contents(row("a", number)), str(number), base=version)
    assert [version.message for version in cells.log()] == ["3", "2", "1", "0"]
    assert [version.summary()["time"] for version in cells.log()] == sorted(
        [version.summary()["time"] for version in cells.log()], reverse=True
    )


def test_two_who_change_different_samples_both_succeed():
    cells = dataset()
    first = cells.commit(contents(row("a"), row("b")), "first", base=None)
    cells.commit(contents(row("a", 1), row("b")), "mine", base=first)
    other = dataset(store=cells.store)
    merged = other.commit(contents(row("a"), row("b", 2), row("c")), "theirs", base=first)
    wanted = contents(row("a", 1), row("b", 2), row("c"))
    assert merged.digest == wanted.manifest.digest()
    assert [version.message for version in cells.log()] == ["merge: theirs", "theirs", "mine", "first"]
    assert merged.parents == (cells.log()[2].commit, cells.log()[1].commit)


def test_two_who_change_one_sample_and_nothing_is_lost():
    cells = dataset()
    first = cells.commit(contents(row("a"), row("b"), mapping="x"), "first", base=None)
    mine = cells.commit(contents(row("a", 1), row("b"), mapping="y"), "mine", base=first)
    with pytest.raises(Moved, match=r"moved under you.*merge or retry") as caught:
        cells.commit(contents(row("a", 2), row("b", 2), mapping="z"), "theirs", base=first)
    assert isinstance(caught.value, BothChanged)
    assert [(problem.where, problem.what) for problem in caught.value.problems] == [
        ("a", "both changed files"),
        ("classes.toml", "both changed it"),
    ]
    assert "a: both changed files" in str(caught.value)
    assert cells.resolve() == mine
    own = cells.resolve(caught.value.own.commit)
    assert own.digest == contents(row("a", 2), row("b", 2)).manifest.digest()
    assert keys(cells, own.commit) == ["a", "b"]
    assert cells.merge(own.commit, prefer="theirs").digest == own.digest


def test_two_first_versions_are_put_together():
    cells = dataset()
    cells.commit(contents(row("a")), "mine", base=None)
    assert keys(cells) == ["a"]
    cells.commit(contents(row("b")), "theirs", base=None)
    assert keys(cells) == ["a", "b"]
    with pytest.raises(Moved, match="a: both changed"):
        cells.commit(contents(row("a", 3)), "another", base=None)


def test_many_at_once_all_succeed():
    store = Memory()
    base = dataset(store=store).commit(contents(row("a")), "first", base=None)

    def work(number):
        mine = dataset(store=store)
        mine.commit(contents(row("a"), row(f"b{number}")), f"add {number}", base=base)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cells = dataset(store=store)
    assert keys(cells) == ["a", *(f"b{number}" for number in range(8))]
    assert {version.message for version in cells.log()} >= {f"add {number}" for number in range(8)}


def test_branches_are_merged_by_sample():
    cells = dataset()
    first = cells.commit(contents(row("a"), row("b"), row("c")), "first", base=None)
    cells.branch("trial")
    trial = cells.commit(contents(row("a", 1), row("b"), row("d")), "trial", base=first, branch="trial")
    main = cells.commit(contents(row("a", stain="HE"), row("b", 7), row("c")), "main", base=first)
    merged = cells.merge("trial")
    assert merged.parents == (main.commit, trial.commit)
    assert merged.digest == contents(row("a", 1, stain="HE"), row("b", 7), row("d")).manifest.digest()
    assert cells.merge("trial") == merged, "there is nothing left to merge"
    assert cells.merge("main", into="trial") == merged, "the branch follows without a new version"
    assert cells.resolve("trial") == merged
    assert cells.log()[0].message == "merge trial into main"
    assert {version.commit for version in cells.log()} == {v.commit for v in (first, trial, main, merged)}


def test_conflicts_of_branches_are_named_and_a_side_can_be_chosen():
    cells = dataset()
    first = cells.commit(contents(row("a"), row("b"), row("c", age=1)), "first", base=None)
    cells.branch("trial")
    cells.commit(contents(row("a", 1), row("c", age=2)), "trial", base=first, branch="trial")
    cells.commit(contents(row("a", 2), row("b", 3), row("c", age=3)), "main", base=first)
    with pytest.raises(DataError, match="changed 3 samples in different ways") as caught:
        cells.merge("trial")
    assert [(problem.where, problem.what) for problem in caught.value.problems] == [
        ("a", "both changed files"),
        ("b", "both changed it (one side removed it)"),
        ("c", "both changed the field age"),
    ]
    before = cells.resolve()
    cells.branch("other")
    assert cells.merge("trial", prefer="ours").digest == before.digest
    theirs = cells.merge("trial", into="other", prefer="theirs")
    assert theirs.digest == contents(row("a", 1), row("c", age=2)).manifest.digest()
    with pytest.raises(InputError, match="no branch 'nowhere'"):
        cells.merge("trial", into="nowhere")


def test_a_file_with_two_contents_is_refused():
    cells = dataset()
    shared = (FileRef("mask.png", "", "1" * 64, 5),)
    other = (FileRef("mask.png", "", "2" * 64, 5),)

    def with_region(key, region):
        return Row(key, {**row(key).files, "region": region}, None, None, {}, None, None)

    first = cells.commit(contents(with_region("a", shared)), "first", base=None)
    cells.commit(contents(with_region("a", shared), with_region("b", shared)), "mine", base=first)
    with pytest.raises(DataError, match=r"mask\.png: would have two contents"):
        cells.commit(contents(with_region("a", other)), "theirs", base=first)


rows_of_one = st.none() | st.builds(
    lambda label, split, stain: row("k", label, split=split, **({"stain": stain} if stain else {})),
    st.integers(0, 2),
    st.sampled_from([None, "train", "val"]),
    st.sampled_from([None, "HE", 1, True]),
)


@given(rows_of_one, rows_of_one, rows_of_one)
def test_laws_of_merging_one_sample(base, ours, theirs):
    merged, conflicts = merge_row(base, ours, theirs)
    assert merge_row(base, base, theirs) == (theirs, [])
    assert merge_row(base, ours, base) == (ours, [])
    assert merge_row(base, ours, ours) == (ours, [])
    turned, turned_conflicts = merge_row(base, theirs, ours)
    assert conflicts == turned_conflicts
    if not conflicts:
        assert merged == turned
    assert merge_row(base, ours, theirs, prefer="ours")[1] == []
    if ours is not None and theirs is not None and merged is not None:
        assert merged.split in {ours.split, theirs.split}


versions_of_many = st.dictionaries(st.sampled_from("abcd"), st.integers(0, 2), max_size=4)


@settings(max_examples=60)
@given(versions_of_many, versions_of_many, versions_of_many)
def test_merging_manifests_is_merging_their_samples(base, ours, theirs):
    """The naive twin: every key by itself."""
    maps = [Manifest.from_rows([row(key, label) for key, label in each.items()]) for each in (base, ours, theirs)]
    merged = merge_manifests(*maps)
    wanted, conflicts = [], []
    for key in sorted({*base, *ours, *theirs}):
        one, fields = merge_row(*(row(key, each[key]) if key in each else None for each in (base, ours, theirs)))
        wanted += [one] if one else []
        conflicts += [key] if fields else []
    assert [problem.where for problem in merged.conflicts] == conflicts
    if not conflicts:
        assert merged.manifest.digest() == Manifest.from_rows(wanted).digest()


class Line(RuleBasedStateMachine):
    """Whatever is done, every version that was ever made can be read as it was made."""

    def __init__(self):
        super().__init__()
        self.cells = dataset()
        self.made = {}
        self.number = 0
        self.commit(branch="main", key="a")

    @rule(branch=st.sampled_from(["main", "x"]), key=st.sampled_from("abc"))
    def commit(self, branch, key):
        self.number += 1
        base = self.cells.head(branch)
        if base is None and branch != "main":
            self.cells.branch(branch)
            base = self.cells.head(branch)
        before = {row.key: row for row in self.cells.contents(base).manifest.rows()} if base else {}
        after = contents(*{**before, key: row(key, self.number)}.values())
        version = self.cells.commit(after, str(self.number), base=base, branch=branch)
        self.made[version.commit] = after.manifest.digest()

    @rule(into=st.sampled_from(["main", "x"]), ref=st.sampled_from(["main", "x"]))
    def merge(self, into, ref):
        if {into, ref} <= self.cells.branches().keys():
            version = self.cells.merge(ref, into=into, prefer="ours")
            self.made[version.commit] = version.digest

    @rule()
    def restore(self):
        version = self.cells.restore("main~1" if self.cells.head().parents else "main")
        self.made[version.commit] = version.digest

    @invariant()
    def everything_is_there(self):
        again = dataset(store=self.cells.store)
        assert self.made.keys() == again.versions().keys()
        for commit, digest in self.made.items():
            version = again.version(commit)
            assert version.digest == digest == again.contents(version).manifest.digest()
        log = again.log()
        places = {version.commit: place for place, version in enumerate(log)}
        assert all(places[p] > places[v.commit] for v in log for p in v.parents)


Line.TestCase.settings = settings(max_examples=12, stateful_step_count=10)
TestLine = Line.TestCase
