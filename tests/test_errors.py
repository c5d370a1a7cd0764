import pytest

from useg.errors import DataError, Problem


@pytest.mark.parametrize(
    ("name", "shown"), [("Küv ä/1 b.png", "Küv ä/1 b.png"), ("a\nb.png", "a\\nb.png"), ("\x1b[2Ja", "\\x1b[2Ja")]
)
def test_names_move_no_cursor_and_break_no_line(name: str, shown: str) -> None:
    assert str(Problem(name, "is empty", "remove it")) == f"{shown}: is empty (remove it)"
    assert str(DataError("1 file", [Problem(name, "is empty")])) == f"1 file\n  - {shown}: is empty"
