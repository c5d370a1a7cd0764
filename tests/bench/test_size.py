import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
specification = importlib.util.spec_from_file_location("size", ROOT / "bench" / "size.py")
size = importlib.util.module_from_spec(specification)
specification.loader.exec_module(size)

FUNCTION = 'def long():\n    """Say\n\n    something long.\n    """\n' + "    x = 1\n" * 50


@pytest.fixture
def package(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "images.py").write_text(FUNCTION)
    return tmp_path


def test_what_is_within_the_limits_passes(package, capsys):
    assert size.main(package) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert shown.out.splitlines()[1].split() == ["data", "1", "51", "55", "55", "55", "50", "long"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (FUNCTION + "    x = 2\n", "long has a body of 51 lines, at most 50"),
        ("x = 1\n" * 401, "401 lines, at most 400"),
        ("x = 1\n" * 400, "the median module has 227.5 lines, at most"),
    ],
)
def test_what_is_too_big_is_named(package, capsys, text, complaint):
    (package / "data" / "other.py").write_text(text)
    assert size.main(package) == 1
    assert complaint in capsys.readouterr().err


def test_many_modules_are_too_big_together(package, capsys):
    code = '"""Say."""\n\n' + "x = 1  # why\n# why\n" * 70
    count = size.ALL_SOURCE_LINES // 70 + 1
    for number in range(count):
        (package / f"m{number}.py").write_text(code)
    assert size.main(package) == 1
    assert f"{70 * count + 51} source lines in all, at most {size.ALL_SOURCE_LINES}" in capsys.readouterr().err
