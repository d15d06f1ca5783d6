"""One chat template, rendered as transformers does, in a process with little time and memory. No part of the package:
``templates`` runs it by its path, with what it needs as JSON on standard input, and reads the exit code.
"""

import json
import resource
import sys
from typing import Any

from jinja2 import TemplateSyntaxError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

UNDONE, TOO_LONG, SYNTAX = 3, 4, 5
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}


class Generation(Extension):
    """transformers' own tag around what the model says: read over here."""

    tags = {"generation"}

    def parse(self, parser: Any) -> Any:
        """What stands between the tags, as it stands."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def render(asked: dict[str, Any]) -> int:
    """The exit code."""
    resource.setrlimit(resource.RLIMIT_AS, (asked["memory"], asked["memory"]))
    resource.setrlimit(resource.RLIMIT_CPU, (asked["seconds"], asked["seconds"]))
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = lambda value, **more: json.dumps(value, ensure_ascii=False)
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda format: "2026-01-01"
    try:
        tree = environment.parse(asked["template"])
        others = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)
        if found := next((node for kind in others for node in tree.find_all(kind)), None):
            print(f"line {found.lineno}: reads another file", file=sys.stderr)
            return SYNTAX
        template = environment.from_string(asked["template"])
    except (TemplateSyntaxError, RecursionError) as error:
        print(error, file=sys.stderr)
        return SYNTAX
    size = 0
    try:
        for part in template.generate(messages=asked["messages"], add_generation_prompt=True, tools=None, documents=None,
                                      **TOKENS):  # fmt: skip
            size += len(part)
            if size > asked["output"]:
                return TOO_LONG
    except MemoryError:
        return 1
    except Exception:  # its own refusal of this conversation
        return UNDONE
    return 0


def _raise(message: str) -> None:
    raise ValueError(message)


if __name__ == "__main__":
    sys.exit(render(json.load(sys.stdin)))
