"""What tests of commands share."""

import pytest
from tests.cli.calling import Told


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Told:
    """Runs commands that must work, and gives what `--json` says."""
    return Told(capsys)
