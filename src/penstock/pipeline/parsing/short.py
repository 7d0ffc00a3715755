"""Short plain texts, read without a parser process: a corpus of passages is mostly those.

Nothing is parsed here that could do harm: the text is UTF-8 of a few kilobytes and one passage as it stands, so all
that ever looks into it is the tokenizer, which reads every passage in this process anyway.
"""

from tokenizers import Tokenizer

from penstock.errors import InvalidInput
from penstock.pipeline import media
from penstock.pipeline.chunking.whole import WHOLE_IF_IT_FITS, read_tokenizer, whole_piece
from penstock.pipeline.parsing.records import Chunked, ChunkingRequest
from penstock.pipeline.parsing.text import clean, decode

MOST_BYTES = 4_096
MOST_TOKENIZERS = 8
_OF_OTHER_ENCODINGS = (b"\x00", b"\x1b")


class ShortTexts:
    """Holds a tokenizer for each model in use."""

    def __init__(self) -> None:
        self._tokenizers: dict[str, Tokenizer] = {}

    def read(self, data: bytes, media_type: str, chunking: ChunkingRequest) -> Chunked | None:
        """What a parser process would answer; None for what is to go to one."""
        if media_type != media.TEXT or chunking.chunker not in WHOLE_IF_IT_FITS or chunking.overlap >= chunking.tokens:
            return None
        if not is_short(data):
            return None
        try:
            tokenizer = self._tokenizer(chunking.tokenizer_file)
        except InvalidInput:  # a process will find the words for it
            return None
        piece = whole_piece(clean(decode(data)), tokenizer, chunking.tokens)
        return Chunked(pieces=(piece,), pages=0, media_type=media_type) if piece and piece.text else None

    def _tokenizer(self, file: str) -> Tokenizer:
        if file not in self._tokenizers:
            if len(self._tokenizers) >= MOST_TOKENIZERS:
                del self._tokenizers[next(iter(self._tokenizers))]
            self._tokenizers[file] = read_tokenizer(file)
        return self._tokenizers[file]


def is_short(data: bytes) -> bool:
    """Whether it is a few kilobytes of nothing but UTF-8."""
    if len(data) > MOST_BYTES or any(sign in data for sign in _OF_OTHER_ENCODINGS):
        return False
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
