"""Labelling runs from the prompts to the published data set."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slm_trainer.evaluate import choose
from slm_trainer.label import label
from slm_trainer.split import is_held_out
from slmkit import sources
from slmkit.data import Example, read_examples
from slmkit.run import Context, RunFailed
from slmops.contract import Data, LabelRun, Reason, Report
from tests.unit.images.fakellm import FakeLLM, Reply, play
from tests.unit.images.fakeregistry import FakeRegistry


def prompts(*texts: str) -> list[Example]:
    return [Example(({"role": "user", "content": text},), None) for text in texts]


def refused(act: Callable[[], object]) -> RunFailed:
    with pytest.raises(RunFailed) as failed:
        act()
    return failed.value


class Job:
    """A labelling run over a volume, a teacher and a registry of its own; each call is a pod of its own."""

    def __init__(self, folder: Path, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
        self.volume = folder / "pvc" / "claim"
        self.volume.mkdir(parents=True)
        self.registry = registry
        self.folder, self.pods = folder, 0
        (folder / "state").mkdir()
        monkeypatch.setattr(sources, "PVC_ROOT", folder / "pvc")
        monkeypatch.setattr(asyncio, "run", lambda main: play(lambda: main, self.llm))
        self.llm = FakeLLM()

    def label(self, llm: FakeLLM | None = None, min_success_ratio: float = 0.7, **fields: Any) -> Report:
        self.llm = llm or self.llm
        self.pods += 1
        self.context = Context(work=self.folder / f"work-{self.pods}", state=self.folder / "state")
        self.context.work.mkdir()
        source = {"source": {"uri": "pvc://claim/"}, "format": "PromptCompletion"}
        wanted = {
            "run": "r", "registry": self.registry.settings, "output": {"repository": f"{self.registry.host}/slm/labelled"},
            "train": source | {"path": "train.jsonl"}, "validation_split": 0.0,
            "endpoint": {"url": f"{self.llm.url}/v1", "model": "m", "min_success_ratio": min_success_ratio},
        }  # fmt: skip
        return label(LabelRun.model_validate(wanted | fields), self.context)

    def give(self, *records: dict[str, str], name: str = "train") -> None:
        (self.volume / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))

    def file(self, report: Report, name: str) -> bytes:
        """A file of the published data set."""
        manifest = self.registry.manifest("slm/labelled", report.artifacts["dataset"].reference.partition("@")[2])
        (digest,) = [
            layer["digest"]
            for layer in manifest["layers"]
            if layer["annotations"]["org.opencontainers.image.title"] == name
        ]
        return self.registry.blobs["slm/labelled", digest]

    def records(self, report: Report, name: str) -> list[list[dict[str, str]]]:
        """The conversations in a file of the published data set."""
        manifest = self.registry.manifest("slm/labelled", report.artifacts["dataset"].reference.partition("@")[2])
        (digest,) = [
            layer["digest"]
            for layer in manifest["layers"]
            if layer["annotations"]["org.opencontainers.image.title"] == f"{name}.jsonl"
        ]
        return [json.loads(line)["messages"] for line in self.registry.blobs["slm/labelled", digest].splitlines()]

    def made(self, report: Report, name: str) -> list[tuple[str, str]]:
        """(prompt, answer) of a file of the published data set."""
        return [(messages[-2]["content"], messages[-1]["content"]) for messages in self.records(report, name)]

    def systems(self, report: Report) -> set[str]:
        """The system messages that the student will see."""
        return {messages[0]["content"] for messages in self.records(report, "train")}


@pytest.fixture
def job(tmp_path: Path, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> Job:
    return Job(tmp_path, registry, monkeypatch)


def test_bytes_of_the_data_set_are_counted_while_it_is_published(job: Job) -> None:
    job.give(*({"prompt": f"p{n}"} for n in range(8)))
    job.label()
    said = job.context.progress
    assert (said.stage, said.unit) == ("Publishing", "Bytes")
    assert said.step == said.of > 0


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
    assert annotations["slmops.dev/input.train"].startswith("pvc://claim/#sha256=")


def test_the_report_lies_beside_the_data(job: Job) -> None:
    job.give({"prompt": "a"}, {"prompt": "a"}, {"prompt": "b"}, {"prompt": "held"})
    job.give({"prompt": "held", "completion": "x"}, name="held")
    held = {"source": {"uri": "pvc://claim/"}, "format": "PromptCompletion", "path": "held.jsonl"}
    report = job.label(validation=held)
    found = json.loads(job.file(report, "report.json"))
    assert report.dataset is not None
    assert report.dataset.dropped == found["dropped"] == {"Duplicate": 1, "Leaked": 1}
    assert (found["read"], found["kept"], found["parts"]) == (5, 3, {"train.jsonl": 2, "validation.jsonl": 1})
    assert job.file(report, "report.html").startswith(b"<!doctype html>")


@pytest.mark.parametrize(("answered", "enough"), [(7, True), (6, False), (25, True), (0, False)])
def test_too_few_answers_are_a_failure(job: Job, answered: int, enough: bool) -> None:
    job.give(*({"prompt": str(i)} for i in range(25)))
    llm = FakeLLM(lambda text, time: Reply() if int(text) < answered else Reply(status=400))
    if enough:
        report = job.label(llm, min_success_ratio=0.28)
        assert report.dataset is not None
        assert report.dataset.labelled == answered
        assert report.dataset.dropped == ({"Refused": 25 - answered} if answered < 25 else {})
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
    report = job.label(FakeLLM(lambda text, time: replies.get(text, Reply())), filters={"max_tokens": 4})
    assert job.made(report, "train") == [("a", "yes"), ("b", "yes")]
    assert report.dataset is not None
    assert report.dataset.dropped == {"Duplicate": 1, "EmptyAnswer": 1, "TooLong": 2, "Refused": 1}
    assert report.dataset.prompts == 7 == report.dataset.kept + sum(report.dataset.dropped.values())


@pytest.mark.parametrize(("limit", "kept"), [(2, 0), (3, 1), (None, 1)])
def test_prompt_and_answer_count_together_up_to_the_limit(job: Job, limit: int | None, kept: int) -> None:
    job.give({"prompt": "one two"})
    if kept:
        report = job.label(filters={"max_tokens": limit})
        assert len(job.made(report, "train")) == kept
    else:
        assert "1 TooLong" in refused(lambda: job.label(filters={"max_tokens": limit})).message


def test_the_first_of_several_equal_prompts_is_asked_once(job: Job) -> None:
    job.give({"prompt": "b"}, {"prompt": "a"}, {"prompt": "b"}, {"prompt": "b"})
    report = job.label()
    assert [prompt for prompt, _ in job.made(report, "train")] == ["b", "a"]
    assert job.llm.counts["b"] == 1


def test_equal_prompts_stay_where_that_is_wanted(job: Job) -> None:
    job.give({"prompt": "b"}, {"prompt": "b"})
    assert len(job.made(job.label(filters={"deduplicate": False}), "train")) == 2
    assert job.llm.counts["b"] == 1, "and are paid for once"


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


def test_where_the_student_is_measured_by_records_of_their_own_the_teacher_is_too(job: Job) -> None:
    """By those that the training chooses, and no others; none of them is learned from."""
    job.give(*({"prompt": str(i)} for i in range(30)))
    job.give({"prompt": "v", "completion": "another"}, name="held")
    job.give(*({"prompt": str(i), "completion": str(i)} for i in range(20, 60)), {"prompt": "x"}, name="judge")
    wanted = {"evaluation": data("judge"), "evaluation_samples": 10, "validation": data("held"), "seed": 3}
    report = job.label(FakeLLM(lambda text, time: Reply("wrong" if text == "v" else text)), **wanted)
    chosen = choose(read_examples(Data.model_validate(data("judge")), job.volume), 10, 3)
    texts = [e.prompt[-1]["content"] for e in chosen]
    assert sorted(job.llm.prompts()) == sorted([*map(str, range(20)), *texts, "v"])
    assert (report.evaluation["teacher"].exact_match, report.evaluation["teacher"].samples) == (1.0, 10)
    assert job.made(report, "train") == [(str(i), str(i)) for i in range(20)]
    assert job.made(report, "validation") == [("v", "another")]
    assert report.dataset is not None
    assert (report.dataset.prompts, report.dataset.labelled, report.dataset.dropped) == (31, 21, {"Leaked": 10})
    again = FakeLLM(port=job.llm.port)
    assert job.label(again, **wanted).evaluation == report.evaluation
    assert again.asked == [], "the journal holds them, too"


def test_a_teacher_without_an_answer_is_wrong_unless_the_reason_passes(job: Job) -> None:
    job.give(*({"prompt": f"p{i}"} for i in range(30)))
    job.give(*({"prompt": text, "completion": "right"} for text in ("a", "cut", "no", "busy", "empty")), name="judge")
    replies = {"a": Reply("right"), "cut": Reply("right", finish="length"), "no": Reply(status=400),
               "busy": Reply(status=500), "empty": Reply("")}  # fmt: skip
    report = job.label(FakeLLM(lambda text, time: replies.get(text, Reply())), evaluation=data("judge"))
    assert (report.evaluation["teacher"].exact_match, report.evaluation["teacher"].samples) == (0.25, 4)


def test_an_evaluation_without_answers_is_refused_before_anything_is_paid_for(job: Job) -> None:
    job.give({"prompt": "a"})
    job.give({"prompt": "b"}, name="judge")
    failed = refused(lambda: job.label(evaluation=data("judge")))
    assert failed.reason is Reason.INVALID_DATA
    assert failed.message == "spec.evaluation.data: no record has an answer to measure by"
    assert job.llm.asked == []


def data(name: str) -> dict[str, Any]:
    """Records in a file of the volume."""
    return {"source": {"uri": "pvc://claim/"}, "format": "PromptCompletion", "path": f"{name}.jsonl"}


def test_a_system_prompt_takes_the_place_of_the_records_own(job: Job) -> None:
    messages = [{"role": "system", "content": "old"}, {"role": "user", "content": "a"}]
    (job.volume / "train.jsonl").write_text(json.dumps({"messages": messages}))
    train = {"source": {"uri": "pvc://claim/"}, "format": "Messages", "path": "train.jsonl"}
    job.label(train=train, system_prompt="new")
    ((_, body),) = job.llm.asked
    assert body["messages"] == [{"role": "system", "content": "new"}, {"role": "user", "content": "a"}]


@pytest.mark.parametrize(("finish", "reason"), [("length", "CutShort"), ("content_filter", "Filtered")])
def test_answers_that_broke_off_teach_nobody_and_are_counted(job: Job, finish: str, reason: str) -> None:
    job.give({"prompt": "a"}, {"prompt": "b"})
    report = job.label(FakeLLM(lambda text, time: Reply(finish=finish if text == "a" else "stop")))
    assert job.made(report, "train") == [("b", "yes")]
    assert report.dataset is not None
    assert (report.dataset.labelled, report.dataset.dropped) == (2, {reason: 1})


def test_refusals_are_counted_and_no_teacher_is_asked_for_them_again(job: Job) -> None:
    """As the API has them: no content, and why. They are answers; what is missing are those to learn from."""
    job.give(*({"prompt": str(i)} for i in range(4)))
    said = {"0": ("refusal", "I cannot help with that."), "1": ("reasoning_content", "Let me think")}

    def choose(text: str, time: int) -> Reply:
        if text not in said:
            return Reply("yes")
        field, words = said[text]
        choice = {"message": {"content": None, field: words}, "finish_reason": "length" if text == "1" else "stop"}
        usage = {"prompt_tokens": 3, "completion_tokens": 40}
        return Reply(body=json.dumps({"choices": [choice], "usage": usage}).encode())

    llm = FakeLLM(choose)
    report = job.label(llm)
    assert report.dataset is not None
    assert (report.dataset.labelled, report.dataset.dropped) == (4, {"Filtered": 1, "CutShort": 1})
    assert (report.dataset.prompt_tokens, report.dataset.completion_tokens) == (2 * 3 + 2, 2 * 40 + 2)
    assert llm.counts == {"/models": 1, "0": 1, "1": 1, "2": 1, "3": 1}


def test_too_few_answers_say_what_was_in_their_way(job: Job) -> None:
    job.give(*({"prompt": str(i)} for i in range(10)))
    replies = {**{str(i): Reply(status=500) for i in range(3)}, "3": Reply(status=422)}
    failed = refused(lambda: job.label(FakeLLM(lambda text, time: replies.get(text, Reply()))))
    assert (
        failed.message == "the teacher answered 6 of 10 prompts, 70% are wanted; most often: 3 ServerError, 1 Refused"
    )


# --- what it costs, and what is not paid for again


def test_what_the_teacher_read_and_wrote_is_counted_for_dropped_answers_too(job: Job) -> None:
    job.give({"prompt": "a b c"}, {"prompt": "d"}, {"prompt": "d"})
    counted = {"a b c": Reply("1 2"), "d": Reply("3 4 5", finish="length")}
    report = job.label(FakeLLM(lambda text, time: counted[text]), filters={"deduplicate": False})
    assert report.dataset is not None
    assert (report.dataset.prompt_tokens, report.dataset.completion_tokens, report.dataset.tokens) == (4, 5, 2)
    assert (report.dataset.estimated, report.dataset.reused) == (0, 0)


def test_answers_of_no_use_are_paid_for_and_counted_in_whatever_attempt_they_came(job: Job) -> None:
    job.give({"prompt": "a"}, {"prompt": "b"})
    usage = {"prompt_tokens": 10, "completion_tokens": 100}
    bad = [Reply(body=json.dumps({"choices": choices, "usage": usage}).encode())
           for choices in ([], [{"message": {"content": None}, "finish_reason": "stop"}])]  # fmt: skip
    first = FakeLLM(lambda text, time: bad[time % 2] if text == "a" else Reply())
    failed = refused(lambda: job.label(first, endpoint=asked(first, retries=3)))
    assert failed.message.endswith("most often: 1 NoChoices")
    second = FakeLLM(lambda text, time: bad[1] if time == 1 else Reply(), port=first.port)
    report = job.label(second, endpoint=asked(second, retries=3))
    assert (first.counts["a"], second.counts["a"]) == (4, 2)
    assert report.dataset is not None
    assert (report.dataset.prompt_tokens, report.dataset.completion_tokens) == (5 * 10 + 2, 5 * 100 + 2)
    assert report.dataset.reused == 1


def test_prompts_that_nobody_needs_are_not_asked(job: Job) -> None:
    """Where the student is measured by records of their own none is held out: what is paid for is learned."""
    job.give(*({"prompt": str(i)} for i in range(40)))
    job.give({"prompt": "x", "completion": "x"}, name="judge")
    report = job.label(validation_split=0.5, evaluation=data("judge"))
    assert len(job.made(report, "train")) == 40
    assert job.file(report, "validation.jsonl") == b"\n", "no record, and not a file that registries refuse"
    assert sorted(job.llm.prompts()) == sorted([*map(str, range(40)), "x"])
    without = FakeLLM(port=job.llm.port)
    report = job.label(without, validation_split=0.5)
    assert 10 < len(job.made(report, "validation")) < 30


def asked(llm: FakeLLM, **fields: Any) -> dict[str, Any]:
    """A teacher behind an address."""
    return {"url": f"{llm.url}/v1", "model": "m"} | fields


def test_a_teacher_that_does_not_count_is_said_to_be_estimated(job: Job) -> None:
    job.give({"prompt": "12345678"}, {"prompt": "b"})
    report = job.label(FakeLLM(lambda text, time: Reply("1234", usage=None if text != "b" else "counted")))
    assert report.dataset is not None
    assert (report.dataset.prompt_tokens, report.dataset.completion_tokens) == (2 + 1, 1 + 1)
    assert report.dataset.estimated == 1


def test_another_attempt_asks_for_the_rest_alone(job: Job) -> None:
    job.give(*({"prompt": str(i)} for i in range(6)))
    first = FakeLLM(lambda text, time: Reply(f"to {text}") if int(text) < 4 else Reply(status=500))
    assert refused(lambda: job.label(first)).reason is Reason.TOO_FEW_ANSWERS
    report = job.label(FakeLLM(lambda text, time: Reply(f"then {text}"), port=first.port))
    assert sorted(job.llm.prompts()) == ["4", "5"]
    assert job.made(report, "train") == [(str(i), f"{'to' if i < 4 else 'then'} {i}") for i in range(6)]
    assert report.dataset is not None
    assert (report.dataset.reused, report.dataset.completion_tokens) == (4, 12)


@pytest.mark.parametrize(
    "change",
    [{"seed": 8}, {"sampling": {"temperature": 0.1}}, {"system_prompt": "be short"}],
    ids=lambda c: next(iter(c)),
)
def test_answers_to_another_question_are_not_taken(job: Job, change: dict[str, Any]) -> None:
    job.give({"prompt": "a"})
    job.label()
    again = FakeLLM(port=job.llm.port)
    job.label(again)
    assert again.asked == []
    third = FakeLLM(port=job.llm.port)
    job.label(third, **change)
    assert third.counts["a"] == 1


# --- several answers to a prompt


def test_several_samples_are_asked_with_seeds_of_their_own_and_each_text_is_kept_once(job: Job) -> None:
    job.give({"prompt": "a"}, {"prompt": "b"})
    llm = FakeLLM(lambda text, time: Reply("same" if text == "a" else f"{time}"))
    report = job.label(llm, sampling={"samples": 3, "temperature": 1}, seed=40)
    made = job.made(report, "train")
    assert made[0] == ("a", "same")
    assert sorted(answer for _, answer in made[1:]) == ["1", "2", "3"]
    assert sorted(body["seed"] for _, body in llm.asked if body["messages"][-1]["content"] == "a") == [40, 41, 42]
    assert report.dataset is not None
    assert (report.dataset.prompts, report.dataset.labelled, report.dataset.kept) == (2, 2, 4)


def test_a_sample_that_fails_leaves_the_others(job: Job) -> None:
    job.give({"prompt": "a"})
    llm = FakeLLM(lambda text, time: Reply(status=422) if time == 1 else Reply("good"))
    report = job.label(llm, sampling={"samples": 2, "temperature": 1})
    assert job.made(report, "train") == [("a", "good")]


def test_held_out_prompts_are_asked_once(job: Job) -> None:
    job.give({"prompt": "a"})
    job.give({"prompt": "v"}, name="held")
    held = {"source": {"uri": "pvc://claim/"}, "format": "PromptCompletion", "path": "held.jsonl"}
    job.label(validation=held, sampling={"samples": 3, "temperature": 1})
    assert (job.llm.counts["a"], job.llm.counts["v"]) == (3, 1)


# --- reasoning


def test_the_student_learns_the_answer_and_not_the_reasoning(job: Job) -> None:
    job.give(*({"prompt": f"{i} + {i}"} for i in range(40)))
    job.give({"prompt": "1 + 2", "completion": "3"}, name="held")
    held = {"source": {"uri": "pvc://claim/"}, "format": "PromptCompletion", "path": "held.jsonl"}

    def think(text: str, time: int) -> Reply:
        if text == "7 + 7":
            return Reply("It is fourteen.")
        return Reply(json.dumps({"reasoning": "adding", "answer": eval(text)}))

    report = job.label(FakeLLM(think), task="Math", chain_of_thought=True, system_prompt="Calculate.", validation=held)
    made = job.made(report, "train")
    assert made[3] == ("3 + 3", "6")
    assert len(made) == 39
    assert report.dataset is not None
    assert report.dataset.dropped == {"NoFinalAnswer": 1}
    assert report.evaluation["teacher"].exact_match == 1.0
    system = job.llm.asked[0][1]["messages"][0]["content"]
    assert system.startswith("Calculate.\n\n"), "the teacher is told both"
    assert "step by step" in system
    assert job.systems(report) == {"Calculate."}, "the student sees its own prompt alone"


@pytest.mark.parametrize(
    ("task", "records", "enough"),
    [("Math", 40, True), ("Math", 39, False), ("NLI", 65, True), ("NLI", 64, False), ("Conversation", 64, False)],
)
def test_a_task_wants_enough_prompts_to_train_on(job: Job, task: str, records: int, enough: bool) -> None:
    job.give(*({"prompt": str(i)} for i in range(records)))
    if enough:
        assert len(job.made(job.label(task=task), "train")) == records
    else:
        failed = refused(lambda: job.label(task=task))
        assert failed.reason is Reason.INVALID_DATA
        assert f"spec.task {task} needs at least {records + 1} prompts" in failed.message
        assert job.llm.asked == [], "nothing is paid for"


def test_only_conversations_have_several_turns(job: Job) -> None:
    turn = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    lines = [{"messages": turn[:1]}] * 66 + [{"messages": turn}]
    (job.volume / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    train = {"source": {"uri": "pvc://claim/"}, "format": "Messages", "path": "train.jsonl"}
    failed = refused(lambda: job.label(train=train, task="NLI"))
    assert failed.reason is Reason.INVALID_DATA
    assert "spec.data.train: train.jsonl line 67 has 3 messages" in failed.message
    assert len(job.made(job.label(train=train, task="Conversation"), "train")) == 2


def test_no_record_is_a_failure_that_names_the_data(job: Job) -> None:
    job.give()
    failed = refused(job.label)
    assert failed.reason is Reason.INVALID_DATA
    assert "pvc://claim/" in failed.message


def test_one_of_endpoint_and_model_is_needed(job: Job) -> None:
    job.give({"prompt": "a"})
    assert refused(lambda: job.label(endpoint=None)).reason is Reason.INVALID_CONFIGURATION


def split(examples: list[Example], share: float) -> tuple[list[Example], list[Example]]:
    return ([e for e in examples if not is_held_out(e, share)], [e for e in examples if is_held_out(e, share)])


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
