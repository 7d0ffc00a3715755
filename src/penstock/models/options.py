"""Options of the models room."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Discriminator, Field, SecretStr, Tag, field_validator, model_validator

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"

DEFAULT = "default"
"""The name of the embedder of collections that ask for none."""

NO_RERANKER = "none"
"""What a collection says that wants no reranker although the settings name one for all."""


def user_cache_dir() -> Path:
    """Where a user's rebuildable files live (XDG base directory specification)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "penstock" / "models"


class BatcherOptions(BaseModel):
    """How requests are merged into batches."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    slice_ms: float = Field(20.0, gt=0, description="how long one bulk batch may run: a question waits for at most one")
    batch_tokens: int = Field(4096, ge=1, description="tokens of one batch at most, padding included")
    gpu_batch_tokens: int = Field(32_768, ge=1, description="the same on a GPU, as far as its free memory holds them")
    queue_tokens: int = Field(65_536, ge=1, description="tokens waiting in a lane at most; callers beyond it wait")


class PrefixOptions(BaseModel):
    """What is put before texts; null: what the model's files say, else what is known for its name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    query_prefix: str | None = Field(None, description="before every query")
    passage_prefix: str | None = Field(None, description="before every passage")


class LocalEmbedderOptions(PrefixOptions):
    """An embedding model that runs in the worker."""

    engine: Literal["auto", "openvino", "torch"] = Field("auto", description="auto: what fits the device and the model")
    model: str = Field(min_length=1, description="a folder or a hub repository")
    dimensions: int = Field(
        0, ge=0, description="keep so many numbers of a vector, for models trained for it (Matryoshka); 0: all"
    )


class LocalRerankerOptions(BaseModel):
    """A cross-encoder that runs in the worker."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: Literal["auto", "openvino", "torch"] = Field("auto", description="auto: what fits the device")
    model: str = Field(min_length=1, description="a folder or a hub repository")
    candidates: int = Field(32, ge=1, le=400, description="passages that are weighed for a question, at least")


class ImageEmbedderOptions(BaseModel):
    """A CLIP model that runs in the worker: texts and images in one space."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: Literal["auto", "openvino", "torch"] = Field("auto", description="auto: what fits the device")
    model: str = Field(min_length=1, description="ViT-B/32, ViT-B/16, ViT-L/14, a folder or a hub repository")
    max_pixels: int = Field(50_000_000, gt=0, description="of an image, width times height; larger ones are refused")


class RemoteOptions(BaseModel):
    """A model behind HTTP: who, and how long it may take."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_url: str = Field(pattern=r"^https?://[^/]", description="of the API, usually ending in /v1")
    api_key: SecretStr = Field(SecretStr(""), description="sent as a bearer token; never logged")
    model: str = Field(min_length=1, description="the model's name at the provider")
    max_concurrency: int = Field(16, ge=1, description="calls in flight at most; falls by itself under 429")
    connect_s: float = Field(5.0, gt=0, description="to reach the provider, TLS included")
    timeout_s: float = Field(30.0, gt=0, description="of one try, from the request to the whole reply")
    total_s: float = Field(120.0, gt=0, description="of a call, waiting and retries included")
    max_retries: int = Field(2, ge=0, description="tries after the first")
    backoff_s: float = Field(0.5, gt=0, description="the first retry waits up to this, later ones up to twice as long")
    max_retry_after_s: float = Field(20.0, ge=0, description="a provider that asks for more is given up at once")
    max_reply_bytes: int = Field(64 * 1024 * 1024, ge=1024, description="of one reply")
    breaker_failures: int = Field(5, ge=1, description="in a row, after which the provider is left alone for a while")
    breaker_cooldown_s: float = Field(10.0, gt=0, description="that while; doubles up to 60 s as failures go on")

    @field_validator("api_key")
    @classmethod
    def _check_key(cls, key: SecretStr) -> SecretStr:
        bare = key.get_secret_value().strip()
        if not (bare.isascii() and bare.isprintable()):
            raise ValueError("the key has characters that no key has")
        return SecretStr(bare)


class RemoteEmbedderOptions(PrefixOptions, RemoteOptions):
    """An embedding model behind an OpenAI-compatible API (`POST /embeddings`)."""

    engine: Literal["openai"]
    dimensions: int = Field(0, ge=0, description="asked of the provider; 0: its own, found when the worker starts")
    encoding: Literal["base64", "float"] = Field("base64", description="what is asked for; both are understood")
    batch_texts: int = Field(64, ge=1, description="texts of one call at most (some providers take 10)")
    batch_bytes: int = Field(256 * 1024, ge=1, description="of all texts of one call")
    max_tokens: int = Field(8000, ge=16, description="of one text; what is longer is cut")
    tokenizer: str = Field(
        "", description="a tokenizer.json, or a folder or hub repository with one; empty: tokens are estimated"
    )


class RemoteRerankerOptions(RemoteOptions):
    """A reranker behind the API that Jina and Cohere share (`POST /rerank`)."""

    engine: Literal["http"]
    path: str = Field("/rerank", pattern=r"^/", description="behind the base URL")
    candidates: int = Field(32, ge=1, le=400, description="passages that are weighed for a question, at least")
    timeout_s: float = Field(5.0, gt=0, description="of one try, from the request to the whole reply")
    total_s: float = Field(10.0, gt=0, description="of a call, waiting and retries included: a person waits for it")


def _place(value: Any) -> str:
    engine = value.get("engine") if isinstance(value, Mapping) else getattr(value, "engine", None)
    return "remote" if engine in {"openai", "http"} else "local"


EmbedderOptions: TypeAlias = Annotated[
    Annotated[LocalEmbedderOptions, Tag("local")] | Annotated[RemoteEmbedderOptions, Tag("remote")],
    Discriminator(_place),
]
RerankerOptions: TypeAlias = Annotated[
    Annotated[LocalRerankerOptions, Tag("local")] | Annotated[RemoteRerankerOptions, Tag("remote")],
    Discriminator(_place),
]


class ModelsOptions(BaseModel):
    """Which models are used, where they run and how much they may take."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    embedding: str = Field(
        DEFAULT_MODEL, description="what the name `default` means: a name of `embedders`, a folder or a hub repository"
    )
    embedders: Mapping[str, EmbedderOptions] = Field(default_factory=dict, description="embedding models by name")
    rerankers: Mapping[str, RerankerOptions] = Field(default_factory=dict, description="rerankers by name")
    image_embedders: Mapping[str, ImageEmbedderOptions] = Field(
        default_factory=dict, description="CLIP models by name, for collections that find images"
    )
    reranker: str = Field("", description="the name of the reranker of collections that name none; empty: none")
    rerank_s: float = Field(10.0, gt=0, description="a reranker that takes longer is done without")
    aliases: Mapping[str, str] = Field(default_factory=dict, description="further names for embedding models")
    preload: tuple[str, ...] | None = Field(
        None, description="models loaded and warmed before work is taken; null: all that have a name here"
    )
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$",
        description="where models run: auto, cpu, cuda, cuda:1 or mps; auto takes a GPU where torch finds one",
    )
    precision: Literal["auto", "i8", "bf16", "f16", "f32"] = Field(
        "auto",
        description="auto: 16 bits where the processor or the GPU has them, and partly 8 where that was measured to "
        "change no result; i8: partly 8 for every text embedder built from its tensors on a processor",
    )
    threads: int = Field(0, ge=0, description="processor threads of one model; 0: one a core")
    download: bool = Field(True, description="fetch models that are not installed from the model hub")
    cache_dir: Path = Field(default_factory=user_cache_dir, description="compiled models; may be deleted at any time")
    max_loaded: int = Field(4, ge=1, description="models in memory at once; the idle one used longest ago goes first")
    reload_backoff_s: float = Field(1.0, gt=0, description="pause after a failed load; doubles up to 60 s")
    batcher: BatcherOptions = BatcherOptions()

    @model_validator(mode="after")
    def _names_fit(self) -> "ModelsOptions":
        if DEFAULT in self.embedders or DEFAULT in self.aliases:
            raise ValueError(f"`{DEFAULT}` is what `embedding` says; give the model another name and set `embedding`")
        if twice := sorted(self.embedders.keys() & self.rerankers.keys()):
            raise ValueError(f"an embedder and a reranker are both called {', '.join(twice)}")
        if shared := sorted(self.image_embedders.keys() & {DEFAULT, *self.embedders, *self.rerankers, *self.aliases}):
            raise ValueError(f"an image embedder and another model are both called {', '.join(shared)}")
        if self.reranker and self.reranker not in self.rerankers:
            raise ValueError(f"reranker: {self.reranker!r} is not one of `rerankers`")
        return self

    def resolve(self, name: str) -> str:
        """The embedder that a name or alias stands for: a name of `embedders`, a folder or a hub repository."""
        seen: set[str] = set()
        names = {DEFAULT: self.embedding, **self.aliases}
        while name in names and name not in seen:
            seen.add(name)
            name = names[name]
        return name

    @property
    def embedder_names(self) -> Sequence[str]:
        """What a collection may call its embedding model."""
        return (DEFAULT, *self.embedders, *self.aliases)

    @property
    def preloaded(self) -> Sequence[str]:
        """The names that are loaded before work is taken; rerankers and image embedders among them."""
        named = (DEFAULT, *self.embedders, *self.rerankers, *self.image_embedders)
        return named if self.preload is None else self.preload
