"""Models and tokenizers: loaded from a checked folder, or made from nothing. Never any code of the model's own."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from slm_trainer.encoding import CHAT_TEMPLATE, SPECIAL, name_ends
from slm_trainer.template import set_template
from slmkit.data import Example
from slmkit.run import RunFailed
from slmkit.sources import check_model_folder
from slmops.contract import Architecture, Reason

VOCABULARIES = ("tokenizer.json", "tokenizer.*.json", "vocab.json", "vocab.txt", "*tekken*.json", "*.model", "*.spm",
                "*.tiktoken")  # fmt: skip
"""Files that a tokenizer's vocabulary may lie in."""


def attention() -> str:
    """How attention is computed: on GPUs by PyTorch's own function, which takes less memory than the model's code; on
    CPUs by the model's code, which is faster for short sequences."""
    return "sdpa" if torch.cuda.is_available() else "eager"


def load_model(folder: Path) -> Any:
    """A causal language model in FP32. Raises RunFailed where the folder is unsafe or not understood."""
    check_model_folder(folder)
    try:
        return AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=torch.float32,
            attn_implementation=attention(),
        )  # fmt: skip
    except (OSError, ValueError, KeyError) as error:
        raise RunFailed(Reason.UNSUPPORTED_MODEL, f"the model cannot be loaded: {error}") from None


def read_tokenizer(folder: Path) -> Any:
    """The tokenizer of a checked folder, as it is. Raises RunFailed where there is none, or transformers cannot read it:
    of some architectures it makes an empty one where it finds no vocabulary."""
    if not any(path.is_file() for name in VOCABULARIES for path in folder.glob(name)):
        raise RunFailed(Reason.UNSUPPORTED_MODEL, "the model has no tokenizer: there is no tokenizer.json")
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        words = str(error)
        if any(folder.glob("*.model")) and not (folder / "tokenizer.json").is_file():
            words = (
                "there is no tokenizer.json, and tokenizer.model alone is not read; save the tokenizer once where "
                "transformers and sentencepiece are installed, which writes it"
            )
        raise RunFailed(Reason.UNSUPPORTED_MODEL, f"the tokenizer cannot be loaded: {words}") from None


def load_tokenizer(folder: Path, template: str | None = None) -> Any:
    """A tokenizer with a chat template, its own or this one, and a padding token."""
    check_model_folder(folder)
    tokenizer = read_tokenizer(folder)
    if template is not None:
        set_template(tokenizer, template)
    if tokenizer.chat_template is None:
        raise RunFailed(
            Reason.UNSUPPORTED_MODEL,
            "the tokenizer has no chat template; add chat_template.jinja, or set data.template",
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def train_tokenizer(examples: Iterable[Example], vocabulary: int) -> Any:
    """A byte-level BPE tokenizer trained on the data (Sennrich et al. 2016, arXiv 1508.07909). Digits stay apart: tiny
    models copy numbers digit by digit."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=list(SPECIAL), show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    texts = (message["content"] for example in examples for message in example.messages())
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=SPECIAL[0], eos_token=SPECIAL[1],
        additional_special_tokens=list(SPECIAL[2:]), clean_up_tokenization_spaces=False,
    )  # fmt: skip
    fast.chat_template = CHAT_TEMPLATE
    return fast


def new_model(wanted: Architecture, tokenizer: Any) -> Any:
    """A model with random weights (Qwen2 layout)."""
    size = max(wanted.vocabulary_size, len(tokenizer))
    if size in (wanted.hidden_size, wanted.intermediate_size):
        raise RunFailed(Reason.INVALID_CONFIGURATION, f"the vocabulary of {size} tokens must differ from hiddenSize and "
                        "intermediateSize: converters tell the output layer by it")  # fmt: skip
    config = Qwen2Config(
        vocab_size=size, hidden_size=wanted.hidden_size, intermediate_size=wanted.intermediate_size,
        num_hidden_layers=wanted.layers, num_attention_heads=wanted.attention_heads,
        num_key_value_heads=wanted.key_value_heads, max_position_embeddings=wanted.max_position_embeddings,
        tie_word_embeddings=True, bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, attention_dropout=0.0,
    )  # fmt: skip
    config._attn_implementation = attention()
    return Qwen2ForCausalLM(config)


def save_memory(model: Any) -> None:
    """Keep the activations of one layer at a time; the others are computed again in the backward pass (Chen et al. 2016,
    arXiv 1604.06174). Raises RunFailed where the model's code cannot."""
    try:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    except ValueError as error:
        raise RunFailed(Reason.UNSUPPORTED_MODEL, f"training.gradientCheckpointing: {error}") from None


def save(model: Any, tokenizer: Any, folder: Path) -> dict[str, Path]:
    """Write model and tokenizer. Returns the files by their name in the artefact."""
    name_ends(model, tokenizer)
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
    return {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
