"""An e-mail message: who, when, about what, its body, and the names of what is attached."""

from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage, Message
from itertools import islice

from penstock.errors import ParseError
from penstock.pipeline.parsing.text import clean, decode

_SHOWN = ("Subject", "From", "To", "Cc", "Date")
_ATTACHED_TYPES = {"image", "audio", "video"}
_ATTACHED_MESSAGE = "message/rfc822"
MAX_ATTACHED = 100
_POLICY = policy.default.clone(refold_source="none")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """The header lines worth reading, the body's bytes in UTF-8, and whether it is HTML."""

    headers: list[tuple[str, str]]
    body: bytes = b""
    is_html: bool = False


def read_mail(data: bytes) -> list[Mail]:
    """The message, and behind it the messages that are attached to it. Other attachments are named, not read.

    Raises `ParseError` for messages nested in messages without end."""
    try:
        message = message_from_bytes(data, policy=_POLICY)
        assert isinstance(message, EmailMessage)
        attached = (inner for part in message.walk() if (inner := _attached(part)))
        return [_read(message), *map(_read, islice(attached, MAX_ATTACHED))]
    except RecursionError as exc:
        raise ParseError("The message holds others in others, nested too deeply to be read.") from exc


def _read(message: EmailMessage) -> Mail:
    """Plain text is preferred where a message has both."""
    headers = [(name, _header(message, name)) for name in _SHOWN]
    headers.append(("Attachments", ", ".join(_attachment_names(message))))
    shown = [(name, value) for name, value in headers if value]
    part = message.get_body(("plain", "html"))
    if part is None:
        return Mail(headers=shown)
    payload = part.get_payload(decode=True)
    body = decode(payload if isinstance(payload, bytes) else b"", part.get_content_charset())
    return Mail(headers=shown, body=body.encode("utf-8", "replace"), is_html=part.get_content_subtype() == "html")


def _header(message: EmailMessage, name: str) -> str:
    try:
        value = str(message.get(name) or "")
    except (ValueError, IndexError, AttributeError, LookupError):  # the standard library trips over some broken headers
        value = next((str(raw) for key, raw in message.raw_items() if key.lower() == name.lower()), "")
    return " ".join(clean(value).split())


def _attachment_names(message: EmailMessage) -> list[str]:
    return [
        " ".join(clean(part.get_filename() or _subject(part) or "unnamed").split())
        for part in message.walk()
        if part.get_content_disposition() == "attachment" or part.get_content_maintype() in _ATTACHED_TYPES
    ]


def _subject(part: Message) -> str:
    """Of a message that is attached."""
    inner = _attached(part)
    return _header(inner, "Subject") if inner else ""


def _attached(part: Message) -> EmailMessage | None:
    if part.get_content_type() != _ATTACHED_MESSAGE or not part.is_multipart():
        return None
    inner = part.get_payload(0)
    return inner if isinstance(inner, EmailMessage) else None
