"""The plain loop of ONNX Runtime GenAI's own examples, in process: ``python raw.py FOLDER TOKENS``.

Each line of input is a list of prompts, as JSON; they are answered one after the other, greedily. Prints a line for each:
``rate``, requests a second, and ``cpu``, seconds of the processor for each.
"""

import json
import sys
import time

import onnxruntime_genai as og


def main(folder: str, tokens: int) -> None:
    """Answer until the input ends."""
    model = og.Model(folder)
    tokenizer = og.Tokenizer(model)

    def answer(prompt: str) -> str:
        asked = tokenizer.encode(prompt)
        parameters = og.GeneratorParams(model)
        parameters.set_search_options(do_sample=False, max_length=len(asked) + tokens, batch_size=1)
        generator = og.Generator(model, parameters)
        generator.append_tokens(asked)
        stream = tokenizer.create_stream()
        text = ""
        while not generator.is_done():
            generator.generate_next_token()
            text += stream.decode(generator.get_next_tokens()[0])
        return text

    answer("hello")
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        prompts = json.loads(line)
        begun, spent = time.perf_counter(), time.process_time()
        for prompt in prompts:
            answer(prompt)
        seconds, spent = time.perf_counter() - begun, time.process_time() - spent
        print(json.dumps({"rate": len(prompts) / seconds, "cpu": spent / len(prompts)}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
