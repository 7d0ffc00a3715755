"""The ledger's tables. Portable SQL: what only one engine can do stays in that engine's file.

    collections 1 ─ n documents 1 ─ n versions 1 ─ n chunks            api_keys   replies   ledger_schema
                1 ─ n generations
                1 ─ n batches   1 ─ n batch_sources, batch_items

A chunk is visible when its version is its document's `searchable_version_id`; deleting a document clears that column,
so no reader has to ask for more. Deleted rows stay as tombstones until the index has forgotten them (`purge`).
All names begin with `ledger_`, for on a server the database may be shared with other things.
"""

from enum import IntEnum

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
)

# Ids and names are compared byte by byte, whatever the locale of a server is.
_Key = Text().with_variant(Text(collation="C"), "postgresql")
_Json = Text

metadata = MetaData()


class Purge(IntEnum):
    """Where a version is on its way out of the index. `CLAIMED` bars a reopening until the purger is through."""

    KEEP = 0
    DUE = 1
    CLAIMED = 2
    DONE = 3


ledger_schema = Table("ledger_schema", metadata, Column("version", Integer, nullable=False))

collections = Table(
    "ledger_collections",
    metadata,
    Column("id", _Key, primary_key=True),
    Column("tenant", _Key, nullable=False),
    Column("name", _Key, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("options", _Json, nullable=False),
    Column("documents", BigInteger, nullable=False),
    Column("chunks", BigInteger, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("deleted_at", Double),
    Column("index_id", _Key),
)
"""`index_id`: where the index holds it; null: under the collection's own id."""
_living_collection = collections.c.deleted_at.is_(None)
Index(
    "ledger_collections_by_name",
    collections.c.tenant,
    collections.c.name,
    unique=True,
    sqlite_where=_living_collection,
    postgresql_where=_living_collection,
)

documents = Table(
    "ledger_documents",
    metadata,
    Column("id", _Key, primary_key=True),
    Column("tenant", _Key, nullable=False),
    Column("collection_id", _Key, ForeignKey("ledger_collections.id"), nullable=False),
    Column("name", _Key, nullable=False),
    Column("status", _Key, nullable=False),
    Column("version", Integer, nullable=False),
    Column("version_id", _Key, nullable=False),
    Column("searchable_version", Integer, nullable=False),
    Column("searchable_version_id", _Key),
    Column("created_at", Double, nullable=False),
    Column("deleted_at", Double),
)
_living_document = documents.c.deleted_at.is_(None)
Index(
    "ledger_documents_by_name",
    documents.c.collection_id,
    documents.c.name,
    unique=True,
    sqlite_where=_living_document,
    postgresql_where=_living_document,
)
Index("ledger_documents_by_tenant", documents.c.tenant, documents.c.id)
Index("ledger_documents_by_collection", documents.c.collection_id, documents.c.id)
Index("ledger_documents_by_searchable_version", documents.c.searchable_version_id, unique=True)
Index("ledger_documents_by_status", documents.c.collection_id, documents.c.status, documents.c.id)

versions = Table(
    "ledger_versions",
    metadata,
    Column("id", _Key, primary_key=True),
    Column("document_id", _Key, ForeignKey("ledger_documents.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("sha256", _Key, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("media_type", _Key, nullable=False),
    Column("metadata", _Json, nullable=False),
    Column("job_id", _Key, nullable=False),
    Column("status", _Key, nullable=False),
    Column("pages", Integer, nullable=False),
    Column("chunks", Integer, nullable=False),
    Column("error", _Json),
    Column("purge", SmallInteger, nullable=False),
    Column("updated_at", Double, nullable=False),
    Column("notes", _Json),
    UniqueConstraint("document_id", "number"),
)
_pending = versions.c.status == "pending"
_to_purge = versions.c.purge > 0
Index("ledger_versions_by_sha256", versions.c.sha256)
Index("ledger_versions_pending", versions.c.id, sqlite_where=_pending, postgresql_where=_pending)
Index(
    "ledger_versions_to_purge",
    versions.c.purge,
    versions.c.updated_at,
    sqlite_where=_to_purge,
    postgresql_where=_to_purge,
)

chunks = Table(
    "ledger_chunks",
    metadata,
    Column("collection_id", _Key, primary_key=True),
    Column("id", _Key, primary_key=True),
    Column("version_id", _Key, ForeignKey("ledger_versions.id"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("text", Text, nullable=False),
    Column("start", Integer, nullable=False),
    Column("end", Integer, nullable=False),
    Column("tokens", Integer, nullable=False),
    Column("page", Integer),
    Column("headings", _Json, nullable=False),
    Column("kind", _Key),
    Column("picture", Integer),
    UniqueConstraint("version_id", "position"),
)
"""`kind` null: text."""

api_keys = Table(
    "ledger_api_keys",
    metadata,
    Column("id", _Key, primary_key=True),
    Column("tenant", _Key, nullable=False),
    Column("name", Text, nullable=False),
    Column("scopes", _Json, nullable=False),
    Column("secret_sha256", _Key, nullable=False, unique=True),
    Column("created_at", Double, nullable=False),
    Column("revoked_at", Double),
)

BUILDING = "building"
RETIRED = "retired"

generations = Table(
    "ledger_generations",
    metadata,
    Column("id", _Key, primary_key=True),
    Column("collection_id", _Key, ForeignKey("ledger_collections.id"), nullable=False),
    Column("state", _Key, nullable=False),
    Column("options", _Json, nullable=False),
    Column("cursor", _Key, nullable=False),
    Column("done", BigInteger, nullable=False),
    Column("job_id", _Key, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
)
"""Places in the index besides the one that is searched: filled for a reindex, or on their way out."""
_building = generations.c.state == BUILDING
Index(
    "ledger_generations_building",
    generations.c.collection_id,
    unique=True,
    sqlite_where=_building,
    postgresql_where=_building,
)
Index("ledger_generations_by_collection", generations.c.collection_id)

batches = Table(
    "ledger_batches",
    metadata,
    Column("id", _Key, primary_key=True),
    Column("tenant", _Key, nullable=False),
    Column("collection_id", _Key, ForeignKey("ledger_collections.id"), nullable=False),
    Column("priority", _Key, nullable=False),
    Column("state", _Key, nullable=False),
    Column("source", Integer, nullable=False),
    Column("entry", _Key, nullable=False),
    Column("items", BigInteger, nullable=False),
    Column("job_id", _Key, nullable=False),
    Column("idempotency_key", _Key),
    Column("fingerprint", _Key, nullable=False),
    Column("error", _Json),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
)
"""`source`, `entry`: how far it is gathered, what stands there is done; `items`: how many rows of `batch_items`."""
_keyed = batches.c.idempotency_key.is_not(None)
_gathering = batches.c.state == "gathering"
Index(
    "ledger_batches_by_key",
    batches.c.tenant,
    batches.c.idempotency_key,
    unique=True,
    sqlite_where=_keyed,
    postgresql_where=_keyed,
)
Index("ledger_batches_by_tenant", batches.c.tenant, batches.c.id)
Index("ledger_batches_by_collection", batches.c.collection_id)
Index("ledger_batches_by_age", batches.c.updated_at)
Index("ledger_batches_gathering", batches.c.id, sqlite_where=_gathering, postgresql_where=_gathering)

batch_sources = Table(
    "ledger_batch_sources",
    metadata,
    Column("batch_id", _Key, ForeignKey("ledger_batches.id"), primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("kind", _Key, nullable=False),
    Column("name", _Key, nullable=False),
    Column("sha256", _Key),
    Column("spec", _Json, nullable=False),
)
Index("ledger_batch_sources_by_sha256", batch_sources.c.sha256)

batch_items = Table(
    "ledger_batch_items",
    metadata,
    Column("batch_id", _Key, ForeignKey("ledger_batches.id"), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("source", Integer, nullable=False),
    Column("name", _Key, nullable=False),
    Column("version_id", _Key),
    Column("created", SmallInteger, nullable=False),
    Column("error", _Json),
)
"""`error`: it was refused, and there is no version. `created` is 0 where the document was there, or on its way."""

replies = Table(
    "ledger_replies",
    metadata,
    Column("tenant", _Key, primary_key=True),
    Column("key", _Key, primary_key=True),
    Column("fingerprint", _Key, nullable=False),
    Column("status", Integer),
    Column("body", Text),
    Column("expires_at", Double, nullable=False),
)
"""Answers to requests with an `Idempotency-Key`; `status` and `body` null: being worked on."""
Index("ledger_replies_by_age", replies.c.expires_at)
