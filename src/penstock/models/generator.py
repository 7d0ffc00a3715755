"""The contract of language models that write text, token by token."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Literal, Self

from penstock.types import Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """An image that goes to the model as it is: encoded bytes and their media type."""

    data: bytes
    media_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of the talk. `pictures` only where the generator `sees`."""

    role: Literal["user", "assistant"]
    text: str
    pictures: Sequence[Picture] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """What a model is asked. `max_tokens` and `temperature` None: as the generator is configured."""

    system: str
    messages: Sequence[Message]
    max_tokens: int | None = None
    temperature: float | None = None


class Finish(StrEnum):
    """Why a complete reply ended: the model had said all, or its token limit cut it off."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """A piece of a reply. The last one has `finish`, and `usage` where the provider counts it."""

    text: str = ""
    finish: Finish | None = None
    usage: Usage | None = None
    model: str = ""


class Generator(ABC):
    """Writes text. An async context manager: nothing is connected before it is entered."""

    @property
    @abstractmethod
    def model(self) -> str:
        """The name of the first model that is asked."""

    @property
    @abstractmethod
    def sees(self) -> bool:
        """Whether messages may carry pictures."""

    @abstractmethod
    def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        """The reply as it is written. Read it inside `contextlib.aclosing`.

        Ends normally only when the reply is complete: the last delta has `finish`. Raises `ProviderError` otherwise,
        at any point: what came before it is not an answer. A caller that is cancelled, or closes the generator, closes
        the call to the provider within a second. Nothing is asked again once a first piece of text was handed out.
        """

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @abstractmethod
    async def close(self) -> None:
        """Gives back all connections; calls that still run fail."""
