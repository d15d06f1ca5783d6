"""GGUF's program, with programs that stand for llama.cpp's: what they are asked, and what is made of what they say."""

import json
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PATH = Path(__file__).parents[3] / "images" / "quantizer" / "backends" / "gguf.py"
CONVERTER = """
import os, sys
from pathlib import Path
model, out, kind = sys.argv[1], sys.argv[3], sys.argv[5]
if not Path(model).is_dir():
    sys.exit("the converter does not know this architecture")
Path(out).write_text(f"{kind} of {Path(model).name} with {os.environ['PYTHONPATH'].partition(':')[0]}")
"""
QUANTIZE = """#!/usr/bin/env python3
import sys
from pathlib import Path
Path(sys.argv[2]).write_text(f"{sys.argv[3]} from {Path(sys.argv[1]).read_text()}")
"""
SERVER = """#!/usr/bin/env python3
import json, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
options = dict(zip(sys.argv[1:], sys.argv[2:]))
if Path(options["-m"]).read_text() == "broken":
    sys.exit(9)
VOCABULARY = {0: " Hello", 1: " a", 2: "<|user|>", 3: "."}
LOGPROBS = [-1.5, -0.5, -2.0, -3.4e38]
loading = 2
def cut(text, special):
    found = []
    while text:
        for token, piece in VOCABULARY.items():
            bare = piece.removeprefix(" ")
            if text.startswith(bare) and (special or token != 2):
                found.append(token)
                text = text[len(bare):]
                break
        else:
            found.append(9)
            text = text[1:]
    return found
class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass
    def say(self, code, body):
        self.send_response(code)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())
    def do_GET(self):
        global loading
        loading -= 1
        self.say(503 if loading >= 0 else 200, {})
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/tokenize":
            assert asked["add_special"] is False
            self.say(200, {"tokens": cut(asked["content"], asked["parse_special"])})
        elif self.path == "/detokenize":
            self.say(200, {"content": "".join(VOCABULARY.get(token, "?") for token in asked["tokens"])})
        elif asked["prompt"] == [9]:
            self.say(400, {"error": "the prompt is too long for -c " + options["-c"]})
        elif "n_probs" in asked:
            assert (asked["n_predict"], asked["temperature"]) == (1, 0)
            if asked["logit_bias"] != [[1, 1e6]]:
                return self.say(200, {"content": ""})  # what is said is no text
            best = [{"id": token, "logprob": value} for token, value in sorted(enumerate(LOGPROBS), key=lambda p: -p[1])]
            self.say(200, {"completion_probabilities": [{"id": 1, "top_logprobs": best}]})
        else:
            assert asked["return_tokens"] is True
            self.say(200, {"tokens": [1] * asked["n_predict"]})
HTTPServer((options["--host"], int(options["--port"])), Handler).serve_forever()
"""


@pytest.fixture
def gguf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program, with a llama.cpp that lies in a folder as its checkout does."""
    spec = spec_from_file_location("backend_of_gguf", PATH)
    assert spec is not None
    assert spec.loader is not None
    found = module_from_spec(spec)
    spec.loader.exec_module(found)
    llama = tmp_path / "llama.cpp"
    for name, text in (("llama-quantize", QUANTIZE), ("llama-server", SERVER)):
        path = llama / "build" / "bin" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("/usr/bin/env python3", sys.executable))
        path.chmod(0o755)
    (llama / "convert_hf_to_gguf.py").write_text(CONVERTER)
    monkeypatch.setattr(found, "LLAMA", llama)
    monkeypatch.setattr(found, "CONVERTERS", (str(llama / "convert_hf_to_gguf.py"),))
    monkeypatch.setattr(found, "STARTING", 0.01)
    return found


def asked(tmp_path: Path, **fields: Any) -> dict[str, Any]:
    for name in ("model", "made"):
        (tmp_path / name).mkdir(exist_ok=True)
    plain = {"do": "build", "model": str(tmp_path / "model"), "out": str(tmp_path / "made"), "algorithm": "RTN"}
    return plain | {"block_size": 32, "symmetric": True} | fields


@pytest.mark.parametrize(
    ("precision", "algorithm", "made"),
    [
        ("INT4", "RTN", "Q4_0 from f32 of model"),
        ("INT4", "KQuant", "Q4_K_M from f32 of model"),
        ("INT8", "RTN", "Q8_0 from f32 of model"),
        ("FP16", "RTN", "f16 of model"),
        ("FP32", "RTN", "f32 of model"),
    ],
)
def test_what_is_made_is_what_was_asked_for_and_nothing_lies_beside_it(
    gguf: ModuleType, tmp_path: Path, precision: str, algorithm: str, made: str
) -> None:
    before = set(tmp_path.iterdir()) | {tmp_path / "model", tmp_path / "made"}
    assert gguf.build(asked(tmp_path, precision=precision, algorithm=algorithm)) == {}
    (path,) = (tmp_path / "made").iterdir()
    assert path.name == "model.gguf"
    assert path.read_text() == f"{made} with {gguf.LLAMA / 'gguf-py'}"
    assert set(tmp_path.iterdir()) == before


def test_what_the_converter_says_is_what_is_told(
    gguf: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        gguf.build(asked(tmp_path, precision="FP16", model=str(tmp_path / "nothing")))
    assert ended.value.code == 1
    assert capfd.readouterr().err.splitlines()[-1] == "the converter does not know this architecture"


@pytest.mark.parametrize("missing", ["convert_hf_to_gguf.py", "llama-quantize"])
def test_a_part_of_llama_cpp_that_is_missing_is_named(
    gguf: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setenv("PATH", "")
    next(gguf.LLAMA.rglob(missing)).unlink()
    with pytest.raises(SystemExit, match=f"llama.cpp's {missing} is not there"):
        gguf.build(asked(tmp_path, precision="INT4"))


def said(gguf: ModuleType, tmp_path: Path, *prompts: str, content: str = "good") -> list[dict[str, Any]]:
    (tmp_path / "model.gguf").write_text(content)
    return list(gguf.say({"do": "say", "model": str(tmp_path), "prompts": prompts, "limit": 3}))


def test_the_server_is_asked_for_the_logits_of_all_tokens_and_for_greedy_ones(gguf: ModuleType, tmp_path: Path) -> None:
    (one,) = said(gguf, tmp_path, "Hello.")
    assert (one["tokens"], one["greedy"]) == ([0, 3], [1, 1, 1])
    assert one["logits"] == [-1.5, -0.5, -2.0, gguf.LEAST], "in the order of the vocabulary, and finite"
    assert json.dumps(one, allow_nan=False)


def test_text_is_read_back_without_special_tokens_and_without_the_space_in_front(
    gguf: ModuleType, tmp_path: Path
) -> None:
    (one,) = said(gguf, tmp_path, "<|user|>Hello.")
    assert one["tokens"] == [2, 0, 3]
    assert one["read_back"] == "Hello."


def test_a_server_that_refuses_or_ends_is_told(gguf: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"answers /completion with 400: .*too long for -c 12"):
        said(gguf, tmp_path, "z")
    with pytest.raises(SystemExit, match="ended with exit code 9 while it loaded"):
        said(gguf, tmp_path, "Hello.", content="broken")
