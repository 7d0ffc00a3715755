"""Makes the tiny CLIP model beside it, a few images, and the vectors and pixels that transformers makes of them.

Not run by the tests. pip install torch transformers pillow; python tests/models/golden/make_clip.py
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch  # type: ignore[import-not-found,unused-ignore]
from PIL import Image
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer  # type: ignore[import-not-found,unused-ignore]
from transformers.models.clip.image_processing_pil_clip import (  # type: ignore[import-not-found,unused-ignore]
    CLIPImageProcessorPil,
)

FOLDER = Path(__file__).parent / "clip"
SIDE = 32
WORDS = ["a", "cat", "dog", "red", "photo"]
TEXTS = ["a photo", "Cat", "", "a RED  dog, a cat; a photo!", "a dog and a cat " * 12]
TOWER: dict[str, Any] = {"intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def tokenizer() -> CLIPTokenizer:
    """Byte pairs as CLIP's, but few: the letters, and the merges that make the words."""
    letters = [chr(code) for code in range(33, 127)]
    vocab = [*letters, *(f"{letter}</w>" for letter in letters)]
    merges = []
    for word in WORDS:
        left = word[0]
        for place, letter in enumerate(word[1:], 1):
            right = letter if place < len(word) - 1 else f"{letter}</w>"
            if (left, right) not in merges:
                merges.append((left, right))
                vocab.append(left + right)
            left += right
    vocab += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: number for number, word in enumerate(vocab)}, merges=merges)


def pictures() -> dict[str, Image.Image]:
    """Wide, tall, small, square, with a palette, with transparency, grey."""
    rng = np.random.default_rng(5)

    def noise(width: int, height: int, bands: int) -> Image.Image:
        coarse = rng.integers(0, 256, (max(2, height // 9), max(2, width // 9), bands), np.uint8)
        mode = {1: "L", 3: "RGB", 4: "RGBA"}[bands]
        small = Image.fromarray(coarse[:, :, 0] if bands == 1 else coarse, mode)
        return small.resize((width, height), Image.Resampling.BILINEAR)

    return {
        "wide.png": noise(97, 41, 3),
        "tall.jpg": noise(45, 130, 3),
        "small.png": noise(7, 5, 3),
        "square.png": noise(SIDE, SIDE, 3),
        "palette.gif": noise(60, 61, 3).quantize(16),
        "through.png": noise(50, 40, 4),
        "grey.png": noise(33, 64, 1),
    }


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    made = tokenizer()
    made.save_pretrained(FOLDER)
    torch.manual_seed(11)
    marks = {"bos_token_id": made.bos_token_id, "eos_token_id": made.eos_token_id}
    text = {**TOWER, **marks, "vocab_size": len(made), "hidden_size": 16, "max_position_embeddings": 20}
    vision = {**TOWER, "hidden_size": 24, "image_size": SIDE, "patch_size": 8}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)).eval()
    with torch.no_grad():
        for weight in model.parameters():  # far from zero, so that nothing can be left out unseen
            weight.add_(torch.randn_like(weight) * 0.3)
    model.half().float().half().save_pretrained(FOLDER)
    model.float()
    processor = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    processor.save_pretrained(FOLDER)
    rows: dict[str, Any] = {"texts": [], "images": []}
    for words in TEXTS:
        inputs = made([words], truncation=True, max_length=20, return_tensors="pt")
        with torch.no_grad():
            vector = model.get_text_features(**inputs).pooler_output[0]
        rows["texts"].append({"text": words, "vector": unit(vector), "ids": inputs["input_ids"][0].tolist()})
    for name, picture in pictures().items():
        picture.save(FOLDER / name)
        pixels = processor([Image.open(FOLDER / name)], return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            vector = model.get_image_features(pixel_values=pixels).pooler_output[0]
        means = pixels[0].mean(dim=(1, 2)).tolist()
        rows["images"].append(
            {"file": name, "vector": unit(vector), "means": means, "first": pixels[0, :, 3, 5].tolist()}
        )
    (FOLDER / "vectors.json").write_text(json.dumps(rows))


def unit(vector: Any) -> list[float]:
    found: list[float] = torch.nn.functional.normalize(vector, dim=0).tolist()
    return found


if __name__ == "__main__":
    main()
