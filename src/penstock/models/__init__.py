"""Embedders, rerankers, generators and vision models: their contracts, the batcher, the pool, one file an engine."""

import sys

# OpenVINO reports each import to Google Analytics, unless this package cannot be imported.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
