"""PostgreSQL with the extension `vector` (`pgvector://user@host/database`): two tables a collection.

Full-text search is BM25 in SQL over a table of postings: exact, and slower than an engine made for it where words are
common and chunks are many. Everything is written in transactions.
"""
# ruff: noqa: S608 (names of tables are ours, keys are numbers, and ids are quoted)

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import asyncpg
import numpy as np

from penstock.errors import DataError
from penstock.stores.base import Vector
from penstock.stores.bm25 import K1, B
from penstock.stores.engine import EngineIndex
from penstock.stores.options import StoresOptions
from penstock.stores.records import Listed, Match, Record, Wanted
from penstock.stores.where import All, AnyOf, HasAny, IsOneOf, NotThat, Where, key

CONNECTIONS = 8
TIMEOUT_S = 60.0
EXACT_ROWS = 5_000
"""Below this a scan is exact and quick; from here on `optimise` builds an HNSW index."""
MAX_INDEXED_DIMENSIONS = 2_000
EF_SEARCH = 200

_TABLES = """
CREATE EXTENSION IF NOT EXISTS vector;
CREATE TABLE IF NOT EXISTS "{name}" (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, chunk_id text NOT NULL UNIQUE, length integer NOT NULL,
    keys bigint[] NOT NULL, metadata text NOT NULL, dense vector({dimensions}) NOT NULL);
CREATE TABLE IF NOT EXISTS "{name}_terms" (
    term bigint NOT NULL, id bigint NOT NULL REFERENCES "{name}" ON DELETE CASCADE, count integer NOT NULL,
    PRIMARY KEY (term, id));
CREATE INDEX IF NOT EXISTS "{name}_keys" ON "{name}" USING gin (keys);
CREATE INDEX IF NOT EXISTS "{name}_owner" ON "{name}_terms" (id);
"""
_MATCH = """
WITH stats AS MATERIALIZED (SELECT count(*)::float8 AS n, greatest(avg(length), 1)::float8 AS average FROM "{name}"),
asked AS (SELECT * FROM unnest($1::bigint[], $2::float8[]) AS a (term, times)),
weights AS MATERIALIZED (
    SELECT term, times * ln(1 + (n - df + 0.5) / (df + 0.5)) AS weight
    FROM asked CROSS JOIN LATERAL (
        SELECT count(*)::float8 AS df FROM "{name}_terms" t WHERE t.term = asked.term) d, stats
),
scored AS (
    SELECT t.id, sum(weight * t.count * {k1} / (t.count + {k} * ({base} + {b} * r.length / average))) AS score
    FROM weights JOIN "{name}_terms" t USING (term) JOIN "{name}" r ON r.id = t.id, stats
    WHERE {where} GROUP BY t.id
)
SELECT r.chunk_id, s.score, {metadata} FROM scored s JOIN "{name}" r ON r.id = s.id ORDER BY s.score DESC LIMIT $3
"""


class PgVectorIndex(EngineIndex):
    """Names tables after collections, `penstock_<id>`, in the first schema of the connection's search path."""

    errors: ClassVar[tuple[type[Exception], ...]] = (
        asyncpg.PostgresError,
        asyncpg.InterfaceError,
        OSError,
        TimeoutError,
    )

    def __init__(self, url: str, options: StoresOptions) -> None:
        super().__init__(url, options)
        self._connections: Any = None

    async def open(self) -> None:
        async with self._guard("reach PostgreSQL"):
            self._connections = await asyncpg.create_pool(
                self.url.replace("pgvector://", "postgresql://", 1),
                min_size=1,
                max_size=CONNECTIONS,
                command_timeout=TIMEOUT_S,
                server_settings={"jit": "off"},
            )
            there = await self._connections.fetchval("SELECT 1 FROM pg_available_extensions WHERE name = 'vector'")
        if not there:
            await self.close()
            raise DataError(
                "PostgreSQL has no extension `vector`; install pgvector on its machine (Debian: postgresql-NN-pgvector)"
            )

    async def close(self) -> None:
        if self._connections is not None:
            await self._connections.close()
            self._connections = None
        await super().close()

    async def ping(self) -> None:
        async with self._guard("ask PostgreSQL"):
            await self._connections.fetchval("SELECT 1")

    async def _dimensions(self, collection_id: str) -> int | None:
        found: int | None = await self._connections.fetchval(
            "SELECT atttypmod FROM pg_attribute WHERE attrelid = to_regclass($1) AND attname = 'dense'",
            f'"{_table(collection_id)}"',
        )
        return found

    async def _create(self, collection_id: str, dimensions: int) -> None:
        async with self._alone(collection_id) as connection:
            await connection.execute(_TABLES.format(name=_table(collection_id), dimensions=dimensions))

    async def _drop(self, collection_id: str) -> None:
        name = _table(collection_id)
        async with self._alone(collection_id) as connection:
            await connection.execute(f'DROP TABLE IF EXISTS "{name}_terms", "{name}"')

    async def _put(self, collection_id: str, records: Sequence[Record]) -> None:
        name = _table(collection_id)
        records = sorted(records, key=lambda record: record.chunk_id)  # so that two writers never wait for each other
        async with self._alone(collection_id) as connection:
            await connection.execute(
                f'DELETE FROM "{name}" WHERE chunk_id = ANY($1::text[])', [record.chunk_id for record in records]
            )
            await connection.executemany(
                f'INSERT INTO "{name}" (chunk_id, length, keys, metadata, dense) '
                "VALUES ($1, $2, $3, $4, $5::text::vector)",
                [(one.chunk_id, len(one.terms), list(one.keys), one.metadata, _literal(one.vector)) for one in records],
            )
            ids = dict(
                await connection.fetch(
                    f'SELECT chunk_id, id FROM "{name}" WHERE chunk_id = ANY($1::text[])',
                    [record.chunk_id for record in records],
                )
            )
            postings = [
                (term, ids[record.chunk_id], count)
                for record in records
                for term, count in Counter(map(key, record.terms)).items()
            ]
            await connection.copy_records_to_table(f"{name}_terms", records=postings, columns=["term", "id", "count"])

    async def _remove(self, collection_id: str, where: Where) -> None:
        async with self._alone(collection_id) as connection:
            await connection.execute(f'DELETE FROM "{_table(collection_id)}" r WHERE {_sql(where)}')

    async def _list(self, collection_id: str, where: Where | None, limit: int, *, vectors: bool) -> list[Listed]:
        column = "dense::text" if vectors else "NULL"
        rows = await self._connections.fetch(
            f'SELECT chunk_id, metadata, {column} AS dense FROM "{_table(collection_id)}" r '
            f"WHERE {_sql(where)} LIMIT $1",
            limit,
        )
        return [
            Listed(
                chunk_id=row["chunk_id"],
                metadata=row["metadata"],
                vector=_vector(row["dense"]) if vectors else None,
            )
            for row in rows
        ]

    async def _nearest(self, collection_id: str, vector: Vector, wanted: Wanted) -> list[Match]:
        metadata = "metadata" if wanted.metadata else "'{}' AS metadata"
        async with self._connections.acquire() as connection, connection.transaction(readonly=True):
            await connection.execute(
                f"SET LOCAL hnsw.ef_search = {min(1000, max(EF_SEARCH, 2 * wanted.k))};"
                "SET LOCAL hnsw.iterative_scan = strict_order"
            )
            rows = await connection.fetch(
                f'SELECT chunk_id, dense <=> $1::text::vector AS distance, {metadata} FROM "{_table(collection_id)}" r '
                f"WHERE {_sql(wanted.where)} ORDER BY distance LIMIT $2",
                _literal(vector),
                wanted.k,
            )
        return [Match(chunk_id=row["chunk_id"], score=1 - row["distance"], metadata=row["metadata"]) for row in rows]

    async def _match(self, collection_id: str, terms: Sequence[str], wanted: Wanted) -> list[Match]:
        counts = Counter(map(key, terms))
        statement = _MATCH.format(
            name=_table(collection_id),
            where=_sql(wanted.where),
            metadata="r.metadata" if wanted.metadata else "'{}' AS metadata",
            k1=K1 + 1,
            k=K1,
            base=1 - B,
            b=B,
        )
        rows = await self._connections.fetch(statement, list(counts), [float(n) for n in counts.values()], wanted.k)
        return [Match(chunk_id=row["chunk_id"], score=row["score"], metadata=row["metadata"]) for row in rows]

    async def _count(self, collection_id: str) -> int:
        return int(await self._connections.fetchval(f'SELECT count(*) FROM "{_table(collection_id)}"'))

    async def optimise(self, collection_id: str | None = None) -> None:
        """Builds the vector index of a collection that has become large; PostgreSQL keeps it up from then on."""
        for one in list(self._rooms) if collection_id is None else [collection_id]:
            async with self._guard(f"optimise collection {one}"):
                dimensions = await self._room(one)
                if dimensions is None or dimensions > MAX_INDEXED_DIMENSIONS or await self._count(one) < EXACT_ROWS:
                    continue
                name = _table(one)
                if await self._connections.fetchval("SELECT to_regclass($1)", f'"{name}_dense"') is None:
                    async with self._alone(one) as connection:
                        await connection.execute(
                            f'CREATE INDEX IF NOT EXISTS "{name}_dense" ON "{name}" '
                            "USING hnsw (dense vector_cosine_ops)",
                            timeout=None,
                        )
                        await connection.execute(f'ANALYZE "{name}"')

    @asynccontextmanager
    async def _alone(self, collection_id: str) -> AsyncIterator[Any]:
        """A transaction beside which no other of ours changes the collection."""
        async with self._connections.acquire() as connection, connection.transaction():
            await connection.execute(f"SELECT pg_advisory_xact_lock({key(_table(collection_id))})")
            yield connection


def _table(collection_id: str) -> str:
    assert '"' not in collection_id
    return f"penstock_{collection_id}"


def _literal(vector: Vector) -> str:
    return f"[{','.join(map(repr, vector.tolist()))}]"


def _vector(text: str) -> Vector:
    return np.fromstring(text[1:-1], np.float32, sep=",")


def _sql(where: Where | None) -> str:
    """A condition over the row `r`; keys are numbers, ids are quoted."""
    match where:
        case None:
            return "true"
        case HasAny(keys):
            return f"(r.keys && '{{{','.join(map(str, keys))}}}'::bigint[])"
        case IsOneOf(chunk_ids):
            return f"r.chunk_id IN ({', '.join(map(_quote, chunk_ids))})" if chunk_ids else "false"
        case All(items):
            return "(" + " AND ".join(map(_sql, items)) + ")"
        case AnyOf(items):
            return "(" + " OR ".join(map(_sql, items)) + ")"
        case NotThat(item):
            return f"(NOT {_sql(item)})"


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
