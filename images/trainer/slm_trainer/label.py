"""A labelling run: a teacher answers every prompt, and the answers become a data set."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from slm_trainer.split import split
from slmkit.access import bearer
from slmkit.data import Example, read_examples, write_messages
from slmkit.publish import publish
from slmkit.registry import Registry
from slmkit.run import Context, RunFailed
from slmkit.sources import fetch
from slmops.contract import (
    DATASET_TYPE,
    Data,
    DatasetCounts,
    Endpoint,
    Figures,
    LabelRun,
    Reason,
    Report,
    Sampling,
)

RETRIED = {408, 413, 425, 429, 500, 502, 503, 504}
NOT_YET = {502, 503, 504}
ATTEMPTS = 4
LOCAL_BATCH = 32


def label(run: LabelRun, context: Context) -> Report:
    """Label prompts and publish the data set."""
    registry = Registry(run.registry)
    context.stage("Fetching")
    counts: Counter[str] = Counter()
    training = _prompts(run.train, "train", run, context, registry)
    if run.validation is not None:
        held_out = _prompts(run.validation, "validation", run, context, registry)
    else:
        training, held_out = split(training, run.validation_split)
    read = len(training) + len(held_out)
    if run.deduplicate:
        training, doubled = _unique(training)
        counts["Duplicate"] += doubled
    prompts = [*training, *held_out]
    answers = _answer(run, prompts, context, registry)
    answered = sum(answer is not None for answer in answers)
    wanted = run.endpoint.min_success_ratio if run.endpoint else 0.7
    if answered / len(prompts) < wanted:
        raise RunFailed(Reason.TOO_FEW_ANSWERS, f"the teacher answered {answered} of {len(prompts)} prompts, "
                        f"{wanted:.0%} are wanted")  # fmt: skip
    kept = _filter(training, answers[: len(training)], run, counts)
    if not kept:
        raise RunFailed(Reason.TOO_FEW_ANSWERS, f"no record is left to train on: {_words(counts)}")
    judged = _filter(held_out, answers[len(training) :], run, counts)
    right, golden = 0, 0
    measured = []
    for example, answer in judged:
        expected = example.completion
        if expected is not None:
            golden += 1
            right += answer.strip() == expected.strip()
        measured.append(Example(example.prompt, expected if expected is not None else answer))
    context.check()
    context.stage("Publishing")
    folder = context.work / "dataset"
    folder.mkdir(exist_ok=True)
    write_messages(folder / "train.jsonl", (Example(example.prompt, answer) for example, answer in kept))
    write_messages(folder / "validation.jsonl", measured)
    files = {path.name: path for path in sorted(folder.iterdir())}
    # No time: what an answer takes over the network, among others, compares with nothing that is measured elsewhere.
    teacher = Figures(exact_match=round(right / golden, 5) if golden else None, samples=golden or None)
    made = publish(registry, run, context, files, DATASET_TYPE, {"teacher": teacher})
    return Report(
        outcome="Succeeded", artifacts={"dataset": made}, evaluation={"teacher": teacher},
        dataset=DatasetCounts(
            prompts=read, labelled=answered, kept=len(kept) + len(judged), dropped=dict(+counts),
            tokens=sum(len(answer.split()) for _, answer in kept),
        ),
    )  # fmt: skip


def _prompts(data: Data, role: str, run: LabelRun, context: Context, registry: Registry) -> list[Example]:
    folder = context.work / f"data-{role}"
    context.inputs[role] = fetch(data.source, folder, registry, "dataset")
    found = list(read_examples(data, folder))
    if not found:
        raise RunFailed(Reason.INVALID_DATA, f"{data.source.uri}: no record")
    if run.system_prompt is None:
        return found
    system = {"role": "system", "content": run.system_prompt}
    return [Example((system, *(m for m in e.prompt if m["role"] != "system")), e.completion) for e in found]


def _words(counts: Counter[str]) -> str:
    return ", ".join(f"{number} {what}" for what, number in sorted(counts.items())) or "all are held out"


def _unique(examples: Sequence[Example]) -> tuple[list[Example], int]:
    first = {repr(example.prompt): example for example in reversed(examples)}
    kept = [example for example in examples if first.get(repr(example.prompt)) is example]
    return kept, len(examples) - len(kept)


def _filter(
    examples: Sequence[Example], answers: Sequence[str | None], run: LabelRun, counts: Counter[str]
) -> list[tuple[Example, str]]:
    kept = []
    for example, answer in zip(examples, answers, strict=True):
        if answer is None:
            counts["NoAnswer"] += 1
        elif not answer.strip():
            counts["EmptyAnswer"] += 1
        elif (
            run.max_tokens
            and sum(len(m["content"].split()) for m in example.prompt) + len(answer.split()) > run.max_tokens
        ):
            counts["TooLong"] += 1
        else:
            kept.append((example, answer))
    return kept


def _answer(run: LabelRun, prompts: Sequence[Example], context: Context, registry: Registry) -> list[str | None]:
    if run.endpoint is not None:
        context.inputs["teacher"] = f"{run.endpoint.url} {run.endpoint.model}"
        return asyncio.run(ask_all(run.endpoint, run.sampling, prompts, context, run.seed))
    if run.model is None:
        raise RunFailed(Reason.INVALID_CONFIGURATION, "one of endpoint and model is needed")
    folder = context.work / "teacher"
    context.inputs["teacher"] = fetch(run.model, folder, registry)
    return _local(folder, run.sampling, prompts, context, run.seed)


def _local(
    folder: Path, sampling: Sampling, prompts: Sequence[Example], context: Context, seed: int
) -> list[str | None]:
    """Weights that are loaded here; records of like length share a batch."""
    import torch

    from slm_trainer.evaluate import generate
    from slm_trainer.model import load_model, load_tokenizer

    torch.manual_seed(seed)
    tokenizer, model = load_tokenizer(folder), load_model(folder).eval()
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    context.stage("Labelling", of=len(prompts))
    options: dict[str, Any] = {}
    if sampling.temperature > 0:
        options = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i].prompt[-1]["content"]))
    answers: list[str | None] = [None] * len(prompts)
    for begin in range(0, len(order), LOCAL_BATCH):
        context.check()
        batch = order[begin : begin + LOCAL_BATCH]
        made = generate(model, tokenizer, [prompts[i] for i in batch], sampling.max_tokens, **options)
        for index, text in zip(batch, made, strict=True):
            answers[index] = _stopped(text, sampling.stop)
        context.step(min(begin + LOCAL_BATCH, len(order)))
    return answers


def _stopped(text: str, stops: Sequence[str]) -> str:
    for stop in stops:
        text = text.partition(stop)[0]
    return text


async def ask_all(
    endpoint: Endpoint, sampling: Sampling, prompts: Sequence[Example], context: Context, seed: int = 0
) -> list[str | None]:
    """Every prompt's answer; None: no answer after all attempts."""
    headers = bearer(endpoint.credentials)
    answers: list[str | None] = [None] * len(prompts)
    answered = 0
    unreachable: list[str] = []
    todo = iter(range(len(prompts)))
    done = 0
    limits = httpx.Limits(max_connections=endpoint.concurrency)
    async with httpx.AsyncClient(headers=headers, timeout=endpoint.timeout_seconds, limits=limits) as client:

        async def worker() -> None:
            nonlocal done, answered
            for index in todo:
                answers[index] = await _ask(client, endpoint, sampling, prompts[index], seed, unreachable)
                answered += answers[index] is not None
                done += 1
                context.step(done)
                if len(unreachable) >= 3 * endpoint.concurrency and not answered:
                    raise RunFailed(Reason.TEACHER_UNREACHABLE, f"{endpoint.url}: {unreachable[-1]}")

        try:
            async with asyncio.TaskGroup() as group:
                watcher = group.create_task(_watch(context))
                context.stage("WaitingForTeacher")
                await _until_it_answers(client, endpoint)
                context.stage("Labelling", of=len(prompts))
                await asyncio.wait([group.create_task(worker()) for _ in range(endpoint.concurrency)])
                watcher.cancel()
        except ExceptionGroup as failures:
            known = failures.subgroup(RunFailed)
            raise (known.exceptions[0] if known else failures) from None
    if prompts and not answered:
        raise RunFailed(Reason.TEACHER_UNREACHABLE, f"{endpoint.url}: {(unreachable or ['no answer'])[-1]}")
    return answers


async def _watch(context: Context) -> None:
    """A teacher may take minutes for an answer, the kubelet waits for seconds."""
    while True:
        context.check()
        await asyncio.sleep(1)


async def _until_it_answers(client: httpx.AsyncClient, endpoint: Endpoint) -> None:
    """A teacher that is rolled out at the same time as this run is waited for. Any answer but "not yet" will do."""
    deadline = time.monotonic() + endpoint.startup_seconds
    while True:
        try:
            answer = await client.get(f"{endpoint.url.rstrip('/')}/models")
            if answer.status_code not in NOT_YET:
                return
            trouble = f"answered {answer.status_code}"
        except httpx.HTTPError as error:
            trouble = f"{type(error).__name__}: {error}"[:200]
        if time.monotonic() > deadline:
            raise RunFailed(Reason.TEACHER_UNREACHABLE, f"{endpoint.url}: {trouble}")
        await asyncio.sleep(2)


async def _ask(
    client: httpx.AsyncClient, endpoint: Endpoint, sampling: Sampling, example: Example, seed: int, trouble: list[str]
) -> str | None:
    body: dict[str, Any] = {
        "model": endpoint.model, "messages": list(example.prompt), "temperature": sampling.temperature,
        "top_p": sampling.top_p, "max_tokens": sampling.max_tokens, "seed": seed,
    }  # fmt: skip
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.frequency_penalty or sampling.presence_penalty:
        body |= {"frequency_penalty": sampling.frequency_penalty, "presence_penalty": sampling.presence_penalty}
    for attempt in range(ATTEMPTS):
        pause = 2.0**attempt * random.uniform(0.25, 0.5)  # noqa: S311  (jitter)
        try:
            answer = await client.post(f"{endpoint.url.rstrip('/')}/chat/completions", json=body)
            if answer.is_success:
                text = answer.json()["choices"][0]["message"]["content"]
                if isinstance(text, str):
                    return text.encode("utf-8", "replace").decode()  # an answer can end in half of a character
                trouble.append("an answer without text")
            elif answer.status_code == 401:
                raise RunFailed(Reason.SOURCE_UNAUTHORIZED, f"{endpoint.url}: the teacher answered 401")
            elif answer.status_code not in RETRIED:
                trouble.append(f"answered {answer.status_code}")
                return None
            else:
                trouble.append(f"answered {answer.status_code}")
                asked = answer.headers.get("Retry-After", "")
                pause = min(float(asked), 60.0) if asked.isdecimal() else pause
        except (httpx.HTTPError, ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
            trouble.append(f"{type(error).__name__}: {error}"[:200])
        if attempt + 1 < ATTEMPTS:
            await asyncio.sleep(pause)
    return None
