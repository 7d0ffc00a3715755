"""Models that read pictures: a `Generator` whose `sees` is true. Here is which one, and how it is asked to read.

The client is that of the language model (`openai_generator.py`), with the same time-outs, retries, fail-over, breaker
and counters.
"""

from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import Field, model_validator

from penstock.models.generator import Finish, GenerationRequest, Generator, Message, Picture
from penstock.models.generator_options import PRESETS, EndpointOptions, GeneratorOptions
from penstock.types import Usage


class VisionOptions(GeneratorOptions):
    """The model that reads images, of questions and in documents. Without it `generator` does, where that takes
    pictures; else images are not read."""

    section: ClassVar[str] = "vision"

    fallbacks: tuple[EndpointOptions, ...] = Field((), description="asked in this order when the first cannot answer")

    @model_validator(mode="before")
    @classmethod
    def _see(cls, given: Any) -> Any:
        """A model that is named here takes pictures, else it would not be named here."""
        if not isinstance(given, Mapping):
            return given
        return {**_seeing(given), "fallbacks": tuple(_seeing(one) for one in given.get("fallbacks") or ())}

    @model_validator(mode="after")
    def _check_sight(self) -> "VisionOptions":
        blind = [endpoint for endpoint in self.endpoints if endpoint.base_url and not endpoint.sees]
        if blind:
            known = ", ".join(name for name, preset in PRESETS.items() if preset.sees)
            raise ValueError(f"the model {blind[0].model} takes no pictures; name one that does, or a preset: {known}")
        return self


def _seeing(given: Any) -> Any:
    named = isinstance(given, Mapping) and given.get("model") and given.get("sees") is None
    return {**given, "sees": True} if named else given


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a model read in a picture. `whole` is false where its token limit cut it off."""

    text: str
    model: str
    whole: bool
    usage: Usage | None = None


async def read_picture(model: Generator, picture: Picture, *, system: str, task: str, max_tokens: int) -> Reading:
    """The model's words about one picture. Raises `ProviderError`."""
    message = Message(role="user", text=task, pictures=(picture,))
    request = GenerationRequest(system=system, messages=[message], max_tokens=max_tokens, temperature=0.0)
    pieces: list[str] = []
    name, whole, usage = model.model, True, None
    async with aclosing(model.generate(request)) as deltas:
        async for delta in deltas:
            pieces.append(delta.text)
            name = delta.model or name
            usage = delta.usage or usage
            whole = delta.finish is not Finish.LENGTH
    return Reading(text="".join(pieces).strip(), model=name, whole=whole, usage=usage)
