"""JSON that two parsers could read in two ways is refused."""

import json

import pytest

from penstock.api.json_io import BIG_BODY_BYTES, MAX_COMMAS, MAX_CONTAINERS, strict_json
from penstock.errors import InvalidInput, TooLarge

HOSTILE = {
    "deep": b"[" * 10_000 + b"]" * 10_000,
    "deep-objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "nan": b'{"a": NaN}',
    "infinity": b'{"a": -Infinity}',
    "huge-number": b'{"a": 1e999}',
    "huge-integer": b'{"a": 18446744073709551616}',
    "endless-integer": b"[" + b"9" * 100_000 + b"]",
    "duplicate-key": b'{"a": 1, "a": 2}',
    "duplicate-key-escaped": b'{"a": 1, "\\u0061": 2}',
    "lone-surrogate": b'{"a": "\\ud800"}',
    "lone-surrogate-in-key": b'{"\\uDC00": 1}',
    "bad-utf8": b'{"a": "\xff"}',
    "utf16": '{"a": 1}'.encode("utf-16"),
    "truncated": b'{"a": "b',
    "empty": b"",
    "two-values": b"{} {}",
}


@pytest.mark.case(31)
@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_json_is_malformed(body: bytes) -> None:
    with pytest.raises(InvalidInput) as caught:
        strict_json(body)
    assert caught.value.code == "malformed"


@pytest.mark.case(31)
def test_a_maze_of_values_is_too_large() -> None:
    with pytest.raises(TooLarge):
        strict_json(b"[" + b"{}," * max(MAX_CONTAINERS, BIG_BODY_BYTES // 3) + b"{}]")
    with pytest.raises(TooLarge):
        strict_json(b"[" + b"0," * max(MAX_COMMAS + 1, BIG_BODY_BYTES // 2) + b"0]")


def test_ordinary_json_is_what_the_standard_library_says() -> None:
    value = {"text": '城市 \U0001f600 "quoted"', "numbers": [0, -1, 2**63 - 1, 1.5, -2e-9], "none": None, "yes": True}
    assert strict_json(json.dumps(value).encode()) == value
    assert strict_json(json.dumps(value, ensure_ascii=False).encode()) == value
