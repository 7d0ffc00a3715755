"""From passages to an answer with citations: quoted where no language model is configured, written where one is."""

import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from types import MappingProxyType
from typing import TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from penstock.errors import ProviderError
from penstock.models.generator import Finish, GenerationRequest, Generator, Message, Picture
from penstock.pipeline.citation_marks import CitationMarks
from penstock.pipeline.extractive import Extractor, Quote
from penstock.pipeline.prompts import (
    NOT_FOUND,
    PICTURES_FIT,
    Language,
    fit,
    language_of,
    load_prompt,
    place,
    question_prompt,
)
from penstock.pipeline.sentences import Sentence
from penstock.stores.analyzer import Analyzer
from penstock.types import Answer, Citation, Hit, Usage

Emit: TypeAlias = Callable[[str], Awaitable[None]]
"""Takes the next piece of an answer's text as it comes into being."""

logger = logging.getLogger(__name__)

EXTRACTIVE_MODEL = "extractive"
CUT_OFF = "The answer was cut off at the model's token limit (PENSTOCK_GENERATOR__MAX_TOKENS)."
UNCITED = "The model cited no passage for this answer."

_MARKS = re.compile(r"((?:\[\d+\])+)")
_CLAIM_CHARS = 300


class AnswerOptions(BaseModel):
    """How answers are made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_quotes: int = Field(3, ge=1, description="sentences that an extractive answer quotes at most")
    min_evidence: float = Field(0.45, ge=0, le=1, description="weaker evidence than this is answered with not found")
    context_tokens: int = Field(6000, ge=1, description="of passages that a language model is given at most")


class Answerer:
    """Answers questions from passages."""

    def __init__(
        self,
        generator: Generator | None = None,
        options: AnswerOptions | None = None,
        *,
        reader: Generator | None = None,
    ) -> None:
        """`reader` answers questions that come with an image."""
        self._generator = generator
        self._reader = reader
        self._options = options or AnswerOptions()
        self._extractor = Extractor(Analyzer())

    async def answer(
        self,
        question: str,
        hits: Sequence[Hit],
        *,
        emit: Emit | None = None,
        picture: Picture | None = None,
        shown: Mapping[str, Picture] | None = None,
    ) -> Answer:
        """The answer that `hits` (best first) give; its text also goes to `emit`, piece by piece, as it comes.

        With a `picture` it is the reader's, and may come from that alone; so it is where hits are `shown` as pictures
        (by chunk id).

        `timings_ms` has `generate`, and `first_token` where a language model wrote. Raises `ProviderError` when that
        fails: what was emitted until then is no answer, and since a retry would say it again, not retryable then.
        """
        started = time.perf_counter()
        if picture and self._reader:
            return await self._write(self._reader, question, hits, emit, picture, shown or {})
        if shown and self._reader:
            try:
                return await self._write(self._reader, question, hits, emit, shown=shown)
            except ProviderError as exc:
                if self._generator in {None, self._reader} or isinstance(exc.__cause__, ProviderError):
                    raise  # there is nobody else to ask, or a part of the answer was told already
                logger.warning("The model that takes pictures failed, the other one answers: %s", exc.message)
        if self._generator and hits:
            return await self._write(self._generator, question, hits, emit)
        written = [hit for hit in hits if hit.chunk.kind != "picture"]
        extract = self._extractor.extract(question, written, max_quotes=self._options.max_quotes)
        quotes = extract.quotes if extract.evidence >= self._options.min_evidence else []
        text = " ".join(f"{quote.sentence.text} [{number}]" for number, quote in enumerate(quotes, 1))
        if not quotes and (quotes := self._fitting_pictures(hits)):
            text = name_pictures(quotes, language_of(question))
        text = text or NOT_FOUND[language_of(question)]
        timings_ms = {"generate": (time.perf_counter() - started) * 1000}
        if emit:
            await emit(text)
        return Answer(
            text=text,
            found=bool(quotes),
            citations=[cite(number, quote) for number, quote in enumerate(quotes, 1)],
            model=EXTRACTIVE_MODEL,
            timings_ms=timings_ms,
        )

    async def _write(
        self,
        generator: Generator,
        question: str,
        hits: Sequence[Hit],
        emit: Emit | None,
        picture: Picture | None = None,
        shown: Mapping[str, Picture] = MappingProxyType({}),
    ) -> Answer:
        language = language_of(question)
        given = fit(hits, self._options.context_tokens)
        attached = [hit.chunk.id for hit in given if hit.chunk.id in shown]
        pictures = [*([picture] if picture else []), *(shown[one] for one in attached)]
        images = {one: number for number, one in enumerate(attached, 2 if picture else 1)}
        prompt = Message(role="user", text=question_prompt(question, given, language, images), pictures=pictures)
        system = load_prompt("answer_image" if picture else "answer", language)
        if attached:
            system = f"{system}\n{load_prompt('attached', language)}"
        request = GenerationRequest(system=system, messages=[prompt])
        draft = _Draft(CitationMarks(len(given), image=bool(picture)), generator.model)
        await draft.write(generator, request, emit)
        text = draft.text.strip()
        found = not any(sentence.rstrip(".。") in text for sentence in NOT_FOUND.values()) or draft.cites
        citations = self._cite(text, given, draft.cited) if found else []
        if draft.image_cited:
            citations.append(cite_image())
        return Answer(
            text=text,
            found=found,
            citations=citations,
            model=draft.model,
            notes=[*draft.notes, *([UNCITED] if found and not citations else [])],
            usage=draft.usage,
            timings_ms=draft.timings_ms,
        )

    def _fitting_pictures(self, hits: Sequence[Hit]) -> list[Quote]:
        """Pictures that show what was asked for, where no passage says it."""
        fitting = [hit for hit in hits if hit.chunk.kind == "picture" and hit.score >= self._options.min_evidence]
        return [
            Quote(hit, Sentence(hit.chunk.text, 0, len(hit.chunk.text)), hit.score)
            for hit in fitting[: self._options.max_quotes]
        ]

    def _cite(self, text: str, given: Sequence[Hit], cited: Sequence[int]) -> list[Citation]:
        """For each passage the sentence of it that is nearest to what the answer cites it for."""
        return [
            cite(number, self._extractor.nearest(claim(text, number), given[number - 1])) for number in sorted(cited)
        ]


class _Draft:
    """An answer while it is written."""

    def __init__(self, marks: CitationMarks, model: str) -> None:
        self._marks = marks
        self._started = time.perf_counter()
        self._pieces: list[str] = []
        self.model = model
        self.usage: Usage | None = None
        self.notes: list[str] = []
        self.timings_ms: dict[str, float] = {}

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    @property
    def cited(self) -> Sequence[int]:
        return list(self._marks.cited)

    @property
    def image_cited(self) -> bool:
        return self._marks.image_cited

    @property
    def cites(self) -> bool:
        return self.image_cited or bool(self.cited)

    async def write(self, generator: Generator, request: GenerationRequest, emit: Emit | None) -> None:
        try:
            async with aclosing(generator.generate(request)) as deltas:
                async for delta in deltas:
                    self.model = delta.model or self.model
                    if delta.text:
                        self.timings_ms.setdefault("first_token", self._elapsed_ms())
                        await self._say(self._marks.feed(delta.text), emit)
                    if delta.finish is Finish.LENGTH:
                        self.notes.append(CUT_OFF)
                    self.usage = delta.usage or self.usage
        except ProviderError as exc:
            if not (emit and self._pieces):
                raise
            raise ProviderError(exc.message, code=exc.code, retryable=False) from exc
        await self._say(self._marks.end(), emit)
        self.timings_ms["generate"] = self._elapsed_ms()

    async def _say(self, text: str, emit: Emit | None) -> None:
        if text:
            self._pieces.append(text)
        if text and emit:
            await emit(text)

    def _elapsed_ms(self) -> float:
        return (time.perf_counter() - self._started) * 1000


def name_pictures(quotes: Sequence[Quote], language: Language) -> str:
    """`These pictures …: plan.png [1]; report.pdf · page 3 [2].`"""
    begin, between, end = PICTURES_FIT[language]
    return begin + between.join(f"{place(one.hit, language)} [{n}]" for n, one in enumerate(quotes, 1)) + end


def cite(number: int, quote: Quote) -> Citation:
    """The citation of a quote: its place in the document's parsed text, where it has one."""
    chunk = quote.hit.chunk
    in_text = chunk.kind == "text"
    return Citation(
        number=number,
        kind="passage" if chunk.kind == "text" else chunk.kind,
        document_id=chunk.document_id,
        document_name=quote.hit.document_name,
        chunk_id=chunk.id,
        quote=quote.sentence.text,
        start=chunk.start + quote.sentence.start if in_text else 0,
        end=chunk.start + quote.sentence.end if in_text else 0,
        page=chunk.page,
        headings=chunk.headings,
        score=round(quote.score, 4),
    )


def cite_image() -> Citation:
    """The citation of the question's image, which the text calls [image]."""
    return Citation(
        number=0, kind="image", document_id="", document_name="image", chunk_id="", quote="", start=0, end=0
    )


def claim(text: str, number: int) -> str:
    """What an answer cites a passage for: the text before each of its marks, back to the marks before."""
    parts = _MARKS.split(text)  # text, marks, text, marks …
    return " ".join(
        before[-_CLAIM_CHARS:] for before, marks in zip(parts[::2], parts[1::2], strict=False) if f"[{number}]" in marks
    )
