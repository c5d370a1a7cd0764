import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
specification = importlib.util.spec_from_file_location("size", ROOT / "bench" / "size.py")
size = importlib.util.module_from_spec(specification)
specification.loader.exec_module(size)

FUNCTION = 'def long():\n    """Say\n\n    something long.\n    """\n' + "    x = 1\n" * 49


@pytest.fixture
def package(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "images.py").write_text(FUNCTION)
    return tmp_path


def test_what_is_within_the_limits_passes(package, capsys):
    assert size.main(package) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert shown.out.splitlines()[1].split() == ["data", "1", "54", "54", "54", "50", "long"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (FUNCTION + "    x = 2\n", "long has 51 lines, at most 50"),
        ("x = 1\n" * 401, "401 lines, at most 400"),
        ("x = 1\n" * 250, "the median module has 152 lines, at most 150"),
    ],
)
def test_what_is_too_big_is_named(package, capsys, text, complaint):
    (package / "data" / "other.py").write_text(text)
    assert size.main(package) == 1
    assert complaint in capsys.readouterr().err


def test_many_modules_are_too_big_together(package, capsys):
    for number in range(101):
        (package / f"m{number}.py").write_text("x = 1\n" * 100)
    assert size.main(package) == 1
    assert "10154 lines in all, at most 10000" in capsys.readouterr().err
