"""What every test may use."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

KEPT = ("PENSTOCK_TEST_", "PENSTOCK_EXAMPLES")
"""Settings of the tests themselves."""

settings.register_profile("steady", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")
"""The same examples each time, however slow the machine; `--hypothesis-profile=default` looks for new ones."""


def pytest_configure() -> None:
    """What the machine is set up for reaches neither the tests nor the processes that they start."""
    for name in list(os.environ):
        ours = name.startswith("PENSTOCK_") and not name.startswith(KEPT)
        if ours or name.lower() in {"http_proxy", "https_proxy", "all_proxy"}:
            del os.environ[name]
    # A run in the background of a shell ignores it, and so would all that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real documents and questions that are not part of the project; tests that need them are skipped without."""
    folder = Path(os.environ.get("PENSTOCK_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"needs the data folder {folder} (set PENSTOCK_TEST_DATA)")
    return folder
