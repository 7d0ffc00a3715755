"""Language models over real HTTP: what comes through, what every fault of a provider becomes, and who hangs up."""

import asyncio
import gc
import logging
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeAlias

import pytest

from penstock.errors import ConfigError, ProviderError
from penstock.models.generator import Delta, Finish, GenerationRequest, Message, Picture
from penstock.models.generator_options import GeneratorOptions
from penstock.models.openai_generator import OpenAIGenerator
from penstock.testing.behaviour import Behaviour, Fault
from penstock.testing.provider import FakeProvider
from penstock.types import Usage

KEY = "sk-very-secret-0123456789"
PROMPT = '<passage n="1">\nThe gate opens. It closes.\n</passage>\n<passage n="2">\n水门在这里。后来。\n</passage>'
REQUEST = GenerationRequest(system="Answer.", messages=[Message(role="user", text=PROMPT)])
SAID = "The gate opens. [1] 水门在这里。 [2]"

Make: TypeAlias = Callable[..., OpenAIGenerator]


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    async with FakeProvider() as provider:
        yield provider


@pytest.fixture
async def make(provider: FakeProvider) -> AsyncIterator[Make]:
    made: list[OpenAIGenerator] = []

    def make(**changes: Any) -> OpenAIGenerator:
        options = {"base_url": provider.url, "model": "fake", "api_key": KEY, "backoff_s": 0.01} | changes
        made.append(OpenAIGenerator(GeneratorOptions(**options), random_source=random.Random(1)))
        return made[-1]

    yield make
    for generator in made:
        await generator.close()


async def collect(generator: OpenAIGenerator, request: GenerationRequest = REQUEST) -> list[Delta]:
    async with aclosing(generator.generate(request)) as deltas:
        return [delta async for delta in deltas]


def text_of(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


async def fail(generator: OpenAIGenerator) -> tuple[ProviderError, str]:
    """The error that a call ends with, and the text that came before it."""
    said: list[str] = []

    async def read() -> None:
        async with aclosing(generator.generate(REQUEST)) as deltas:
            async for delta in deltas:
                said.append(delta.text)  # noqa: PERF401 - what came before the error counts

    with pytest.raises(ProviderError) as caught:
        await read()
    assert KEY not in str(caught.value)
    assert "127.0.0.1" in caught.value.message
    return caught.value, "".join(said)


async def opened(provider: FakeProvider, n: int) -> None:
    """Until the provider has `n` requests in hand."""
    while provider.stats.open < n:  # noqa: ASYNC110 - it counts, and tells nobody
        await asyncio.sleep(0.002)


# --- all well -------------------------------------------------------------------------------------------------------


async def test_streams_a_reply_with_its_usage(provider: FakeProvider, make: Make) -> None:
    provider.script.stand(Behaviour(token_s=0.02))
    deltas = await collect(make())

    assert text_of(deltas) == SAID
    assert len(deltas) > 2
    assert deltas[-1].finish is Finish.STOP
    assert isinstance(deltas[-1].usage, Usage)
    assert deltas[-1].usage.completion_tokens == 11
    sent = provider.seen[-1]
    assert (sent["model"], sent["stream"], sent["max_tokens"]) == ("fake", True, 1024)
    assert sent["messages"][0] == {"role": "system", "content": "Answer."}


async def test_extra_body_adds_and_takes_away(provider: FakeProvider, make: Make) -> None:
    await collect(make(extra_body={"max_tokens": None, "max_completion_tokens": 7, "temperature": 1}))
    sent = provider.seen[-1]
    assert "max_tokens" not in sent
    assert (sent["max_completion_tokens"], sent["temperature"]) == (7, 1)


async def test_pictures_go_to_models_that_see(provider: FakeProvider, make: Make) -> None:
    picture = Picture(data=b"12345", media_type="image/png")
    request = GenerationRequest(system="", messages=[Message(role="user", text=PROMPT, pictures=[picture])])

    assert text_of(await collect(make(sees=True), request)).startswith("An image of type image/png with 5 bytes.")
    with pytest.raises(ProviderError, match="takes pictures"):
        await collect(make(), request)


async def test_connections_are_used_again(provider: FakeProvider, make: Make) -> None:
    generator = make()
    for _ in range(5):
        await collect(generator)
    assert provider.connections.accepted == 1


async def test_a_connection_that_the_provider_closed_meanwhile_is_not_used(provider: FakeProvider, make: Make) -> None:
    generator = make(max_retries=0)
    await collect(generator)
    await provider.idle()
    for connection in list(provider.connections.open.values()):
        connection.close()
    await asyncio.sleep(0.01)
    assert text_of(await collect(generator)) == SAID


def test_presets_and_what_is_missing() -> None:
    qwen = GeneratorOptions(preset="qwen", api_key=KEY)
    assert (qwen.base_url, qwen.model) == ("https://dashscope.aliyuncs.com/compatible-mode/v1", "qwen-plus")
    assert GeneratorOptions(preset="vllm", model="mine", base_url="").model == "mine"
    assert not GeneratorOptions().configured
    assert KEY not in repr(qwen)
    with pytest.raises(ValueError, match="belong together"):
        GeneratorOptions(base_url="http://x/v1")
    with pytest.raises(ValueError, match="no key has"):
        GeneratorOptions(preset="qwen", api_key="a\nb")
    with pytest.raises(ConfigError):
        OpenAIGenerator(GeneratorOptions())


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.case(21)
async def test_retry_after_is_honoured(provider: FakeProvider, make: Make) -> None:
    provider.script.queue(Behaviour(fault=Fault.STATUS, status=429, retry_after_s=0.2))
    started = time.monotonic()
    assert text_of(await collect(make())) == SAID
    assert time.monotonic() - started >= 0.2
    assert provider.stats.requests == 2


@pytest.mark.case(21)
async def test_retries_are_bounded(provider: FakeProvider, make: Make) -> None:
    provider.script.stand(Behaviour(fault=Fault.STATUS, status=429))
    error, said = await fail(make(max_retries=2))
    assert (error.code, error.retryable, said) == ("provider_rate_limited", True, "")
    assert provider.stats.requests == 3


@pytest.mark.case(21)
async def test_too_long_a_retry_after_is_not_waited_for(provider: FakeProvider, make: Make) -> None:
    provider.script.stand(Behaviour(fault=Fault.STATUS, status=429, retry_after_s=3600))
    error, _ = await fail(make())
    assert error.retryable
    assert provider.stats.requests == 1


@pytest.mark.case(21)
async def test_concurrency_falls_under_429_and_everybody_is_served(provider: FakeProvider, make: Make) -> None:
    provider.script.stand(Behaviour(max_concurrency=4, first_token_s=0.02))
    generator = make(max_concurrency=32, max_retries=8)

    replies = await asyncio.gather(*[collect(generator) for _ in range(64)])

    assert {text_of(reply) for reply in replies} == {SAID}
    assert provider.stats.refused < 64


@pytest.mark.case(22)
@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_server_errors_are_retried(provider: FakeProvider, make: Make, status: int) -> None:
    provider.script.queue(Behaviour(fault=Fault.STATUS, status=status), Behaviour(fault=Fault.RESET))
    assert text_of(await collect(make(max_retries=2))) == SAID
    assert provider.stats.requests == 3


@pytest.mark.case(22)
@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
async def test_our_own_mistakes_are_not_retried(provider: FakeProvider, make: Make, status: int) -> None:
    provider.script.stand(Behaviour(fault=Fault.STATUS, status=status))
    error, _ = await fail(make())
    assert (error.code, error.retryable) == ("provider_refused", False)
    assert str(status) in error.message
    assert provider.stats.requests == 1


@pytest.mark.case(22)
async def test_the_key_is_in_no_message_and_no_log(
    provider: FakeProvider, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    provider.script.stand(Behaviour(api_key="another"))  # its reply quotes the key that it was sent
    error, _ = await fail(make())
    assert "PENSTOCK_GENERATOR__API_KEY" in error.message
    assert KEY not in caplog.text


@pytest.mark.case(22)
async def test_unreachable(make: Make) -> None:
    error, _ = await fail(make(base_url="http://127.0.0.1:9/v1", max_retries=0))
    assert (error.code, error.retryable) == ("provider_unreachable", True)
    with pytest.raises(ProviderError, match="cannot be reached"):
        await collect(make(base_url="http://no-such-host.invalid/v1", max_retries=0))


@pytest.mark.case(22)
async def test_tls_errors(provider: FakeProvider, make: Make) -> None:
    error, _ = await fail(make(base_url=provider.url.replace("http:", "https:"), max_retries=0))
    assert error.code == "provider_unreachable"
    assert "TLS" in error.message


@pytest.mark.case(22)
async def test_fails_over_in_order(provider: FakeProvider, make: Make) -> None:
    async with FakeProvider(Behaviour(fault=Fault.STATUS, status=503)) as broken:
        fallback = {"base_url": provider.url, "model": "second"}
        generator = make(base_url=broken.url, max_retries=1, fallbacks=[fallback])
        deltas = await collect(generator)
        assert text_of(deltas) == SAID
        assert deltas[-1].model == "second"
        assert (broken.stats.requests, provider.stats.requests) == (2, 1)

        provider.script.stand(Behaviour(fault=Fault.STATUS, status=500))
        error, _ = await fail(generator)
        assert broken.url.split("/")[2] in error.message
        assert provider.url.split("/")[2] in error.message


@pytest.mark.case(22)
async def test_a_failing_provider_is_left_alone_for_a_while(
    provider: FakeProvider, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.script.stand(Behaviour(fault=Fault.STATUS, status=500))
    generator = make(max_retries=0, breaker_failures=3, breaker_cooldown_s=60)
    for _ in range(3):
        await fail(generator)
    error, _ = await fail(generator)
    assert (error.code, error.retryable) == ("provider_unavailable", True)
    assert provider.stats.requests == 3

    provider.script.stand(Behaviour())
    monkeypatch.setattr(generator._endpoints[0]._breaker, "_clock", lambda: time.monotonic() + 61)
    assert text_of(await collect(generator)) == SAID
    assert text_of(await collect(generator)) == SAID


# --- silence --------------------------------------------------------------------------------------------------------


@pytest.mark.case(23)
@pytest.mark.parametrize(
    ("behaviour", "limits", "said", "why"),
    [
        (Behaviour(fault=Fault.HANG), {"first_token_s": 0.1}, "", "say a word"),
        (Behaviour(fault=Fault.STALL, fault_after=0), {"first_token_s": 0.1}, "", "say a word"),
        (Behaviour(fault=Fault.DRIP, fault_after=0, drip_s=0.01), {"first_token_s": 0.1}, "", "say a word"),
        (Behaviour(fault=Fault.STALL), {"idle_s": 0.1}, "The", "fell silent"),
        (Behaviour(fault=Fault.DRIP, drip_s=0.01), {"idle_s": 0.1}, "The", "fell silent"),
        (Behaviour(token_s=0.03, tokens=10_000), {"total_s": 0.2}, "", "did not finish"),
        (Behaviour(fault=Fault.HANG), {"total_s": 0.1}, "", "did not finish"),
    ],
)
async def test_time_outs(
    provider: FakeProvider, make: Make, behaviour: Behaviour, limits: dict[str, float], said: str, why: str
) -> None:
    provider.script.stand(behaviour)
    error, text = await fail(make(**limits))

    assert error.code == "provider_timeout"
    assert why in error.message
    assert text.startswith(said)
    async with asyncio.timeout(20):
        await provider.idle()
    # None at all where the caller's time was up before the provider was awake to read the request.
    assert provider.stats.requests == provider.stats.closed_by_client <= 1


@pytest.mark.case(23)
async def test_others_are_served_while_one_hangs(provider: FakeProvider, make: Make) -> None:
    provider.script.queue(*[Behaviour(fault=Fault.HANG)] * 4)
    generator = make(max_concurrency=5)
    hanging = [asyncio.create_task(collect(generator)) for _ in range(4)]
    await opened(provider, 4)
    assert text_of(await collect(generator)) == SAID
    for task in hanging:
        task.cancel()
    await asyncio.gather(*hanging, return_exceptions=True)


# --- broken replies -------------------------------------------------------------------------------------------------


@pytest.mark.case(24)
@pytest.mark.parametrize(
    ("fault", "code", "retryable"),
    [
        (Fault.TRUNCATED, "stream_truncated", True),
        (Fault.CUT, "stream_truncated", True),
        (Fault.RESET_MID, "stream_truncated", True),
        (Fault.BROKEN_JSON, "bad_reply", True),
        (Fault.BAD_UTF8, "bad_reply", True),
        (Fault.HUGE_LINE, "bad_reply", True),
        (Fault.ERROR_EVENT, "provider_error", True),
        (Fault.FINISH_FILTER, "content_filtered", False),
    ],
)
async def test_a_reply_that_breaks_is_an_error_and_is_not_asked_again(
    provider: FakeProvider, make: Make, fault: Fault, code: str, retryable: bool
) -> None:
    provider.script.stand(Behaviour(fault=fault))
    error, said = await fail(make())
    assert (error.code, error.retryable) == (code, retryable)
    assert said.startswith("The gate opens")
    assert provider.stats.requests == 1


@pytest.mark.case(24)
@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        (Behaviour(fault=Fault.ERROR_200), "bad_reply"),
        (Behaviour(fault=Fault.HTML), "bad_reply"),
        (Behaviour(fault=Fault.EMPTY_CHOICES), "stream_truncated"),
        (Behaviour(fault=Fault.EMPTY_TEXT), "bad_reply"),
        (Behaviour(fault=Fault.TRUNCATED, fault_after=0), "stream_truncated"),
    ],
)
async def test_a_reply_that_never_begins_is_asked_again(
    provider: FakeProvider, make: Make, behaviour: Behaviour, code: str
) -> None:
    provider.script.stand(behaviour)
    error, said = await fail(make(max_retries=1))
    assert (error.code, said) == (code, "")
    assert provider.stats.requests == 2

    provider.script.stand(Behaviour())
    assert text_of(await collect(make())) == SAID


@pytest.mark.case(24)
async def test_a_huge_line_is_given_up_early(provider: FakeProvider, make: Make) -> None:
    provider.script.queue(Behaviour(fault=Fault.HUGE_LINE, huge_bytes=50 * 1024 * 1024))
    error, _ = await fail(make(max_line_bytes=64 * 1024))
    assert "65536 bytes" in error.message
    await provider.idle()
    assert provider.stats.closed_by_client == 1


@pytest.mark.case(24)
async def test_a_reply_without_end_is_given_up(provider: FakeProvider, make: Make) -> None:
    provider.script.stand(Behaviour(tokens=5000))
    error, _ = await fail(make(max_reply_bytes=100_000))
    assert "100000 bytes" in error.message


@pytest.mark.case(24)
@pytest.mark.parametrize("fault", [Fault.SPLIT_UTF8, Fault.NO_DONE, Fault.FINISH_LENGTH])
async def test_harmless_oddities(provider: FakeProvider, make: Make, fault: Fault) -> None:
    provider.script.stand(Behaviour(fault=fault))
    deltas = await collect(make())
    assert deltas[-1].finish is (Finish.LENGTH if fault is Fault.FINISH_LENGTH else Finish.STOP)
    assert text_of(deltas) == ("The gate opens. 水门。" if fault is Fault.SPLIT_UTF8 else SAID)


# --- callers that go away -------------------------------------------------------------------------------------------


async def cancelled_before_the_first_word(generator: OpenAIGenerator, provider: FakeProvider) -> None:
    task = asyncio.create_task(collect(generator))
    await opened(provider, 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def cancelled_in_the_middle(generator: OpenAIGenerator, _: FakeProvider) -> None:
    begun = asyncio.Event()

    async def read() -> None:
        async with aclosing(generator.generate(REQUEST)) as deltas:
            async for _ in deltas:
                begun.set()

    task = asyncio.create_task(read())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def closed_in_the_middle(generator: OpenAIGenerator, _: FakeProvider) -> None:
    deltas: AsyncGenerator[Delta, None] = generator.generate(REQUEST)
    await anext(deltas)
    await deltas.aclose()


@pytest.mark.case(26)
@pytest.mark.parametrize("leave", [cancelled_before_the_first_word, cancelled_in_the_middle, closed_in_the_middle])
async def test_who_goes_away_hangs_up_at_once(
    provider: FakeProvider,
    make: Make,
    leave: Callable[[OpenAIGenerator, FakeProvider], Awaitable[None]],
) -> None:
    provider.script.stand(Behaviour(first_token_s=0.05, token_s=0.05, tokens=10_000))
    generator = make(max_concurrency=1)
    await leave(generator, provider)
    async with asyncio.timeout(20):  # the whole reply would take minutes
        await provider.idle()
    assert provider.stats.closed_by_client == 1

    provider.script.stand(Behaviour())
    assert text_of(await collect(generator)) == SAID  # the one slot is free again


@pytest.mark.case(26)
async def test_a_thousand_who_go_away_leave_nothing_behind(provider: FakeProvider, make: Make) -> None:
    provider.script.stand(Behaviour(first_token_s=0.01, token_s=0.01, tokens=1000))
    generator = make(max_concurrency=50)
    chance = random.Random(7)

    async def leave() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(chance.uniform(0, 0.1)):
                await collect(generator)

    before = asyncio.all_tasks()
    for _ in range(10):
        await asyncio.gather(*[leave() for _ in range(100)])
    await provider.idle()

    async with asyncio.timeout(20):
        while provider.connections.open or asyncio.all_tasks() != before:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.01)
    gc.collect()
    assert asyncio.all_tasks() == before
    provider.script.stand(Behaviour())
    assert text_of(await collect(generator)) == SAID


@pytest.mark.case(26)
async def test_a_slow_reader_holds_the_provider_back(provider: FakeProvider, make: Make) -> None:
    provider.script.stand(Behaviour(tokens=200_000))
    generator = make(max_reply_bytes=2**30)
    async with aclosing(generator.generate(REQUEST)) as deltas:
        await anext(deltas)
        await asyncio.sleep(0.2)
        assert provider.stats.open == 1  # it could have sent all: its 30 MB wait where they are
