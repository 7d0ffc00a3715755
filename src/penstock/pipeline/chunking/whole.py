"""The shortest way of all: a text that is one passage as it stands. Light to import, for the worker takes it too."""

from tokenizers import Tokenizer

from penstock.errors import InvalidInput
from penstock.pipeline.parsing.records import Piece

CHARS_PER_TOKEN = 20
"""No passage is longer than this many characters for each token it may have. A word of a thousand letters is one
unknown token to the model: by tokens alone, a megabyte of encoded data would be a single passage."""
WHOLE_IF_IT_FITS = frozenset({"recursive", "page"})
"""The chunkers that leave a text without pages whole where it fits."""


def whole_piece(text: str, tokenizer: Tokenizer, tokens: int) -> Piece | None:
    """The text without its blank edges as one passage, under no heading; None if it has more than so many tokens."""
    start, end = stripped(text, (0, len(text)))
    if end - start > tokens * CHARS_PER_TOKEN:
        return None
    text = text[start:end]
    count = count_tokens(tokenizer, text)
    return Piece(text=text, start=start, end=end, tokens=count) if count <= tokens else None


def count_tokens(tokenizer: Tokenizer, text: str) -> int:
    [encoding] = tokenizer.encode_batch_fast([text], add_special_tokens=False)  # no offsets: a fifth less time
    return len(encoding.ids)


def stripped(text: str, span: tuple[int, int]) -> tuple[int, int]:
    """The range without its blank edges."""
    start, end = span
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())


def read_tokenizer(file: str) -> Tokenizer:
    """Counting must see the whole text: what the file says of truncation and padding is for the model's input.

    Raises `InvalidInput`.
    """
    try:
        tokenizer = Tokenizer.from_file(file)
    except Exception as exc:  # the library raises nothing narrower
        raise InvalidInput(f"The tokenizer file {file} cannot be read: {exc}") from exc
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
