"""How all tests run: shapes are checked, one thread each, and what was left out is told at the end."""

import os
from collections import defaultdict

# several test processes share the cores, and a sum must not depend on how many there are
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"):
    os.environ.setdefault(variable, "1")

import pytest
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook
from tests.home.s3_fixtures import s3_environment, s3_server, s3_url

__all__ = ["s3_environment", "s3_server", "s3_url"]

# from here on every call in `useg.segmentation` has its shapes and dtypes checked
install_import_hook("useg.segmentation", "beartype.beartype")

# The same examples each time, so that a test that passed passes again; USEG_EXPLORE=1 looks for new ones.
settings.register_profile("same", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("explore", deadline=None)
settings.load_profile("explore" if os.environ.get("USEG_EXPLORE") else "same")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory):
    """No test touches the copies that this machine's user keeps."""
    before = os.environ.get("USEG_CACHE")
    os.environ["USEG_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    del os.environ["USEG_CACHE"]
    if before is not None:
        os.environ["USEG_CACHE"] = before


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="run the slow tests, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--all") or "slow" in config.getoption("markexpr"):
        return
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason="slow: `make test-all` runs it"))


def pytest_terminal_summary(terminalreporter) -> None:
    left_out = defaultdict(list)
    for report in terminalreporter.stats.get("skipped", []):
        _, _, reason = report.longrepr
        left_out[reason.removeprefix("Skipped: ")].append(report.nodeid)
    if not left_out:
        return
    terminalreporter.section("left out, and why")
    for reason, tests in sorted(left_out.items()):
        files = sorted({test.split("::")[0] for test in tests})
        terminalreporter.line(f"{len(tests):4d}  {reason}")
        terminalreporter.line(f"      in {', '.join(files)}")
