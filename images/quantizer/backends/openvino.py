"""OpenVINO: optimum-intel exports, nncf rounds the weights, OpenVINO's own runtime and tokenizer answer.

``python openvino.py ASKED.json``; what is asked and answered is told in slm_quantizer/external.py. Runs in a Python
environment of its own, because optimum-intel needs an earlier transformers than Olive.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.pop(0)  # this folder: the file has the name of the package that it imports
os.environ["OPENVINO_TELEMETRY_OPT_OUT"] = "1"

import openvino
from openvino_tokenizers import convert_tokenizer
from optimum.intel import OVModelForCausalLM, OVWeightQuantizationConfig
from transformers import AutoTokenizer

LOCAL = {"local_files_only": True, "trust_remote_code": False}


def build(asked: dict[str, Any]) -> dict[str, Any]:
    """Export with the cache of keys and values inside the model, which OpenVINO GenAI reads."""
    precision, config = asked["precision"], None
    if precision == "INT4":
        config = OVWeightQuantizationConfig(bits=4, sym=asked["symmetric"], group_size=asked["block_size"], ratio=1.0)
    elif precision == "INT8":
        config = OVWeightQuantizationConfig(bits=8, sym=True)
    model = OVModelForCausalLM.from_pretrained(
        asked["model"], export=True, compile=False, load_in_8bit=False, quantization_config=config, **LOCAL
    )
    if precision == "FP16":
        model.half()
    model.save_pretrained(asked["out"])
    tokenizer = AutoTokenizer.from_pretrained(asked["model"], **LOCAL)
    tokenizer.save_pretrained(asked["out"])
    for name, part in zip(("tokenizer", "detokenizer"), convert_tokenizer(tokenizer, with_detokenizer=True,
                          skip_special_tokens=True), strict=True):  # fmt: skip
        openvino.save_model(part, Path(asked["out"], f"openvino_{name}.xml"))
    return {}


def say(asked: dict[str, Any]) -> list[dict[str, Any]]:
    """Greedy answers, on the CPU in 32 bit."""
    import torch

    folder = Path(asked["model"])
    model = OVModelForCausalLM.from_pretrained(
        folder, device="CPU", ov_config={"INFERENCE_PRECISION_HINT": "f32", "CACHE_DIR": ""}, **LOCAL
    )
    core = openvino.Core()
    core.add_extension(openvino_tokenizers_extension())
    cut = core.compile_model(folder / "openvino_tokenizer.xml", "CPU")
    read = core.compile_model(folder / "openvino_detokenizer.xml", "CPU")
    said = []
    for prompt in asked["prompts"]:
        tokens = cut([prompt])["input_ids"][0].tolist()
        given = torch.tensor([tokens])
        mask = torch.ones_like(given)
        made = model.generate(input_ids=given, attention_mask=mask, max_new_tokens=asked["limit"], do_sample=False,
                              repetition_penalty=1.0)  # fmt: skip
        model.request and model.request.reset_state()
        logits = model(input_ids=given, attention_mask=mask).logits[0, -1]
        said.append({
            "tokens": tokens, "read_back": str(read([tokens])["string_output"][0]), "logits": logits.float().tolist(),
            "greedy": made[0, len(tokens) :].tolist(),
        })  # fmt: skip
    return said


def openvino_tokenizers_extension() -> str:
    """The library that computes tokenizers."""
    import openvino_tokenizers

    return str(next(Path(openvino_tokenizers.__file__).parent.rglob("libopenvino_tokenizers.so")))


if __name__ == "__main__":
    wanted = json.loads(Path(sys.argv[1]).read_bytes())
    Path(wanted["answer"]).write_text(json.dumps({"build": build, "say": say}[wanted["do"]](wanted)))
