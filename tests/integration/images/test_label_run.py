"""Labelling runs from the prompts to the published data set."""

import json

import pytest

from slm_trainer.evaluate import choose
from slmkit.data import read_examples
from slmops.contract import Data, Reason
from tests.unit.images import volumes
from tests.unit.images.asker import refused
from tests.unit.images.fakellm import FakeLLM, Reply
from tests.unit.images.labelling import Labelling


def test_bytes_of_the_data_set_are_counted_while_it_is_published(labelling: Labelling) -> None:
    labelling.give(*({"prompt": f"p{n}"} for n in range(8)))
    labelling.label()
    said = labelling.context.progress
    assert (said.stage, said.unit) == ("Publishing", "Bytes")
    assert said.step == said.of > 0


def test_the_answers_become_a_data_set(labelling: Labelling) -> None:
    labelling.give({"prompt": "a"}, {"prompt": "b"})
    report = labelling.label(FakeLLM(lambda text, time: Reply(f"to {text}")), annotations={"k": "v"})
    assert labelling.made(report, "train") == [("a", "to a"), ("b", "to b")]
    assert report.dataset is not None
    assert (report.dataset.prompts, report.dataset.labelled, report.dataset.kept, report.dataset.tokens) == (2, 2, 2, 4)
    assert report.dataset.dropped == {}
    assert set(labelling.context.inputs) == {"train", "teacher"}
    annotations = labelling.registry.client().annotations(report.artifacts["dataset"].reference)
    assert annotations["k"] == "v"
    assert annotations["slmops.dev/input.train"].startswith("pvc://claim/#sha256=")


def test_the_report_lies_beside_the_data(labelling: Labelling) -> None:
    labelling.give({"prompt": "a"}, {"prompt": "a"}, {"prompt": "b"}, {"prompt": "held"})
    labelling.give({"prompt": "held", "completion": "x"}, name="held")
    held = volumes.data("held")
    report = labelling.label(validation=held)
    found = json.loads(labelling.file(report, "report.json"))
    assert report.dataset is not None
    assert report.dataset.dropped == found["dropped"] == {"Duplicate": 1, "Leaked": 1}
    assert (found["read"], found["kept"], found["parts"]) == (5, 3, {"train.jsonl": 2, "validation.jsonl": 1})
    assert labelling.file(report, "report.html").startswith(b"<!doctype html>")


@pytest.mark.parametrize(("answered", "enough"), [(7, True), (6, False), (25, True), (0, False)])
def test_too_few_answers_are_a_failure(labelling: Labelling, answered: int, enough: bool) -> None:
    labelling.give(*({"prompt": str(i)} for i in range(25)))
    llm = FakeLLM(lambda text, time: Reply() if int(text) < answered else Reply(status=400))
    if enough:
        report = labelling.label(llm, min_success_ratio=0.28)
        assert report.dataset is not None
        assert report.dataset.labelled == answered
        assert report.dataset.dropped == ({"Refused": 25 - answered} if answered < 25 else {})
    else:
        failed = refused(lambda: labelling.label(llm, min_success_ratio=0.28))
        assert failed.reason is (Reason.TOO_FEW_ANSWERS if answered else Reason.TEACHER_UNREACHABLE)
        assert ("6 of 25" if answered else "400") in failed.message
        assert labelling.registry.requests == [], "nothing is published"


def test_answers_without_content_are_no_data_set(labelling: Labelling) -> None:
    labelling.give({"prompt": "a"}, {"prompt": "b"})
    failed = refused(lambda: labelling.label(FakeLLM(Reply(" \n"))))
    assert failed.reason is Reason.TOO_FEW_ANSWERS
    assert "2 EmptyAnswer" in failed.message


def test_what_is_dropped_is_counted_by_its_reason(labelling: Labelling) -> None:
    labelling.give(*({"prompt": text} for text in ("a", "a", "empty", "long", "none", "one two three four", "b")))
    replies = {"empty": Reply(""), "long": Reply("w " * 5), "none": Reply(status=400)}
    report = labelling.label(FakeLLM(lambda text, time: replies.get(text, Reply())), filters={"max_tokens": 4})
    assert labelling.made(report, "train") == [("a", "yes"), ("b", "yes")]
    assert report.dataset is not None
    assert report.dataset.dropped == {"Duplicate": 1, "EmptyAnswer": 1, "TooLong": 2, "Refused": 1}
    assert report.dataset.prompts == 7 == report.dataset.kept + sum(report.dataset.dropped.values())


@pytest.mark.parametrize(("limit", "kept"), [(2, 0), (3, 1), (None, 1)])
def test_prompt_and_answer_count_together_up_to_the_limit(labelling: Labelling, limit: int | None, kept: int) -> None:
    labelling.give({"prompt": "one two"})
    if kept:
        report = labelling.label(filters={"max_tokens": limit})
        assert len(labelling.made(report, "train")) == kept
    else:
        assert "1 TooLong" in refused(lambda: labelling.label(filters={"max_tokens": limit})).message


def test_the_first_of_several_equal_prompts_is_asked_once(labelling: Labelling) -> None:
    labelling.give({"prompt": "b"}, {"prompt": "a"}, {"prompt": "b"}, {"prompt": "b"})
    report = labelling.label()
    assert [prompt for prompt, _ in labelling.made(report, "train")] == ["b", "a"]
    assert labelling.llm.counts["b"] == 1


def test_equal_prompts_stay_where_that_is_wanted(labelling: Labelling) -> None:
    labelling.give({"prompt": "b"}, {"prompt": "b"})
    assert len(labelling.made(labelling.label(filters={"deduplicate": False}), "train")) == 2
    assert labelling.llm.counts["b"] == 1, "and are paid for once"


def test_the_teacher_is_judged_by_the_held_out_answers(labelling: Labelling) -> None:
    labelling.give({"prompt": "a", "completion": "ignored"})
    labelling.give(*({"prompt": str(i), "completion": f" {i}\n"} for i in range(3)), {"prompt": "x"}, name="held")
    llm = FakeLLM(lambda text, time: Reply("wrong" if text == "2" else text))
    held = volumes.data("held")
    report = labelling.label(llm, validation=held)
    teacher = report.evaluation["teacher"]
    assert (teacher.exact_match, teacher.samples) == (0.66667, 3)
    assert labelling.made(report, "validation") == [("0", " 0\n"), ("1", " 1\n"), ("2", " 2\n"), ("x", "x")], (
        "the golden answers"
    )
    assert labelling.made(report, "train") == [("a", "a")], "and the teacher's to train on"


def test_where_the_student_is_measured_by_records_of_their_own_the_teacher_is_too(labelling: Labelling) -> None:
    """By those that the training chooses, and no others; none of them is learned from."""
    labelling.give(*({"prompt": str(i)} for i in range(30)))
    labelling.give({"prompt": "v", "completion": "another"}, name="held")
    labelling.give(*({"prompt": str(i), "completion": str(i)} for i in range(20, 60)), {"prompt": "x"}, name="judge")
    wanted = {
        "evaluation": volumes.data("judge"),
        "evaluation_samples": 10,
        "validation": volumes.data("held"),
        "seed": 3,
    }
    report = labelling.label(FakeLLM(lambda text, time: Reply("wrong" if text == "v" else text)), **wanted)
    chosen = choose(read_examples(Data.model_validate(volumes.data("judge")), labelling.volume), 10, 3)
    texts = [e.prompt[-1]["content"] for e in chosen]
    assert sorted(labelling.llm.prompts()) == sorted([*map(str, range(20)), *texts, "v"])
    assert (report.evaluation["teacher"].exact_match, report.evaluation["teacher"].samples) == (1.0, 10)
    assert labelling.made(report, "train") == [(str(i), str(i)) for i in range(20)]
    assert labelling.made(report, "validation") == [("v", "another")]
    assert report.dataset is not None
    assert (report.dataset.prompts, report.dataset.labelled, report.dataset.dropped) == (31, 21, {"Leaked": 10})
    again = FakeLLM(port=labelling.llm.port)
    assert labelling.label(again, **wanted).evaluation == report.evaluation
    assert again.asked == [], "the journal holds them, too"


def test_a_teacher_without_an_answer_is_wrong_unless_the_reason_passes(labelling: Labelling) -> None:
    labelling.give(*({"prompt": f"p{i}"} for i in range(30)))
    labelling.give(
        *({"prompt": text, "completion": "right"} for text in ("a", "cut", "no", "busy", "empty")), name="judge"
    )
    replies = {"a": Reply("right"), "cut": Reply("right", finish="length"), "no": Reply(status=400),
               "busy": Reply(status=500), "empty": Reply("")}  # fmt: skip
    report = labelling.label(FakeLLM(lambda text, time: replies.get(text, Reply())), evaluation=volumes.data("judge"))
    assert (report.evaluation["teacher"].exact_match, report.evaluation["teacher"].samples) == (0.25, 4)


def test_an_evaluation_without_answers_is_refused_before_anything_is_paid_for(labelling: Labelling) -> None:
    labelling.give({"prompt": "a"})
    labelling.give({"prompt": "b"}, name="judge")
    failed = refused(lambda: labelling.label(evaluation=volumes.data("judge")))
    assert failed.reason is Reason.INVALID_DATA
    assert failed.message == "spec.evaluation.data: no record has an answer to measure by"
    assert labelling.llm.asked == []


def test_a_system_prompt_takes_the_place_of_the_records_own(labelling: Labelling) -> None:
    messages = [{"role": "system", "content": "old"}, {"role": "user", "content": "a"}]
    (labelling.volume / "train.jsonl").write_text(json.dumps({"messages": messages}))
    train = volumes.data("train", "Messages")
    labelling.label(train=train, system_prompt="new")
    ((_, body),) = labelling.llm.asked
    assert body["messages"] == [{"role": "system", "content": "new"}, {"role": "user", "content": "a"}]


@pytest.mark.parametrize(("finish", "reason"), [("length", "CutShort"), ("content_filter", "Filtered")])
def test_answers_that_broke_off_teach_nobody_and_are_counted(labelling: Labelling, finish: str, reason: str) -> None:
    labelling.give({"prompt": "a"}, {"prompt": "b"})
    report = labelling.label(FakeLLM(lambda text, time: Reply(finish=finish if text == "a" else "stop")))
    assert labelling.made(report, "train") == [("b", "yes")]
    assert report.dataset is not None
    assert (report.dataset.labelled, report.dataset.dropped) == (2, {reason: 1})


def test_refusals_are_counted_and_no_teacher_is_asked_for_them_again(labelling: Labelling) -> None:
    """As the API has them: no content, and why. They are answers; what is missing are those to learn from."""
    labelling.give(*({"prompt": str(i)} for i in range(4)))
    said = {"0": ("refusal", "I cannot help with that."), "1": ("reasoning_content", "Let me think")}

    def choose(text: str, time: int) -> Reply:
        if text not in said:
            return Reply("yes")
        field, words = said[text]
        choice = {"message": {"content": None, field: words}, "finish_reason": "length" if text == "1" else "stop"}
        usage = {"prompt_tokens": 3, "completion_tokens": 40}
        return Reply(body=json.dumps({"choices": [choice], "usage": usage}).encode())

    llm = FakeLLM(choose)
    report = labelling.label(llm)
    assert report.dataset is not None
    assert (report.dataset.labelled, report.dataset.dropped) == (4, {"Filtered": 1, "CutShort": 1})
    assert (report.dataset.prompt_tokens, report.dataset.completion_tokens) == (2 * 3 + 2, 2 * 40 + 2)
    assert llm.counts == {"/models": 1, "0": 1, "1": 1, "2": 1, "3": 1}


def test_too_few_answers_say_what_was_in_their_way(labelling: Labelling) -> None:
    labelling.give(*({"prompt": str(i)} for i in range(10)))
    replies = {**{str(i): Reply(status=500) for i in range(3)}, "3": Reply(status=422)}
    failed = refused(lambda: labelling.label(FakeLLM(lambda text, time: replies.get(text, Reply()))))
    assert (
        failed.message == "the teacher answered 6 of 10 prompts, 70% are wanted; most often: 3 ServerError, 1 Refused"
    )


# --- reasoning


def test_the_student_learns_the_answer_and_not_the_reasoning(labelling: Labelling) -> None:
    labelling.give(*({"prompt": f"{i} + {i}"} for i in range(40)))
    labelling.give({"prompt": "1 + 2", "completion": "3"}, name="held")
    held = volumes.data("held")

    def think(text: str, time: int) -> Reply:
        if text == "7 + 7":
            return Reply("It is fourteen.")
        return Reply(json.dumps({"reasoning": "adding", "answer": eval(text)}))

    report = labelling.label(
        FakeLLM(think), task="Math", chain_of_thought=True, system_prompt="Calculate.", validation=held
    )
    made = labelling.made(report, "train")
    assert made[3] == ("3 + 3", "6")
    assert len(made) == 39
    assert report.dataset is not None
    assert report.dataset.dropped == {"NoFinalAnswer": 1}
    assert report.evaluation["teacher"].exact_match == 1.0
    system = labelling.llm.asked[0][1]["messages"][0]["content"]
    assert system.startswith("Calculate.\n\n"), "the teacher is told both"
    assert "step by step" in system
    assert labelling.systems(report) == {"Calculate."}, "the student sees its own prompt alone"


@pytest.mark.parametrize(
    ("task", "records", "enough"),
    [("Math", 40, True), ("Math", 39, False), ("NLI", 65, True), ("NLI", 64, False), ("Conversation", 64, False)],
)
def test_a_task_wants_enough_prompts_to_train_on(labelling: Labelling, task: str, records: int, enough: bool) -> None:
    labelling.give(*({"prompt": str(i)} for i in range(records)))
    if enough:
        assert len(labelling.made(labelling.label(task=task), "train")) == records
    else:
        failed = refused(lambda: labelling.label(task=task))
        assert failed.reason is Reason.INVALID_DATA
        assert f"spec.task {task} needs at least {records + 1} prompts" in failed.message
        assert labelling.llm.asked == [], "nothing is paid for"


def test_only_conversations_have_several_turns(labelling: Labelling) -> None:
    turn = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    lines = [{"messages": turn[:1]}] * 66 + [{"messages": turn}]
    (labelling.volume / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    train = volumes.data("train", "Messages")
    failed = refused(lambda: labelling.label(train=train, task="NLI"))
    assert failed.reason is Reason.INVALID_DATA
    assert "spec.data.train: train.jsonl line 67 has 3 messages" in failed.message
    assert len(labelling.made(labelling.label(train=train, task="Conversation"), "train")) == 2


def test_no_record_is_a_failure_that_names_the_data(labelling: Labelling) -> None:
    labelling.give()
    failed = refused(labelling.label)
    assert failed.reason is Reason.INVALID_DATA
    assert "pvc://claim/" in failed.message


def test_one_of_endpoint_and_model_is_needed(labelling: Labelling) -> None:
    labelling.give({"prompt": "a"})
    assert refused(lambda: labelling.label(endpoint=None)).reason is Reason.INVALID_CONFIGURATION
