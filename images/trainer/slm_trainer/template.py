"""A chat template of the user's own: tried on a conversation before anything is trained with it.

transformers renders templates in Jinja2's immutable sandbox: no attribute that begins with an underscore, no method that
changes anything, no import, and loops over 100,000 steps at most.
"""

from traceback import walk_tb
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError

from slmkit.run import RunFailed
from slmops.contract import Reason

QUESTION, ANSWER = "Is it 20 degrees?", "No, 21."
CONVERSATION = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION})


def set_template(tokenizer: Any, template: str) -> None:
    """Give the tokenizer this template. Raises RunFailed, with the line, where it cannot be used to train."""
    tokenizer.chat_template = template
    try:
        prompt = tokenizer.apply_chat_template(list(CONVERSATION), tokenize=False, add_generation_prompt=True)
        whole = tokenizer.apply_chat_template([*CONVERSATION, {"role": "assistant", "content": ANSWER}], tokenize=False)
    except TemplateSyntaxError as error:
        raise _invalid(f"line {error.lineno}: {error.message}") from None
    except Exception as error:  # what a template does may fail in any way
        line = next((f"line {number}: " for frame, number in reversed(list(walk_tb(error.__traceback__)))
                     if frame.f_code.co_filename == "<template>"), "")  # fmt: skip
        said = error.message if isinstance(error, TemplateError) else f"{type(error).__name__}: {error}"
        raise _invalid(f"{line}{said}") from None
    if QUESTION not in prompt or ANSWER not in whole:
        missing = "a user's message" if QUESTION not in prompt else "the answer"
        raise _invalid(f"{missing} is not in the text that it makes")
    if not whole.startswith(prompt):
        raise _invalid("with add_generation_prompt an answer begins in another way than without: what is trained would "
                       "not be what is generated")  # fmt: skip


def _invalid(what: str) -> RunFailed:
    return RunFailed(Reason.INVALID_TEMPLATE, f"data.template: {what}")
