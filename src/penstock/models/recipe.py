"""How a model's files say that it is to be used: its family, its length, its pooling, its prefixes."""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import msgspec

from penstock.errors import ConfigError, DataError
from penstock.models.prefixes import Prefixes, known_prefixes

T = TypeVar("T")


class Pooling(StrEnum):
    """How the token vectors become one: their mean, or the first one."""

    MEAN = "mean"
    CLS = "cls"


HOLD_EIGHT_BITS = frozenset({"all-minilm-l6-v2"})
"""By the last part of their name: cosine to float32 above 0.999, and `penstock eval` the same within half a point."""

POSITIONS_AFTER_PADDING = frozenset({"roberta", "xlm-roberta", "camembert", "mpnet"})


class NetworkConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The part of `config.json` that an encoder network is built from."""

    model_type: str
    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int = 512
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12
    pad_token_id: int = 0
    position_embedding_type: str = "absolute"

    @property
    def first_position(self) -> int:
        """The row of the position table that a text's first token takes: RoBERTa's start behind the padding's id."""
        return self.pad_token_id + 1 if self.model_type in POSITIONS_AFTER_PADDING else 0


DISTILBERT_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "dim": "hidden_size",
        "n_layers": "num_hidden_layers",
        "n_heads": "num_attention_heads",
        "hidden_dim": "intermediate_size",
        "activation": "hidden_act",
    }
)


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """Everything but the weights. `max_tokens` counts the special tokens too.

    `holds_eight_bits`: with weights in 8 bits its vectors were measured to stay what they are.
    """

    network: NetworkConfig
    pooling: Pooling
    max_tokens: int
    prefixes: Prefixes
    holds_eight_bits: bool = False


def read_recipe(folder: Path, name: str) -> Recipe:
    """Read a model folder in the layout of sentence-transformers or of a plain Hugging Face encoder.

    A plain encoder is pooled by its mean, as sentence-transformers does. Raises ConfigError for what is not supported.
    """
    network = read_network(folder / "config.json")
    return Recipe(
        network=network,
        pooling=read_pooling(folder),
        max_tokens=read_max_tokens(folder, network),
        prefixes=read_prefixes(folder, name),
        holds_eight_bits=name.rstrip("/").rsplit("/", 1)[-1].lower() in HOLD_EIGHT_BITS,
    )


def read_network(file: Path) -> NetworkConfig:
    config = read_json(file, dict[str, Any])
    renamed = {ours: config[theirs] for theirs, ours in DISTILBERT_NAMES.items() if theirs in config}
    try:
        return msgspec.convert({**config, **renamed}, NetworkConfig, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{file} is not the configuration of a text encoder: {error}.") from error


class PairRecipe(msgspec.Struct, frozen=True, kw_only=True):
    """A cross-encoder: a network that reads query and text as one. `max_tokens` counts the special tokens too."""

    network: NetworkConfig
    max_tokens: int


def read_pair_recipe(folder: Path) -> PairRecipe:
    """Read the folder of a sequence classifier with one label. Raises ConfigError for what is not supported."""
    config = read_json(folder / "config.json", dict[str, Any])
    labels = len(config["id2label"]) if isinstance(config.get("id2label"), dict) else int(config.get("num_labels", 2))
    if labels != 1:
        raise ConfigError(
            f"The model in {folder} has {labels} labels; a reranker has one. Name a cross-encoder trained for ranking."
        )
    network = read_network(folder / "config.json")
    return PairRecipe(network=network, max_tokens=read_max_tokens(folder, network))


def read_max_tokens(folder: Path, network: NetworkConfig) -> int:
    sizes = [network.max_position_embeddings - network.first_position]
    for file, key in (("sentence_bert_config.json", "max_seq_length"), ("tokenizer_config.json", "model_max_length")):
        size = read_json(folder / file, dict[str, Any]).get(key) if (folder / file).is_file() else None
        if isinstance(size, int | float):
            sizes.append(int(size))
    return min(sizes)


def read_pooling(folder: Path) -> Pooling:
    if not (folder / "modules.json").is_file():
        return Pooling.MEAN
    pooling = Pooling.MEAN
    for module in read_json(folder / "modules.json", list[dict[str, Any]]):
        kind = str(module.get("type", "")).rsplit(".", 1)[-1]
        if kind == "Pooling":
            pooling = pooling_mode(folder / str(module["path"]) / "config.json")
        elif kind not in {"Transformer", "Normalize"}:
            raise ConfigError(f"The model in {folder} has a {kind} module, which is not supported.")
    return pooling


def pooling_mode(file: Path) -> Pooling:
    config = read_json(file, dict[str, Any])
    mode = config.get("pooling_mode")
    if mode is None:
        flags = {"cls": "pooling_mode_cls_token", "mean": "pooling_mode_mean_tokens"}
        others = [key for key, on in config.items() if key.startswith("pooling_mode_") and on is True]
        mode = next((name for name, flag in flags.items() if others == [flag]), "+".join(others))
    try:
        return Pooling(str(mode))
    except ValueError as error:
        raise ConfigError(f"{file} asks for the pooling {mode!r}; mean and cls are supported.") from error


def read_prefixes(folder: Path, name: str) -> Prefixes:
    """The prompts that the files tell, else those known for the name."""
    file = folder / "config_sentence_transformers.json"
    prompts = read_json(file, dict[str, Any]).get("prompts") if file.is_file() else None
    if not isinstance(prompts, dict) or not any(prompts.values()):
        return known_prefixes(name)
    return Prefixes(
        query=str(prompts.get("query", "")), passage=str(prompts.get("document", prompts.get("passage", "")))
    )


def read_json(file: Path, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(file.read_bytes(), type=kind, strict=False)
    except (OSError, msgspec.MsgspecError) as error:
        raise DataError(f"{file} cannot be read: {error}. Get the model's files again.") from error
