"""`useg data` as people use it: add, train, fix masks, commit, pull elsewhere, retrain, compare, go back."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.cli.calling import SMALL, call, save

from useg.home.opening import open_home
from useg.home.store import Folder
from useg.runs.record import RunFolder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for number in range(12):
        random = np.random.default_rng(number)
        image = random.integers(0, 200, (32, 32))
        image[8:20, 5:15] += 50
        mask = np.zeros((32, 32))
        mask[8:20, 5:15] = 255
        save(tmp_path / "data" / "images" / f"{number}.png", image)
        save(tmp_path / "data" / "masks" / f"{number}.png", mask)
    return tmp_path / "data"


def fix(data: Path, keys: range) -> None:
    for number in keys:
        mask = np.asarray(Image.open(data / "masks" / f"{number}.png")).copy()
        mask[20:22, 5:15] = 255
        save(data / "masks" / f"{number}.png", mask)


def files_below(folder: Path) -> dict[str, bytes]:
    kept = {".useg-checkout", "pairs.csv"}
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not kept & {*path.relative_to(folder).parts}
    }


def record_of(run: Any) -> dict[str, Any]:
    return RunFolder(Path(run["folder"])).record()


@pytest.fixture(params=["folder", "s3", "served"])
def home(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "served":
        from tests.home.served_home import in_thread

        monkeypatch.setenv("USEG_STATE", str(tmp_path / "state"))
        with in_thread(Folder(tmp_path / "served")) as address:
            yield address
        return
    yield str(request.getfixturevalue("s3_url") if request.param == "s3" else tmp_path / "home")


@pytest.mark.walk
def test_the_walk(home: str, data: Path, tmp_path: Path, told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first_files = files_below(data)
    first = told("data", "add", data, "--name", "cells", "-m", "as annotated", "--home", home)
    assert (first["samples"], first["changed"]) == (12, True)
    assert first["bytes_read"] == sum(map(len, first_files.values()))

    here = tmp_path / "here"
    told("data", "pull", "cells", home, "--home", here)
    run = told("train", "cells", *SMALL, "--home", here)

    fix(data, range(10))
    second = told("data", "add", data, "--name", "cells", "-m", "ten masks", "--home", home)
    fixed = sum((data / "masks" / f"{k}.png").stat().st_size for k in range(10))
    assert second["digest"] != first["digest"]
    assert second["bytes_stored"] < fixed + 20_000

    monkeypatch.setenv("USEG_CACHE", str(tmp_path / "another cache"))
    there = tmp_path / "there"
    told("data", "pull", "cells@~1", home, "--home", there)
    sent = told("data", "pull", "cells", home, "--home", there)
    assert sent["digest"] == second["digest"]
    assert sent["bytes"] < fixed + 20_000
    assert told("data", "pull", "cells", home, "--home", there)["objects"] == 0

    again = told("train", "cells", "--where", "key != '11'", *SMALL, "--home", there)
    record = record_of(again)
    assert record["origin"]["version"] == second["digest"]
    assert record["origin"]["where"] == "key != '11'"
    assert again["weights"] != run["weights"]

    found = told("data", "diff", "cells@~1", "@main", "--html", tmp_path / "diff.html", "--home", there)
    assert found["relabelled"] == sorted(map(str, range(10)))
    assert [found[kind] for kind in ("added", "removed", "metadata")] == [[], [], []]
    assert (tmp_path / "diff.html").read_text().count("<figure") == 10

    log = told("data", "log", "cells", "--home", there)["versions"]
    assert [row["digest"] for row in log] == [second["digest"], first["digest"]]
    assert log[0]["parents"] == [first["digest"]]
    assert [row["message"] for row in log] == ["ten masks", "as annotated"]
    told("data", "checkout", f"cells@{first['digest'][:12]}", tmp_path / "back", "--home", there)
    assert files_below(tmp_path / "back") == first_files
    repeated = told("train", f"cells@{first['digest'][:12]}", *SMALL, "--home", there)
    assert repeated["weights"] == run["weights"], "the same version gives the same weights, bit for bit"
    assert told("data", "verify", "--home", home)["problems"] == []


def test_training_on_a_home_that_lies_elsewhere(
    home: str, data: Path, tmp_path: Path, told: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("USEG_HOME", raising=False)
    is_bucket = "://" in home
    told("data", "add", data, "--name", "cells", "--home", home)
    told("data", "branch", "cells", "trial", "--home", home)
    told("data", "set", "cells@trial", "stain=HE", "--where", "key = '3'", "--home", home)
    run = told("train", "cells@trial", *SMALL, "--home", home, "--cache-size", "20MB")
    assert Path(run["folder"]).parent.parent == (tmp_path / "useg-home" if is_bucket else Path(home))
    assert record_of(run)["origin"].get("home") == (home if is_bucket else None)

    monkeypatch.setenv("USEG_CACHE", str(tmp_path / "another cache"))
    told("data", "pull", "cells@trial", home, "--home", tmp_path / "there", "--branch", "trial")
    near = told("train", "cells@trial", *SMALL, "--home", tmp_path / "there")
    assert near["weights"] == run["weights"]

    told("data", "branch", "cells", "trial", "--delete", "--home", home)
    told("data", "gc", "--grace-hours", "0", "--home", home)
    told("data", "gc", "--grace-hours", "0", "--home", home)
    more = told("train", "--resume", run["run"], "--epochs", "1", "--home", home)
    assert more["status"] == "finished", "what a run learned from is kept for it"
    if is_bucket:
        elsewhere = tmp_path.with_name(f"{tmp_path.name} elsewhere")
        elsewhere.mkdir()
        monkeypatch.chdir(elsewhere)
        further = told("train", "--resume", run["run"], "--epochs", "2", "--home", home)
        assert further["folder"] == str(elsewhere / "useg-home" / "runs" / run["run"])
        assert further["status"] == "finished"
    plan = told("plan", "cells", "--where", "key != '3'", "--steps", "2", "--home", home)
    assert plan["num_classes"] == 2


def test_the_bound_of_the_cache_is_said(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("train", data, *SMALL, "--home", tmp_path / "home", "--cache-size", "much") == 2
    assert "'much' is no amount of bytes: write it like 2GB" in capsys.readouterr().err


def test_fields_branches_and_merges(data: Path, tmp_path: Path, told: Any) -> None:
    home = tmp_path / "home"

    def run(*arguments: object) -> Any:
        return told("data", *arguments, "--home", home)

    run("add", data, "--name", "cells")
    assert run("set", "cells", "stain=HE", "split=test", "--where", "key in ('1', '2')")["changed"] == 2
    assert run("query", "cells", "stain = 'HE' and split = 'test'")["keys"] == ["1", "2"]
    (tmp_path / "more.csv").write_text("key,depth\n3,4.5\n4,7\n")
    assert run("annotate", "cells", "--csv", tmp_path / "more.csv")["changed"] == 2
    assert run("query", "cells", "depth > 5")["keys"] == ["4"]
    assert run("show", "cells")["fields"] == ["depth", "stain"]
    run("branch", "cells", "trial")
    run("tag", "cells", "paper")
    run("set", "cells@trial", "stain=PAS", "--where", "key = '5'")
    run("set", "cells", "stain=HE", "--where", "key = '6'")
    merged = run("merge", "cells@trial")
    assert len(merged["parents"]) == 2
    assert run("query", "cells", "stain = 'PAS'")["keys"] == ["5"]
    assert run("query", "cells", "stain = 'HE'")["keys"] == ["1", "2", "6"]
    assert run("query", "cells@paper", "stain = 'PAS'")["keys"] == []
    assert set(run("branch", "cells", "trial", "--delete")["branches"]) == {"main"}
    assert set(run("du")["datasets"]) == {"cells"}
    assert run("gc", "--grace-hours", "0")["deleted"] == 0


def test_a_tweak_is_a_view(data: Path, tmp_path: Path, told: Any) -> None:
    home = tmp_path / "home"
    told("data", "add", data, "--name", "cells", "--home", home)
    before = told("data", "du", "--home", home)["datasets"]
    tweak = ["--transform", "scale=0.5", "--transform", "weight=255:3"]
    run = told("train", "cells", *tweak, *SMALL, "--home", home)
    record = record_of(run)
    assert record["origin"]["transforms"] == ["scale=0.5", "weight=255:3"]
    assert json.loads((Path(run["folder"]) / "fingerprint.json").read_text())["median_space"] == [16, 16]
    assert told("data", "du", "--home", home)["datasets"] == before, "nothing was copied"
    again = told("train", "cells", *tweak, *SMALL, "--home", home)
    assert again["weights"] == run["weights"]
    assert again["weights"] != told("train", "cells", *SMALL, "--home", home)["weights"]
    more = told("train", "--resume", run["run"], "--epochs", "2", "--home", home)
    assert more["status"] == "finished"


def test_a_purged_sample_is_gone_from_everywhere(
    home: str, data: Path, tmp_path: Path, told: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("USEG_HOME", raising=False)
    monkeypatch.setenv("USEG_CACHE", str(tmp_path / "own cache"))
    told("data", "add", data, "--name", "cells", "--home", home)
    run = told("train", "cells", *SMALL, "--transform", "scale=0.5", "--home", home)
    report = Path(run["folder"]) / "report.html"
    shown = next(key for key in map(str, range(12)) if f"<span>{key}</span>" in report.read_text())
    secret = (data / "images" / f"{shown}.png").read_bytes()
    cached = len([path for path in (tmp_path / "own cache").rglob("*.*") if ".of-" in path.name])
    assert cached == 13, "12 images and one mask for all, half as large"
    done = told("data", "purge", "cells", shown, "--reason", "consent withdrawn", "--yes", "--home", home)
    # all masks are equal, so this one stays for the others
    assert (done["samples"], done["objects"], done["shared"], len(done["runs"])) == ([shown], 1, 1, 1)
    assert done["cached"] == 2, "the image, and what was made of it"
    assert f"<span>{shown}</span>" not in report.read_text()
    assert not list(report.parent.glob(f"pictures/{shown}*"))
    store = open_home(home)[0]
    for entry in store.list():
        assert secret not in store.get(entry.key), entry.key
        assert f"/pictures/{shown}" not in entry.key
        if entry.key.endswith("report.html"):
            assert f"<span>{shown}</span>" not in store.get(entry.key).decode()
    for path in (tmp_path / "own cache").rglob("*"):
        assert not path.is_file() or secret not in path.read_bytes()
    assert len(told("data", "query", "cells", "true", "--home", home)["keys"]) == 11
    assert told("data", "verify", "--home", home)["problems"] == []
    assert call("data", "checkout", "cells@~1", tmp_path / "old", "--home", home) == 2
    assert "was withdrawn" in capsys.readouterr().err
    told("data", "push", "cells", tmp_path / "other", "--home", home)
    assert told("data", "verify", "--home", tmp_path / "other")["problems"] == [], "it knows what was withdrawn"
    assert call("data", "checkout", "cells@~1", tmp_path / "older", "--home", tmp_path / "other") == 2
    assert "consent withdrawn" in capsys.readouterr().err
    assert told("train", "cells", *SMALL, "--home", home)["status"] == "finished"
    assert call("data", "add", data, "--name", "cells", "--home", home) == 2, "it lies in the folder still"
    assert f"{shown}.png: object" in capsys.readouterr().err


def test_damage_is_named_and_healed_from_another_home(home: str, data: Path, tmp_path: Path, told: Any) -> None:
    told("data", "add", data, "--name", "cells", "--home", home)
    told("data", "pull", "cells", home, "--home", tmp_path / "copy")
    store = open_home(home)[0]
    (pack,) = [entry.key for entry in store.list("packs/") if entry.size > 10_000]
    flipped = bytearray(store.get(pack))
    flipped[5000] ^= 1
    # a server takes no damaged pack: it is put where the server has it
    under = Folder(tmp_path / "served") if home.startswith("http") else store
    under.delete(pack)
    under.put(pack, bytes(flipped))
    assert call("data", "verify", "--home", home) == 2
    told("data", "push", "cells", home, "--home", tmp_path / "copy")
    told("data", "gc", "--grace-hours", "0", "--home", home)
    told("data", "gc", "--grace-hours", "0", "--home", home)
    assert told("data", "verify", "--home", home)["problems"] == []
    assert told("data", "checkout", "cells", tmp_path / "out", "--home", home)["written"] >= 24
    assert files_below(tmp_path / "out") == files_below(data)


def test_a_folder_that_is_trained_on_becomes_a_version(data: Path, tmp_path: Path, told: Any, capsys: Any) -> None:
    home = tmp_path / "home"
    run = told("train", data, *SMALL, "--home", home)
    origin = record_of(run)["origin"]
    assert (origin["of"], origin["reproducible"]) == ("folder", True)
    assert told("data", "log", origin["dataset"], "--home", home)["versions"][0]["digest"] == origin["version"]
    told("data", "gc", "--grace-hours", "0", "--home", home)
    fix(data, range(1))
    assert call("train", "--resume", run["run"], "--epochs", "2", "--home", home) == 2
    assert "masks/0.png: is not what it was when it was added" in capsys.readouterr().err
    view = told("train", f"{origin['dataset']}@{origin['version'][:12]}", *SMALL, "--home", home)
    assert view["weights"] == run["weights"], "the version trains as the folder did"


def test_what_cannot_be_done_is_said(data: Path, tmp_path: Path, told: Any, capsys: Any) -> None:
    home = tmp_path / "home"
    told("data", "add", data, "--name", "cells", "--home", home)
    for arguments, said in (
        (("data", "log", "nothing"), "no data set 'nothing'"),
        (("data", "log", "../x"), "a data set's name is"),
        (("data", "show", "cells@gone"), "no branch, tag or digest"),
        (("data", "add", tmp_path / "none", "--name", "x"), "none"),
        (("data", "set", "cells", "stain"), "wanted FIELD=VALUE"),
        (("data", "query", "cells", "read_text('/etc/passwd')"), "read_text"),
        (("data", "purge", "cells", "99", "--reason", "x", "--yes"), "no version of cells has this sample"),
        (("train", data, "--where", "key = '1'"), "--where and --transform ask a data set"),
        (("train", "sells"), "no such file or folder, nor a data set"),
        (("train", "cells", "--where", "key = 'x'"), "no sample for which"),
        (("train", "cells", "--transform", "melt=3"), "is no transform"),
        (("train", "cells", "--transform", "merge=tree:0"), "there is no class 'tree'"),
        (("data", "merge", "cells", "--prefer", "mine"), "--prefer wants ours or theirs"),
    ):
        assert call(*arguments, "--home", home) == 2, arguments
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("command", ["verify", "gc", "du"])
def test_a_home_that_is_not_there_is_not_called_sound(command: str, tmp_path: Path, capsys: Any) -> None:
    assert call("data", command, "--home", tmp_path / "nowhere") == 2
    assert "nowhere: there is no home" in capsys.readouterr().err
    assert not (tmp_path / "nowhere").exists()


def test_what_others_wrote_cannot_control_a_terminal(data: Path, tmp_path: Path, told: Any, capsys: Any) -> None:
    home = ["--home", tmp_path / "home"]
    told("data", "add", data, "--name", "cells", "-m", "one\n\x1b[31mtwo", *home)
    capsys.readouterr()
    for command in ("log", "show"):
        assert call("data", command, "cells", *home) == 0
        shown = capsys.readouterr().out
        assert "one  [31mtwo" in shown
        assert "\x1b" not in shown
    assert told("data", "log", "cells", *home)["versions"][0]["message"] == "one\n\x1b[31mtwo"
    assert call("data", "add", data, "--name", "cells@main", *home) == 2
    assert "--branch says which" in capsys.readouterr().err
    assert call("data", "diff", "cells", "cells", "--html", tmp_path / "no" / "page.html", *home) == 2
    assert "page.html: cannot write" in capsys.readouterr().err


def test_what_was_interrupted_is_measured_the_next_time(
    data: Path, tmp_path: Path, told: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = ["--home", tmp_path / "home"]

    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("useg.data.stocktaking.count", interrupt)
        assert call("data", "add", data, "--name", "cells", *home) == 130
    assert "is there, but not measured" in capsys.readouterr().err
    assert told("data", "show", "cells", *home)["samples"] == 12
    assert told("data", "add", data, "--name", "cells", *home)["changed"] is False
    assert len(told("data", "query", "cells", "height = 32", *home)["keys"]) == 12


def test_what_keeps_from_training_is_said_when_it_is_added(data: Path, tmp_path: Path, told: Any) -> None:
    save(data / "masks" / "3.png", np.zeros((5, 5)))
    added = told("data", "add", data, "--name", "cells", "--home", tmp_path / "home")
    assert added["samples"] == 12
    assert "masks/3.png: the label map is 5 x 5, its image 32 x 32" in told.err


def test_a_field_may_have_any_name(data: Path, tmp_path: Path, told: Any) -> None:
    rows = [f"images/{n}.png,masks/{n}.png,{50 + n},{n}" for n in range(12)]
    (data / "pairs.csv").write_text("\n".join(["image,label,weight,dtype", *rows]))
    told("data", "add", data, "--name", "patients", "--home", tmp_path / "home")
    assert "weight: this field is kept as weight_" in told.err
    found = told("data", "query", "patients", "weight_ > 60 and dtype_ < 100", "--home", tmp_path / "home")
    assert found["keys"] == ["images/11"]


def test_a_path_of_thousands_of_characters_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["inspect"], ["train", "--home", tmp_path], ["data", "add", "--name", "x", "--home", tmp_path]):
        assert call(*command, "a/" * 2500) == 2
        assert "too long (shorten the path)" in " ".join(capsys.readouterr().err.split())


def test_a_link_out_of_the_folder_is_followed_where_that_is_asked(
    data: Path, tmp_path: Path, told: Any, capsys: Any
) -> None:
    outside = tmp_path / "outside.png"
    (data / "images" / "0.png").rename(outside)
    (data / "images" / "0.png").symlink_to(outside)
    home = ["--home", tmp_path / "home"]
    assert call("data", "add", data, "--name", "cells", *home) == 2
    assert f"a link out of the folder, to {outside} (copy the file here, or give --follow-links)" in (
        capsys.readouterr().err
    )
    assert told("data", "add", data, "--name", "cells", "--follow-links", *home)["samples"] == 12
    told("data", "checkout", "cells", tmp_path / "out", *home)
    assert (tmp_path / "out" / "images" / "0.png").read_bytes() == outside.read_bytes()
