"""One peer of `bench/embed.py`, in the peers' own environment: embeds the texts, prints what it took as JSON.

python bench/embed_peers.py PEER MODEL_FOLDER TEXTS_JSON
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch  # type: ignore[import-not-found,unused-ignore]
from sentence_transformers import SentenceTransformer  # type: ignore[import-not-found,unused-ignore]

Embed = Callable[[list[str]], Any]


def sentence_transformers(folder: Path) -> Embed:
    model = SentenceTransformer(str(folder), device="cpu")
    return lambda texts: model.encode(texts, normalize_embeddings=True)


def sentence_transformers_bf16(folder: Path) -> Embed:
    model = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.bfloat16})
    return lambda texts: model.encode(texts, normalize_embeddings=True)


def sentence_transformers_openvino(folder: Path) -> Embed:
    model = SentenceTransformer(str(folder), device="cpu", backend="openvino")
    return lambda texts: model.encode(texts, normalize_embeddings=True)


def sentence_transformers_onnx(folder: Path) -> Embed:
    model = SentenceTransformer(str(folder), device="cpu", backend="onnx")
    return lambda texts: model.encode(texts, normalize_embeddings=True)


class Pooled(torch.nn.Module):  # type: ignore[misc,unused-ignore]
    """The whole model as one graph: mean pooling and normalisation inside."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        tokens = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).float()
        return torch.nn.functional.normalize((tokens * mask).sum(1) / mask.sum(1).clamp(min=1e-9), dim=1)


def onnxruntime(folder: Path) -> Embed:
    """A plain loop: sorted by length, 32 a batch, float32."""
    import onnxruntime as ort  # type: ignore[import-not-found,import-untyped,unused-ignore]  # noqa: PLC0415

    made = SentenceTransformer(str(folder), device="cpu")
    axes = {0: "rows", 1: "length"}
    example = made.tokenize(["an example", "of two texts"])
    file = Path(tempfile.mkdtemp()) / "model.onnx"
    torch.onnx.export(
        Pooled(made[0].auto_model).eval(),
        (example["input_ids"], example["attention_mask"]),
        str(file),
        input_names=["input_ids", "attention_mask"],
        output_names=["vectors"],
        dynamic_axes={"input_ids": axes, "attention_mask": axes, "vectors": {0: "rows"}},
        dynamo=False,
    )
    session = ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])

    def embed(texts: list[str]) -> Any:
        order = sorted(range(len(texts)), key=lambda place: -len(texts[place]))
        vectors = np.empty((len(texts), 384), np.float32)
        for start in range(0, len(order), 32):
            places = order[start : start + 32]
            batch = made.tokenize([texts[place] for place in places])
            inputs = {name: batch[name].numpy() for name in ("input_ids", "attention_mask")}
            vectors[places] = session.run(None, inputs)[0]
        return vectors

    return embed


PEERS = {
    made.__name__: made
    for made in (
        sentence_transformers,
        sentence_transformers_bf16,
        sentence_transformers_openvino,
        sentence_transformers_onnx,
        onnxruntime,
    )
}


def main() -> None:
    name, folder, file = sys.argv[1:]
    texts = json.loads(Path(file).read_text())
    embed = PEERS[name](Path(folder))
    embed(texts[:32])
    began, cpu_began = time.perf_counter(), time.process_time()
    vectors = np.asarray(embed(texts), np.float32)
    took = {"seconds": time.perf_counter() - began, "cpu_s": time.process_time() - cpu_began}
    print(json.dumps({**took, "first": vectors[0].tolist()}))


if __name__ == "__main__":
    main()
