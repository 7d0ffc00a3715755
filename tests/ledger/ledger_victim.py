"""A process that writes to a ledger as fast as it can and says what is committed, until somebody kills it."""

import asyncio
import sys
from itertools import count

from penstock.ids import chunk_id
from penstock.ledger import Ledger, open_ledger
from penstock.ledger.base import NewVersion
from penstock.types import Chunk


async def write(ledger: Ledger, run: str, worker: int) -> None:
    for i in count():
        name = f"{run}-{worker}-{i}"
        upload = NewVersion(name=name, sha256="0" * 64, size_bytes=1, media_type="text/plain", job_id=name)
        [accepted] = await ledger.accept("acme", "docs", [upload])
        print("accepted", name, flush=True)
        document = accepted.document
        chunks = [
            Chunk(
                id=chunk_id(document.version_id, position),
                document_id=document.id,
                version_id=document.version_id,
                collection_id=document.collection_id,
                position=position,
                text=name,
                start=0,
                end=len(name),
                tokens=1,
            )
            for position in range(3)
        ]
        assert await ledger.finish_version(document.version_id, chunks, pages=1)
        print("finished", name, flush=True)


async def main(url: str, run: str) -> None:
    async with open_ledger(url) as ledger, asyncio.TaskGroup() as group:
        for worker in range(8):
            group.create_task(write(ledger, run, worker))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
