"""A vision model behind a provider that fails: the same care as for text (cases 21 to 26), over real HTTP."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from prometheus_client import REGISTRY

from penstock.errors import ConfigError, ProviderError
from penstock.models.generator import Picture
from penstock.models.openai_generator import OpenAIGenerator
from penstock.models.vision import Reading, VisionOptions, read_picture
from penstock.testing.behaviour import Behaviour, Fault
from penstock.testing.provider import FakeProvider

KEY = "sk-vision-secret"
PICTURE = Picture(data=b"\x89PNG\r\n\x1a\n", media_type="image/png")
SEEN = "An image of type image/png with 8 bytes."

Make = Callable[..., OpenAIGenerator]


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    async with FakeProvider() as provider:
        yield provider


@pytest.fixture
async def make(provider: FakeProvider) -> AsyncIterator[Make]:
    made: list[OpenAIGenerator] = []

    def make(**changes: Any) -> OpenAIGenerator:
        options = {"base_url": provider.url, "model": "fake-vl", "api_key": KEY, "backoff_s": 0.01} | changes
        made.append(OpenAIGenerator(VisionOptions(**options)))
        return made[-1]

    yield make
    for model in made:
        await model.close()


async def look(model: OpenAIGenerator) -> Reading:
    return await read_picture(model, PICTURE, system="Describe.", task="What is it?", max_tokens=100)


async def fail(model: OpenAIGenerator) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await look(model)
    assert KEY not in caught.value.message
    return caught.value


async def test_reads(make: Make) -> None:
    reading = await look(make())
    assert (reading.text, reading.model, reading.whole) == (SEEN, "fake-vl", True)
    assert reading.usage


@pytest.mark.case(21)
async def test_a_busy_provider_is_asked_again_when_it_says(provider: FakeProvider, make: Make) -> None:
    provider.script.queue(Behaviour(fault=Fault.STATUS, status=429, retry_after_s=0.05))
    assert (await look(make())).text == SEEN
    provider.script.stand(Behaviour(fault=Fault.STATUS, status=429))
    assert (await fail(make(max_retries=2))).code == "provider_rate_limited"
    assert provider.stats.requests == 2 + 3


@pytest.mark.case(22)
@pytest.mark.parametrize("fault", [Fault.STATUS, Fault.RESET, Fault.ERROR_200, Fault.HTML])
async def test_another_provider_is_asked_where_one_fails(provider: FakeProvider, make: Make, fault: Fault) -> None:
    provider.script.stand(Behaviour(fault=fault, status=503))
    async with FakeProvider() as second:
        fallback = {"base_url": second.url, "model": "other-vl"}
        assert (await look(make(max_retries=0, fallbacks=(fallback,)))).model == "other-vl"


@pytest.mark.case(22)
async def test_a_refused_key_names_the_setting_of_this_model(provider: FakeProvider, make: Make) -> None:
    provider.script.stand(Behaviour(api_key="another"))
    assert "PENSTOCK_VISION__API_KEY" in (await fail(make())).message


@pytest.mark.case(23)
@pytest.mark.parametrize("fault", [Fault.HANG, Fault.DRIP, Fault.STALL])
async def test_a_provider_that_falls_silent_is_given_up(provider: FakeProvider, make: Make, fault: Fault) -> None:
    provider.script.stand(Behaviour(fault=fault, drip_s=0.01))
    assert (await fail(make(first_token_s=0.2, idle_s=0.2))).code == "provider_timeout"
    await provider.idle()
    assert provider.stats.open == 0


@pytest.mark.case(24)
@pytest.mark.parametrize("fault", [Fault.TRUNCATED, Fault.CUT, Fault.RESET_MID, Fault.BROKEN_JSON, Fault.FINISH_FILTER])
async def test_a_broken_reading_is_none(provider: FakeProvider, make: Make, fault: Fault) -> None:
    provider.script.stand(Behaviour(fault=fault))
    await fail(make(max_retries=0))


@pytest.mark.case(24)
async def test_a_reading_that_is_cut_off_says_so(provider: FakeProvider, make: Make) -> None:
    provider.script.stand(Behaviour(fault=Fault.FINISH_LENGTH))
    assert not (await look(make())).whole


@pytest.mark.case(26)
async def test_the_call_is_closed_when_nobody_wants_it(provider: FakeProvider, make: Make) -> None:
    provider.script.stand(Behaviour(first_token_s=60))
    tasks = [asyncio.create_task(look(make())) for _ in range(20)]
    while provider.stats.open < 20:  # noqa: ASYNC110 - no event tells
        await asyncio.sleep(0.01)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await asyncio.wait_for(provider.idle(), 20)
    assert provider.stats.closed_by_client == 20


async def test_a_provider_that_fails_again_and_again_is_left_alone(provider: FakeProvider, make: Make) -> None:
    provider.script.stand(Behaviour(fault=Fault.STATUS, status=500))
    model = make(max_retries=0, breaker_failures=3)
    for _ in range(5):
        await fail(model)
    assert provider.stats.requests == 3


async def test_tokens_and_their_cost_are_counted(provider: FakeProvider, make: Make) -> None:
    labels = {"provider": provider.url.split("/")[2], "model": "fake-vl"}
    reading = await look(make(prompt_price=1e6, completion_price=2e6))
    assert reading.usage
    cost = REGISTRY.get_sample_value("penstock_generator_cost_total", labels)
    assert cost == reading.usage.prompt_tokens + 2 * reading.usage.completion_tokens


def test_a_model_that_is_not_named_is_asked_for_by_its_setting() -> None:
    with pytest.raises(ConfigError, match="PENSTOCK_VISION__MODEL"):
        OpenAIGenerator(VisionOptions())
