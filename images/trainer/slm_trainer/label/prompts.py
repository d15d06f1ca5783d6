"""What the teacher is told besides the record, and what of its answer the student learns.

With chain of thought (Wei et al. 2022, arXiv 2201.11903) the teacher reasons before it answers, which makes its answers
better; with chain of density (Adams et al. 2023, arXiv 2309.04269) it writes a summary again and again, each time with
more in the same length. Both are asked for as JSON, so that reasoning and earlier drafts can be told from the result.
The student is trained on the record's own prompt and on the result alone: it learns to answer, not to reason.
"""

import json
import re
from typing import Any

from slmops.contract import LabelRun

THOUGHT = (
    "First reason about the task step by step, in at most 80 words. Then answer it. Reply with one JSON object and "
    'nothing else, no Markdown: {{"reasoning": "your steps", "answer": "{answer}"}}'
)
ANSWERS = {"Math": "the final result alone, without words", "NLI": "the label alone"}
DENSITY = (
    "Summarize the text that the user gives, in five rounds. The first summary has about {words} words and says little "
    "that is specific. In each further round find one to three entities of the text that the summary lacks (relevant, "
    "specific, five words or fewer, found in the text), and write a summary of the same length that has them as well as "
    "everything from before: fuse, shorten, leave out filler; drop no entity. No summary has more than {words} words. "
    "Reply with one JSON list of five objects and nothing else, no Markdown: "
    '[{{"missing": "entity; entity", "summary": "text"}}, …]'
)
FENCE = re.compile(r"^\s*```[a-z]*\s*\n(.*?)\n?\s*```\s*$", re.DOTALL)


def asked(run: LabelRun, prompt: tuple[dict[str, str], ...]) -> tuple[dict[str, str], ...]:
    """The messages that the teacher gets for a record's prompt: the run's instruction comes after the system message."""
    instruction = _instruction(run)
    if instruction is None:
        return prompt
    said = [message["content"] for message in prompt if message["role"] == "system"]
    system = {"role": "system", "content": "\n\n".join([*said, instruction])}
    return (system, *(message for message in prompt if message["role"] != "system"))


def result(run: LabelRun, text: str) -> str | None:
    """What the student learns from the teacher's words. None: there is no result in them."""
    if run.chain_of_thought:
        found = _json(text)
        return _text(found.get("answer")) if isinstance(found, dict) else None
    if run.chain_of_density:
        found = _json(text)
        last = found[-1] if isinstance(found, list) and found else None
        return _text(last.get("summary")) if isinstance(last, dict) else None
    return text


def _instruction(run: LabelRun) -> str | None:
    if run.chain_of_thought:
        return THOUGHT.format(answer=ANSWERS.get(run.task or "", "the answer alone"))
    if run.chain_of_density:
        return DENSITY.format(words=run.max_summary_words)
    return None


def _json(text: str) -> Any:
    """The JSON in an answer. Teachers put it into Markdown though they were asked not to."""
    fenced = FENCE.match(text)
    try:
        return json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):
        return None


def _text(value: Any) -> str | None:
    """A result as text: numbers are how many teachers write the result of a calculation."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    return str(value).strip() or None
