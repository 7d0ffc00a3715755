"""Makes `minilm.json` with sentence-transformers, the reference. Not run by the tests.

pip install torch sentence-transformers
python tests/models/golden/make.py FOLDER_OF_ALL_MINILM_L6_V2
"""

import base64
import json
import sys
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer  # type: ignore[import-not-found,unused-ignore]

TEXTS = [
    "What is the capital of France?",
    "The penstock carries water from the reservoir to the turbine at full pressure.",
    "hello",
    ".",
    " ",
    "A",
    "Ünïcödé wörds, naïve café, Straße",
    "🙂 🚀 emoji only? no: 👩‍👩‍👧‍👦 and text",
    "城市管理巡查发现人行道破损,请在三日内修复。",
    "什么是检索增强生成？",
    "日本語の文章と한국어 문장 together",
    "def f(x):\n    return {'a': [x ** 2, None]}  # code",
    "supercalifragilisticexpialidocious antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis",
    "In 1998, 3.14159 % of $1,000,000.00 were paid; see §4(b)/2 and http://example.org/a?b=c&d=%20e.",
    "The sidewalk inspector noted seventeen cracks on the northern side of the market square. " * 6,
    "A long report, far longer than the model reads, goes on and on about water, pressure and steel. " * 40,
    "tab\tand\r\nnewline\u00a0and\u200bzero width",
    "",
]


def main() -> None:
    model = SentenceTransformer(sys.argv[1], device="cpu")
    vectors = model.encode(TEXTS, batch_size=1, normalize_embeddings=True).astype("<f4")
    golden = [
        {"text": text, "vector": base64.b64encode(np.ascontiguousarray(row).tobytes()).decode()}
        for text, row in zip(TEXTS, vectors, strict=True)
    ]
    target = Path(__file__).with_name("minilm.json")
    target.write_text(json.dumps({"max_tokens": model.max_seq_length, "rows": golden}, indent=1, ensure_ascii=True))


if __name__ == "__main__":
    main()
