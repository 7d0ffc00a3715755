"""Options of the cache."""

from pydantic import BaseModel, ConfigDict, Field


class CacheOptions(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    max_bytes: int = Field(default=1024**3, gt=0)
    """Beyond this many bytes of keys and values, what was not used for longest is dropped."""
