"""The command line in this process, and one server with the example documents for all of this folder's tests."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from penstock.cli.main import command_line

EXAMPLES = Path(__file__).parents[2] / "examples"


@dataclass(frozen=True, slots=True)
class Result:
    """What a command printed, and its exit status."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON document on stdout."""
        return msgspec.json.decode(self.out)


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    def run(*words: object) -> Result:
        capfd.readouterr()
        try:
            status = command_line().main([str(word) for word in words], prog_name="penstock")
        except SystemExit as exc:
            status = exc.code
        out, err = capfd.readouterr()
        return Result(int(status or 0), out, err)

    return run


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server") / "data"


@pytest.fixture(scope="session")
def server_url(data_dir: Path) -> Iterator[str]:
    """A running `penstock serve` of this folder's tests."""
    folder = data_dir.parent
    command = [sys.executable, "-m", "penstock", "serve", "--data-dir", str(data_dir), "--port", "0"]
    with (folder / "stderr").open("w") as errors:
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=_environ())
        assert server.stdout is not None
        line = server.stdout.readline()
        assert line.startswith("Penstock is ready on "), (folder / "stderr").read_text()
        yield line.split()[-1]
        server.terminate()
        assert server.wait(100) == 0
        server.stdout.close()


@pytest.fixture
def server(server_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("PENSTOCK_URL", server_url)
    return server_url


@pytest.fixture
def examples(server: str, cli: Callable[..., Result]) -> Path:
    """The example documents' folder, ingested (which is quick when it was done before)."""
    result = cli("ingest", EXAMPLES / "documents")
    assert result.status == 0, result.err
    return EXAMPLES


def _environ() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
