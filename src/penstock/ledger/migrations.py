"""The schema's versions: a new database gets the tables as they are now, an older one is brought on step by step.

`STEPS[n]` turns version n + 1 into version n + 2; all run in the one transaction that also writes the new version.
"""

from collections.abc import Callable, Sequence

from sqlalchemy import Connection, insert, inspect, select, update

from penstock.errors import DataError
from penstock.ledger.schema import ledger_schema, metadata

Step = Callable[[Connection], None]


def _batches_generations_notes(conn: Connection) -> None:
    """1 → 2. The tables as they were then, whatever `schema` says today."""
    _run(conn, _STEP_2)


def _replies(conn: Connection) -> None:
    """2 → 3."""
    _run(conn, _STEP_3)


def _pictures(conn: Connection) -> None:
    """3 → 4."""
    _run(conn, _STEP_4)


def _run(conn: Connection, statements: str) -> None:
    key = 'TEXT COLLATE "C"' if conn.dialect.name == "postgresql" else "TEXT"
    for statement in statements.format(key=key).split(";"):
        conn.exec_driver_sql(statement)


_STEP_2 = """
ALTER TABLE ledger_collections ADD COLUMN index_id {key};
ALTER TABLE ledger_versions ADD COLUMN notes TEXT;
CREATE TABLE ledger_generations (
    id {key} NOT NULL PRIMARY KEY,
    collection_id {key} NOT NULL REFERENCES ledger_collections (id),
    state {key} NOT NULL,
    options TEXT NOT NULL,
    cursor {key} NOT NULL,
    done BIGINT NOT NULL,
    job_id {key} NOT NULL,
    created_at DOUBLE PRECISION NOT NULL,
    updated_at DOUBLE PRECISION NOT NULL
);
CREATE UNIQUE INDEX ledger_generations_building ON ledger_generations (collection_id) WHERE state = 'building';
CREATE INDEX ledger_generations_by_collection ON ledger_generations (collection_id);
CREATE TABLE ledger_batches (
    id {key} NOT NULL PRIMARY KEY,
    tenant {key} NOT NULL,
    collection_id {key} NOT NULL REFERENCES ledger_collections (id),
    priority {key} NOT NULL,
    state {key} NOT NULL,
    source INTEGER NOT NULL,
    entry {key} NOT NULL,
    items BIGINT NOT NULL,
    job_id {key} NOT NULL,
    idempotency_key {key},
    fingerprint {key} NOT NULL,
    error TEXT,
    created_at DOUBLE PRECISION NOT NULL,
    updated_at DOUBLE PRECISION NOT NULL
);
CREATE UNIQUE INDEX ledger_batches_by_key ON ledger_batches (tenant, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX ledger_batches_by_tenant ON ledger_batches (tenant, id);
CREATE INDEX ledger_batches_by_collection ON ledger_batches (collection_id);
CREATE INDEX ledger_batches_by_age ON ledger_batches (updated_at);
CREATE INDEX ledger_batches_gathering ON ledger_batches (id) WHERE state = 'gathering';
CREATE TABLE ledger_batch_sources (
    batch_id {key} NOT NULL REFERENCES ledger_batches (id),
    seq INTEGER NOT NULL,
    kind {key} NOT NULL,
    name {key} NOT NULL,
    sha256 {key},
    spec TEXT NOT NULL,
    PRIMARY KEY (batch_id, seq)
);
CREATE INDEX ledger_batch_sources_by_sha256 ON ledger_batch_sources (sha256);
CREATE TABLE ledger_batch_items (
    batch_id {key} NOT NULL REFERENCES ledger_batches (id),
    seq BIGINT NOT NULL,
    source INTEGER NOT NULL,
    name {key} NOT NULL,
    version_id {key},
    created SMALLINT NOT NULL,
    error TEXT,
    PRIMARY KEY (batch_id, seq)
)
"""

_STEP_3 = """
CREATE TABLE ledger_replies (
    tenant {key} NOT NULL,
    key {key} NOT NULL,
    fingerprint {key} NOT NULL,
    status INTEGER,
    body TEXT,
    expires_at DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (tenant, key)
);
CREATE INDEX ledger_replies_by_age ON ledger_replies (expires_at)
"""

_STEP_4 = """
ALTER TABLE ledger_chunks ADD COLUMN kind {key};
ALTER TABLE ledger_chunks ADD COLUMN picture INTEGER
"""

STEPS: Sequence[Step] = (_batches_generations_notes, _replies, _pictures)


def migrate(conn: Connection, name: str, steps: Sequence[Step] = STEPS) -> None:
    """Brings the database called `name` to version `len(steps) + 1`. `DataError` when it is newer or not a ledger."""
    newest = len(steps) + 1
    tables = set(inspect(conn).get_table_names())
    if ledger_schema.name not in tables:
        if tables & set(metadata.tables):
            raise DataError(f"{name} has tables of a ledger but no schema version: it is damaged. Restore a backup.")
        metadata.create_all(conn)
        conn.execute(insert(ledger_schema).values(version=newest))
        return
    version = conn.execute(select(ledger_schema.c.version)).scalar_one_or_none()
    if version is None:
        raise DataError(f"{name} has no schema version: it is damaged. Restore a backup.")
    if version > newest:
        raise DataError(
            f"{name} has schema version {version}, and this Penstock knows {newest} at most: a newer one wrote it. "
            "Install that version again, or restore a backup from before the upgrade."
        )
    for step in steps[version - 1 :]:
        step(conn)
    if version < newest:
        conn.execute(update(ledger_schema).values(version=newest))
