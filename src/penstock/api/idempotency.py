"""`Idempotency-Key` for uploads: the same key and the same content give the same answer, other content a conflict.

An upload is idempotent by its content already: bytes that are there or on their way are recognised by the ledger, for
ever and by every process. What this adds, within one process and a day, is the very same answer, and the conflict.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Annotated, Final

from fastapi import Header
from starlette.responses import Response

from penstock.errors import Conflict

MAX_KEYS: Final = 2_000
MAX_REPLY_BYTES: Final = 16 * 1024
"""A longer answer is made again; only its `created` flags differ then."""
TTL_S: Final = 24 * 3600.0

IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="The same key with the same content gives the same jobs, however often it is sent.",
    ),
]


@dataclass(slots=True)
class _Entry:
    fingerprint: bytes
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    until: float = 0.0
    reply: Response | None = None


class Replies:
    """Answers by tenant and key. Requests with one key run one after the other."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._entries: OrderedDict[tuple[str, str], _Entry] = OrderedDict()

    async def once(
        self, tenant: str, key: str, fingerprint: bytes, answer: Callable[[], Awaitable[Response]]
    ) -> Response:
        """The answer that was given to this key before, or `answer()`. Raises `Conflict` for another fingerprint."""
        entry = self._entry((tenant, key), fingerprint)
        if entry.fingerprint != fingerprint:
            raise Conflict("This Idempotency-Key was used for other content. Use a new key for a new upload.")
        async with entry.lock:
            if entry.reply is None:
                return await self._answer((tenant, key), entry, answer)
            return Response(entry.reply.body, entry.reply.status_code, media_type=entry.reply.media_type)

    async def _answer(self, key: tuple[str, str], entry: _Entry, answer: Callable[[], Awaitable[Response]]) -> Response:
        try:
            reply = await answer()
        except BaseException:  # a refusal is no answer: the key is free again
            self._entries.pop(key, None)
            raise
        if len(reply.body) <= MAX_REPLY_BYTES:
            entry.reply = reply
        return reply

    def _entry(self, key: tuple[str, str], fingerprint: bytes) -> _Entry:
        now = self._clock()
        while self._entries and (len(self._entries) >= MAX_KEYS or next(iter(self._entries.values())).until <= now):
            self._entries.popitem(last=False)
        return self._entries.setdefault(key, _Entry(fingerprint, until=now + TTL_S))
