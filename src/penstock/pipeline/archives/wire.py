"""What an unpacking process says to its parent: frames of a length, a kind and a body."""

import struct
from enum import IntEnum

import msgspec

FRAME = struct.Struct(">IB")
MAX_FRAME_BYTES = 1 << 20
BLOCK_BYTES = 256 * 1024


class Frame(IntEnum):
    """`ENTRY` begins a file, `DATA` is its bytes, `END` ends it; `DONE` ends the archive. The bodies are records."""

    ENTRY = 1
    DATA = 2
    END = 3
    DONE = 4


class Named(msgspec.Struct):
    """The file `number` (from 1) of the archive, as it calls itself."""

    number: int
    name: str


class Ending(msgspec.Struct):
    """`code` is empty where all went well."""

    code: str = ""
    message: str = ""
