"""Options of the cache."""

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class CacheOptions(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    url: SecretStr = SecretStr("")
    """`sqlite:///path/of/file`, `memory://`, or `off`; empty: SQLite in the data folder."""
    max_bytes: int = Field(default=1024**3, gt=0)
    """Beyond this many bytes of keys and values, what was not used for longest is dropped."""
    ttl_s: float = Field(default=30 * 24 * 3600.0, gt=0)
    """Seconds after which parse results and vectors are computed again."""
