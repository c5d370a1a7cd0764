import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from useg.errors import ConfigError, DamagedFile, InputError
from useg.home.store import Folder, Memory, open_store
from useg.web.users import Users


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("USEG_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


def test_only_a_hash_is_kept_and_only_for_whom_it_belongs_to(tmp_path: Path, own_state: Path) -> None:
    users = Users(Folder(tmp_path / "home"))
    assert users.is_unused
    token = users.add("anna", "writer")
    assert users.who(token).name == "anna"
    assert users.who(token).role == "writer"
    for wrong in ("", token[:-1], token + "x", users.known()[0].hash, "é\ud800"):
        assert users.who(wrong) is None
    files = [path for path in own_state.rglob("*") if path.is_file()]
    assert users.file in files
    for path in files:
        assert token.encode() not in path.read_bytes()
        assert token.removeprefix("useg_").encode() not in path.read_bytes()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not (tmp_path / "home").exists()


def test_tokens_differ_and_open_one_home_only(tmp_path: Path) -> None:
    first, second = Users(Folder(tmp_path / "a")), Users(Folder(tmp_path / "b"))
    tokens = [first.add("anna", "admin"), first.add("ben", "reader"), second.add("anna", "reader")]
    assert len({*tokens}) == 3
    assert all(len(token) > 40 for token in tokens)
    assert second.who(tokens[0]) is None
    assert second.who(tokens[2]).role == "reader"


def test_a_link_to_the_home_is_the_same_home(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "link").symlink_to("home")
    token = Users(Folder(tmp_path / "home")).add("anna", "admin")
    assert Users(Folder(tmp_path / "link")).who(token) is not None


def test_a_revoked_token_is_void_at_once_and_the_home_stays_closed(tmp_path: Path) -> None:
    store = Folder(tmp_path / "home")
    serving, changing = Users(store), Users(store)
    token = changing.add("anna", "admin")
    assert serving.who(token) is not None
    changing.revoke("anna")
    assert serving.who(token) is None
    assert not serving.is_unused
    with pytest.raises(InputError, match=r"'anna' has no token for .*home; these have one: nobody"):
        changing.revoke("anna")
    assert changing.add("anna", "reader") != token


def test_users_made_at_once_are_all_there(tmp_path: Path) -> None:
    names = [f"user{number}" for number in range(20)]
    with ThreadPoolExecutor(8) as pool:
        tokens = list(pool.map(lambda name: Users(Folder(tmp_path / "home")).add(name, "reader"), names))
    users = Users(Folder(tmp_path / "home"))
    assert [users.who(token).name for token in tokens] == names
    assert [user.name for user in users.known()] == sorted(names)


def test_what_cannot_be_a_user_is_refused(tmp_path: Path) -> None:
    users = Users(Memory())
    with pytest.raises(ConfigError, match="--role 'boss': wanted one of reader, writer, admin"):
        users.add("anna", "boss")
    with pytest.raises(InputError, match="cannot be a name"):
        users.add("../anna", "admin")
    users.add("anna", "admin")
    with pytest.raises(InputError, match="anna has a token already; `useg users revoke anna` takes it away"):
        users.add("anna", "reader")
    users.file.write_text("[]")
    with pytest.raises(DamagedFile, match="no list of users"):
        users.known()


def test_tokens_are_made_where_the_home_is() -> None:
    with pytest.raises(InputError, match="http://host:1 is served already; run this on the machine that serves it"):
        Users(open_store("http://host:1"))


def test_tokens_never_lie_in_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USEG_STATE", str(tmp_path / "home" / "state"))
    with pytest.raises(InputError, match="lies in the home that is served; set USEG_STATE"):
        Users(Folder(tmp_path / "home"))
