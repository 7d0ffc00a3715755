"""`Idempotency-Key` for uploads: the same key and the same content give the same answer, other content a conflict.

An upload is idempotent by its content already: bytes that are there or on their way are recognised by the ledger, for
ever and by every process. What this adds, for a day, is the very same answer, and the conflict.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Final

import anyio
from fastapi import Header
from starlette.responses import Response

from penstock.ledger.reply_book import ReplyBook, StoredReply

MAX_REPLY_BYTES: Final = 64 * 1024
"""A longer answer is made again; only its `created` flags differ then."""

IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="The same key with the same content gives the same jobs, however often it is sent.",
    ),
]


class Replies:
    """Answers by tenant and key, kept in the ledger. Requests with one key run one after the other in a process."""

    def __init__(self, book: ReplyBook) -> None:
        self._book = book
        self._locks: dict[tuple[str, str], tuple[asyncio.Lock, int]] = {}

    async def once(
        self, tenant: str, key: str, fingerprint: str, answer: Callable[[], Awaitable[Response]]
    ) -> Response:
        """The answer that was given to this key before, or `answer()`. Raises `Conflict` for another fingerprint."""
        async with self._alone((tenant, key)):
            kept = await self._book.claim(tenant, key, fingerprint)
            if kept is not None:
                return _response(kept)
            try:
                reply = await answer()
            except BaseException:
                with anyio.CancelScope(shield=True):
                    await self._book.release(tenant, key)
                raise
            if len(reply.body) > MAX_REPLY_BYTES:
                return reply
            return _response(await self._book.answer(tenant, key, StoredReply(reply.status_code, _text(reply))))

    @asynccontextmanager
    async def _alone(self, name: tuple[str, str]) -> AsyncIterator[None]:
        """Holds an entry only while somebody is here or waits."""
        lock, users = self._locks.get(name, (asyncio.Lock(), 0))
        self._locks[name] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks.pop(name)
            if users > 1:
                self._locks[name] = lock, users - 1


def _text(reply: Response) -> str:
    return bytes(reply.body).decode()


def _response(kept: StoredReply) -> Response:
    return Response(kept.body, kept.status, media_type="application/json")
