"""JSON in and out of the api: strict where it comes in (RFC 7493, I-JSON), records as they are where it goes out."""

import json
import math
import re
from typing import Final, NoReturn

import msgspec
from starlette.responses import Response

from penstock.errors import InvalidInput, TooLarge
from penstock.types import JSON

BIG_BODY_BYTES: Final = 1024 * 1024
MAX_CONTAINERS: Final = 200_000
MAX_COMMAS: Final = 500_000
"""Beyond `BIG_BODY_BYTES` a body may hold so many of these bytes: parsing holds up every other request meanwhile, and
16 MB of `{},{},…` would do so for seconds, 16 MB of documents for 50 ms."""

_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_ENCODER: Final = msgspec.json.Encoder()


def to_bytes(value: object) -> bytes:
    """Records, mappings, lists and scalars as compact UTF-8 JSON."""
    return _ENCODER.encode(value)


def reply(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(to_bytes(value), status, headers, media_type="application/json")


def strict_json(body: bytes) -> JSON:
    """What the body says. Refuses what two parsers could read in two ways: NaN, infinities, numbers beyond 64 bits,
    duplicate keys, lone surrogates, bad UTF-8, and nesting that no sane client sends.

    Raises `InvalidInput` with the code `malformed`, or `TooLarge`.
    """
    _refuse_maze(body)
    try:
        value = _DECODER.decode(body.decode())
        if _SURROGATE.search(body):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError as exc:
        raise _malformed(f"it is not UTF-8 (byte {exc.start})") from exc
    except UnicodeEncodeError as exc:
        raise _malformed("a string holds half of a surrogate pair") from exc
    except RecursionError as exc:
        raise _malformed("it is nested too deeply") from exc
    except json.JSONDecodeError as exc:
        raise _malformed(f"{exc.msg} (line {exc.lineno}, column {exc.colno})") from exc
    return value


def _refuse_maze(body: bytes) -> None:
    if len(body) <= BIG_BODY_BYTES:
        return
    if body.count(b"{") + body.count(b"[") > MAX_CONTAINERS or body.count(b",") > MAX_COMMAS:
        raise TooLarge("The JSON body holds too many values for one request. Split it, or send text as files.")


def _malformed(why: str) -> InvalidInput:
    return InvalidInput(f"The body is not valid JSON: {why}.", code="malformed")


def _object(pairs: list[tuple[str, JSON]]) -> dict[str, JSON]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise _malformed("an object has the same key twice")
    return value


def _integer(digits: str) -> int:
    if len(digits) > 20 or not -(2**63) <= (value := int(digits)) < 2**63:
        raise _malformed("an integer is beyond 64 bits")
    return value


def _float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise _malformed("a number is beyond the range of a double")
    return value


def _constant(name: str) -> NoReturn:
    raise _malformed(f"{name} is no JSON")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant
)
