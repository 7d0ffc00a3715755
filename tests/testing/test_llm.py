"""The fake provider over real HTTP: what it says, how it breaks, and that it notices who has gone."""

import asyncio
import base64
import json
import math
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
import pytest

from penstock.testing.behaviour import Behaviour, Fault
from penstock.testing.provider import FakeProvider

PROMPT = (
    '<passage n="1" source="manual.pdf">\nThe gate opens. It closes.\n</passage>\n'
    '<passage n="2">\n水门在这里。后来。\n</passage>\nWhat opens?'
)
CHAT = {"model": "m", "messages": [{"role": "user", "content": PROMPT}]}


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    async with FakeProvider() as provider:
        yield provider


@pytest.fixture
async def http(provider: FakeProvider) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=provider.url, timeout=10) as client:
        yield client


async def chat(http: httpx.AsyncClient, **changes: Any) -> httpx.Response:
    return await http.post("/chat/completions", json=CHAT | changes)


def text_of(body: str) -> str:
    events = [line.removeprefix("data: ") for line in body.splitlines() if line.startswith("data: {")]
    return "".join(c["delta"].get("content", "") for event in events for c in json.loads(event)["choices"])


async def test_quotes_and_cites_the_passages_whole_and_streamed(http: httpx.AsyncClient) -> None:
    whole = (await chat(http)).json()
    streamed = await chat(http, stream=True, stream_options={"include_usage": True})

    assert whole["choices"][0]["message"]["content"] == "The gate opens. [1] 水门在这里。 [2]"
    assert text_of(streamed.text) == whole["choices"][0]["message"]["content"]
    assert whole["choices"][0]["finish_reason"] == "stop"
    assert '"finish_reason": "stop"' in streamed.text
    assert json.dumps(whole["usage"]) in streamed.text
    assert streamed.text.endswith("data: [DONE]\n\n")


async def test_length_is_exact_and_follows_from_the_seed(provider: FakeProvider, http: httpx.AsyncClient) -> None:
    async def say(seed: int) -> str:
        provider.script.stand(Behaviour(tokens=40, seed=seed))
        body = (await chat(http)).json()
        assert body["usage"]["completion_tokens"] == 40
        return str(body["choices"][0]["message"]["content"])

    assert await say(1) == await say(1)
    assert await say(1) != await say(2)


async def test_looks_at_images(http: httpx.AsyncClient) -> None:
    url = "data:image/png;base64," + base64.b64encode(b"12345").decode()
    content = [{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": url}}]
    body = (await chat(http, messages=[{"role": "user", "content": content}])).json()
    assert body["choices"][0]["message"]["content"] == "An image of type image/png with 5 bytes."


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault.RESET, httpx.ReadError),
        (Fault.RESET_MID, httpx.ReadError),
        (Fault.CUT, httpx.RemoteProtocolError),
        (Fault.HANG, httpx.ReadTimeout),
        (Fault.STALL, httpx.ReadTimeout),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_connection_faults(
    provider: FakeProvider, http: httpx.AsyncClient, fault: Fault, error: type[Exception], stream: bool
) -> None:
    provider.script.stand(Behaviour(fault=fault))
    patience_s = 1 if error is httpx.ReadTimeout else 100
    with pytest.raises(error):
        await http.post("/chat/completions", json=CHAT | {"stream": stream}, timeout=patience_s)
    await provider.idle()
    provider.script.stand(Behaviour())
    assert (await chat(http)).status_code == 200


@pytest.mark.parametrize(
    ("fault", "mark"),
    [
        (Fault.BROKEN_JSON, b'"bro\n'),
        (Fault.BAD_UTF8, b"\xe6\xb0"),
        (Fault.ERROR_EVENT, b'data: {"error"'),
        (Fault.ERROR_200, b'{"error"'),
        (Fault.HTML, b"<html>"),
        (Fault.EMPTY_CHOICES, b'"choices": []'),
        (Fault.FINISH_LENGTH, b'"finish_reason": "length"'),
        (Fault.FINISH_FILTER, b'"finish_reason": "content_filter"'),
        (Fault.SPLIT_UTF8, "水门".encode()),
        (Fault.HUGE_LINE, b"x" * 100_000),
    ],
)
async def test_content_faults(provider: FakeProvider, http: httpx.AsyncClient, fault: Fault, mark: bytes) -> None:
    provider.script.queue(Behaviour(fault=fault, huge_bytes=200_000))
    response = await chat(http, stream=True)
    assert response.status_code == 200
    assert mark in response.content


@pytest.mark.parametrize("fault", [Fault.TRUNCATED, Fault.NO_DONE])
async def test_streams_without_an_end(provider: FakeProvider, http: httpx.AsyncClient, fault: Fault) -> None:
    provider.script.queue(Behaviour(fault=fault))
    body = (await chat(http, stream=True)).text
    assert "[DONE]" not in body
    assert ('"stop"' in body) is (fault is Fault.NO_DONE)


async def test_drip_sends_bytes_and_no_event(provider: FakeProvider, http: httpx.AsyncClient) -> None:
    provider.script.queue(Behaviour(fault=Fault.DRIP, fault_after=0, drip_s=0.01))
    async with http.stream("POST", "/chat/completions", json=CHAT | {"stream": True}) as response:
        raw = response.aiter_raw()
        received = b"".join([await anext(raw) for _ in range(6)])
    assert received.endswith(b"\n\n:::::")
    await provider.idle()
    assert provider.stats.closed_by_client == 1


async def test_refusals(provider: FakeProvider, http: httpx.AsyncClient) -> None:
    provider.script.queue(
        Behaviour(fault=Fault.STATUS, status=429, retry_after_s=2), Behaviour(fault=Fault.STATUS, status=503)
    )
    provider.script.queue(Behaviour(api_key="right"))
    first, second, third = [await chat(http) for _ in range(3)]
    assert (first.status_code, first.headers["retry-after"]) == (429, "2")
    assert (second.status_code, "retry-after" in second.headers) == (503, False)
    assert third.status_code == 401
    assert provider.stats.refused == 3


async def test_requests_that_are_none(provider: FakeProvider, http: httpx.AsyncClient) -> None:
    assert (await http.post("/chat/completions", content=b"{")).status_code == 400
    host, port = provider.url.split("/")[2].split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\nexpect: 100-continue\r\n\r\n"
    writer.write(head)
    assert b"100 Continue" in await reader.readuntil(b"\r\n\r\n")  # it waits for the body now
    writer.close()
    await writer.wait_closed()
    await provider.idle()
    assert provider.stats.closed_by_client == 1


async def test_refuses_more_than_it_can_carry(provider: FakeProvider, http: httpx.AsyncClient) -> None:
    provider.script.stand(Behaviour(max_concurrency=2, first_token_s=1))
    statuses = [response.status_code for response in await asyncio.gather(*[chat(http) for _ in range(5)])]
    assert statuses.count(200) >= 2
    assert statuses.count(429) >= 1


async def test_fault_rate_is_drawn_from_the_seed(provider: FakeProvider, http: httpx.AsyncClient) -> None:
    async def statuses() -> list[int]:
        provider.script.stand(Behaviour(fault=Fault.STATUS, status=500, fault_rate=0.5, seed=3))
        return [(await chat(http)).status_code for _ in range(20)]

    first = await statuses()
    assert first == await statuses()
    assert {200, 500} == set(first)


async def test_control_by_http(provider: FakeProvider, http: httpx.AsyncClient) -> None:
    root = provider.url.removesuffix("/v1")
    assert (await http.post(f"{root}/control", json={"standing": {"speed": 1}})).status_code == 400
    await http.post(f"{root}/control", json={"standing": {"tokens": 2}, "queue": [{"fault": "status"}]})
    assert (await chat(http)).status_code == 429
    assert (await chat(http)).json()["usage"]["completion_tokens"] == 2
    header = {"x-fake-behaviour": '{"tokens": 5}'}
    assert (await http.post("/chat/completions", json=CHAT, headers=header)).json()["usage"]["completion_tokens"] == 5
    assert (await http.get(f"{root}/stats")).json()["paths"] == {"/v1/chat/completions": 3}
    await http.post(f"{root}/reset")
    assert (await http.get(f"{root}/stats")).json()["requests"] == 0


async def test_embeddings_and_their_faults(provider: FakeProvider, http: httpx.AsyncClient) -> None:
    async def embed(fault: Fault = Fault.NONE, **more: Any) -> list[Any]:
        provider.script.queue(Behaviour(fault=fault, dimensions=16))
        request = {"model": "e", "input": ["the gate", "水门", "the gate"]} | more
        return list(json.loads((await http.post("/embeddings", json=request)).text)["data"])

    good = await embed()
    assert [row["index"] for row in good] == [0, 1, 2]
    assert good[0]["embedding"] == good[2]["embedding"] != good[1]["embedding"]
    raw = base64.b64decode((await embed(encoding_format="base64"))[0]["embedding"])
    assert np.frombuffer(raw, np.float32).tolist() == good[0]["embedding"]
    assert len(await embed(Fault.WRONG_COUNT)) == 2
    assert len((await embed(Fault.WRONG_DIMENSION))[2]["embedding"]) == 15
    assert math.isnan((await embed(Fault.NAN))[2]["embedding"][0])
    assert math.isinf((await embed(Fault.INFINITE))[2]["embedding"][0])
    assert [row["index"] for row in await embed(Fault.REORDERED)] == [2, 1, 0]
    assert [row["index"] for row in await embed(Fault.WRONG_INDEX)] == [0, 0, 0]


async def test_rerank(http: httpx.AsyncClient) -> None:
    request = {"model": "r", "query": "open gate", "documents": ["a river", {"text": "the open gate"}], "top_n": 1}
    results = (await http.post("/rerank", json=request)).json()["results"]
    assert [result["index"] for result in results] == [1]


async def test_carries_many_streams_at_once(provider: FakeProvider) -> None:
    provider.script.stand(Behaviour(first_token_s=3, token_s=0.05, tokens=10))
    async with httpx.AsyncClient(base_url=provider.url, timeout=100) as http:
        replies = await asyncio.gather(*[chat(http, stream=True) for _ in range(50)])
    assert all(reply.text.endswith("data: [DONE]\n\n") for reply in replies)
    assert provider.stats.max_open == 50


def test_runs_as_a_process() -> None:
    command = [sys.executable, "-m", "penstock.testing.llm", "--port", "0", "--tokens", "3", "--fault-rate", "0.5"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        body = httpx.post(f"{url}/chat/completions", json=CHAT, timeout=100).json()
        process.send_signal(signal.SIGTERM)
    assert body["usage"]["completion_tokens"] == 3
    assert process.returncode == 0
