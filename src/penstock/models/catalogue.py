"""The models that the settings name, as people and the api see them: no model is loaded for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from penstock.models.options import (
    DEFAULT,
    EmbedderOptions,
    LocalEmbedderOptions,
    LocalRerankerOptions,
    ModelsOptions,
    RemoteOptions,
    RerankerOptions,
)
from penstock.models.weights import looks_like_path


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEntry:
    """A model by the name that collections use for it.

    `key` is what workers call it; `dimensions` 0: what the model has; `default`: used where a collection names none.
    """

    name: str
    kind: str
    engine: str
    model: str
    key: str
    dimensions: int = 0
    local: bool = True
    default: bool = False
    preloaded: bool = False

    @property
    def shown(self) -> str:
        """`model` for callers from outside: of a folder its name alone."""
        return Path(self.model).name if self.local and looks_like_path(self.model) else self.model


def catalogue(options: ModelsOptions) -> Sequence[ModelEntry]:
    """Embedders, then rerankers, in the order of the settings; the default embedder first."""
    return [
        *(_embedder(name, options) for name in options.embedder_names),
        *(_reranker(name, reranker, options) for name, reranker in options.rerankers.items()),
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


def _model(spec: EmbedderOptions | RerankerOptions) -> str:
    """Where it is: a provider's name may be that of a model here."""
    return f"{spec.model} at {urlsplit(spec.base_url).hostname}" if isinstance(spec, RemoteOptions) else spec.model
