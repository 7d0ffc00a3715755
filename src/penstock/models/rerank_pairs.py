"""Query and text as one sequence of tokens, as cross-encoders were trained on: `[CLS] query [SEP] text [SEP]`."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from tokenizers import Tokenizer

from penstock.errors import DataError, InvalidInput
from penstock.models.base import TokenIds


@dataclass(frozen=True, slots=True, kw_only=True)
class PairTemplate:
    """The special tokens around a query and a text."""

    before: TokenIds
    between: TokenIds
    after: TokenIds

    @property
    def separator(self) -> int:
        """The token that ends the query."""
        return int(self.between[0])

    @property
    def tokens(self) -> int:
        return len(self.before) + len(self.between) + len(self.after)


def read_template(tokenizer: Tokenizer) -> PairTemplate:
    """What the tokenizer puts around a pair. Raises DataError for one that knows no pairs."""
    encoding = tokenizer.encode("a", "b")
    runs = groupby(zip(encoding.sequence_ids, encoding.ids, strict=True), key=lambda token: token[0])
    parts = [(owner, np.array([number for _, number in run], np.int32)) for owner, run in runs]
    if [owner for owner, _ in parts] != [None, 0, None, 1, None]:
        raise DataError("The tokenizer of this model does not join two texts with special tokens: it is no reranker's.")
    return PairTemplate(before=parts[0][1], between=parts[2][1], after=parts[4][1])


def tokenize_query(tokenizer: Tokenizer, query: str, *, room: int) -> TokenIds:
    """The query's tokens without special ones, `room` at most."""
    return _bare(tokenizer, [query])[0][:room]


def tokenize_pairs(
    tokenizer: Tokenizer, template: PairTemplate, query: TokenIds, texts: Sequence[str], *, max_tokens: int
) -> list[TokenIds]:
    """One sequence a text, each of `max_tokens` at most: the text is cut. Rust does most of it, without the GIL."""
    head = np.concatenate([template.before, query, template.between])
    room = max_tokens - len(head) - len(template.after)
    return [np.concatenate([head, text[:room], template.after]) for text in _bare(tokenizer, texts)]


def _bare(tokenizer: Tokenizer, texts: Sequence[str]) -> list[TokenIds]:
    try:
        encodings = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    except (TypeError, ValueError) as error:
        raise InvalidInput("A text is not valid Unicode: it holds half of a surrogate pair.") from error
    return [np.array(encoding.ids, np.int32) for encoding in encodings]
