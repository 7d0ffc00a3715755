"""What a worker's models and jobs count can be read from the worker."""

import socket

import httpx
import pytest
from prometheus_client import CollectorRegistry

from penstock.app.worker_metrics import serve_metrics
from penstock.errors import ConfigError
from penstock.models.base import Lane
from penstock.models.metrics import ModelMetrics


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def test_meters_are_served_until_the_end() -> None:
    registry, port = CollectorRegistry(), free_port()
    ModelMetrics(registry).counted("m", Lane.BULK, waits_s=[0.1, 0.2], tokens=30, padded=32, limit=64)
    with serve_metrics("127.0.0.1", port, registry):
        text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    assert 'penstock_model_tokens_total{lane="bulk",model="m"} 30.0' in text
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/metrics")


def test_a_taken_port_is_said() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match="metrics_port"), serve_metrics("127.0.0.1", taken.getsockname()[1]):
            pass


def test_no_port_serves_nothing() -> None:
    with serve_metrics("127.0.0.1", 0):
        pass
