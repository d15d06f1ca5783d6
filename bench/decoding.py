"""Tokens a second of a model in PyTorch and in ONNX Runtime GenAI: ``python decoding.py FOLDER``, in the quantizer's image.

The model is made on the spot: 93 million parameters, 3 % of them embeddings, that have never learned anything. That changes
neither its size nor its speed. What quantizes it is what the quantizer runs. All are asked for the same number of tokens
after the same prompt, greedily, on one thread, taking turns, and their processor time is told: on one thread that is the
time of a machine that has nothing else to do. Prints JSON, line by line.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime_genai as og
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from slm_quantizer import compressed, onnx
from slm_quantizer.pack import GENAI, layers, weight_bytes
from slmops.contract import QuantizeRun, Sink, Source

CONFIG = LlamaConfig(vocab_size=4000, hidden_size=768, intermediate_size=2560, num_hidden_layers=12, num_attention_heads=12,
                     num_key_value_heads=4, max_position_embeddings=512, tie_word_embeddings=True)  # fmt: skip
PROMPT, ANSWER, ROUNDS = 32, 64, 5
BLOCKS = (32, 128)
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


def make(folder: Path) -> int:
    """The model, as transformers saves it. Returns how many parameters it has."""
    torch.manual_seed(1)
    model = LlamaForCausalLM(CONFIG)
    model.save_pretrained(folder)
    words = {f"w{number}": number for number in range(CONFIG.vocab_size)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="w1", eos_token="w2", unk_token="w0",
                            chat_template=TEMPLATE).save_pretrained(folder)  # fmt: skip
    return sum(parameter.numel() for parameter in model.parameters())


def wanted(**fields: Any) -> QuantizeRun:
    """A variant."""
    return QuantizeRun(run="bench", model=Source(uri="oci://registry.example/x:v1"), name="x", variant="v",
                       output=Sink(repository="registry.example/x"), **fields)  # fmt: skip


def packed(folder: Path) -> int:
    """Bytes of the layers of its image, with Zstd."""
    return sum(layer.measure().size for layer in layers(folder, "x", "Zstd"))


def quantized(model: Path, block: int, work: Path) -> Path:
    """INT4, by the quantizer's own backend, to be run on one thread."""
    work.mkdir()
    folder = onnx.build(model, wanted(precision="INT4", block_size=block), None, work)
    config = json.loads((folder / GENAI).read_text())
    config["model"]["decoder"]["session_options"]["intra_op_num_threads"] = 1
    (folder / GENAI).write_text(json.dumps(config))
    return folder


def in_torch(folder: Path, kind: torch.dtype) -> Callable[[], None]:
    """Generation in transformers."""
    model = LlamaForCausalLM.from_pretrained(folder, dtype=kind).eval()
    prompt = torch.arange(10, 10 + PROMPT)[None]

    def generate() -> None:
        with torch.inference_mode():
            made = model.generate(input_ids=prompt, attention_mask=torch.ones_like(prompt), do_sample=False,
                                  min_new_tokens=ANSWER, max_new_tokens=ANSWER, pad_token_id=2)  # fmt: skip
        assert made.shape[1] == PROMPT + ANSWER

    return generate


def in_genai(folder: Path) -> Callable[[], None]:
    """Generation in ONNX Runtime GenAI."""
    model = og.Model(str(folder))

    def generate() -> None:
        settings = og.GeneratorParams(model)
        settings.set_search_options(do_sample=False, min_length=PROMPT + ANSWER, max_length=PROMPT + ANSWER)
        generator = og.Generator(model, settings)
        generator.append_tokens(list(range(10, 10 + PROMPT)))
        while not generator.is_done():
            generator.generate_next_token()
        assert len(generator.get_sequence(0)) == PROMPT + ANSWER

    return generate


def rate(generate: Callable[[], None]) -> float:
    """Tokens for each second of the processor; the prompt's time is in it for all alike."""
    begun = time.process_time()
    generate()
    return ANSWER / (time.process_time() - begun)


def tell(**said: Any) -> None:
    """A line of JSON."""
    print(json.dumps(said), flush=True)


def main(place: Path) -> None:
    """Measure."""
    torch.set_num_threads(1)
    parameters = make(place / "model")
    tell(parameters=parameters, embeddings=CONFIG.vocab_size * CONFIG.hidden_size)
    tell(shape=[CONFIG.vocab_size, CONFIG.hidden_size, CONFIG.intermediate_size, CONFIG.num_hidden_layers,
                CONFIG.num_attention_heads, CONFIG.num_key_value_heads])  # fmt: skip
    (place / "half").mkdir()
    half = compressed.build(place / "model", wanted(format="Safetensors", precision="FP16"), None, place / "half")
    tell(half=packed(half))
    built = {block: quantized(place / "model", block, place / str(block)) for block in BLOCKS}
    for block, folder in built.items():
        tell(block=block, weights=weight_bytes(folder), packed=packed(folder))
    ways = {"FP32": in_torch(place / "model", torch.float32), "BF16": in_torch(place / "model", torch.bfloat16)}
    ways |= {f"INT4/{block}": in_genai(folder) for block, folder in built.items()}
    for generate in ways.values():
        generate()
    for number in range(ROUNDS):
        turn = sorted(ways, reverse=bool(number % 2))
        tell(rates={name: rate(ways[name]) for name in turn})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
