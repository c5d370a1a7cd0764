"""The README's own commands, one after the other, on data of a second."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.cli.calling import SMALL, Told, save

README = Path(__file__).parents[2] / "README.md"


def commands(heading: str) -> Iterator[list[list[str]]]:
    """The commands of each block beneath a heading."""
    section = README.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    for block in re.findall(r"```sh\n(.*?)```", section, re.DOTALL):
        yield [words for words in (shlex.split(line, comments=True) for line in block.splitlines()) if words]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a command of the README; what it names by way of example is given: the folder, the bucket, the time."""
    told = Told(capsys)
    monkeypatch.delenv("USEG_HOME", raising=False)
    monkeypatch.chdir(tmp_path)

    def one(words: list[str], **given: str) -> Any:
        assert words[0] == "useg"
        line = [given.get(word.strip("/").replace("-", "_"), given.get(word, word)) for word in words[1:]]
        if "--minutes" in line:
            at = line.index("--minutes")
            line[at : at + 2] = SMALL
        elif line[0] == "train" and "--resume" not in line:
            line += SMALL
        return told(*line)

    return one


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for number in range(12):
        random = np.random.default_rng(number)
        image, mask = random.integers(0, 200, (32, 32)), np.zeros((32, 32))
        image[8:20, 5 + number : 15 + number] += 50
        mask[8:20, 5 + number : 15 + number] = 255
        save(tmp_path / "my-images" / "images" / f"a{number}.png", image)
        save(tmp_path / "my-images" / "masks" / f"a{number}.png", mask)
    return tmp_path / "my-images"


def content(folder: Path) -> dict[str, bytes]:
    return {path.name + path.parent.name: path.read_bytes() for path in folder.rglob("*.png")}


@pytest.mark.walk
@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_data_in_versions(
    kind: str, images: Path, tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    shared = str(request.getfixturevalue("s3_url")) if kind == "s3" else str(tmp_path / "shared")
    here, there, straight, _, fields = commands("Keep your data in versions")
    given = {"s3://bucket/home": shared, "my_images": str(images)}
    before, said = content(images), {}
    for words in here:
        if "ten masks corrected" in words:
            for number in range(10):
                path = images / "masks" / f"a{number}.png"
                mask = np.asarray(Image.open(path)).copy()
                mask[20:22] = 255
                save(path, mask)
        said[words[2]] = run(words, **given)
    assert len(said["diff"]["relabelled"]) == 10
    assert (tmp_path / "changes.html").read_text().count("<figure") == 10

    (tmp_path / "another machine").mkdir()
    monkeypatch.chdir(tmp_path / "another machine")
    monkeypatch.setenv("USEG_CACHE", str(tmp_path / "another cache"))
    for words in there:
        said[words[2]] = run(words, **given)
    assert [version["message"] for version in said["log"]["versions"]] == ["ten masks corrected", "as annotated"]
    assert content(Path("as-it-was")) == before
    assert said["verify"]["problems"] == []
    assert run(straight[0], **given)["status"] == "finished"
    for words in fields:
        said[words[2]] = run(words, **given)
    assert set(said["query"]["keys"]) <= {f"a{number}" for number in range(12)}


@pytest.mark.walk
def test_train_change_train_compare_reproduce(images: Path, run: Any) -> None:
    here, _, later = list(commands("See what was tried, and have it again"))[:3]
    said = [run(words, my_images=str(images)) for words in here]
    first, second, compared, again = said
    assert compared["config"]["train.lr"]["B"] == 0.001
    assert again["proof"]["verdict"] == "bit-identical"
    assert again["weights"] == first["weights"] != second["weights"]
    model = str(Path(first["folder"]) / "model.useg")
    for words in later:
        if words[2] in ("list", "show", "find"):
            said.append(run(words, RUN=first["run"], **{"model.useg": model}))
    assert json.dumps(said[-1]).count(first["run"]) >= 1
