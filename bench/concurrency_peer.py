"""One question of `bench/concurrency.py` for back ends that call the language model and wait for it.

Needs nothing but the standard library, so that it runs in another queue's own virtual environment too.
"""

import http.client
import json
import os
import time
from urllib.parse import urlsplit


def ask(question: str) -> float:
    """Streams the whole answer from the server that `LLM_URL` names; returns when that was (seconds of the epoch)."""
    url = urlsplit(os.environ["LLM_URL"])
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=600)
    body = {"model": "fake", "stream": True, "messages": [{"role": "user", "content": question}]}
    connection.request("POST", f"{url.path}/chat/completions", json.dumps(body), {"content-type": "application/json"})
    reply = connection.getresponse().read()
    connection.close()
    if not reply.endswith(b"data: [DONE]\n\n"):
        raise RuntimeError(f"the answer is not whole: {reply[-100:]!r}")
    return time.time()
