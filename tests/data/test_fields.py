import pytest
from hypothesis import given
from hypothesis import strategies as st

from useg.data.fields import shown, text_of, typed_column, why_unsayable


@given(st.lists(st.none() | st.text(max_size=8) | st.integers().map(str) | st.floats().map(repr)))
def test_typing_a_column_twice_gives_the_same(texts):
    values = typed_column(texts)
    assert [value is None for value in values] == [text is None for text in texts]
    assert typed_column([None if value is None else text_of(value) for value in values]) == values


@given(st.lists(st.integers(-(10**17), 10**17).map(str) | st.text(max_size=5)))
def test_whole_numbers_and_texts_come_back_as_they_were(texts):
    if not set(texts) <= {"true", "false"} and any(not text.lstrip("-").isdigit() for text in texts):
        return
    assert [text_of(value) for value in typed_column(texts)] == texts


@pytest.mark.parametrize(
    ("texts", "values"),
    [
        (["1", "-20"], [1, -20]),
        (["0.5", "13", "2.0", None], [0.5, 13.0, 2.0, None]),
        (["true", None, "false"], [True, None, False]),
        (["007", "8"], ["007", "8"]),
        (["1.10", "1.9"], ["1.10", "1.9"]),
        (["nan", "1"], ["nan", "1"]),
        (["-0", "1"], ["-0", "1"]),
        (["9" * 30, "1"], ["9" * 30, "1"]),
        (["HE", "1"], ["HE", "1"]),
        ([None], [None]),
        ([], []),
    ],
)
def test_what_counts_as_a_number(texts, values):
    assert typed_column(texts) == values
    assert list(map(type, typed_column(texts))) == list(map(type, values))


def test_what_cannot_be_said_is_explained():
    assert why_unsayable("a b/ü") == ""
    assert why_unsayable("a\nb") == "it has control characters"
    assert why_unsayable(" a") == "it begins or ends with a blank"
    assert why_unsayable(b"\xff".decode("utf-8", "surrogateescape")) == "it is not UTF-8"
    assert why_unsayable("a,b", name=True) == "it has the character ','"
    assert why_unsayable("a,b") == ""
    assert shown(b"\xff.png".decode("utf-8", "surrogateescape")) == "\\udcff.png"
    assert shown("x" * 5000).endswith("… (5000 characters)")
