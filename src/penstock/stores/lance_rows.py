"""Rows as LanceDB keeps them: the ids, the terms, the vector, and two columns for filters (see `lance_filter`)."""

import json
from collections.abc import Sequence

import pyarrow as pa

from penstock.stores.analyzer import Analyzer
from penstock.stores.base import IndexRow
from penstock.stores.facets import facets, fields
from penstock.stores.vectors import stack

IDENTITY = b"penstock.identity"


def schema(dimensions: int, *, identity: str = "") -> pa.Schema:
    """`identity` tells a table from one that was made in its place later."""
    return pa.schema(
        [
            pa.field("chunk_id", pa.string(), nullable=False),
            pa.field("document_id", pa.string(), nullable=False),
            pa.field("version_id", pa.string(), nullable=False),
            pa.field("terms", pa.string(), nullable=False),
            pa.field("vector", pa.list_(pa.float32(), dimensions), nullable=False),
            pa.field("facets", pa.list_(pa.string()), nullable=False),
            pa.field("fields", pa.json_(), nullable=False),
        ],
        metadata={IDENTITY: identity.encode()} if identity else None,
    )


def dimensions_of(table_schema: pa.Schema) -> int:
    return int(table_schema.field("vector").type.list_size)


def to_arrow(rows: Sequence[IndexRow], dimensions: int, analyzer: Analyzer) -> pa.Table:
    """One table of rows, the last of each chunk id. `DataError` for vectors that do not fit. CPU-bound."""
    rows = list({row.chunk_id: row for row in rows}.values())
    vectors = stack([row.vector for row in rows], dimensions)
    columns = [
        pa.array([row.chunk_id for row in rows], pa.string()),
        pa.array([row.document_id for row in rows], pa.string()),
        pa.array([row.version_id for row in rows], pa.string()),
        pa.array([" ".join(analyzer.index_terms(row.text)) for row in rows], pa.string()),
        pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dimensions),
        pa.array([facets(row.metadata) for row in rows], pa.list_(pa.string())),
        pa.array([json.dumps(fields(row.metadata), ensure_ascii=False) for row in rows], pa.json_()),
    ]
    return pa.Table.from_arrays(columns, schema=schema(dimensions))
