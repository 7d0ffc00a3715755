"""Options of the models room."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"


def user_cache_dir() -> Path:
    """Where a user's rebuildable files live (XDG base directory specification)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "penstock" / "models"


class BatcherOptions(BaseModel):
    """How requests are merged into batches."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    slice_ms: float = Field(20.0, gt=0, description="how long one bulk batch may run: a question waits for at most one")
    batch_tokens: int = Field(4096, ge=1, description="tokens of one batch at most, padding included")
    queue_tokens: int = Field(65_536, ge=1, description="tokens waiting in a lane at most; callers beyond it wait")


class ModelsOptions(BaseModel):
    """Which models are used, where they run and how much they may take."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    embedding: str = Field(DEFAULT_MODEL, description="what the name `default` means: a folder or a hub repository")
    aliases: Mapping[str, str] = Field(default_factory=dict, description="further names for models")
    preload: tuple[str, ...] = Field(("default",), description="models loaded and warmed before work is taken")
    device: Literal["auto", "cpu"] = Field("auto", description="where models run")
    precision: Literal["auto", "bf16", "f32"] = Field("auto", description="auto: bf16 where the processor has it")
    threads: int = Field(0, ge=0, description="processor threads of one model; 0: one a core")
    download: bool = Field(True, description="fetch models that are not installed from the model hub")
    cache_dir: Path = Field(default_factory=user_cache_dir, description="compiled models; may be deleted at any time")
    max_loaded: int = Field(4, ge=1, description="models in memory at once; the idle one used longest ago goes first")
    reload_backoff_s: float = Field(1.0, gt=0, description="pause after a failed load; doubles up to 60 s")
    batcher: BatcherOptions = BatcherOptions()
