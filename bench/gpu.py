"""``python -m bench.gpu REGISTRY``: what the trainer does on a GPU, with the libraries of its CUDA image.

For a machine that has one: the checkout and the image's packages in PYTHONPATH, and a registry that speaks HTTP without
TLS at ``REGISTRY``. The loop's speed is compared with a plain one's, memory is shown method by method, and the demo's
models are trained, distilled, adapted, interrupted and labelled with by the very program that a Job runs.
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
from slm_trainer import model as models
from slm_trainer.curves import Curves
from slm_trainer.loop import fit
from slm_trainer.model import load_model, save_memory
from slm_trainer.objectives import Objective
from slm_trainer.recipes import RECIPES
from slm_trainer.watch import Watch
from slmkit.run import Context
from slmops.contract import (
    Architecture,
    Checkpoint,
    Data,
    Evaluation,
    ExampleFormat,
    Hyperparameters,
    LabelRun,
    Registry,
    Report,
    Run,
    Sampling,
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
    registry: str
    numbers: Iterator[int] = field(default_factory=itertools.count)
    seconds: dict[str, float] = field(default_factory=dict)
    """Of the last run, by stage."""
    speed: float = 0.0
    """Tokens a second, the highest that the last run told."""

    def run(self, run: Run, stop_at: int | None = None, state: Path | None = None) -> Report:
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
    """The demo's models, trained on the GPU."""
    access = Registry(plain_http=(registry,))
    data = assets.push_datasets(registry, access)
    trainer = Trainer(folder, registry)
    found = []

    def note(name: str, value: str, target: str = "", met: bool = True) -> None:
        found.append(Figure(name, target, value, met))

    taught = assets.teacher_run(registry, access, data["farm-lessons"])
    teacher = trainer.run(taught)
    figures_of = teacher.evaluation["model"]
    note("teacher, 9.8 million parameters, BF16", f"{figures_of.exact_match:.1%} right, {trainer.speed:,.0f} tokens/s, "
         f"{trainer.seconds.get('Training', 0):.0f} s of training", "at least 90 % right",
         (figures_of.exact_match or 0) >= 0.9)  # fmt: skip
    weights = Source(uri=f"oci://{teacher.artifacts['model'].reference}")

    labelled = trainer.run(LabelRun(
        run="label", registry=access, model=weights, sampling=Sampling(temperature=0, max_tokens=64),
        train=_data(data["farm-benchmark"], "benchmark.jsonl"), output=Sink(repository=f"{registry}/slm/answers"),
    ))  # fmt: skip
    counts = labelled.dataset
    assert counts is not None
    note("labelling by the teacher's weights", f"{counts.labelled} of {counts.prompts} prompts, "
         f"{counts.completion_tokens / max(trainer.seconds.get('Labelling', 0), 1e-3):,.0f} tokens/s")  # fmt: skip

    hyperparameters = Hyperparameters(epochs=1, batch_size=32, learning_rate=2e-3, warmup_ratio=0.05,
                                      checkpoint=Checkpoint(every_steps=100))  # fmt: skip
    student = taught.model_copy(update={
        "run": "student", "architecture": ARCHITECTURE.model_copy(update={"tokenizer": weights}),
        "objective": Taught(type="Logits", teacher=weights, temperature=2.0, alpha=0.5, top_k=16),
        "hyperparameters": hyperparameters, "output": Sink(repository=f"{registry}/slm/student"),
    })  # fmt: skip
    straight = trainer.run(student)
    figures_of = straight.evaluation["model"]
    note("student of 0.4 million parameters by Logits", f"{figures_of.exact_match:.1%} right, "
         f"{trainer.speed:,.0f} tokens/s")  # fmt: skip
    state = folder / "student-state"
    stopped = trainer.run(student, stop_at=300, state=state)
    again = trainer.run(student, state=state)
    same = again.artifacts["model"].reference == straight.artifacts["model"].reference
    note("the same training, told to stop at step 300 and taken up again", f"{stopped.reason}, {again.resumes} resume, "
         f"{again.lost_steps} steps lost, {'the same' if same else 'another'} digest", "the same digest", same)  # fmt: skip

    for method in ("LoRA", "QLoRA", "DoRA"):
        run = TrainRun(
            run=method.lower(), registry=access, base=weights, method=method,
            train=_data(data["irrigation"], "train.jsonl"), validation=_data(data["irrigation"], "validation.jsonl"),
            hyperparameters=Hyperparameters(epochs=1, batch_size=32, learning_rate=2e-3, packing=method == "QLoRA",
                                            max_sequence_length=256),
            evaluation=Evaluation(samples=200, max_new_tokens=64),
            output=Sink(repository=f"{registry}/slm/{method.lower()}"),
        )  # fmt: skip
        first = trainer.run(run)
        before, after = (first.evaluation[name].exact_match or 0 for name in ("baseline", "model"))
        note(f"{method}: a function that the teacher never called", f"{before:.1%} before, {after:.1%} after, "
             f"{trainer.speed:,.0f} tokens/s", "better than before", after > before)  # fmt: skip
        if method != "DoRA":
            second = trainer.run(run)
            same = first.artifacts["adapter"].reference == second.artifacts["adapter"].reference
            note(
                f"{method}: the same seed again", f"{'the same' if same else 'another'} digest", "the same digest", same
            )
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
        if options.only in (None, "memory"):
            found += memory(folder)
            print(figures.table(found), flush=True)
        if options.only in (None, "life"):
            found += life(folder, options.registry)
    print(f"\n{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, {figures.machine()}\n{figures.table(found)}")
    return 0 if all(figure.met for figure in found) else 1


if __name__ == "__main__":
    sys.exit(main())
