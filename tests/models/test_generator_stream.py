"""Bytes to deltas: cut anywhere, the same reply; anything else than a reply is refused."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import ProviderError
from penstock.models.generator import Delta, Finish
from penstock.models.openai_stream import ReplyParser
from penstock.types import Usage


def event(delta: Any = None, finish: str | None = None, **more: Any) -> bytes:
    chunk = {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], "model": "m", **more}
    return b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + b"\r\n\r\n"


REPLY = (
    b": keep-alive\n\nevent: message\n"
    + event({"role": "assistant", "content": None})
    + event({"reasoning_content": "hm"})
    + event({"content": "水门 "}).replace(b"data: ", b"data:")
    + event({"content": "opens"})
    + event({}, "stop")
    + b'data: {"choices": null, "usage": {"prompt_tokens": 3, "completion_tokens": null}}\n\n'
    + b"data: [DONE]\n\ndata: not for us"
)


def parse(*pieces: bytes, max_line_bytes: int = 10_000) -> list[Delta]:
    parser = ReplyParser(max_line_bytes=max_line_bytes, max_bytes=100_000)
    deltas = [delta for piece in (*pieces, b"") for delta in parser.feed(piece)]
    return [*deltas, parser.end()]


@given(st.sets(st.integers(0, len(REPLY))))
def test_cuts_do_not_matter(cuts: set[int]) -> None:
    edges = [0, *sorted(cuts), len(REPLY)]
    pieces = [REPLY[a:b] for a, b in itertools.pairwise(edges) if a < b]
    assert parse(*pieces) == [
        Delta(model="m"),
        Delta(text="水门 ", model="m"),
        Delta(text="opens", model="m"),
        Delta(finish=Finish.STOP, usage=Usage(prompt_tokens=3), model="m"),
    ]


@pytest.mark.case(24)
@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "stream_truncated"),
        (event({"content": "a"}), "stream_truncated"),
        (event({"content": "a"}) + b"data: [DONE]\n\n", "stream_truncated"),
        (event({"content": "a"}) + event({}, "stop").rstrip()[:-3], "bad_reply"),
        (event({}, "stop"), "bad_reply"),
        (event({"content": ["a"]}, "stop"), "bad_reply"),
        (event({"content": "a"}, "tool_calls"), "bad_reply"),
        (event({"content": "a"}, "sensitive"), "content_filtered"),
        (b'data: {"error": "out of memory"}\n\n', "provider_error"),
        (b"data: " + b"x" * 200 + b"\n\n", "bad_reply"),
    ],
)
def test_what_is_not_a_whole_reply(body: bytes, code: str) -> None:
    with pytest.raises(ProviderError) as caught:
        parse(body)
    assert caught.value.code == code


def test_length_is_bounded() -> None:
    with pytest.raises(ProviderError, match="a line of more than 50 bytes"):
        parse(*[b"x" * 10] * 6, max_line_bytes=50)
    with pytest.raises(ProviderError, match="more than 100000 bytes"):
        parse(*[event({"content": "a" * 1000})] * 101)
