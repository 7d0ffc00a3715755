"""The stream of a chat completion: bytes to pieces of text, refusing everything that is not a whole reply. No I/O."""

from collections.abc import Sequence

import msgspec

from penstock.errors import ProviderError
from penstock.models.generator import Delta, Finish
from penstock.types import JSON, Usage

_FINISHES = {
    "stop": Finish.STOP,
    "eos": Finish.STOP,
    "end_turn": Finish.STOP,
    "stop_sequence": Finish.STOP,
    "length": Finish.LENGTH,
    "max_tokens": Finish.LENGTH,
}
_FILTERED = frozenset({"content_filter", "sensitive", "safety"})


class _Words(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Words | None = None
    finish_reason: str | None = None


class _Counts(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Chunk(msgspec.Struct):
    """One event, as far as it matters here."""

    choices: list[_Choice] | None = None
    usage: _Counts | None = None
    error: JSON = None
    model: str | None = None


_decoder = msgspec.json.Decoder(_Chunk)


class ReplyParser:
    """Takes the body of a reply piece by piece, cut anywhere, and gives its deltas.

    Every `feed` and `end` raises `ProviderError` whose message says what the provider sent instead of a reply.
    """

    def __init__(self, *, max_line_bytes: int, max_bytes: int) -> None:
        self._max_line_bytes = max_line_bytes
        self._max_bytes = max_bytes
        self._bytes = 0
        self._rest = b""
        self._said = False
        self.begun = False
        self._finish: Finish | None = None
        self._usage: Usage | None = None
        self._model = ""
        self._error: ProviderError | None = None
        self.done = False

    @property
    def finished(self) -> bool:
        """The finish reason has come: the text is whole."""
        return self._finish is not None

    def feed(self, piece: bytes) -> Sequence[Delta]:
        """The deltas of the lines that `piece` completes; an empty piece is the body's end.

        A piece of thinking gives a delta without text, so that a reader sees that the model is at work. What is wrong
        after a delta is raised by `end`; nothing more need be fed then.
        """
        self._bytes += len(piece)
        *lines, self._rest = (self._rest + (piece or b"\n")).split(b"\n")
        deltas: list[Delta] = []
        try:
            for line in lines:
                if line.startswith(b"data:") and not self.done:
                    self._event(line[5:].strip(), deltas)
            self._check_size()
        except ProviderError as exc:
            if not deltas:
                raise
            self._error = exc
            self.done = True
        self.done = self.done or not piece
        return deltas

    def end(self) -> Delta:
        """The last delta of a whole reply."""
        if self._error is not None:
            raise self._error
        if self._finish is None:
            text = "a stream that ended before the reply did"
            raise ProviderError(text, code="stream_truncated", retryable=True)
        if not self._said:
            raise _bad_reply("a reply without any text")
        return Delta(finish=self._finish, usage=self._usage, model=self._model)

    def _check_size(self) -> None:
        if len(self._rest) > self._max_line_bytes:
            raise _bad_reply(f"a line of more than {self._max_line_bytes} bytes")
        if self._bytes > self._max_bytes:
            raise _bad_reply(f"more than {self._max_bytes} bytes")

    def _event(self, data: bytes, deltas: list[Delta]) -> None:
        if data in {b"[DONE]", b""}:
            self.done = data != b""
            return
        chunk = _decode(data)
        self._model = chunk.model or self._model
        if chunk.usage:
            prompt, completion = chunk.usage.prompt_tokens or 0, chunk.usage.completion_tokens or 0
            self._usage = Usage(prompt_tokens=prompt, completion_tokens=completion)
        if chunk.choices:
            self._choice(chunk.choices[0], deltas)

    def _choice(self, choice: _Choice, deltas: list[Delta]) -> None:
        words = choice.delta
        if words and (words.content or words.reasoning_content):
            self.begun = True
            self._said = self._said or bool(words.content)
            deltas.append(Delta(text=words.content or "", model=self._model))
        if choice.finish_reason:
            self._finish = _finish(choice.finish_reason)


def error_text(error: JSON) -> str:
    """What an error object of the API says, in short."""
    message = error.get("message") if isinstance(error, dict) else error
    return " ".join(str(message).split())[:200]


def _decode(data: bytes) -> _Chunk:
    try:
        chunk = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise _bad_reply("an event that is not a chat completion chunk in JSON") from exc
    if chunk.error is not None:
        raise ProviderError(f'an error in its stream: "{error_text(chunk.error)}"', retryable=True)
    return chunk


def _finish(reason: str) -> Finish:
    if reason in _FILTERED:
        raise ProviderError("a reply that its content filter stopped", code="content_filtered")
    finish = _FINISHES.get(reason.lower())
    if finish is None:
        raise _bad_reply(f"the finish reason {reason[:40]!r}, which no answer should have")
    return finish


def _bad_reply(what: str) -> ProviderError:
    return ProviderError(what, code="bad_reply", retryable=True)
