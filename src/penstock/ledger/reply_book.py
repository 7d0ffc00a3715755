"""Which answer an `Idempotency-Key` got: in the ledger, so that every process gives it again, also after a restart.

A key is claimed before anything is done for it and answered afterwards. Claimed and never answered (its process died)
is no answer: whoever comes with the same content does the work again, which uploads bear.
"""

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite

from penstock.errors import Conflict
from penstock.ledger.database import Database
from penstock.ledger.names import storable
from penstock.ledger.schema import replies

TTL_S = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class StoredReply:
    """An HTTP status and the body that went with it."""

    status: int
    body: str


class ReplyBook:
    """The verbs, each one transaction. Keys are a tenant's own and forgotten after a day."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    async def claim(self, tenant: str, key: str, fingerprint: str) -> StoredReply | None:
        """The answer that the key got before; None where there is none yet. `Conflict` for another fingerprint."""
        return await self._database.write(_claim, self._clock(), tenant, key, fingerprint)

    async def answer(self, tenant: str, key: str, reply: StoredReply) -> StoredReply:
        """The key's answer: this one, unless another process was quicker."""
        return await self._database.write(_answer, tenant, key, reply)

    async def release(self, tenant: str, key: str) -> None:
        """The work was refused, and a refusal is no answer: the key is free again, unless it has one."""
        await self._database.write(_release, tenant, key)


def _claim(conn: Connection, now: float, tenant: str, key: str, fingerprint: str) -> StoredReply | None:
    conn.execute(delete(replies).where(replies.c.expires_at <= now))
    new = {"tenant": tenant, "key": storable(key, "An Idempotency-Key"), "fingerprint": fingerprint}
    dialect = postgresql if conn.dialect.name == "postgresql" else sqlite
    conn.execute(dialect.insert(replies).values(**new, expires_at=now + TTL_S).on_conflict_do_nothing())
    row = conn.execute(select(replies).where(replies.c.tenant == tenant, replies.c.key == key)).one()
    if row.fingerprint != fingerprint:
        raise Conflict("This Idempotency-Key was used for other content. Use a new key for a new upload.")
    return None if row.status is None else StoredReply(row.status, row.body)


def _answer(conn: Connection, tenant: str, key: str, reply: StoredReply) -> StoredReply:
    mine = replies.c.tenant == tenant, replies.c.key == key
    conn.execute(update(replies).where(*mine, replies.c.status.is_(None)).values(status=reply.status, body=reply.body))
    row = conn.execute(select(replies.c.status, replies.c.body).where(*mine)).one_or_none()
    return reply if row is None or row.status is None else StoredReply(row.status, row.body)


def _release(conn: Connection, tenant: str, key: str) -> None:
    conn.execute(delete(replies).where(replies.c.tenant == tenant, replies.c.key == key, replies.c.status.is_(None)))
