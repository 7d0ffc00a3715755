"""Operations on API keys. Each takes a connection inside a transaction.

A secret is 256 random bits, so a single SHA-256 of it is as good as any slow hash: there is nothing to guess.
"""

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from penstock.errors import NotFound
from penstock.ids import new_id
from penstock.ledger.base import ApiKey
from penstock.ledger.names import from_json, storable, to_json
from penstock.ledger.schema import api_keys

SECRET_PREFIX = "pk_"  # noqa: S105 - what every secret begins with, so that a scanner can spot a leaked one


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()


def _record(row: Row[Any]) -> ApiKey:
    return ApiKey(
        id=row.id,
        tenant=row.tenant,
        name=row.name,
        scopes=from_json(row.scopes, tuple[str, ...]),
        created_at=row.created_at,
        revoked=row.revoked_at is not None,
    )


def create(conn: Connection, now: float, tenant: str, name: str, scopes: Sequence[str]) -> tuple[ApiKey, str]:
    secret = SECRET_PREFIX + secrets.token_urlsafe(32)
    key = ApiKey(
        id=new_id("key"), tenant=tenant, name=storable(name, "A key's name"), scopes=tuple(scopes), created_at=now
    )
    conn.execute(
        insert(api_keys).values(
            id=key.id, tenant=tenant, name=name, scopes=to_json(scopes), secret_sha256=_hash(secret), created_at=now
        )
    )
    return key, secret


def find(conn: Connection, secret: str) -> ApiKey | None:
    sought = _hash(secret)
    row = conn.execute(
        select(api_keys).where(api_keys.c.secret_sha256 == sought, api_keys.c.revoked_at.is_(None))
    ).one_or_none()
    return _record(row) if row is not None and hmac.compare_digest(row.secret_sha256, sought) else None


def list_all(conn: Connection, tenant: str | None) -> Sequence[ApiKey]:
    query = select(api_keys) if tenant is None else select(api_keys).where(api_keys.c.tenant == tenant)
    return [_record(row) for row in conn.execute(query.order_by(api_keys.c.id))]


def revoke(conn: Connection, now: float, key_id: str, tenant: str | None) -> None:
    query = select(api_keys.c.id).where(api_keys.c.id == key_id)
    if tenant is not None:
        query = query.where(api_keys.c.tenant == tenant)
    if conn.execute(query).one_or_none() is None:
        raise NotFound(f"There is no API key {key_id!r}.")
    conn.execute(
        update(api_keys).where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None)).values(revoked_at=now)
    )
