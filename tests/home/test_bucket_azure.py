"""A home in Azure's storage, against Azurite (`npm install azurite`), where that is installed."""

import base64
import hashlib
import hmac
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from useg.errors import InputError
from useg.home.contract import StoreContract
from useg.home.store import Store, open_store

ACCOUNT = "devstoreaccount1"
# the key that every Azurite has, as its documentation says
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
START_S = 60.0


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with the container `useg`."""
    program = shutil.which("azurite-blob")
    if program is None:
        pytest.skip("no Azure server: npm install -g azurite")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    folder: Path = tmp_path_factory.mktemp("azurite")
    options = ["--blobHost", "127.0.0.1", "--blobPort", port, "--location", str(folder)]
    options += ["--silent", "--skipApiVersionCheck", "--disableTelemetry"]
    server = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        make_container(f"http://127.0.0.1:{port}", "useg")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def make_container(url: str, name: str) -> None:
    now = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
    headers = {"x-ms-date": now, "x-ms-version": "2021-08-06"}
    signed = "PUT" + "\n" * 12 + "".join(f"{key}:{value}\n" for key, value in headers.items())
    signed += f"/{ACCOUNT}/{ACCOUNT}/{name}\nrestype:container"
    digest = hmac.new(base64.b64decode(KEY), signed.encode(), hashlib.sha256).digest()
    headers["Authorization"] = f"SharedKey {ACCOUNT}:{base64.b64encode(digest).decode()}"
    end = time.monotonic() + START_S
    while True:
        try:
            answer = httpx.put(f"{url}/{ACCOUNT}/{name}?restype=container", headers=headers)
            assert answer.status_code == 201, answer.text
            return
        except httpx.TransportError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


@pytest.fixture(autouse=True)
def environment(azurite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_USE_EMULATOR", "true")
    monkeypatch.setenv("AZURITE_BLOB_STORAGE_URL", azurite)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", KEY)


class TestAzure(StoreContract):
    @pytest.fixture
    def store(self) -> Store:
        return open_store(f"az://useg/{secrets.token_hex(8)}")


def test_a_container_that_is_not_there_is_told() -> None:
    with pytest.raises(InputError, match="there is no such bucket"):
        open_store("az://nothing-here").get("key")
