"""A teacher's weights run by transformers: where answers end, what they are counted as, and the penalties."""

from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch

from slm_trainer.label.answers import Answer, Question, Trouble, question
from slm_trainer.label.with_transformers import Penalties, TransformersEngine
from slm_trainer.model import load_model, load_tokenizer, new_model, save, train_tokenizer
from slmkit.data import Example
from slmops.contract import Architecture, Sampling

TEXTS = ["turn on the lamp", "open the gate", "what a day it is"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has learned nothing; what it says is noise, and always the same."""
    torch.manual_seed(5)
    tokenizer = train_tokenizer([Example(({"role": "user", "content": text},), text) for text in TEXTS], 300)
    wanted = Architecture(
        hidden_size=32, layers=1, attention_heads=2, key_value_heads=2, intermediate_size=48, vocabulary_size=320,
        max_position_embeddings=64,
    )  # fmt: skip
    model = new_model(wanted, tokenizer)
    model.config.tie_word_embeddings = False  # or it would repeat the last token of the prompt
    model.lm_head.weight = torch.nn.Parameter(torch.randn(model.lm_head.weight.shape))
    path = tmp_path_factory.mktemp("teacher")
    save(model, tokenizer, path)
    return path


def questions(*texts: str) -> list[Question]:
    return [question("t", ({"role": "user", "content": text},), Sampling(), 7) for text in texts]


def answers(folder: Path, *texts: str, **sampling: object) -> list[Answer | Trouble]:
    wanted = Sampling.model_validate({"temperature": 0.0, "max_tokens": 12} | sampling)
    return TransformersEngine(folder, wanted).answer(questions(*texts))


def one(folder: Path, text: str, **sampling: object) -> Answer:
    (answer,) = answers(folder, text, **sampling)
    assert isinstance(answer, Answer)
    return answer


def test_a_batch_answers_each_question_as_if_it_were_alone(folder: Path) -> None:
    together = answers(folder, *TEXTS)
    assert together == [one(folder, text) for text in TEXTS]


def test_an_answer_at_the_limit_is_cut_short(folder: Path) -> None:
    answer = one(folder, TEXTS[0], max_tokens=3)
    assert (answer.completion_tokens, answer.finish) == (3, "length")
    assert answer.prompt_tokens > 3


def test_a_stop_text_ends_an_answer_and_is_not_part_of_it(folder: Path) -> None:
    whole = one(folder, TEXTS[0]).text
    assert len(whole) > 4
    stop = whole[2:4]
    answer = one(folder, TEXTS[0], stop=(stop,))
    assert answer.text == whole.partition(stop)[0]
    assert answer.finish == "stop"
    assert answer.completion_tokens <= 12


def test_a_prompt_that_does_not_fit_costs_itself_alone(folder: Path) -> None:
    long, short = answers(folder, "word " * 100, TEXTS[0])
    assert long is Trouble.CONTEXT_TOO_LONG
    assert short == one(folder, TEXTS[0])


def test_an_answer_ends_where_the_context_does(folder: Path) -> None:
    answer = one(folder, TEXTS[0], max_tokens=500)
    assert answer.prompt_tokens + answer.completion_tokens <= 64


def test_an_answer_ends_at_whatever_token_the_models_settings_name(folder: Path, tmp_path: Path) -> None:
    """Llama's and Gemma's end a turn with another token than a text; their tokenizer names only the latter."""
    whole = one(folder, TEXTS[0])
    tokenizer, model = load_tokenizer(folder), load_model(folder)
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": TEXTS[0]}], add_generation_prompt=True,
                                           return_tensors="pt", return_dict=True)  # fmt: skip
    said = model.generate(**prompt, max_new_tokens=12, do_sample=False)[0, prompt["input_ids"].shape[1] :].tolist()
    turn = said[5]
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, turn]
    save(model, tokenizer, tmp_path / "chat")
    answer = one(tmp_path / "chat", TEXTS[0])
    assert (whole.finish, answer.finish) == ("length", "stop")
    assert answer.completion_tokens == said.index(turn) + 1
    assert whole.text.startswith(answer.text)


def test_an_answer_ends_where_the_template_ends_one_and_is_without_that_token(folder: Path, tmp_path: Path) -> None:
    """Nobody names it, and it would be read back as text."""
    tokenizer, model = load_tokenizer(folder), load_model(folder)
    tokenizer.add_tokens(["<|turn|>"])
    tokenizer.chat_template = tokenizer.chat_template.replace("<|end|>", "<|turn|>")
    model.save_pretrained(tmp_path / "chat")
    tokenizer.save_pretrained(tmp_path / "chat")
    engine = TransformersEngine(tmp_path / "chat", Sampling())
    turn, said = tokenizer.convert_tokens_to_ids("<|turn|>"), tokenizer("open the gate")["input_ids"]
    assert engine._read(torch.tensor([*said, turn, *said]), 7) == Answer("open the gate", 7, len(said) + 1, "stop")
    assert engine._read(torch.tensor(said), 7) == Answer("open the gate", 7, len(said), "length")


def test_samples_follow_their_seed(folder: Path) -> None:
    engine = TransformersEngine(folder, Sampling(temperature=1.0, max_tokens=12))
    texts = {}
    for seed in (1, 2, 1):
        (answer,) = engine.answer([question("t", ({"role": "user", "content": TEXTS[0]},), Sampling(), seed)])
        assert isinstance(answer, Answer)
        assert texts.setdefault(seed, answer.text) == answer.text
    assert texts[1] != texts[2]


def test_penalties_are_those_of_the_api() -> None:
    """logit - frequency * count - presence * (count > 0), of tokens that were written, not of the prompt's."""
    written = torch.tensor([[0, 0, 1, 1, 2], [3, 3, 0, 0, 0]])
    scores = torch.zeros(2, 4)
    found = Penalties(2, 0.5, 0.25)(written, scores)
    assert found.tolist() == [[0.0, -1.25, -0.75, 0.0], [-1.75, 0.0, 0.0, 0.0]]


def test_penalties_change_what_is_said(folder: Path) -> None:
    penalties = {"frequency_penalty": 2.0, "presence_penalty": 2.0}
    plain, penalised = (one(folder, TEXTS[1], max_tokens=40, **how) for how in ({}, penalties))
    assert plain.text != penalised.text
