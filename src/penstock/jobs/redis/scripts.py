"""The Lua scripts: `lua/common.lua` stands before each of them."""

import hashlib
from dataclasses import dataclass
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Script:
    """A script's text and the hash that the server knows it by."""

    name: str
    text: str
    sha: str


def load_scripts() -> dict[str, Script]:
    """All scripts by name."""
    folder = files(__package__) / "lua"
    common = (folder / "common.lua").read_text(encoding="utf-8")
    scripts = {}
    for file in folder.iterdir():
        name = file.name.removesuffix(".lua")
        if name != "common" and file.name.endswith(".lua"):
            text = f"{common}\n{file.read_text(encoding='utf-8')}"
            scripts[name] = Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
    return scripts
