"""`python -m penstock.testing.llm`: the fake provider as a process. Prints its base URL and serves until told to stop.

Every field of `Behaviour` is a flag (`--first-token-s 0.2 --fault status --status 429 --fault-rate 0.1`), and can be
changed while it runs: `POST /control {"standing": {…}, "queue": [{…}, …]}`, or for one request by the header
`x-fake-behaviour: {…}`. `GET /stats` counts, `POST /reset` starts counting anew.
"""

import argparse
import asyncio
import signal
from collections.abc import Sequence

import msgspec
import uvloop

from penstock.testing.behaviour import Behaviour
from penstock.testing.provider import FakeProvider


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m penstock.testing.llm", description="A fake OpenAI-compatible server."
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    for field in msgspec.structs.fields(Behaviour):
        parser.add_argument(f"--{field.name.replace('_', '-')}", default=None, help=f"default: {field.default}")
    options = vars(parser.parse_args(arguments))
    host, port = options.pop("host"), options.pop("port")
    given = {name: value for name, value in options.items() if value is not None}
    try:
        behaviour = msgspec.convert(given, Behaviour, strict=False)
    except msgspec.ValidationError as exc:
        parser.error(str(exc))
    uvloop.run(_serve(FakeProvider(behaviour, host=host, port=port)))


async def _serve(provider: FakeProvider) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with provider:
        print(provider.url, flush=True)
        await stop.wait()


if __name__ == "__main__":
    main()
