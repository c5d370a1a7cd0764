"""The page of two versions shows what was added to label maps and what was taken away."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from useg.data.adding import add
from useg.data.versions import Dataset
from useg.data.views import open_view
from useg.experiments.difference_page import write_difference_page
from useg.home.cache import Cache
from useg.home.fetching import Fetcher
from useg.home.objects import Objects
from useg.home.store import Memory


def save(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)


def shown(page: Path) -> list[np.ndarray]:
    found = re.findall(r"data:image/webp;base64,([A-Za-z0-9+/=]+)", page.read_text())
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))) for text in found]


@pytest.mark.parametrize("values", [(0, 255), (0, 1), (0, 510), (3, 7)])
@pytest.mark.parametrize("kind", ["values", "colours"])
def test_changed_pixels_are_counted_and_drawn(tmp_path: Path, values: tuple[int, int], kind: str) -> None:
    data = tmp_path / "data"
    dtype = np.uint16 if max(values) > 255 else np.uint8

    def mask(stop: int) -> np.ndarray:
        found = np.full((40, 40), values[0], dtype)
        found[10:20, 10:stop] = values[1]
        return np.stack([np.zeros_like(found), found, found], axis=-1) if kind == "colours" else found

    if kind == "colours" and dtype == np.uint16:
        pytest.skip("PNG by this writer has colours of 8 bits")
    save(data / "images" / "a.png", np.full((40, 40), 120, np.uint8))
    save(data / "masks" / "a.png", mask(30))
    store = Memory()
    dataset = Dataset.open(store, Objects(store), "x")
    add(dataset, data)
    save(data / "masks" / "a.png", mask(25))
    add(dataset, data)
    fetcher = Fetcher(dataset.objects, Cache(tmp_path / "cache"))
    before, after = open_view(dataset, "~1", None, fetcher), open_view(dataset, "", None, fetcher)
    assert write_difference_page(tmp_path / "page.html", before, after, ["a"], "two") == 1
    assert "50 pixels" in (tmp_path / "page.html").read_text()
    old, new, difference = shown(tmp_path / "page.html")
    assert (old[15, 27] != new[15, 27]).any()
    assert (old[15, 12] == new[15, 12]).all()
    assert (difference[15, 27] != difference[30, 30]).any()
