"""`penstock workers`"""

import time

from penstock.cli.output import Json, Url, age, exit_codes, print_json, print_table, say, size
from penstock.client import Client


def workers(url: Url = "", as_json: Json = False) -> None:
    """The worker processes that were seen lately: what they run, their models and their memory."""
    with exit_codes(as_json=as_json), Client(url) as client:
        found = client.workers()
        if as_json:
            print_json(found)
            return
        print_table(
            ["id", "host", "pid", "ready", "running", "of", "kinds", "models", "memory", "up"],
            [
                [
                    worker.id,
                    worker.host,
                    worker.pid,
                    "yes" if worker.ready else f"no {worker.detail}".strip(),
                    worker.running,
                    worker.concurrency,
                    ",".join(worker.kinds),
                    ",".join(worker.models),
                    size(worker.rss_bytes),
                    age(time.time() - worker.started_at),
                ]
                for worker in found
            ],
        )
        if not found:
            say("No worker was seen lately. Start one with `penstock worker`, or all with `penstock serve`.")
