"""The tokenizer with which texts for a remote model are counted and cut."""

import os
from pathlib import Path

from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split

from penstock.errors import ConfigError
from penstock.models.weights import find_tokenizer

PIECES = r"[\u2E80-\u9FFF\uAC00-\uD7AF\uF900-\uFAFF]|[^\s\u2E80-\u9FFF\uAC00-\uD7AF\uF900-\uFAFF]{1,4}"
"""What counts as a token where the real tokenizer is not known: an ideograph, or four letters of a word. On English and
Chinese text this is rather more than byte-pair tokenizers make of it, so that chunks fit."""


def tokenizer_file(name: str, *, cache_dir: Path, download: bool) -> Path:
    """The `tokenizer.json` that `name` (a file, a folder or a hub repository) means; of the estimate when it is empty.

    Blocking. Raises MissingDependency or ConfigError.
    """
    if name:
        return find_tokenizer(name, download=download)
    file = cache_dir / "estimated-tokens.json"
    made = estimate().to_str()
    if not file.is_file() or file.read_text(encoding="utf-8") != made:
        _write(file, made)
    return file


def estimate() -> Tokenizer:
    tokenizer = Tokenizer(WordLevel({"?": 0}, unk_token="?"))  # noqa: S106
    tokenizer.pre_tokenizer = Split(Regex(PIECES), behavior="removed", invert=True)
    return tokenizer


def _write(file: Path, text: str) -> None:
    fresh = file.with_suffix(f".{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(file)
    except OSError as error:
        raise ConfigError(f"{file.parent} (models.cache_dir) cannot be written: {error}. Name another one.") from error


def cut(tokenizer: Tokenizer, text: str, max_tokens: int) -> str:
    """The text, or as much of its beginning as `max_tokens` tokens hold."""
    if len(text.encode()) <= max_tokens:  # no tokenizer makes more tokens than bytes
        return text
    encoding = tokenizer.encode(text, add_special_tokens=False)
    if len(encoding.ids) <= max_tokens:
        return text
    return text[: encoding.offsets[max_tokens - 1][1]]
