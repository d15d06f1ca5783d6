"""The same prompts through the Engine of ONNX Runtime GenAI, which makes batches: ``python batching.py FOLDER TOKENS``.

Eight are under way at any time, as of eight clients. Reads and prints as ``raw.py`` does.
"""

import json
import sys
import time

import numpy as np
import onnxruntime_genai as og

AT_ONCE = 8


def main(folder: str, tokens: int) -> None:
    """Answer until the input ends."""
    model = og.Model(folder)
    tokenizer = og.Tokenizer(model)
    engine = og.Engine(model)
    events = engine.create_event_buffer(64)

    def answer(prompts: list[str]) -> list[str]:
        waiting = list(enumerate(prompts))[::-1]
        under_way: dict[int, tuple[int, og.Request, og.TokenizerStream]] = {}
        texts = [""] * len(prompts)
        while waiting or under_way:
            while waiting and len(under_way) < AT_ONCE:
                number, prompt = waiting.pop()
                request = engine.create_request()
                options = og.TurnOptions(request)
                options.set_do_sample(False)
                options.set_max_generated_tokens(tokens)
                request.begin_turn(np.array(tokenizer.encode(prompt), np.int32), options)
                under_way[id(request)] = number, request, tokenizer.create_stream()
            for event in engine.run(events):
                number, request, stream = under_way[id(event.request)]
                if event.flags & og.EngineEventFlags.FAILED:
                    raise RuntimeError(f"request {number} failed: {event.error_code}")
                if event.flags & og.EngineEventFlags.TOKEN:
                    texts[number] += stream.decode(event.token)
                if event.flags & og.EngineEventFlags.TURN_FINISHED:
                    request.close()
                    del under_way[id(request)]
        return texts

    answer(["hello"])
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        prompts = json.loads(line)
        begun, spent = time.perf_counter(), time.process_time()
        answer(prompts)
        seconds, spent = time.perf_counter() - begun, time.process_time() - spent
        print(json.dumps({"rate": len(prompts) / seconds, "cpu": spent / len(prompts)}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
