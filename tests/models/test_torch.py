"""The torch engine against the vectors of transformers, through the pool and the batcher. `make test-torch` runs it."""

import importlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.errors import ConfigError, DataError, OutOfMemory, Unavailable
from penstock.models.base import Embedder, Lane
from penstock.models.engine import open_engine
from penstock.models.options import ModelsOptions
from penstock.models.pool import ModelPool
from penstock.models.recipe import read_recipe
from penstock.models.torch_device import find_device
from penstock.models.torch_encoder import TorchEncoder

torch: Any = pytest.importorskip("torch", reason="needs torch: make test-torch")

GOLDEN = Path(__file__).parent / "golden"
FAMILIES = ("bert", "roberta", "mpnet", "distilbert")
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def torch_options(options: ModelsOptions, folder: Path, **more: Any) -> ModelsOptions:
    told = {"embedders": {"m": {"engine": "torch", "model": str(folder)}}, "device": "cpu", "precision": "f32"}
    return ModelsOptions.model_validate({**options.model_dump(), **told, **more})


def cosines(found: Any, want: Any) -> Any:
    return (found * want).sum(axis=1)


@pytest.fixture(params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN / request.param, tmp_path / request.param))


def pooled_by_first_token(folder: Path) -> None:
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    modules = [{"path": "", "type": "x.Transformer"}, {"path": "1_Pooling", "type": "x.Pooling"}]
    (folder / "modules.json").write_text(json.dumps(modules))


async def both_ways(embedder: Embedder, texts: Sequence[str]) -> tuple[Any, Any]:
    """In one batch, and each alone."""
    together = await embedder.embed(texts, lane=Lane.BULK)
    alone = np.concatenate([await embedder.embed([text]) for text in texts])
    return together, alone


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("how", ["mean", "cls"])
async def test_vectors_are_those_of_transformers(folder: Path, how: str, device: str, options: ModelsOptions) -> None:
    if how == "cls":
        pooled_by_first_token(folder)
    rows = json.loads((folder / "vectors.json").read_text())
    want = np.array([row[how] for row in rows])
    async with ModelPool(torch_options(options, folder, device=device)) as pool:
        embedder = await pool.embedder("m")
        assert (embedder.info.device, embedder.info.precision) == (device, "f32")
        for found in await both_ways(embedder, [row["text"] for row in rows]):
            assert cosines(found, want) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("precision", ["bf16", "f16"])
async def test_sixteen_bits_are_near(folder: Path, precision: str, options: ModelsOptions) -> None:
    rows = json.loads((folder / "vectors.json").read_text())
    async with ModelPool(torch_options(options, folder, precision=precision)) as pool:
        embedder = await pool.embedder("m")
        assert embedder.info.precision == precision
        for found in await both_ways(embedder, [row["text"] for row in rows]):
            assert cosines(found, np.array([row["mean"] for row in rows])).min() > 0.999


async def test_the_default_model_agrees_with_openvino(minilm_folder: Path, options: ModelsOptions) -> None:
    texts = [
        f"{word} " * (number * 13 % 90 + 1) + "and water" for number, word in enumerate(["river", "lock", "turbine"])
    ]
    exact = torch_options(options, minilm_folder)
    async with ModelPool(exact) as pool:
        found = await (await pool.embedder("m")).embed(texts)
        want = await (await pool.embedder(str(minilm_folder))).embed(texts)
    assert cosines(found, want).min() > 0.9999


def save_by_transformers(family: str, folder: Path, **sizes: Any) -> Any:
    """A tiny random model of a family that only transformers knows, with the tokenizer of the golden BERT."""
    transformers = importlib.import_module("transformers")
    torch.manual_seed(3)
    config = transformers.AutoConfig.for_model(
        family,
        vocab_size=64,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=40,
        pad_token_id=0,
        **sizes,
    )
    model = transformers.AutoModel.from_config(config).eval()
    model.save_pretrained(folder)
    shutil.copy(GOLDEN / "bert" / "tokenizer.json", folder)
    return model


@pytest.mark.parametrize(
    ("family", "sizes"),
    [
        ("electra", {"embedding_size": 8}),
        ("albert", {"embedding_size": 8}),
        ("modernbert", {"reference_compile": False}),
    ],
)
async def test_other_families_run_by_transformers(
    family: str, sizes: dict[str, Any], tmp_path: Path, options: ModelsOptions
) -> None:
    model = save_by_transformers(family, tmp_path, **sizes)
    texts = ["w1 w2 w3", "w7", "w9 w8 w7 w6 w5 w4 w3 w2 w1 w50"]
    # `auto` finds that OpenVINO cannot build this family.
    async with ModelPool(options.model_copy(update={"precision": "f32"})) as pool:
        embedder = await pool.embedder(str(tmp_path))
        ids = [embedder.tokenizer.encode(text).ids for text in texts]
        with torch.no_grad():
            tokens = [model(input_ids=torch.tensor([each])).last_hidden_state[0].mean(dim=0) for each in ids]
        want = torch.nn.functional.normalize(torch.stack(tokens), dim=1).numpy()
        for found in await both_ways(embedder, texts):
            assert cosines(found, want) == pytest.approx(1.0, abs=1e-5)


def engine_of(folder: Path, options: ModelsOptions) -> TorchEncoder:
    encoder = open_engine(folder, read_recipe(folder, "m"), torch_options(options, folder), wanted="torch").encoder
    assert isinstance(encoder, TorchEncoder)
    return encoder


BATCH = np.ones((2, 8), np.int32), np.ones((2, 8), np.int32)


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."), OutOfMemory),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"), OutOfMemory),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), OutOfMemory),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate"), OutOfMemory),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), Unavailable),
    ],
)
def test_errors_of_torch_are_told_apart(raised: Exception, error: type[Exception], options: ModelsOptions) -> None:
    encoder = engine_of(GOLDEN / "bert", options)

    def run(*_: Any) -> Any:
        raise raised

    encoder._run = run
    with pytest.raises(error) as caught:
        encoder.start(*BATCH)
    assert type(caught.value) is error
    assert caught.value.__context__ is None  # torch's error would keep the batch's tensors in memory


def test_a_closed_model_says_so(options: ModelsOptions) -> None:
    encoder = engine_of(GOLDEN / "bert", options)
    assert encoder.start(*BATCH)().shape == (2, 16)
    encoder.close()
    encoder.close()
    with pytest.raises(Unavailable, match="closed"):
        encoder.start(*BATCH)


def test_the_spare_engine_gives_the_same_vectors(options: ModelsOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = GOLDEN / "roberta"
    # As if the processor were a GPU: nothing else makes a spare engine.
    monkeypatch.setattr("penstock.models.engine.find_device", lambda wanted: "cpu:0")
    engine = open_engine(folder, read_recipe(folder, "m"), options.model_copy(update={"precision": "f32"}))
    assert engine.spare is not None
    spare = engine.spare()
    assert not isinstance(spare, TorchEncoder)
    assert cosines(spare.start(*BATCH)(), engine.encoder.start(*BATCH)()).min() > 0.999
    assert engine.batcher(options.batcher).batch_tokens == options.batcher.gpu_batch_tokens


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="torch finds no GPU"):
        find_device("cuda")
    assert find_device("auto") == "cpu"


async def test_files_that_do_not_fit_together_are_refused(tmp_path: Path, options: ModelsOptions) -> None:
    folder = Path(shutil.copytree(GOLDEN / "bert", tmp_path / "bert"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    async with ModelPool(torch_options(options, folder)) as pool:
        with pytest.raises(DataError, match="no tensor"):
            await pool.embedder("m")
