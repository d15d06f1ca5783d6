"""GGUF: llama.cpp's converter writes it, llama-quantize rounds, llama-server answers.

``python gguf.py ASKED.json``; what is asked and answered is told in slm_quantizer/external.py. llama.cpp itself is no part
of the image: whoever wants GGUF adds it, as a checkout with its build in ``/opt/llama.cpp``, or as Debian's package. The
converter takes PyTorch and transformers from the image.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

LLAMA, APP = Path("/opt/llama.cpp"), Path("/opt/app/lib")
CONVERTERS = ("/opt/llama.cpp/convert_hf_to_gguf.py", "/usr/share/doc/llama.cpp-tools/scripts/convert_hf_to_gguf.py")
"""Of a checkout, and of Debian's package."""
TYPES = {("INT4", "RTN"): "Q4_0", ("INT4", "KQuant"): "Q4_K_M", ("INT8", "RTN"): "Q8_0"}
WHOLE = {"FP16": "f16", "FP32": "f32"}
EVERY = 1 << 20
"""Tokens whose probabilities are asked for: more than a vocabulary has."""
LEAST = -104.0
"""Logarithm of a probability that 32 bits take for zero."""
STARTING = 0.1
Ask = Callable[[str, dict[str, Any]], Any]


def build(asked: dict[str, Any]) -> dict[str, Any]:
    """Convert, and round where that is wanted. What lies between takes four bytes a weight of the folder's disk."""
    out, precision = Path(asked["out"], "model.gguf"), asked["precision"]
    if precision in WHOLE:
        convert(asked["model"], out, WHOLE[precision])
        return {}
    kind = TYPES[precision, asked["algorithm"]]
    with tempfile.TemporaryDirectory(dir=out.parent.parent) as folder:
        whole = Path(folder, "model.gguf")
        convert(asked["model"], whole, "f32")
        run(program("llama-quantize"), whole, out, kind)
    return {}


def convert(model: str, out: Path, kind: str) -> None:
    """The converter of llama.cpp, with the image's libraries and the ``gguf`` that lies beside it."""
    script = next((path for path in map(Path, CONVERTERS) if path.is_file()), None)
    if script is None:
        raise SystemExit(f"llama.cpp's convert_hf_to_gguf.py is not there: {' or '.join(CONVERTERS)}")
    known = [LLAMA / "gguf-py", *APP.glob("python3*/site-packages")]
    environment = os.environ | {"PYTHONPATH": ":".join(map(str, known)), "HF_HUB_OFFLINE": "1"}
    run(sys.executable, script, model, "--outfile", out, "--outtype", kind, environment=environment)


def program(name: str) -> str:
    """One of llama.cpp's programs."""
    places = ":".join([*(str(LLAMA / place) for place in ("build/bin", "bin", "")), os.environ.get("PATH", "")])
    found = shutil.which(name, path=places)
    if found is None:
        raise SystemExit(f"llama.cpp's {name} is not there: neither below {LLAMA} nor in PATH")
    return found


def run(*command: object, environment: dict[str, str] | None = None) -> None:
    """Run a program; whoever asked hears why it failed by its last line."""
    code = subprocess.run([*map(str, command)], env=environment, check=False).returncode
    if code:
        raise SystemExit(code)


def say(asked: dict[str, Any]) -> list[dict[str, Any]]:
    """Greedy answers, on the CPU, with keys and values kept in 32 bit."""
    (model,) = Path(asked["model"]).glob("*.gguf")
    longest = max(len(prompt.encode()) for prompt in asked["prompts"])  # a token is a byte at least
    with served(model, longest + asked["limit"] + 8) as ask:
        return [answer(ask, prompt, asked["limit"]) for prompt in asked["prompts"]]


@contextmanager
def served(model: Path, context: int) -> Iterator[Ask]:
    """llama-server with the model, on a port of this pod's own; what asks it."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = listener.getsockname()
    host, port = address
    command = [program("llama-server"), "-m", str(model), "--host", host, "--port", str(port), "-c", str(context),
               "-np", "1", "-ngl", "0", "-ctk", "f32", "-ctv", "f32", "-fa", "off", "--offline", "--no-webui"]  # fmt: skip

    def ask(path: str, body: dict[str, Any]) -> Any:
        code, content = request(host, port, path, json.dumps(body))
        if code != 200:
            raise SystemExit(f"llama-server answers {path} with {code}: {content[:200].decode(errors='replace')}")
        return json.loads(content)

    with subprocess.Popen(command, stdout=sys.stderr) as server:
        try:
            while not ready(host, port):
                if server.poll() is not None:
                    raise SystemExit(f"llama-server ended with exit code {server.returncode} while it loaded the model")
                time.sleep(STARTING)
            yield ask
        finally:
            server.kill()


def request(host: str, port: int, path: str, body: str | None = None) -> tuple[int, bytes]:
    """(status, content) of an answer; never by way of a proxy."""
    connection = HTTPConnection(host, port)
    try:
        connection.request("GET" if body is None else "POST", path, body, {"Content-Type": "application/json"})
        answered = connection.getresponse()
        return answered.status, answered.read()
    finally:
        connection.close()


def ready(host: str, port: int) -> bool:
    """Whether the model is loaded."""
    try:
        return request(host, port, "/health")[0] == 200
    except (ConnectionError, HTTPException):
        return False


def answer(ask: Ask, prompt: str, limit: int) -> dict[str, Any]:
    """What it makes of one prompt. Logarithms of probabilities are the logits but for a constant, which nobody counts. They
    are those before anything is chosen, and told only with text: so a letter is chosen, whatever is the likeliest."""
    tokens = cut(ask, prompt, True)
    letter = [[cut(ask, "a", False)[-1], 1e6]]
    wanted = {"prompt": tokens, "temperature": 0, "top_k": 1, "repeat_penalty": 1.0, "cache_prompt": False}
    first = ask("/completion", wanted | {"n_predict": 1, "n_probs": EVERY, "logit_bias": letter})[
        "completion_probabilities"
    ][0]
    told = {each["id"]: max(each["logprob"], LEAST) for each in first["top_logprobs"]}
    greedy = ask("/completion", wanted | {"n_predict": limit, "return_tokens": True})["tokens"]
    return {"tokens": tokens, "read_back": read_back(ask, tokens), "greedy": greedy,
            "logits": [told.get(token, LEAST) for token in range(max(told) + 1)]}  # fmt: skip


def cut(ask: Ask, text: str, special: bool) -> list[int]:
    """A text as tokens. ``special``: the names of special tokens are these."""
    found: list[int] = ask("/tokenize", {"content": text, "add_special": False, "parse_special": special})["tokens"]
    return found


def read_back(ask: Ask, tokens: list[int]) -> str:
    """The tokens as text, without those that stand for nothing else, and without the space that some tokenizers put in
    front: llama-server shows both."""

    def text(part: list[int]) -> str:
        return str(ask("/detokenize", {"tokens": part})["content"])

    pieces = {token: text([token]) for token in set(tokens)}
    special = {token for token, piece in pieces.items() if cut(ask, piece, True) == [token] != cut(ask, piece, False)}
    said = text([token for token in tokens if token not in special])
    return said.removeprefix(" ") if text(cut(ask, "a", False)) == " a" else said


if __name__ == "__main__":
    wanted = json.loads(Path(sys.argv[1]).read_bytes())
    Path(wanted["answer"]).write_text(json.dumps({"build": build, "say": say}[wanted["do"]](wanted)))
