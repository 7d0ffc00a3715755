"""An e-mail message: who, when, about what, its body, and the names of what is attached."""

from email import message_from_bytes, policy
from email.message import EmailMessage

from penstock.pipeline.parsing.text import clean, decode

_SHOWN = ("Subject", "From", "To", "Cc", "Date")
_ATTACHED_TYPES = {"image", "audio", "video"}
_POLICY = policy.default.clone(refold_source="none")


def read_mail(data: bytes) -> tuple[list[tuple[str, str]], bytes, bool]:
    """The header lines worth reading, the body's bytes in UTF-8, and whether the body is HTML.

    Plain text is preferred where a message has both. Attachments are named, not read.
    """
    message = message_from_bytes(data, policy=_POLICY)
    assert isinstance(message, EmailMessage)
    headers = [(name, _header(message, name)) for name in _SHOWN]
    headers.append(("Attachments", ", ".join(_attachment_names(message))))
    part = message.get_body(("plain", "html"))
    if part is None:
        return [(name, value) for name, value in headers if value], b"", False
    payload = part.get_payload(decode=True)
    body = decode(payload if isinstance(payload, bytes) else b"", part.get_content_charset())
    shown = [(name, value) for name, value in headers if value]
    return shown, body.encode("utf-8", "replace"), part.get_content_subtype() == "html"


def _header(message: EmailMessage, name: str) -> str:
    try:
        value = str(message.get(name) or "")
    except (ValueError, IndexError, AttributeError, LookupError):  # the standard library trips over some broken headers
        value = next((str(raw) for key, raw in message.raw_items() if key.lower() == name.lower()), "")
    return " ".join(clean(value).split())


def _attachment_names(message: EmailMessage) -> list[str]:
    return [
        " ".join(clean(part.get_filename() or "unnamed").split())
        for part in message.walk()
        if part.get_content_disposition() == "attachment" or part.get_content_maintype() in _ATTACHED_TYPES
    ]
