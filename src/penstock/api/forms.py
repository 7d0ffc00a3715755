"""Multipart forms read as they come: files into the spool, fields into memory, both within limits.

Written for uploads of thousands of files: one temporary file and one megabyte of memory a request, however many parts.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from penstock.api.problems import BadBody
from penstock.api.spool import Spool

MAX_FIELDS: Final = 16
MAX_FIELD_BYTES: Final = 4 * 1024 * 1024
MAX_HEADER_BYTES: Final = 8 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePart:
    """A file of the form, somewhere in the spool. `declared` is the media type that the client says it has."""

    field_name: str
    name: str
    declared: str | None
    start: int
    size_bytes: int


@dataclass(slots=True)
class Form:
    """What a form held, in order. A field that came twice is refused."""

    files: list[FilePart] = field(default_factory=list)
    fields: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Part:
    headers: dict[bytes, bytes] = field(default_factory=dict)
    header_name: bytearray = field(default_factory=bytearray)
    header_value: bytearray = field(default_factory=bytearray)
    field_name: str = ""
    file_name: str | None = None
    data: bytearray = field(default_factory=bytearray)
    start: int = 0
    size_bytes: int = 0


class FormReader:
    """`await FormReader(…).read(stream)`. Raises `BadBody`: 400 for what is no form, 413 beyond a limit."""

    def __init__(self, content_type: str, spool: Spool, *, max_files: int, max_file_bytes: int) -> None:
        _, options = parse_options_header(content_type)
        self._spool = spool
        self._max_files = max_files
        self._max_file_bytes = max_file_bytes
        self._form = Form()
        self._part = _Part()
        self._pending = bytearray()
        self._spooled = 0
        self._ended = False
        try:
            self._parser = MultipartParser(
                options[b"boundary"],
                {
                    "on_part_begin": self._on_part_begin,
                    "on_header_field": self._on_header_field,
                    "on_header_value": self._on_header_value,
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_headers_finished,
                    "on_part_data": self._on_part_data,
                    "on_part_end": self._on_part_end,
                    "on_end": self._on_end,
                },
                max_header_size=MAX_HEADER_BYTES,
            )
        except KeyError as exc:
            raise BadBody(400, "The multipart form's Content-Type names no boundary.") from exc
        except FormParserError as exc:
            raise BadBody(400, f"The multipart form cannot be read: {exc}") from exc

    async def read(self, stream: AsyncIterator[bytes]) -> Form:
        async for chunk in stream:
            try:
                self._parser.write(chunk)
            except FormParserError as exc:
                raise BadBody(400, f"The multipart form cannot be read: {exc}") from exc
            if self._pending:
                await self._spool.append(bytes(self._pending))
                self._pending.clear()
        if not self._ended:
            raise BadBody(400, "The multipart form ends before its closing boundary. Send it again.")
        return self._form

    def _on_part_begin(self) -> None:
        self._part = _Part(start=self._spooled)

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._part.header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._part.header_value += data[start:end]

    def _on_header_end(self) -> None:
        part = self._part
        part.headers[bytes(part.header_name).lower()] = bytes(part.header_value)
        part.header_name, part.header_value = bytearray(), bytearray()

    def _on_headers_finished(self) -> None:
        part = self._part
        _, options = parse_options_header(part.headers.get(b"content-disposition", b""))
        if b"name" not in options:
            raise BadBody(400, "A part of the multipart form has no name.")
        part.field_name = _text(options[b"name"], "a part's name")
        if b"filename" in options:
            part.file_name = _text(options[b"filename"], "a file's name")
            if len(self._form.files) >= self._max_files:
                raise BadBody(413, f"The form has more than {self._max_files:,} files. Send them in several requests.")
        elif len(self._form.fields) >= MAX_FIELDS:
            raise BadBody(400, f"The form has more than {MAX_FIELDS} fields.")

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        part = self._part
        part.size_bytes += end - start
        if part.file_name is None:
            if part.size_bytes > MAX_FIELD_BYTES:
                raise BadBody(413, f"The field {part.field_name[:50]!r} is larger than {MAX_FIELD_BYTES:,} bytes.")
            part.data += data[start:end]
            return
        if part.size_bytes > self._max_file_bytes:
            raise BadBody(413, f"The file {part.file_name[:200]!r} is larger than {self._max_file_bytes:,} bytes.")
        self._pending += data[start:end]
        self._spooled += end - start

    def _on_part_end(self) -> None:
        part = self._part
        if part.file_name is not None:
            self._form.files.append(_file_part(part))
            return
        if part.field_name in self._form.fields:
            raise BadBody(400, f"The form has the field {part.field_name[:50]!r} twice.")
        self._form.fields[part.field_name] = _text(part.data, f"the field {part.field_name[:50]!r}")

    def _on_end(self) -> None:
        self._ended = True


def _file_part(part: _Part) -> FilePart:
    assert part.file_name is not None
    declared = part.headers.get(b"content-type")
    return FilePart(
        field_name=part.field_name,
        name=part.file_name,
        declared=declared.decode("latin-1") if declared else None,
        start=part.start,
        size_bytes=part.size_bytes,
    )


def _text(raw: bytes | bytearray, what: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as exc:
        raise BadBody(400, f"The multipart form is not UTF-8 in {what} (byte {exc.start}).") from exc
