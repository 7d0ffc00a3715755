"""From passages to an answer with citations: quoted where no language model is configured, written where one is."""

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from penstock.models.generator import Generator
from penstock.pipeline.extractive import Extractor, Quote
from penstock.stores.analyzer import Analyzer
from penstock.types import Answer, Citation, Hit

Emit: TypeAlias = Callable[[str], Awaitable[None]]
"""Takes the next piece of an answer's text as it comes into being."""

EXTRACTIVE_MODEL = "extractive"
NOT_FOUND = {"en": "Not found in the documents.", "zh": "文档中没有找到相关内容。"}


class AnswerOptions(BaseModel):
    """How answers are made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_quotes: int = Field(3, ge=1, description="sentences that an extractive answer quotes at most")
    min_evidence: float = Field(0.35, ge=0, le=1, description="weaker evidence than this is answered with not found")


class Answerer:
    """Answers questions from passages."""

    def __init__(self, generator: Generator | None = None, options: AnswerOptions | None = None) -> None:
        self._generator = generator
        self._options = options or AnswerOptions()
        self._extractor = Extractor(Analyzer())

    async def answer(self, question: str, hits: Sequence[Hit], *, emit: Emit | None = None) -> Answer:
        """The answer that `hits` (best first) give; its text also goes to `emit`, piece by piece, as it comes.

        Raises `ProviderError` when the configured model fails; what was emitted until then is not an answer.
        """
        started = time.perf_counter()
        extract = self._extractor.extract(question, hits, max_quotes=self._options.max_quotes)
        if extract.evidence < self._options.min_evidence:
            text, quotes = NOT_FOUND[language(question)], []
        else:
            quotes = list(extract.quotes)
            text = " ".join(f"{quote.sentence.text} [{number}]" for number, quote in enumerate(quotes, 1))
        if emit:
            await emit(text)
        elapsed_ms = (time.perf_counter() - started) * 1000
        return Answer(
            text=text,
            found=bool(quotes),
            citations=[cite(number, quote) for number, quote in enumerate(quotes, 1)],
            model=EXTRACTIVE_MODEL,
            timings_ms={"generate": elapsed_ms},
        )


def cite(number: int, quote: Quote) -> Citation:
    """The citation of a quote: its place in the document's parsed text."""
    chunk = quote.hit.chunk
    return Citation(
        number=number,
        document_id=chunk.document_id,
        document_name=quote.hit.document_name,
        chunk_id=chunk.id,
        quote=quote.sentence.text,
        start=chunk.start + quote.sentence.start,
        end=chunk.start + quote.sentence.end,
        page=chunk.page,
        headings=chunk.headings,
        score=round(quote.score, 4),
    )


def language(question: str) -> str:
    """`zh` for a question with Chinese characters in it, else `en`."""
    return "zh" if any("\u3400" <= character <= "\u9fff" for character in question) else "en"
