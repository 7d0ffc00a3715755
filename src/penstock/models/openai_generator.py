"""Answers from any OpenAI-compatible API, asking the next provider when one cannot answer."""

import asyncio
import base64
import logging
import random
import ssl
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import msgspec

from penstock.errors import ConfigError, ProviderError
from penstock.models.generator import Delta, GenerationRequest, Generator, Message
from penstock.models.generator_options import EndpointOptions, GeneratorOptions
from penstock.models.openai_endpoint import Endpoint
from penstock.types import JSON

logger = logging.getLogger(__name__)


class OpenAIGenerator(Generator):
    """Streams from the first endpoint that can. Keys appear in no message and no log line."""

    def __init__(
        self,
        options: GeneratorOptions,
        *,
        random_source: random.Random | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        if not options.configured:
            prefix = f"PENSTOCK_{options.section.upper()}__"
            raise ConfigError(f"No model is configured. Set {prefix}BASE_URL and {prefix}MODEL, or {prefix}PRESET.")
        self._options = options
        self._endpoints = [
            Endpoint(endpoint, options, random_source=random_source, tls=tls) for endpoint in options.endpoints
        ]

    @property
    def model(self) -> str:
        return self._options.model

    @property
    def sees(self) -> bool:
        return any(endpoint.options.sees for endpoint in self._endpoints)

    async def close(self) -> None:
        for endpoint in self._endpoints:
            await endpoint.close()

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        deadline = asyncio.get_running_loop().time() + self._options.total_s
        failures: list[ProviderError] = []
        for endpoint in self._fit(request):
            begun = False
            body = encode_request(request, endpoint.options, self._options)
            try:
                async with aclosing(endpoint.stream(body, deadline=deadline)) as deltas:
                    async for delta in deltas:
                        begun = begun or bool(delta.text)
                        yield delta
            except ProviderError as exc:
                if begun or exc.code == "content_filtered":
                    raise
                logger.warning("%s", exc.message, extra={"code": exc.code})
                failures.append(exc)
            else:
                return
        if len(failures) == 1:
            raise failures[0]
        raise _all_failed(failures) from failures[-1]

    def _fit(self, request: GenerationRequest) -> Sequence[Endpoint]:
        if not any(message.pictures for message in request.messages):
            return self._endpoints
        seeing = [endpoint for endpoint in self._endpoints if endpoint.options.sees]
        if not seeing:
            raise ProviderError("None of the configured language models takes pictures.", code="no_vision")
        return seeing


def encode_request(request: GenerationRequest, endpoint: EndpointOptions, options: GeneratorOptions) -> bytes:
    """The JSON body of a chat completion; pictures become data URLs."""
    body: dict[str, Any] = {
        "model": endpoint.model,
        "messages": [{"role": "system", "content": request.system}, *map(_message, request.messages)],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": request.max_tokens or options.max_tokens,
        "temperature": options.temperature if request.temperature is None else request.temperature,
        **endpoint.extra_body,
    }
    return msgspec.json.encode({name: value for name, value in body.items() if value is not None})


def _message(message: Message) -> JSON:
    if not message.pictures:
        return {"role": message.role, "content": message.text}
    urls = [f"data:{p.media_type};base64,{base64.b64encode(p.data).decode()}" for p in message.pictures]
    images = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return {"role": message.role, "content": [*images, {"type": "text", "text": message.text}]}


def _all_failed(failures: Sequence[ProviderError]) -> ProviderError:
    return ProviderError(
        " ".join(failure.message for failure in failures),
        code=failures[-1].code,
        retryable=any(failure.retryable for failure in failures),
    )
