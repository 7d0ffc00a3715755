"""A client of `penstock serve`: uploads, asks, retries as clients do, and judges what became of what was promised."""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import httpx

from chaos.judge import judge_jobs, serve_recoveries
from chaos.processes import Serve
from chaos.tally import Tally
from penstock.ids import new_id
from penstock.jobs import open_store
from penstock.ledger import open_ledger
from penstock.stores import open_index
from penstock.types import DEFAULT_TENANT

Texts: TypeAlias = Sequence[Mapping[str, str]]

PATIENCE_S = 90.0
ORPHANS_WITHIN_S = 30.0
"""Garbage is purged every few seconds."""


def note(number: int, sentences: int = 12, said: str = "must be repaired") -> dict[str, str]:
    """A small document that differs from every other one."""
    lines = [f"Street lamp {number}-{i} {said} within {number % 97 + i} days." for i in range(sentences)]
    return {"name": f"note-{number}.md", "text": f"# Note {number}\n\n" + "\n\n".join(lines)}


class Desk:
    """One collection on one server."""

    def __init__(self, serve: Serve, collection: str) -> None:
        self.serve = serve
        self.collection = collection

    @classmethod
    async def open(cls, serve: Serve) -> "Desk":
        desk = cls(serve, new_id("col"))
        made = {"name": desk.collection, "chunk_tokens": 32, "chunk_overlap": 0}
        await desk.send("POST", "/v1/collections", json=made, accept={201, 409})
        return desk

    async def send(self, method: str, path: str, *, accept: set[int], **request: Any) -> httpx.Response:
        """Tries again, as clients do, while the server is away or says so."""
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                reply = await self.serve.http.request(method, path, **request)
                if reply.status_code in accept:
                    return reply
                problem = f"{reply.status_code} {reply.text[:200]}"
                if reply.status_code not in {429, 503}:
                    raise RuntimeError(f"{method} {path}: {problem}")
            except httpx.TransportError as exc:
                problem = repr(exc)
            if time.monotonic() > until:
                raise TimeoutError(f"{method} {path}: {problem}")
            await asyncio.sleep(0.1)

    async def upload(self, documents: Texts, key: str | None = None) -> dict[str, str]:
        """Ids of the jobs by name, as the 202 gave them."""
        reply = await self.send(
            "POST",
            "/v1/documents",
            json={"collection": self.collection, "documents": list(documents)},
            headers={"idempotency-key": key or new_id("key")},
            accept={200, 202},
        )
        return {one["document"]["name"]: one["job_id"] for one in reply.json()["documents"]}

    async def ask(self, question: str) -> str:
        """The id of the question's job."""
        reply = await self.send(
            "POST",
            "/v1/questions",
            json={"collection": self.collection, "question": question},
            headers={"idempotency-key": new_id("key")},
            accept={202},
        )
        return str(reply.json()["job_id"])

    async def documents(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        cursor: dict[str, str] = {}
        while True:
            params = {"collection": self.collection, "limit": "1000"} | cursor
            page = (await self.send("GET", "/v1/documents", params=params, accept={200})).json()
            found += page["documents"]
            if not page["cursor"]:
                return found
            cursor = {"cursor": page["cursor"]}

    async def settled(self, within_s: float) -> list[dict[str, Any]]:
        """The documents once none is pending, or as they are after that time."""
        until = time.monotonic() + within_s
        while True:
            documents = await self.documents()
            if time.monotonic() > until or all(one["status"] != "pending" for one in documents):
                return documents
            await asyncio.sleep(0.2)

    async def judge(
        self,
        tally: Tally,
        expected: Mapping[str, int | None],
        jobs: Sequence[str],
        deaths: Sequence[float],
        within_s: float,
    ) -> None:
        """Every document of these names is there once, done, with so many chunks (None: any number)."""
        documents = await self.settled(within_s)
        tally.runs += len(expected)
        names = Counter(str(one["name"]) for one in documents)
        self._count(tally, "lost", set(expected) - set(names), "is gone")
        self._count(tally, "doubled", {name for name, times in names.items() if times > 1}, "is there twice")
        for one in documents:
            name, chunks = one["name"], expected.get(one["name"])
            if one["status"] == "pending":
                self._count(tally, "stuck", {name}, f"is pending after {within_s:g} s")
            elif one["status"] != "done":
                self._count(tally, "lost", {name}, f"ended {one['status']}: {one['error']}")
            elif chunks is not None and one["chunks"] != chunks:
                more = one["chunks"] > chunks
                self._count(tally, "doubled" if more else "lost", {name}, f"has {one['chunks']} of {chunks} chunks")
        await self.judge_index(tally)
        async with open_store(self.serve.jobs_url) as store:
            counted = tally.runs
            await judge_jobs(tally, store, jobs, within_s=10)
            tally.runs = counted  # a document and its job are one thing
            tally.recoveries_s += await serve_recoveries(store, jobs, deaths)

    async def judge_index(self, tally: Tally) -> None:
        """The index holds the chunks of the ledger and no others, once garbage is gone."""
        data = self.serve.data
        until = time.monotonic() + ORPHANS_WITHIN_S
        async with (
            open_ledger(f"sqlite:///{data}/ledger.sqlite3") as ledger,
            open_index(f"lancedb://{data}/index") as index,
        ):
            while True:
                collection = await ledger.get_collection(DEFAULT_TENANT, self.collection)
                rows = await index.count(collection.id)
                if rows == collection.chunks or time.monotonic() > until:
                    break
                await asyncio.sleep(0.5)
        if rows > collection.chunks:
            tally.doubled += rows - collection.chunks
            tally.notes.append(f"{rows - collection.chunks} orphan chunks in the index of {self.collection}")
        elif rows < collection.chunks:
            tally.lost += collection.chunks - rows
            tally.notes.append(f"{collection.chunks - rows} chunks are not in the index of {self.collection}")

    def _count(self, tally: Tally, what: str, names: set[str], why: str) -> None:
        setattr(tally, what, getattr(tally, what) + len(names))
        tally.notes += [f"document {name} {why}" for name in sorted(names)]
