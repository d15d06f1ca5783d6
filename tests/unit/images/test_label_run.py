"""Labelling runs from the prompts to the published data set."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from slm_trainer import label as module
from slm_trainer.label import label
from slm_trainer.split import split
from slmkit import sources
from slmkit.data import Example
from slmkit.run import Context, RunFailed
from slmops.contract import LabelRun, Reason, Report
from tests.unit import virtualnet
from tests.unit.images.fakellm import FakeLLM, Reply, play
from tests.unit.images.fakeregistry import FakeRegistry


def prompts(*texts: str) -> list[Example]:
    return [Example(({"role": "user", "content": text},), None) for text in texts]


def refused(act: Callable[[], object]) -> RunFailed:
    with pytest.raises(RunFailed) as failed:
        act()
    return failed.value


class Job:
    """A labelling run over a volume, a teacher and a registry of its own."""

    def __init__(self, folder: Path, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
        self.volume = folder / "pvc" / "claim"
        self.volume.mkdir(parents=True)
        self.registry = registry
        self.context = Context(work=folder / "work")
        self.context.work.mkdir()
        monkeypatch.setattr(sources, "PVC_ROOT", folder / "pvc")
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=virtualnet.now))
        monkeypatch.setattr(asyncio, "run", lambda main: play(lambda: main, self.llm))
        self.llm = FakeLLM()

    def label(self, llm: FakeLLM | None = None, min_success_ratio: float = 0.7, **fields: Any) -> Report:
        self.llm = llm or self.llm
        source = {"source": {"uri": "pvc://claim/"}, "format": "PromptCompletion"}
        wanted = {
            "run": "r", "registry": self.registry.settings, "output": {"repository": f"{self.registry.host}/slm/labelled"},
            "train": source | {"path": "train.jsonl"}, "validation_split": 0.0,
            "endpoint": {"url": f"{self.llm.url}/v1", "model": "m", "min_success_ratio": min_success_ratio},
        }  # fmt: skip
        return label(LabelRun.model_validate(wanted | fields), self.context)

    def give(self, *records: dict[str, str], name: str = "train") -> None:
        (self.volume / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))

    def made(self, report: Report, name: str) -> list[tuple[str, str]]:
        """(prompt, answer) of a file of the published data set."""
        manifest = self.registry.manifest("slm/labelled", report.artifacts["dataset"].reference.partition("@")[2])
        (digest,) = [
            layer["digest"]
            for layer in manifest["layers"]
            if layer["annotations"]["org.opencontainers.image.title"] == f"{name}.jsonl"
        ]
        records = [json.loads(line) for line in self.registry.blobs["slm/labelled", digest].splitlines()]
        return [(record["messages"][-2]["content"], record["messages"][-1]["content"]) for record in records]


@pytest.fixture
def job(tmp_path: Path, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> Job:
    return Job(tmp_path, registry, monkeypatch)


def test_the_answers_become_a_data_set(job: Job) -> None:
    job.give({"prompt": "a"}, {"prompt": "b"})
    report = job.label(FakeLLM(lambda text, time: Reply(f"to {text}")), annotations={"k": "v"})
    assert job.made(report, "train") == [("a", "to a"), ("b", "to b")]
    assert report.dataset is not None
    assert (report.dataset.prompts, report.dataset.labelled, report.dataset.kept, report.dataset.tokens) == (2, 2, 2, 4)
    assert report.dataset.dropped == {}
    assert set(job.context.inputs) == {"train", "teacher"}
    annotations = job.registry.client().annotations(report.artifacts["dataset"].reference)
    assert annotations["k"] == "v"
    assert annotations["slmops.dev/input.train"] == "pvc://claim/"


@pytest.mark.parametrize(("answered", "enough"), [(7, True), (6, False), (25, True), (0, False)])
def test_too_few_answers_are_a_failure(job: Job, answered: int, enough: bool) -> None:
    job.give(*({"prompt": str(i)} for i in range(25)))
    llm = FakeLLM(lambda text, time: Reply() if int(text) < answered else Reply(status=400))
    if enough:
        report = job.label(llm, min_success_ratio=0.28)
        assert report.dataset is not None
        assert report.dataset.labelled == answered
        assert report.dataset.dropped == ({"NoAnswer": 25 - answered} if answered < 25 else {})
    else:
        failed = refused(lambda: job.label(llm, min_success_ratio=0.28))
        assert failed.reason is (Reason.TOO_FEW_ANSWERS if answered else Reason.TEACHER_UNREACHABLE)
        assert ("6 of 25" if answered else "400") in failed.message
        assert job.registry.requests == [], "nothing is published"


def test_answers_without_content_are_no_data_set(job: Job) -> None:
    job.give({"prompt": "a"}, {"prompt": "b"})
    failed = refused(lambda: job.label(FakeLLM(Reply(" \n"))))
    assert failed.reason is Reason.TOO_FEW_ANSWERS
    assert "2 EmptyAnswer" in failed.message


def test_what_is_dropped_is_counted_by_its_reason(job: Job) -> None:
    job.give(*({"prompt": text} for text in ("a", "a", "empty", "long", "none", "one two three four", "b")))
    replies = {"empty": Reply(""), "long": Reply("w " * 5), "none": Reply(status=400)}
    report = job.label(FakeLLM(lambda text, time: replies.get(text, Reply())), max_tokens=4)
    assert job.made(report, "train") == [("a", "yes"), ("b", "yes")]
    assert report.dataset is not None
    assert report.dataset.dropped == {"Duplicate": 1, "EmptyAnswer": 1, "TooLong": 2, "NoAnswer": 1}
    assert report.dataset.prompts == 7 == report.dataset.kept + sum(report.dataset.dropped.values())


@pytest.mark.parametrize(("limit", "kept"), [(2, 0), (3, 1), (None, 1)])
def test_prompt_and_answer_count_together_up_to_the_limit(job: Job, limit: int | None, kept: int) -> None:
    job.give({"prompt": "one two"})
    if kept:
        report = job.label(max_tokens=limit)
        assert len(job.made(report, "train")) == kept
    else:
        assert "1 TooLong" in refused(lambda: job.label(max_tokens=limit)).message


def test_the_first_of_several_equal_prompts_is_asked_once(job: Job) -> None:
    job.give({"prompt": "b"}, {"prompt": "a"}, {"prompt": "b"}, {"prompt": "b"})
    report = job.label()
    assert [prompt for prompt, _ in job.made(report, "train")] == ["b", "a"]
    assert job.llm.counts["b"] == 1


def test_equal_prompts_stay_where_that_is_wanted(job: Job) -> None:
    job.give({"prompt": "b"}, {"prompt": "b"})
    assert len(job.made(job.label(deduplicate=False), "train")) == 2


def test_the_teacher_is_judged_by_the_held_out_answers(job: Job) -> None:
    job.give({"prompt": "a", "completion": "ignored"})
    job.give(*({"prompt": str(i), "completion": f" {i}\n"} for i in range(3)), {"prompt": "x"}, name="held")
    llm = FakeLLM(lambda text, time: Reply("wrong" if text == "2" else text))
    held = {"source": {"uri": "pvc://claim/"}, "format": "PromptCompletion", "path": "held.jsonl"}
    report = job.label(llm, validation=held)
    teacher = report.evaluation["teacher"]
    assert (teacher.exact_match, teacher.samples) == (0.66667, 3)
    assert job.made(report, "validation") == [("0", " 0\n"), ("1", " 1\n"), ("2", " 2\n"), ("x", "x")], (
        "the golden answers"
    )
    assert job.made(report, "train") == [("a", "a")], "and the teacher's to train on"


def test_a_system_prompt_takes_the_place_of_the_records_own(job: Job) -> None:
    messages = [{"role": "system", "content": "old"}, {"role": "user", "content": "a"}]
    (job.volume / "train.jsonl").write_text(json.dumps({"messages": messages}))
    train = {"source": {"uri": "pvc://claim/"}, "format": "Messages", "path": "train.jsonl"}
    job.label(train=train, system_prompt="new")
    ((_, body),) = job.llm.asked
    assert body["messages"] == [{"role": "system", "content": "new"}, {"role": "user", "content": "a"}]


def test_no_record_is_a_failure_that_names_the_data(job: Job) -> None:
    job.give()
    failed = refused(job.label)
    assert failed.reason is Reason.INVALID_DATA
    assert "pvc://claim/" in failed.message


def test_one_of_endpoint_and_model_is_needed(job: Job) -> None:
    job.give({"prompt": "a"})
    assert refused(lambda: job.label(endpoint=None)).reason is Reason.INVALID_CONFIGURATION


def test_the_same_record_is_held_out_each_time_and_about_as_many_as_wanted() -> None:
    examples = prompts(*(f"prompt {i}" for i in range(2000)))
    training, held = split(examples, 0.1)
    assert len(training) + len(held) == 2000
    assert 150 < len(held) < 250
    again, _ = split(list(reversed(examples[:1000])), 0.1)
    assert set(map(repr, again)) <= set(map(repr, training)), "wherever it stands, whatever else there is"
    more, _ = split(examples, 0.2)
    assert set(map(repr, more)) < set(map(repr, training)), "a larger share takes more, and none back"
    assert split(examples, 0.0) == (examples, [])
    assert split(examples, 1.0) == ([], examples)
