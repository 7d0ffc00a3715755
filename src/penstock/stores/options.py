"""What can be set about the index."""

from pydantic import BaseModel, ConfigDict, Field


class StoresOptions(BaseModel):
    """Options of the embedded index engine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pause_s: float = Field(default=2.0, ge=0)
    """Fresh rows are indexed once nothing was written for this long, or earlier when they have become many."""
    ann_rows: int = Field(default=20_000, ge=1_000)
    """Vector search is exact below this number of rows of a collection, and approximate (IVF) from it on."""
    ann_probes: int = Field(default=32, ge=1)
    """How many IVF partitions a vector search reads: more finds more and takes longer."""
    retention_s: float = Field(default=60.0, ge=1)
    """How long deleted rows and old index files stay on disk for searches of other processes that still read them."""
    cache_mb: int = Field(default=512, ge=16)
    """Memory for index pages."""
