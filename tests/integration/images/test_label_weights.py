"""Teachers whose weights run inside the Job: batches, the journal, and vLLM by a module that looks like it."""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from slm_trainer.label import weights
from slm_trainer.label.answers import Answer, Question, Trouble, question
from slm_trainer.label.journal import Journal
from slm_trainer.label.weights import WeightsTeacher, load
from slmkit.registry import Registry
from slmkit.run import Context, RunFailed
from slmops.contract import LabelRun, Reason, Sampling
from tests.unit.images.letters import Letters

VLLM = "slm_trainer.label.with_vllm"


def run(**fields: Any) -> LabelRun:
    data = {"source": {"uri": "pvc://claim/"}, "format": "Messages"}
    wanted = {"run": "r", "train": data, "output": {"repository": "r.example/x"}, "model": {"uri": "pvc://claim/model"}}
    return LabelRun.model_validate(wanted | fields)


def questions(*texts: str) -> list[Question]:
    return [question("t", ({"role": "user", "content": text},), Sampling(), 7) for text in texts]


class Echo:
    """An engine that repeats what it is told, and finds long words too long."""

    batch = 2

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.before: Callable[[], None] = lambda: None

    def answer(self, questions: Sequence[Question]) -> list[Answer | Trouble]:
        self.before()
        texts = [q.messages[-1]["content"] for q in questions]
        self.batches.append(texts)
        return [Trouble.CONTEXT_TOO_LONG if len(text) > 5 else Answer(text, 1, 1) for text in texts]


@pytest.fixture
def teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[WeightsTeacher, Echo, Context]:
    echo, wanted = Echo(), run()
    monkeypatch.setattr(weights, "fetch", lambda source, into, registry: f"{source.uri}@1")
    monkeypatch.setattr(weights, "load", lambda run: lambda folder, sampling: echo)
    context = Context(work=tmp_path)
    assert wanted.model is not None
    return WeightsTeacher(wanted, wanted.model, context, Registry(wanted.registry)), echo, context


def test_questions_of_like_length_share_a_batch(teacher: tuple[WeightsTeacher, Echo, Context], tmp_path: Path) -> None:
    asked, echo, context = teacher
    all_of_them = questions("ccc", "a", "bb", "dddd", "too long")
    with Journal(tmp_path / "answers.jsonl") as journal:
        troubles = asked.ask(all_of_them, journal, context)
        assert [journal.get(q.key) for q in all_of_them[:2]] == [Answer("ccc", 1, 1), Answer("a", 1, 1)]
    assert echo.batches == [["a", "bb"], ["ccc", "dddd"], ["too long"]]
    assert troubles == {all_of_them[-1].key: Trouble.CONTEXT_TOO_LONG}
    assert (context.progress.stage, context.progress.step, context.progress.of) == ("Labelling", 5, 5)


def test_a_pod_that_is_taken_away_leaves_its_batches(
    teacher: tuple[WeightsTeacher, Echo, Context], tmp_path: Path
) -> None:
    asked, echo, context = teacher
    all_of_them = questions("a", "bb", "ccc", "dddd")
    echo.before = context.stopping.set
    with Journal(tmp_path / "answers.jsonl") as journal, pytest.raises(RunFailed) as failed:
        asked.ask(all_of_them, journal, context)
    assert failed.value.reason is Reason.TERMINATED
    context.stopping.clear()
    echo.before = lambda: None
    with Journal(tmp_path / "answers.jsonl") as journal:
        asked.ask(all_of_them, journal, context)
    assert echo.batches == [["a", "bb"], ["ccc", "dddd"]]


def test_where_all_is_answered_no_weights_are_loaded(
    teacher: tuple[WeightsTeacher, Echo, Context], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, _, context = teacher
    with Journal(tmp_path / "answers.jsonl") as journal:
        asked.ask(questions("a"), journal, context)
        monkeypatch.setattr(weights, "load", lambda run: pytest.fail("loaded"))
        assert asked.ask(questions("a"), journal, context) == {}


def test_a_teacher_is_known_by_its_digest_and_engine(teacher: tuple[WeightsTeacher, Echo, Context]) -> None:
    assert teacher[0].name == "pvc://claim/model@1 Transformers"


# --- vLLM


@dataclass
class Parameters:
    """Looks like ``vllm.SamplingParams``: takes what that takes, and nothing else."""

    temperature: float
    top_p: float
    max_tokens: int
    stop: list[str]
    frequency_penalty: float
    presence_penalty: float
    seed: int
    stop_token_ids: list[int]


class LLM:
    """Looks like ``vllm.LLM``."""

    made: "list[LLM]" = []

    def __init__(self, model: str, trust_remote_code: bool, load_format: str) -> None:
        assert (trust_remote_code, load_format) == (False, "safetensors")
        self.model = model
        self.parameters: list[Parameters] = []
        self.made.append(self)

    def get_tokenizer(self) -> Letters:
        return Letters(added={"<|end|>": 300})

    def chat(
        self, messages: list[list[dict[str, str]]], sampling_params: list[Parameters], use_tqdm: bool
    ) -> list[Any]:
        assert not use_tqdm
        said = [conversation[-1]["content"] for conversation in messages]
        if any(len(text) > 5 for text in said):
            raise ValueError("The decoder prompt (length 9) is longer than the maximum model length of 5.")
        self.parameters += sampling_params
        return [
            SimpleNamespace(
                prompt_token_ids=[1] * len(text),
                outputs=[
                    SimpleNamespace(text=text, token_ids=[1, 2], finish_reason="length" if text == "cut" else "stop")
                ],
            )
            for text in said
        ]


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[LLM]]:
    """A module of that name for one test; what imported it goes with it."""
    module = ModuleType("vllm")
    module.LLM, module.SamplingParams = LLM, Parameters  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.delitem(sys.modules, VLLM, raising=False)
    for name in ("VLLM_NO_USAGE_STATS", "DO_NOT_TRACK"):
        monkeypatch.setenv(name, "")
    LLM.made.clear()
    yield LLM
    sys.modules.pop(VLLM, None)


def test_vllm_answers_with_the_models_own_template_and_each_question_has_its_seed(
    vllm: type[LLM], tmp_path: Path
) -> None:
    sampling = Sampling(temperature=0.5, top_p=0.9, max_tokens=9, stop=("X",), frequency_penalty=1, presence_penalty=-1)
    engine = load(run(engine="VLLM"))(tmp_path, sampling)
    first, second = questions("a", "cut")
    assert engine.answer([first, second]) == [Answer("a", 1, 2, "stop"), Answer("cut", 3, 2, "length")]
    (llm,) = vllm.made
    assert llm.model == str(tmp_path)
    assert llm.parameters == [Parameters(0.5, 0.9, 9, ["X"], 1.0, -1.0, 7, [300])] * 2


def test_one_prompt_that_is_too_long_does_not_cost_the_others_their_answers(vllm: type[LLM], tmp_path: Path) -> None:
    engine = load(run(engine="VLLM"))(tmp_path, Sampling())
    answers = engine.answer(questions("a", "too long", "b"))
    assert answers == [Answer("a", 1, 2), Trouble.CONTEXT_TOO_LONG, Answer("b", 1, 2)]


def test_vllm_gets_no_file_that_can_carry_code(vllm: type[LLM], tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(RunFailed) as failed:
        load(run(engine="VLLM"))(tmp_path, Sampling())
    assert failed.value.reason is Reason.UNSAFE_SOURCE
    assert vllm.made == []


def test_a_model_that_vllm_does_not_know_is_named(
    vllm: type[LLM], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: LLM, **_: Any) -> None:
        raise ValueError("Model architectures ['X'] are not supported")

    monkeypatch.setattr(LLM, "__init__", refuse)
    with pytest.raises(RunFailed) as failed:
        load(run(engine="VLLM"))(tmp_path, Sampling())
    assert failed.value.reason is Reason.UNSUPPORTED_MODEL
    assert "'X'" in failed.value.message


def test_an_image_without_vllm_says_where_to_name_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    monkeypatch.delitem(sys.modules, VLLM, raising=False)
    with pytest.raises(RunFailed) as failed:
        load(run(engine="VLLM"))
    assert failed.value.reason is Reason.INVALID_CONFIGURATION
    assert "spec.labelling.image" in failed.value.message
