import pickle
from pathlib import Path

import pytest
from tests.home.served_home import in_process, in_thread

from useg.home.contract import StoreContract
from useg.home.served import Served
from useg.home.store import Folder, Memory, Missing, Store, open_store


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the tokens that this machine's user has."""
    monkeypatch.setenv("USEG_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("USEG_TOKEN", raising=False)


class TestServedFolder(StoreContract):
    clock_s = 0.02

    @pytest.fixture
    def store(self, tmp_path: Path):
        with in_thread(Folder(tmp_path / "home")) as address:
            yield open_store(address)


class TestServedMemory(StoreContract):
    """A home without files, as a bucket is."""

    clock_s = 0.0

    @pytest.fixture
    def store(self):
        with in_thread(Memory()) as address:
            yield open_store(address)
