"""``python -m bench.gpu REGISTRY``: what the trainer does on a GPU, with the libraries of its CUDA image.

For a machine that has one: the checkout and the image's packages in PYTHONPATH, and a registry that speaks HTTP without
TLS at ``REGISTRY``. The loop's speed is compared with a plain one's, memory is shown method by method, and the demo's
task is learned, distilled, interrupted and adapted to by the very program that a Job runs.
"""

import argparse
import gc
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import Qwen2Config

from bench import figures, loops
from bench.figures import Figure
from demo import assets
from demo.task import BASE_DOMAINS, IRRIGATION, Domain
from slm_trainer import model as models
from slm_trainer.curves import Curves
from slm_trainer.loop import fit
from slm_trainer.model import load_model, save_memory
from slm_trainer.objectives import Objective
from slm_trainer.recipes import RECIPES
from slm_trainer.watch import Watch
from slmkit.data import write_messages
from slmkit.registry import Registry as Client
from slmkit.run import Context
from slmops.contract import (
    DATASET_TYPE,
    Architecture,
    Checkpoint,
    Data,
    Evaluation,
    ExampleFormat,
    Hyperparameters,
    Metric,
    Reason,
    Registry,
    Report,
    Sink,
    Source,
    TrainRun,
)
from slmops.contract import Objective as Taught

TARGET = 0.95
GRAPHICS = torch.device("cuda")
HALF_BILLION = Qwen2Config(
    vocab_size=151936, hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14,
    num_key_value_heads=2, tie_word_embeddings=True,
)  # fmt: skip
"""Qwen2.5-0.5B."""
MORE = Qwen2Config(
    vocab_size=151936, hidden_size=1536, intermediate_size=8960, num_hidden_layers=28, num_attention_heads=12,
    num_key_value_heads=2, tie_word_embeddings=True,
)  # fmt: skip
"""Qwen2.5-1.5B."""
ARCHITECTURE = Architecture(
    hidden_size=128, layers=2, attention_heads=4, key_value_heads=2, intermediate_size=384, vocabulary_size=1023
)
"""The student of the demo."""
TEACHER = {"hidden_size": 384, "layers": 6, "attention_heads": 6, "intermediate_size": 1152}
"""Where its teacher differs."""


def throughput(rounds: int, folder: Path) -> list[Figure]:
    """Our loop beside a plain one."""
    setting = loops.Setting(HALF_BILLION, prompt=(100, 400), answer=(50, 200), records=480, batch=16, device=GRAPHICS,
                            attention=models.attention())  # fmt: skip
    seen = list(loops.rounds(setting, folder, rounds))
    ours, plain = (median(pair[name] for pair in seen) for name in ("ours", "plain"))
    share = median(pair["ours"] / pair["plain"] for pair in seen)
    return [Figure("training throughput, 0.5 billion parameters, BF16", f"at least {TARGET} of a plain PyTorch loop's",
                   f"{share:.3f}: {ours:,.0f} against {plain:,.0f} tokens/s", share >= TARGET)]  # fmt: skip


def memory(folder: Path) -> list[Figure]:
    """Most bytes that each method allocates on the GPU for a few steps of one training."""
    setting = loops.Setting(MORE, prompt=(100, 400), answer=(50, 200), records=32, batch=8, device=GRAPHICS)
    made = setting.made()
    setting.model("sdpa").to(torch.bfloat16).save_pretrained(folder / "base")
    found = []
    for method, saving in [("Full", False), ("LoRA", False), ("QLoRA", False), ("QLoRA", True)]:
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        wanted = Hyperparameters(epochs=1, batch_size=setting.batch, gradient_checkpointing=saving)
        run = TrainRun(run="memory", method=method, hyperparameters=wanted, train=_data("oci://x/x:v1", "x"),
                       output=Sink(repository="x/x"))  # fmt: skip
        trained = RECIPES[method].prepare(load_model(folder / "base"), folder / "base", run)
        if saving:
            save_memory(trained)
        curves = Curves(folder / f"{method}-{saving}")
        fit(trained, made, wanted, 0, Objective(), Context(folder), Watch((), wanted, 0, curves))
        curves.close()
        name = f"GPU memory of {method}, 1.5 billion parameters{', gradient checkpointing' if saving else ''}"
        found.append(Figure(name, "", figures.mb(torch.cuda.max_memory_allocated())))
        del trained
    return found


@dataclass
class Trainer:
    """The trainer's program, started as a Job starts it."""

    folder: Path
    numbers: Iterator[int] = field(default_factory=itertools.count)
    seconds: dict[str, float] = field(default_factory=dict)
    """Of the last run, by stage."""
    speed: float = 0.0
    """Tokens a second, the highest that the last run told."""

    def run(self, run: TrainRun, stop_at: int | None = None, state: Path | None = None) -> Report:
        """Its report. With ``stop_at`` it is told to stop after that many steps."""
        place = self.folder / f"{run.run}-{next(self.numbers)}"
        (place / "work").mkdir(parents=True)
        state = state or place / "state"
        state.mkdir(exist_ok=True)
        (place / "run.json").write_text(run.model_dump_json())
        report = place / "report"
        environment = os.environ | {
            "WORK_DIR": str(place / "work"), "STATE_DIR": str(state), "TERMINATION_PATH": str(report),
            "PROGRESS_PORT": "9091",
        }  # fmt: skip
        self.seconds, self.speed = {}, 0.0
        with (place / "log").open("w") as log:
            command = [sys.executable, "-m", "slm_trainer", str(place / "run.json")]
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        while process.poll() is None:
            before = time.monotonic()
            time.sleep(0.05)
            now = _progress()
            stage = str(now.get("stage", "Starting"))
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.monotonic() - before
            self.speed = max(self.speed, float(now.get("tokens_per_second") or 0))
            if stop_at is not None and stage == "Training" and int(now.get("step", 0)) >= stop_at:
                process.send_signal(signal.SIGTERM)
                stop_at = None
        found = Report.model_validate_json(report.read_bytes())
        print(f"{run.run}: {found.outcome} {found.reason or ''} {found.message} "
              f"{ {stage: round(spent, 1) for stage, spent in self.seconds.items()} }", flush=True)  # fmt: skip
        if found.outcome == "Failed" and found.reason != "Terminated":
            raise RuntimeError(f"{run.run}: {found.message}\n{(place / 'log').read_text()[-3000:]}")
        return found


def _progress() -> dict[str, Any]:
    try:
        with urllib.request.urlopen("http://127.0.0.1:9091/progress", timeout=1) as answer:
            return dict(json.loads(answer.read()))
    except OSError:
        return {}


def _data(uri: str, path: str) -> Data:
    return Data(source=Source(uri=uri), format=ExampleFormat.MESSAGES, path=path)


def life(folder: Path, registry: str) -> list[Figure]:
    """The demo's task, learned on the GPU."""
    access = Registry(plain_http=(registry,))
    trainer = Trainer(folder)
    found = []

    def data(name: str, domains: tuple[Domain, ...], count: int) -> dict[str, Data]:
        parts = {
            "train": assets.records(domains, 1, count),
            "validation": assets.records(domains, 2, 100, held_out=True),
        }
        paths = {f"{part}.jsonl": folder / name / f"{part}.jsonl" for part in parts}
        (folder / name).mkdir()
        for part, records in parts.items():
            write_messages(folder / name / f"{part}.jsonl", records)
        made = Client(access).push_artifact(Sink(repository=f"{registry}/data/{name}"), paths, DATASET_TYPE, {})
        return {part: _data(f"oci://{made.reference}", f"{part}.jsonl") for part in parts}

    def training(name: str, learned: dict[str, Data], **fields: Any) -> TrainRun:
        quick = Evaluation(samples=100, max_new_tokens=64, metrics=(Metric.EXACT_MATCH,), untrained_baseline=False)
        plain = {"run": name, "registry": access, "evaluation": quick, "output": Sink(repository=f"{registry}/{name}")}
        return TrainRun.model_validate(plain | learned | fields)

    def note(name: str, value: str, target: str = "", met: bool = True) -> None:
        found.append(Figure(name, target, value, met))

    def digest(name: str, first: Report, second: Report, part: str) -> None:
        same = first.artifacts[part].reference == second.artifacts[part].reference
        note(name, f"{'the same' if same else 'another'} digest", "the same digest", same)

    lessons = data("lessons", BASE_DOMAINS, 12_000)
    whole = Evaluation(samples=100, max_new_tokens=64, metrics=tuple(Metric), untrained_baseline=False)
    teacher = trainer.run(training(
        "teacher", lessons, architecture=ARCHITECTURE.model_copy(update=TEACHER), evaluation=whole,
        hyperparameters=Hyperparameters(epochs=2, batch_size=64, learning_rate=2e-3, warmup_ratio=0.05),
    ))  # fmt: skip
    figures_of = teacher.evaluation["model"]
    note("9.8 million parameters learn the demo's task from 12,000 records, BF16",
         f"{figures_of.exact_match:.0%} right, perplexity {figures_of.perplexity}, {trainer.speed:,.0f} tokens/s, "
         f"{trainer.seconds.get('Training', 0):.0f} s; an answer takes {figures_of.inference_seconds} s",
         "better than none right", bool(figures_of.exact_match))  # fmt: skip
    weights = Source(uri=f"oci://{teacher.artifacts['model'].reference}")

    student = training(
        "student", lessons, architecture=ARCHITECTURE.model_copy(update={"tokenizer": weights}),
        objective=Taught(type="Logits", teacher=weights),
        hyperparameters=Hyperparameters(epochs=2, batch_size=64, learning_rate=2e-3, checkpoint=Checkpoint(every_steps=50)),
    )  # fmt: skip
    straight = trainer.run(student)
    note("distilling it into 0.4 million by Logits", f"{straight.evaluation['model'].exact_match:.0%} right, "
         f"{trainer.speed:,.0f} tokens/s")  # fmt: skip
    state = folder / "student-state"
    stopped = trainer.run(student, stop_at=120, state=state)
    again = trainer.run(student, state=state)
    resumed = (stopped.reason, again.resumes) == (Reason.TERMINATED, 1)
    note(
        "the same, told to stop on the way and taken up again",
        f"{stopped.reason}, {again.resumes} resume, {again.lost_steps} steps lost",
        "Terminated, 1 resume",
        resumed,
    )
    digest("what it comes to", straight, again, "model")

    lesson = data("irrigation", (IRRIGATION,), 6_000)
    adapted = training(
        "qlora", lesson, base=weights, method="QLoRA",
        hyperparameters=Hyperparameters(epochs=1, batch_size=32, learning_rate=2e-3, packing=True, max_sequence_length=128),
    )  # fmt: skip
    first = trainer.run(adapted)
    right = first.evaluation["model"].exact_match or 0
    note("QLoRA in packed rows: a function that the teacher never called", f"{right:.0%} right, "
         f"{trainer.speed:,.0f} tokens/s", "better than none right", right > 0)  # fmt: skip
    digest("the same seed again", first, trainer.run(adapted), "adapter")
    return found


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("registry", help="host:port")
    parser.add_argument("--rounds", type=int, default=5, help="of the comparison with a plain loop")
    parser.add_argument("--only", choices=["throughput", "memory", "life"])
    options = parser.parse_args()
    found: list[Figure] = []
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        if options.only in (None, "throughput"):
            found += throughput(options.rounds, folder)
            print(figures.table(found), flush=True)
        if options.only in (None, "life"):
            found += life(folder, options.registry)
            print(figures.table(found), flush=True)
        if options.only in (None, "memory"):
            found += memory(folder)
    print(f"\n{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, {figures.machine()}\n{figures.table(found)}")
    return 0 if all(figure.met for figure in found) else 1


if __name__ == "__main__":
    sys.exit(main())
