import base64
import io
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from useg.experiments.report import Picture, write_report

VOID = {"meta", "img", "br", "hr", "input"}
EVIL = '<script>alert("1")</script>.png'


class Page(HTMLParser):
    """Reads a page strictly: every element must be closed, in order."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.attributes, self.words = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, *attribute) for attribute in attributes]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self):
        return " ".join(self.words)


def journal():
    for step in range(1, 1001):
        loss = math.nan if step == 500 else math.exp(-step / 300)
        yield {"event": "step", "step": step, "loss": loss, "lr": 0.001, "seconds": 0.1}
        if step % 100 == 0:
            yield {
                "event": "validation",
                "step": step,
                "scores": {"mean_dice": step / 1100, "dice": {"cell": step / 1200, "none": None}},
            }
    yield {"event": "decision", "step": 700, "what": f"cool-down {EVIL}"}


def scores():
    classes = {
        "background": {"iou": 0.9, "dice": 0.95, "images_with_class": 3, "images_missed": 0},
        f"cell {EVIL}": {"iou": None, "dice": None, "images_with_class": 0, "images_missed": 0},
    }
    return {
        "part": "test",
        "classes": classes,
        "mean_dice": 0.87654,
        "mean_iou": 0.7,
        "pixel_error": 0.0321,
        "confusion": np.array([[90, 10, 0], [0, 0, 0]]).tolist(),
        "surface": {"unit": "mm", "classes": {"cell": {"hd95": 3.25, "nsd": 0.5}}},
        "instances": {"ap": {"0.50": 0.81, "0.55": 0.5, "0.60": None}, "ap50": 0.81, "merges": 2},
        "membranes": {"v_rand": 0.964},
        "samples": {
            "good": {"mean_dice": 0.9, "dice": {"cell": 0.9}},
            EVIL: {"mean_dice": 0.2, "dice": {"cell": None}},
            "empty": {"mean_dice": None},
        },
    }


def record():
    return {
        "name": f"nuclei {EVIL}",
        "run": "20260101-nuclei-ab12",
        "seconds": 3725.0,
        "weights": "b3:0123abcd",
        "warnings": [f"{EVIL} and its mask look shifted"],
        "plan": {"patch": [128, 128], "optimiser": {"rate": 0.001}, "channels_last": True},
        "mapping": {
            "kind": "colours",
            "classes": [{"name": "soil", "colours": [[0, 0, 0]]}, {"name": EVIL, "values": [128]}],
            "ignore": [255],
        },
        "fingerprint": {"shapes": [[1, 64, 64], [1, 64, 60]], "many": list(range(100))},
        "legend": {"cell": (230, 159, 0)},
        "other": {"notes": EVIL},
    }


def picture(rank="worst"):
    array = np.zeros((30, 40, 3), np.uint8)
    return Picture(f"a/{EVIL}", rank, "Dice 0.200", {"image": array, "predicted": array + 90})


@pytest.fixture
def page(tmp_path):
    path = tmp_path / "report.html"
    pictures = [picture("worst"), picture("best")]
    write_report(path, record=record(), journal_events=list(journal()), scores=scores(), pictures=pictures)
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    return path.read_text(encoding="utf-8")


def test_everything_is_on_the_page(page):
    read = Page(page)
    for words in (
        "0.877 mean Dice",
        "0.032 pixel error",
        "0.810 AP at IoU 0.5",
        "0.964 V_rand",
        "1 h 2 min time",
        "1,000 steps",
        "b3:0123abcd",
        "look shifted",
        "128, 128",
        "optimiser · rate",
        "soil",
        "(1, 64, 64), (1, 64, 60)",
        "100: 0, 1, 2 … 99",
        "cool-down",
        "HD95",
        "3.250",
        "training loss",
        "Dice of cell",
    ):
        assert words in read.text, words
    assert read.tags.count("img") == 4
    assert read.tags.count("svg") == 4  # loss, scores, learning rate, precision by threshold


def test_nothing_that_a_name_says_is_executed(page):
    read = Page(page)
    assert "script" not in read.tags
    assert read.text.count("alert") >= 8
    assert not [name for _, name, _ in read.attributes if name.startswith("on")]
    assert "default-src 'none'" in page.replace("&#x27;", "'")


def test_the_page_needs_nothing_else(page):
    read = Page(page)
    fetched = [(tag, value) for tag, name, value in read.attributes if name in {"src", "href", "data", "poster"}]
    assert fetched
    assert all(tag == "img" and value.startswith("data:image/webp;base64,") for tag, value in fetched)
    style = re.search("<style>(.*?)</style>", page, re.DOTALL)[1]
    assert "url(" not in style
    assert "@import" not in style
    assert "prefers-color-scheme: dark" in style


def test_the_worst_image_comes_first_and_what_has_no_score_last(page):
    table = page[page.index("Worst first") :]
    assert table.index("alert") < table.index(">good<") < table.index(">empty<")


def test_a_class_without_pixels_has_dashes_not_zeros(page):
    rows = re.findall(r"<tr>(.*?)</tr>", page[page.index("Confusion") :])
    assert rows[2].count(">–<") == 2
    assert 'title="10 of 100 pixels of background taken for' in rows[1]


def test_many_images_are_cut_to_the_worst(tmp_path):
    samples = {f"image-{number}": {"mean_dice": number / 5000} for number in range(5000)}
    path = tmp_path / "report.html"
    write_report(path, record={}, journal_events=[], scores={"samples": samples})
    text = path.read_text()
    assert "The worst 1,000 of 5,000" in Page(text).text
    assert ">image-999<" in text
    assert ">image-1000<" not in text


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.4, "0 s"), (59, "59 s"), (252, "4.2 min"), (1012, "17 min"), (3590, "1 h 0 min"), (7380, "2 h 3 min")],
)
def test_times_are_told_shortly(tmp_path, seconds, told):
    path = tmp_path / "report.html"
    write_report(path, record={"seconds": seconds}, journal_events=[], scores={})
    assert f">{told}<" in path.read_text()


def test_a_run_that_ended_at_once_has_a_page(tmp_path):
    path = tmp_path / "report.html"
    write_report(path, record={}, journal_events=[], scores={})
    assert "A run" in Page(path.read_text()).text


def test_names_that_are_no_utf8_are_written(tmp_path):
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    path = tmp_path / "report.html"
    write_report(path, record={"name": name}, journal_events=[], scores={"samples": {name: {"mean_dice": 0.5}}})
    assert "caf?" in path.read_text(encoding="utf-8")


def test_a_page_that_cannot_be_made_leaves_the_old_one(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    wrong = Picture("a", "worst", "", {"image": np.zeros((4, 4), np.uint8)})
    with pytest.raises(ValueError, match=r"a picture is \(height, width, 3\) uint8"):
        write_report(path, record={}, journal_events=[], scores={}, pictures=[wrong])
    assert path.read_text() == "old"


def test_pictures_are_made_small_enough(tmp_path):
    import base64
    import io

    from PIL import Image

    path = tmp_path / "report.html"
    large = Picture("a", "sample", "", {"image": np.zeros((3000, 1500, 3), np.uint8)})
    write_report(path, record={}, journal_events=[], scores={}, pictures=[large])
    stored = re.search(r"base64,([^\"]+)", path.read_text())[1]
    assert Image.open(io.BytesIO(base64.b64decode(stored))).size == (320, 640)


def test_a_page_of_many_large_pictures_stays_small(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (420, 700, 3), dtype=np.uint8)
    panels = dict.fromkeys(("image", "true", "predicted", "errors"), noise)
    many = [Picture(f"sample {i}", "worst" if i % 2 else "best", "Dice 0.5", panels) for i in range(12)]
    write_report(tmp_path / "report.html", record={}, journal_events=[], scores={}, pictures=many)
    assert (tmp_path / "report.html").stat().st_size < 3_000_000
    shown = _shown(tmp_path / "report.html")
    assert len(shown) == 48
    assert all(min(image.size) >= 100 for image in shown)


@pytest.mark.parametrize(("size", "longest"), [((90, 60), 90), ((200, 300), 300), ((1500, 700), 640)])
def test_small_pictures_are_shown_as_they_are_and_large_ones_smaller(tmp_path, size, longest):
    ramp = np.linspace(0, 255, size[0] * size[1] * 3).reshape(*size, 3).astype(np.uint8)
    one = Picture("a", "sample", "Dice 0.5", {"image": ramp})
    write_report(tmp_path / "report.html", record={}, journal_events=[], scores={}, pictures=[one])
    (shown,) = _shown(tmp_path / "report.html")
    assert max(shown.size) == longest
    if max(size) < 640:
        np.testing.assert_array_equal(np.asarray(shown), ramp)
    assert ('class="enlarged"' in (tmp_path / "report.html").read_text()) == (longest < 200)


def _shown(path):
    found = re.findall(r"data:image/webp;base64,([A-Za-z0-9+/=]+)", path.read_text())
    return [Image.open(io.BytesIO(base64.b64decode(text))) for text in found]


@pytest.mark.parametrize(("size", "narrow"), [((90, 30), True), ((90, 60), False)])
def test_narrow_pictures_stand_closer(tmp_path, size, narrow):
    one = Picture("a", "sample", "Dice 0.5", {"image": np.zeros((*size, 3), np.uint8)})
    write_report(tmp_path / "report.html", record={}, journal_events=[], scores={}, pictures=[one])
    assert ('class="samples narrow"' in (tmp_path / "report.html").read_text()) == narrow
