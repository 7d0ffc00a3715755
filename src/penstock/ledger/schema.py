"""The ledger's tables. Portable SQL: what only one engine can do stays in that engine's file.

    collections 1 ─ n documents 1 ─ n versions 1 ─ n chunks            api_keys            ledger_schema

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
)
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
    UniqueConstraint("version_id", "position"),
)

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
