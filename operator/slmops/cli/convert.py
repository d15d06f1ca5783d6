"""``slmops convert azureml FILE``: prints a manifest, remarks as comments above it."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from slmops.cli.azureml import Refused, Wish, convert

LARGEST = 1 << 20


def add(commands: Any) -> None:
    """Add the command to the program's."""
    parser = commands.add_parser("convert", help="print a manifest made from another product's job file")
    kinds = parser.add_subparsers(dest="kind", required=True)
    azure = kinds.add_parser("azureml", help="an Azure ML distillation job (YAML)")
    azure.add_argument("file", help="the job's file; - reads the standard input")
    azure.add_argument("--output", required=True, metavar="REPOSITORY", help="OCI repository for the student, no tag")
    azure.add_argument("--student", metavar="URI", help="the student, for example hf://microsoft/Phi-4-mini-instruct")
    azure.add_argument("--train", metavar="URI", help="the prompts, where the job names a file of its workspace")
    azure.add_argument("--validation", metavar="URI", help="the prompts for the evaluation, likewise")
    azure.add_argument("--secret", help="Secret with the teacher's key; the connection's name when absent")
    azure.add_argument("--namespace", help="namespace of the resource")


def run(options: argparse.Namespace) -> int:
    """Convert. 0: printed; 2: refused, with a message that begins with the field."""
    wish = Wish(
        repository=options.output, student=options.student, train=options.train, validation=options.validation,
        secret=options.secret, namespace=options.namespace,
    )  # fmt: skip
    try:
        made = convert(_read(options.file), wish)
    except Refused as refused:
        print(f"slmops: {refused}", file=sys.stderr)
        return 2
    for remark in made.remarks:
        print(f"# {remark}")
    print(yaml.safe_dump(made.manifest, sort_keys=False, allow_unicode=True, width=110), end="")
    return 0


def _read(name: str) -> Mapping[str, Any]:
    try:
        content = sys.stdin.buffer.read(LARGEST) if name == "-" else Path(name).read_bytes()[:LARGEST]
        job = yaml.safe_load(content)
    except OSError as error:
        raise Refused(f"{name}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise Refused(f"{name}: not YAML: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(job, Mapping):
        raise Refused(f"{name}: a mapping is expected, as in an Azure ML job file")
    return {str(key): value for key, value in job.items()}
