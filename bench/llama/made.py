"""A GGUF of a Llama that has never learned anything: ``python made.py FILE VOCABULARY WIDTH INNER LAYERS HEADS KV_HEADS``.

Runs in an environment of its own. The weights are others than those that the rest is measured with; speed and size do not
know.
"""

import sys

import gguf
import numpy as np

CONTEXT = 512
UNKNOWN, CONTROL, NORMAL = gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.NORMAL


def main(path: str, vocabulary: int, width: int, inner: int, layers: int, heads: int, kv_heads: int) -> None:
    """Write it."""
    draw = np.random.default_rng(1)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(width // heads)
    writer.add_vocab_size(vocabulary)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([f"w{number}" for number in range(vocabulary)])
    writer.add_token_scores([0.0] * vocabulary)
    writer.add_token_types([UNKNOWN, CONTROL, CONTROL, *[NORMAL] * (vocabulary - 3)])

    def matrix(name: str, rows: int, columns: int) -> None:
        writer.add_tensor(f"{name}.weight", draw.normal(0, 0.02, (rows, columns)).astype(np.float32))

    def ones(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(width, np.float32))

    matrix("token_embd", vocabulary, width)
    ones("output_norm")
    for layer in range(layers):
        block = f"blk.{layer}"
        ones(f"{block}.attn_norm")
        ones(f"{block}.ffn_norm")
        for name, rows in (("q", width), ("k", width // heads * kv_heads), ("v", width // heads * kv_heads)):
            matrix(f"{block}.attn_{name}", rows, width)
        matrix(f"{block}.attn_output", width, width)
        matrix(f"{block}.ffn_gate", inner, width)
        matrix(f"{block}.ffn_up", inner, width)
        matrix(f"{block}.ffn_down", width, inner)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
