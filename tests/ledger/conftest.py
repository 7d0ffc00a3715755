"""A ledger of every engine, its clock in the test's hand, and short ways to make what goes in."""

from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from penstock.ids import chunk_id
from penstock.ledger import Ledger, open_ledger
from penstock.ledger.base import NewVersion
from penstock.types import JSON, Chunk, Collection, CollectionOptions, Document

ENGINES = ["memory", "sqlite"]


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


@pytest.fixture(params=ENGINES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
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
