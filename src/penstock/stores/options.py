"""What can be set about the index."""

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class StoresOptions(BaseModel):
    """Options of the index: `api_key` of servers, the rest of the embedded engine (LanceDB)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pause_s: float = Field(default=2.0, ge=0)
    """Fresh rows are indexed once nothing was written for this long, or earlier when they have become many."""
    vector_index_rows: int = Field(default=2_000, ge=256)
    """From this number of rows on, a collection's vectors are kept in memory in partitions of a thousand (IVF)."""
    probe_share: float = Field(default=0.25, gt=0, le=1)
    """The share of the partitions that a vector search reads, at least 16 (so it is exact up to 16,000 rows) and
    at most 96. More finds more and takes longer."""
    retention_s: float = Field(default=60.0, gt=0)
    """How long deleted rows and old index files stay on disk for searches of other processes that still read them."""
    memory_mb: int = Field(default=2_048, ge=0)
    """Memory for copies of collections, from which questions are answered: about 4 KB a chunk of 384 dimensions. A
    collection that does not fit in is searched on disk, which takes several times as long; the log says so. 0: all of
    them are."""
    search_threads: int = Field(default=2, ge=1, le=64)
    """Threads that search these copies. A search needs Python's lock half of the time: at 100,000 chunks the second
    thread brings a tenth, more cost more processor time and bring nothing."""
    cache_mb: int = Field(default=512, ge=16)
    """Memory for index pages."""
    metadata_cache_mb: int = Field(default=64, ge=4)
    """Memory for what the engine remembers of its files; ingest leaves much of it behind."""
    api_key: SecretStr = SecretStr("")
    """Key or token of an index server: Qdrant, Milvus, Chroma."""
