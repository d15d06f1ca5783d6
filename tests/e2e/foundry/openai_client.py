"""What a program with OpenAI's own client does with a server: ``openai_client.py BASE MODEL QUESTION [chats]``.

Runs in the environment that has the client. Prints JSON.
"""

import json
import sys

import openai


def main(base: str, model: str, question: str, only: str = "") -> None:
    """Do it. ``only``: chats, and no text that is continued."""
    client = openai.OpenAI(base_url=f"{base}/v1", api_key="none", max_retries=0, timeout=60)
    messages = [{"role": "user", "content": question}]
    whole = client.chat.completions.create(model=model, messages=messages, temperature=0, max_tokens=64)
    stream = client.chat.completions.create(
        model=model,
        messages=messages,
        temperature=0,
        max_tokens=64,
        stream=True,
        stream_options={"include_usage": True},
    )
    parts, counted = [], None
    for chunk in stream:
        parts += [choice.delta.content or "" for choice in chunk.choices]
        counted = chunk.usage or counted
    text = None if only else client.completions.create(model=model, prompt=question, temperature=0, max_tokens=4)
    refusals = {}
    for name, fields in {"model": {"model": "nobody"}, "context": {"messages": [{"role": "user", "content": "a " * 9000}]},
                         "field": {"temperature": 9}}.items():  # fmt: skip
        try:
            client.chat.completions.create(**{"model": model, "messages": messages} | fields)
        except openai.APIStatusError as error:
            refusals[name] = [type(error).__name__, error.code]
    print(json.dumps({
        "models": [found.id for found in client.models.list()], "whole": whole.choices[0].message.content,
        "streamed": "".join(parts), "counts": [whole.usage.total_tokens, counted and counted.total_tokens],
        "text": text and [text.object, text.choices[0].text], "refusals": refusals,
    }))  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
