"""A sample is followed by its content, whatever it is called."""

import orjson
import pytest
from tests.runs.making import finished, write_run

from useg.data.contents import content_digests
from useg.data.manifest import FileRef, Row
from useg.errors import InputError
from useg.home.store import Folder
from useg.runs.compare import compare, read_runs
from useg.runs.sample_scores import follow_sample


def content(image, labels):
    return {"image": f"{image:064x}", "labels": f"{labels:064x}"}


def scored(home, name, samples):
    folder = write_run(home, name, finished(0, weights=name))
    rows = {key: {"mean_dice": dice} | ({"content": digests} if digests else {}) for key, (dice, digests) in samples}
    (folder / "scores.json").write_bytes(orjson.dumps({"part": "test", "mean_over": ["cell"], "samples": rows}))


@pytest.fixture
def home(tmp_path):
    scored(tmp_path, "one", [(f"s{n}", (0.5 + n / 100, content(n + 1, 7))) for n in range(8)])
    scored(tmp_path, "two", [(f"new/s{n}", (0.6 + n / 100, content(n + 1, 7))) for n in range(8)])
    scored(tmp_path, "relabelled", [("s0", (0.9, content(1, 8))), ("other", (0.1, None))])
    return Folder(tmp_path)


def told(home, sample, metric=None):
    return [(row["run"], row["key"], row["score"]) for row in follow_sample(home, RUNS, sample, metric)["rows"]]


RUNS = ["one", "two", "relabelled", "not there"]


def test_by_key_and_by_digest(home):
    everywhere = [("one", "s0", 0.5), ("two", "new/s0", 0.6), ("relabelled", "s0", 0.9)]
    assert told(home, "s0") == told(home, "new/s0") == everywhere
    assert told(home, f"{1:064x}") == everywhere
    assert told(home, "other") == [("relabelled", "other", 0.1)]


def test_what_is_not_there_is_said(home):
    with pytest.raises(InputError, match=r"no run scored a sample 'gone'"):
        follow_sample(home, RUNS, "gone")
    with pytest.raises(InputError, match=r"--metric pq: wanted one of mean_dice"):
        follow_sample(home, RUNS, "s0", "pq")


def test_renamed_samples_are_paired_by_content(home):
    verdict = compare(read_runs([(home, "one"), (home, "two")]))["verdict"]
    assert verdict["comparisons"][0]["samples"] == 8
    assert verdict["sentence"].startswith("B is better than A on mean Dice by 0.100")


def test_digests_are_of_contents_alone():
    def row(key, path, digest, part="", role="label"):
        image = FileRef(path, part, digest * 64, 3)
        return Row(key, {"image": (image,), role: (FileRef("mask", "", "c" * 64, 3),)}, None, None, {})

    first = content_digests(row("a", "a.png", "a"))
    assert first == content_digests(row("b", "other/b.png", "a"))
    assert first != content_digests(row("a", "a.png", "b"))
    assert first["image"] != content_digests(row("a", "a.png", "a", part="1"))["image"], "another frame"
    assert first["labels"] != content_digests(row("a", "a.png", "a", role="objects"))["labels"], "read otherwise"
