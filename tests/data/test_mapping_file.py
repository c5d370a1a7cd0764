import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from useg.data.mapping_file import parse_keys, read_keys, write_keys
from useg.errors import DataError

KEYS = {
    "kind": "values",
    "classes": ({"name": "a", "values": (0,), "colours": ()}, {"name": "b", "values": (1, 2), "colours": ()}),
    "ignore": (255,),
    "nearest": True,
    "dtype": "uint8",
    "channels": 3,
}


def test_every_key_is_commented_and_read_back():
    text = write_keys(KEYS)
    found = tomllib.loads(text)
    assert found["ignore"] == [255]
    assert found["nearest"] is True
    assert found["classes"][1] == {"name": "b", "values": [1, 2]}
    lines = text.splitlines()
    for key in ("kind", "ignore", "nearest", "dtype", "channels"):
        at = next(i for i, line in enumerate(lines) if line.startswith(f"{key} ="))
        assert lines[at - 1].startswith("#")


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"], max_codepoint=0xFFFF)))
def test_any_name_survives(name):
    classes = ({"name": name, "values": (0,), "colours": ()},)
    assert tomllib.loads(write_keys({"kind": "values", "classes": classes}))["classes"][0]["name"] == name


def test_files_that_are_none(tmp_path):
    with pytest.raises(DataError, match="not a TOML file"):
        parse_keys("a = [", "x.toml")
    path = tmp_path / "latin.toml"
    path.write_bytes(b'kind = "\xe9"')
    with pytest.raises(DataError, match=r"latin\.toml"):
        read_keys(path)
    path.write_bytes(b"\xef\xbb\xbfignore = [1]\r\n")
    assert read_keys(path) == {"ignore": [1]}
