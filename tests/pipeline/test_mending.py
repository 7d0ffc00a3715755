"""An index that lost rows is rebuilt from the ledger without anyone's help."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from penstock.models.pool import ModelPool
from penstock.pipeline.mending import Mender
from penstock.pipeline.reindex import Reindexer
from penstock.stores import IndexQuery, open_index
from penstock.testing.house import House, OneModel, open_house, report


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path, index_url=f"lancedb://{tmp_path / 'index'}") as opened:
        for n in range(6):
            await opened.ingest(f"{n}.txt", f"Water number {n} is wet.".encode())
        yield opened


async def found(house: House) -> int:
    """How many chunks a search finds where the ledger says that the collection is."""
    collection = await house.ledger.get_collection("default", "default")
    hits = await house.index.search(collection.index_id or collection.id, IndexQuery(k=10, text="water"))
    return len(hits.candidates)


async def test_a_lost_folder_is_rebuilt(house: House, tmp_path: Path) -> None:
    mender = Mender(house.ledger, house.jobs, house.index)
    assert await mender.mend() == 0
    for table in (tmp_path / "index").iterdir():
        shutil.rmtree(table)
    assert await found(house) == 0
    assert await mender.mend() == 1
    assert await mender.mend() == 0  # one at a time
    jobs = await house.jobs.lease("wrk", kinds=["reindex"], n=9)
    assert len(jobs) == 1
    reindexer = Reindexer(
        house.ledger, house.index, house.writer, cast(ModelPool, OneModel(house.embedder)), house.cache, house.pictures
    )
    assert (await reindexer.reindex(str(jobs[0].payload["generation_id"]), 6, report)).switched
    assert await found(house) == 6
    assert await mender.mend() == 0


async def test_a_damaged_index_does_not_keep_a_worker_from_starting(house: House, tmp_path: Path) -> None:
    for file in (tmp_path / "index").rglob("_versions/*"):
        file.write_bytes(b"\x00" * 100)
    async with open_index(f"lancedb://{tmp_path / 'index'}") as index:
        assert await Mender(house.ledger, house.jobs, index).mend() == 1
