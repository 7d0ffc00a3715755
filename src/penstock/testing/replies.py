"""What the fake model says: always the same for the same prompt, with citations of the passages that it was given."""

import base64
import random
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

from penstock.types import JSON

_PASSAGE = re.compile(r'<passage n="(\d+)"[^>]*>\n(.*?)\n</passage>', re.DOTALL)
_SENTENCE = re.compile(r"\S.*?(?:[.!?](?=\s)|[。！？]|\Z)", re.DOTALL)
_TOKEN = re.compile(r"\s*(?:[\u3000-\u9fff\uff00-\uffef]|[^\s\u3000-\u9fff\uff00-\uffef]{1,6})")
_DATA_URL = re.compile(r"data:(image/[\w.+-]+);base64,(.*)", re.DOTALL)
_WORDS = ("pressure", "gate", "river", "turbine", "flow", "steel", "sluice", "head", "valve", "intake")

NOTHING = "Not found in the documents."


def compose(messages: Sequence[JSON], *, tokens: int, seed: int) -> list[str]:
    """The reply to a chat, as tokens: each image named, each of the first two passages quoted and cited. (The image is
    cited too where the system's message speaks of such a mark.)

    `tokens` > 0 gives exactly that many: cut, or drawn out with words that follow from `seed`.
    """
    text, images = _last_user(messages)
    quoted = [
        f"{match[0].strip()} [{number}]"
        for number, passage in list(_PASSAGE.findall(text))[:2]
        if (match := _SENTENCE.search(passage))
    ]
    cited = any("[image]" in _text(message)[0] for message in messages if message.get("role") == "system")
    looked = [f"{_look(image)} [image]" if cited else _look(image) for image in images]
    said = _TOKEN.findall(" ".join([*looked, *quoted]) or NOTHING)
    if not tokens:
        return said
    return [*said[:tokens], *_padding(tokens - len(said), seed)]


def count_tokens(messages: Sequence[JSON]) -> int:
    return sum(_count(_text(message)[0]) for message in messages)


@lru_cache(maxsize=256)
def _count(text: str) -> int:
    return len(_TOKEN.findall(text))


def _padding(n: int, seed: int) -> Iterator[str]:
    words = random.Random(seed)  # noqa: S311
    return (" " + words.choice(_WORDS) for _ in range(n))


def _last_user(messages: Sequence[JSON]) -> tuple[str, list[str]]:
    users = [message for message in messages if message.get("role") == "user"]
    return _text(users[-1]) if users else ("", [])


def _text(message: JSON) -> tuple[str, list[str]]:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content, []
    texts = [part["text"] for part in content if part.get("type") == "text"]
    images = [part["image_url"]["url"] for part in content if part.get("type") == "image_url"]
    return "\n".join(texts), images


def _look(url: str) -> str:
    match = _DATA_URL.match(url)
    if not match:
        return f"An image at {url}."
    return f"An image of type {match[1]} with {len(base64.b64decode(match[2]))} bytes."
