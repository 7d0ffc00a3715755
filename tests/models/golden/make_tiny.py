"""Makes the tiny models beside it, one of each family, and their vectors by transformers. Not run by the tests.

pip install torch transformers
python tests/models/golden/make_tiny.py
"""

import json
from pathlib import Path
from typing import Any

import torch  # type: ignore[import-not-found,unused-ignore]
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import AutoConfig, AutoModel  # type: ignore[import-not-found,unused-ignore]

HERE = Path(__file__).parent
SPECIAL = {"bert": ["[PAD]", "[CLS]", "[SEP]", "[UNK]"], "roberta": ["[CLS]", "[PAD]", "[SEP]", "[UNK]"]}
SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "bert": {**SIZES, "max_position_embeddings": 40},
    "roberta": {**SIZES, "max_position_embeddings": 42, "type_vocab_size": 1, "pad_token_id": 1},
    "mpnet": {**SIZES, "max_position_embeddings": 42, "pad_token_id": 1, "layer_norm_eps": 1e-5},
    "distilbert": {
        "vocab_size": 64,
        "dim": 16,
        "n_layers": 2,
        "n_heads": 2,
        "hidden_dim": 32,
        "max_position_embeddings": 40,
    },
}
TEXTS = ["w1 w2 w3", "w7", "", "w9 w8 w7 w6 w5 w4 w3 w2 w1 w50", " ".join(f"w{n % 50}" for n in range(90))]


def tokenizer(family: str) -> Tokenizer:
    special = SPECIAL["bert" if family in {"bert", "distilbert"} else "roberta"]
    words = [*special, *(f"w{number}" for number in range(64 - len(special)))]
    made = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = Whitespace()
    marks = [(word, words.index(word)) for word in ("[CLS]", "[SEP]")]
    made.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=marks
    )
    return made


def main() -> None:
    for family, sizes in FAMILIES.items():
        folder = HERE / family
        torch.manual_seed(7)
        model = AutoModel.from_config(AutoConfig.for_model(family, **sizes)).eval()
        with torch.no_grad():
            for weight in model.parameters():  # far from zero, so that nothing can be left out unseen
                weight.add_(torch.randn_like(weight) * 0.3)
        model.half().float().half().save_pretrained(folder)
        model.float()
        made = tokenizer(family)
        made.save(str(folder / "tokenizer.json"))
        made.enable_truncation(40)
        rows = []
        for text in TEXTS:
            with torch.no_grad():
                tokens = model(input_ids=torch.tensor([made.encode(text).ids])).last_hidden_state[0]
            pooled = {"mean": tokens.mean(dim=0), "cls": tokens[0]}
            rows.append(
                {"text": text, **{how: torch.nn.functional.normalize(v, dim=0).tolist() for how, v in pooled.items()}}
            )
        (folder / "vectors.json").write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
