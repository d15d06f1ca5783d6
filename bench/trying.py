"""Formats of other tool chains, made and asked: ``python trying.py FOLDER FORMAT…``, in an image that has them.

The model is made on the spot: a Llama of 1.3 million parameters that has never learned anything, with a tokenizer of
SentencePiece, which all of the tool chains read. What converts and compares is what the quantizer runs. Prints JSON, line
by line.
"""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from transformers import LlamaConfig, LlamaForCausalLM, LlamaTokenizer

from slm_quantizer import external
from slm_quantizer.pack import weight_bytes
from slm_quantizer.runtimes import Torch
from slm_quantizer.verify import look
from slmkit.run import RunFailed
from slmops.contract import QuantizeRun, Sink, Source

FORMS = (("INT4", "RTN"), ("INT4", "KQuant"), ("INT8", "RTN"), ("FP16", "RTN"), ("FP32", "RTN"))
ALONE = {"KQuant": ("GGUF",)}
"""Formats that an algorithm goes with, where it does not with all."""
PROMPTS = ("open gate 1", "code 3", "Set the lights to 40 percent at 06:30.", "close gate 2 now")
WORDS = 300


def make(folder: Path) -> Path:
    """The model, as transformers saves it."""
    folder.mkdir(parents=True)
    text = [
        f"open gate {n}. close gate {n + 1} now, code {n % 7}: set the lights to {n} percent at 06:30"
        for n in range(90)
    ]
    with (folder / "tokenizer.model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(text), model_writer=file, vocab_size=WORDS, model_type="bpe", byte_fallback=True,
            hard_vocab_limit=False, minloglevel=2,
        )  # fmt: skip
    size = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model")).get_piece_size()
    LlamaTokenizer.from_pretrained(folder).save_pretrained(folder)
    torch.manual_seed(1)
    config = LlamaConfig(vocab_size=size, hidden_size=256, intermediate_size=512, num_hidden_layers=2,
                         num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512)  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def tried(model: Path, format: str, precision: str, algorithm: str, work: Path) -> dict[str, Any]:
    """Build it, and look at what it says beside PyTorch."""
    run = QuantizeRun(run="bench", model=Source(uri="oci://registry.example/x:v1"), name="x", variant="v", format=format,
                      precision=precision, algorithm=algorithm, output=Sink(repository="registry.example/x"))  # fmt: skip
    work.mkdir(parents=True)
    try:
        built = external.build(model, run, None, work)
        found = look(Torch(model), partial(external.Program, format, built), precision, PROMPTS).verification
    except RunFailed as failed:
        return {"failed": failed.message}
    return {"similarity": found.similarity, "greedy": found.greedy_agreement, "weights": weight_bytes(built)}


def main(place: Path, formats: list[str]) -> None:
    """Try them all."""
    model = make(place / "model")
    for format in formats:
        for precision, algorithm in FORMS:
            if format in ALONE.get(algorithm, (format,)):
                work = place / f"{format}-{precision}-{algorithm}"
                found = tried(model, format, precision, algorithm, work)
                print(
                    json.dumps({"format": format, "precision": precision, "algorithm": algorithm} | found), flush=True
                )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
