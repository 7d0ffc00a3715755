"""Weights in 8 bits: when they are chosen, what rounding takes away, and that batches do not matter."""

from pathlib import Path

import numpy as np
import openvino as ov
import pytest

from penstock.errors import ConfigError
from penstock.models import openvino_encoder
from penstock.models.base import Lane
from penstock.models.openvino_encoder import choose_eight_bits, processor_flags
from penstock.models.openvino_graph import GROUP, grouped
from penstock.models.options import DEFAULT_MODEL, ModelsOptions
from penstock.models.pool import ModelPool
from penstock.models.recipe import read_recipe

GOLDEN = Path(__file__).parent / "golden" / "bert"
MODERN = frozenset({"avx512_vnni", "avx512_bf16"})


@pytest.mark.parametrize(
    ("wanted", "name", "flags", "chosen"),
    [
        ("auto", DEFAULT_MODEL, MODERN, True),
        ("auto", "/models/all-MiniLM-L6-v2/", MODERN, True),
        ("auto", "BAAI/bge-small-en-v1.5", MODERN, False),
        ("auto", DEFAULT_MODEL, MODERN | {"amx_bf16"}, False),
        ("auto", DEFAULT_MODEL, frozenset({"avx2"}), False),
        ("bf16", DEFAULT_MODEL, MODERN, False),
        ("f32", DEFAULT_MODEL, MODERN, False),
        ("i8", "BAAI/bge-small-en-v1.5", MODERN, True),
    ],
)
def test_they_are_chosen_where_they_are_known_to_hold(
    wanted: str, name: str, flags: frozenset[str], chosen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_encoder, "processor_flags", lambda: flags)
    assert choose_eight_bits(wanted, read_recipe(GOLDEN, name)) is chosen


def test_a_processor_without_them_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_encoder, "processor_flags", frozenset)
    with pytest.raises(ConfigError, match="i8, which this processor"):
        choose_eight_bits("i8", read_recipe(GOLDEN, DEFAULT_MODEL))


def test_flags_are_read_as_linux_tells_them(tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text("processor\t: 0\nflags\t\t: fpu avx2 avx512_vnni\n\nprocessor\t: 1\nflags\t\t: fpu\n")
    assert processor_flags(file) == {"fpu", "avx2", "avx512_vnni"}
    assert processor_flags(tmp_path / "none") == frozenset()


def test_rounding_takes_half_a_step_of_a_group_at_most() -> None:
    weight = np.random.default_rng(0).normal(size=(8, 4 * GROUP)).astype(np.float32)
    weight[0, :GROUP] = 0
    weight[1, 0] = 100.0  # spoils its own group only
    compiled = ov.Core().compile_model(
        ov.Model([grouped(weight)], [], "weights"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    apart = np.abs(compiled([])[0] - weight).reshape(8, 4, GROUP)
    steps = np.abs(weight).reshape(8, 4, GROUP).max(axis=-1, keepdims=True) / 127
    assert (apart <= steps / 2 + 1e-5).all()


PASSAGES = [
    "The penstock carries water from the reservoir down to the turbines of the power station.",
    "When it was opened in 1936 the bridge was the longest of its kind, and it still carries four lanes of traffic.",
    "Photosynthesis turns light, water and carbon dioxide into sugar, and gives off oxygen as it does so.",
    "How long does a claim take to be settled after all documents were handed in?",
    "In the second quarter sales rose by 3.4 % to 12.8 million, while costs fell for the third time in a row.",
    "The court held that the contract was void, since neither side had signed its second page.",
]
WORDS = ["", "x", "water", "1936", "车", "House rules", "one two"]


@pytest.mark.usefixtures("minilm_folder")
async def test_vectors_stay_and_do_not_depend_on_the_batch(options: ModelsOptions) -> None:
    if not choose_eight_bits("auto", read_recipe(GOLDEN, DEFAULT_MODEL)):
        pytest.skip("this processor does the default model in 16 bits or more")
    texts = [
        *WORDS,
        *(" ".join(PASSAGES[place % 6] for place in range(number, number + 1 + number % 4)) for number in range(24)),
    ]
    async with ModelPool(options) as pool:
        embedder = await pool.embedder()
        assert embedder.info.precision == "i8"
        together = await embedder.embed(texts, lane=Lane.BULK)
        alone = np.concatenate([await embedder.embed([text]) for text in texts])
    async with ModelPool(options.model_copy(update={"precision": "f32"})) as pool:
        exact = await (await pool.embedder()).embed(texts)
    assert (together * exact).sum(axis=1).min() > 0.999
    assert (together * alone).sum(axis=1).min() > 0.9997
