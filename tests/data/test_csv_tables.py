"""Tables as people save them."""

from pathlib import Path

import pytest

from useg.data.csv_tables import read_table
from useg.errors import DataError


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_the_separator_is_found(separator: str, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("\ufeff" + separator.join([" Key ", "age"]) + "\n\n" + separator.join([" a", "5 "]) + "\n")
    table = read_table(path, "key")
    assert table.names == ("key", "age")
    assert table.lines == ((3, {"key": "a", "age": "5"}),)


def test_a_cell_may_name_thousands_of_files(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    cell = ";".join(f"masks/{number:08d}.png" for number in range(20_000))
    assert len(cell) > 131_072
    path.write_text(f"key,objects\na,{cell}\n")
    assert read_table(path, "key").lines[0][1]["objects"] == cell


def test_lines_of_another_length_are_left_out_and_told(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("key,a\nx\ny,1,2\nz,3\n")
    table = read_table(path, "key")
    assert table.lines == ((4, {"key": "z", "a": "3"}),)
    assert [str(problem) for problem in table.problems] == [
        f"{path}, line 2: has 1 cells, wanted 2 as in the first line",
        f"{path}, line 3: has 3 cells, wanted 2 as in the first line",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it has: nothing"),
        ("name,age\n", "`key` among them; it has: name, age"),
        ("key,a,a\n", "the column 'a' stands twice"),
    ],
)
def test_what_is_no_table_is_told(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=said):
        read_table(path, "key")
    (tmp_path / "latin.csv").write_bytes(b"key,\xe9\n")
    with pytest.raises(DataError, match=r"not UTF-8 text \(byte 4\)"):
        read_table(tmp_path / "latin.csv", "key")
