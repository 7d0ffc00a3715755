"""`penstock queues`"""

from penstock.cli.output import Json, Url, exit_codes, print_json, print_table
from penstock.client import Client


def queues(url: Url = "", as_json: Json = False) -> None:
    """How the queue does, by class: what waits, what runs, and for how long."""
    with exit_codes(as_json=as_json), Client(url) as client:
        found = client.queues()
        if as_json:
            print_json(found)
            return
        print_table(
            ["class", "ready", "running", "delayed", "dead", "oldest s", "drained/s", "wait p95 s", "run p95 s"],
            [
                [
                    queue.priority,
                    queue.ready,
                    queue.running,
                    queue.delayed,
                    queue.dead,
                    f"{queue.oldest_ready_age_s:.1f}",
                    f"{queue.drain_per_s:.1f}",
                    _seconds(queue.wait_s.get("p95")),
                    _seconds(queue.run_s.get("p95")),
                ]
                for queue in found
            ],
        )


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
