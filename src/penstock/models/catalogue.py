"""The models that the settings name, as people and the api see them: no model is loaded for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

from penstock.models.clip_recipe import NAMES
from penstock.models.generator_options import GeneratorOptions
from penstock.models.options import (
    DEFAULT,
    EmbedderOptions,
    ImageEmbedderOptions,
    LocalEmbedderOptions,
    LocalRerankerOptions,
    ModelsOptions,
    RemoteOptions,
    RerankerOptions,
)
from penstock.models.vision import VisionOptions
from penstock.models.weights import looks_like_path
from penstock.types import LoadedModel, WorkerInfo

ModelKind: TypeAlias = Literal["embedding", "rerank", "image", "generator", "vision"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEntry:
    """A model by the name that collections use for it, or by what it is for: `generator`, `vision`.

    `key` is what workers call it; `dimensions` 0: what the model has; `default`: used where a collection names none.
    """

    name: str
    kind: ModelKind
    engine: str
    model: str
    key: str
    dimensions: int = 0
    local: bool = True
    default: bool = False
    preloaded: bool = False

    def held_by(self, workers: Sequence[WorkerInfo]) -> LoadedModel | None:
        """As a ready worker has it open; None where none has."""
        open_now = (model for worker in workers if worker.ready for model in worker.loaded)
        return next((model for model in open_now if model.name == self.key), None)

    @property
    def shown(self) -> str:
        """`model` for callers from outside: of a folder its name alone."""
        return Path(self.model).name if self.local and looks_like_path(self.model) else self.model


def catalogue(
    options: ModelsOptions, generator: GeneratorOptions | None = None, vision: VisionOptions | None = None
) -> Sequence[ModelEntry]:
    """Embedders, then rerankers and image embedders, in the order of the settings; the default embedder first. At the
    end the language model and the one that takes pictures, as far as they are configured."""
    writers: dict[Literal["generator", "vision"], GeneratorOptions | None] = {"generator": generator, "vision": vision}
    return [
        *(_embedder(name, options) for name in options.embedder_names),
        *(_reranker(name, reranker, options) for name, reranker in options.rerankers.items()),
        *(_image_embedder(name, spec, options) for name, spec in options.image_embedders.items()),
        *(_writer(kind, spec) for kind, spec in writers.items() if spec is not None and spec.configured),
    ]


def _embedder(name: str, options: ModelsOptions) -> ModelEntry:
    key = options.resolve(name)
    spec = options.embedders.get(key) or LocalEmbedderOptions(model=key)
    keys = {options.resolve(preloaded) for preloaded in options.preloaded}
    return ModelEntry(
        name=name,
        kind="embedding",
        engine=spec.engine,
        model=_model(spec),
        key=key,
        dimensions=spec.dimensions,
        local=isinstance(spec, LocalEmbedderOptions),
        default=name == DEFAULT,
        preloaded=key in keys,
    )


def _reranker(name: str, spec: RerankerOptions, options: ModelsOptions) -> ModelEntry:
    return ModelEntry(
        name=name,
        kind="rerank",
        engine=spec.engine,
        model=_model(spec),
        key=name,
        local=isinstance(spec, LocalRerankerOptions),
        default=name == options.reranker,
        preloaded=name in options.preloaded,
    )


def _image_embedder(name: str, spec: ImageEmbedderOptions, options: ModelsOptions) -> ModelEntry:
    return ModelEntry(
        name=name,
        kind="image",
        engine=spec.engine,
        model=NAMES.get(spec.model, spec.model),
        key=name,
        preloaded=name in options.preloaded,
    )


def _writer(kind: Literal["generator", "vision"], spec: GeneratorOptions) -> ModelEntry:
    host = urlsplit(spec.base_url).hostname
    return ModelEntry(
        name=kind, kind=kind, engine="openai", model=f"{spec.model} at {host}", key="", local=False, default=True
    )


def _model(spec: EmbedderOptions | RerankerOptions) -> str:
    """Where it is: a provider's name may be that of a model here."""
    return f"{spec.model} at {urlsplit(spec.base_url).hostname}" if isinstance(spec, RemoteOptions) else spec.model
