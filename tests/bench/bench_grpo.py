"""A GRPO step against TRL's, the same model and problems, alternating steps in one process.

    python -m tests.bench.bench_grpo --pairs 6                   # nano; wall and processor time
    python -m tests.bench.bench_grpo --model FOLDER --threads 2

A step: draw `--samples` of each of `--prompts` problems, judge them by the final answer, learn. Both in fp32 (`--bf16`:
TRL in bf16, where the processor computes in it), loss over tokens, no reference. TRL 1.16 generates by transformers;
before the pairs its ways to cut the batch and its kernels of attention are tried, and the fastest is taken; its
gradient checkpointing, on by default, is off. Needs the extra `train`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

from reason_engine.answers import find
from reason_engine.data.mixture import Stream
from reason_engine.engines.open import bundled_model
from reason_engine.training.common.models import load_model
from reason_engine.training.common.policy import Policy
from reason_engine.training.online.actor import Actor
from reason_engine.training.online.environment import Curriculum, training_problem
from reason_engine.training.online.grpo import Groups, GrpoConfig
from reason_engine.training.online.loop import gather, learn
from tests.bench._measure import machine, paired

Spent = tuple[float, float, int]
"""Wall seconds, processor seconds, drawn tokens."""


class Ours:
    """One step at a time."""

    def __init__(self, config: GrpoConfig, actor: Actor) -> None:
        import torch

        self.config, self.actor, self.curriculum = config, actor, Curriculum(config)
        self.model, _ = load_model(config.model)
        self.learner = Groups(config, Policy(self.model, config.temperature, "fp32"), Policy(self.model, 1.0, "fp32"))
        self.optimiser = torch.optim.AdamW(self.model.parameters(), lr=config.rate, weight_decay=0.0)
        self.done = 0

    def step(self) -> Spent:
        wall, own = time.perf_counter(), time.process_time()
        batch, metrics = gather(self.config, self.actor, self.curriculum, self.done)
        learn(self.config, self.learner, self.optimiser, batch, self.done + 1)
        self.actor.take_weights(self.model)
        self.done += 1
        return time.perf_counter() - wall, time.process_time() - own, metrics["drawn"]


def trl_run(config: GrpoConfig, steps: int, cuts: int, attention: str, bf16: bool, between: Any) -> list[Spent]:
    """Steps of TRL; `between` is called after each. `cuts`: passes that a batch is learned in."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    tasks = [training_problem(one) for one in islice(Stream(config.mixture, config.seed), steps * config.prompts)]
    rows = [{"prompt": [{"role": "user", "content": t.problem.question}], "answer": t.problem.reference} for t in tasks]
    drawn: list[int] = []

    def right(completions: Any, answer: list[str], completion_ids: Any, **rest: Any) -> list[float]:
        drawn.append(sum(map(len, completion_ids)))
        said = [find(one[0]["content"]) for one in completions]
        return [float(a is not None and a == b) for a, b in zip(said, answer, strict=True)]

    spent: list[Spent] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *given: Any, **rest: Any) -> None:
            self.begun = time.perf_counter(), time.process_time()

        def on_step_end(self, *given: Any, **rest: Any) -> None:
            wall, own = time.perf_counter() - self.begun[0], time.process_time() - self.begun[1]
            spent.append((wall, own, sum(drawn)))
            drawn.clear()
            between()

    with tempfile.TemporaryDirectory() as folder:
        whole = config.prompts * config.samples
        settings = GRPOConfig(
            output_dir=folder, max_steps=steps, per_device_train_batch_size=whole // cuts,
            gradient_accumulation_steps=cuts, num_generations=config.samples, max_completion_length=config.max_tokens,
            temperature=1.0, top_p=1.0, top_k=0, beta=0.0, num_iterations=1, epsilon=0.2, epsilon_high=0.28,
            loss_type="dapo", scale_rewards="group", learning_rate=config.rate, lr_scheduler_type="constant",
            gradient_checkpointing=False, bf16=bf16, fp16=False, use_cpu=True, shuffle_dataset=False, report_to="none",
            save_strategy="no", logging_strategy="no", disable_tqdm=True, seed=config.seed, dataloader_pin_memory=False,
        )  # fmt: skip
        import torch

        model = AutoModelForCausalLM.from_pretrained(
            config.model, dtype=torch.float32, attn_implementation=attention, local_files_only=True
        )
        trainer = GRPOTrainer(
            model=model, args=settings, reward_funcs=right, train_dataset=Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(config.model), callbacks=[Clock()],
        )  # fmt: skip
        trainer.train()
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=bundled_model())
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--max-tokens", type=int, default=160)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bf16", action="store_true")
    given = parser.parse_args()
    import torch

    torch.set_num_threads(given.threads)
    config = GrpoConfig.model_validate(
        {
            "out": "none", "model": given.model, "rewards": [{"verifier": "exact"}], "steps": given.pairs + 1,
            "mixture": [{"family": "words", "share": 1, "params": {"steps": [3, 8], "digits": [1, 2]}}],
            "prompts": given.prompts, "samples": given.samples, "max_tokens": given.max_tokens,
            "threads": given.threads, "micro_tokens": 2048, "rate": 1e-6, "seed": 3,
        }
    )  # fmt: skip
    tried: dict[tuple[int, str], float] = {}
    for cuts, attention in ((1, "sdpa"), (1, "eager"), (4, "sdpa"), (4, "eager")):
        spent = trl_run(config, 2, cuts, attention, given.bf16, lambda: None)
        tried[cuts, attention] = spent[-1][1] / spent[-1][2]
        print(f"TRL tried: {cuts} passes, {attention}: {1e3 * tried[cuts, attention]:.2f} ms a drawn token", flush=True)
    cuts, attention = min(tried, key=lambda way: tried[way])
    ours: list[Spent] = []
    with Actor(config) as actor:
        stepper = Ours(config, actor)
        theirs = trl_run(config, given.pairs + 1, cuts, attention, given.bf16, lambda: ours.append(stepper.step()))
    print(f"\n{machine()}, {given.threads} threads, {given.prompts} x {given.samples}, TRL: {cuts}, {attention}\n")
    print("| step | TRL s | ours s | TRL cpu s | ours cpu s | TRL tokens | ours |\n|---|---:|---:|---:|---:|---:|---:|")
    pairs = list(zip(theirs, ours, strict=True))[1:]  # the first warms up
    for number, (a, b) in enumerate(pairs):
        print(f"| {number + 1} | {a[0]:.1f} | {b[0]:.1f} | {a[1]:.1f} | {b[1]:.1f} | {a[2]} | {b[2]} |")
    for name, at in (("wall", 0), ("processor", 1)):
        steps, tokens = (
            paired([a[at] / b[at] for a, b in pairs]),
            paired([a[at] / a[2] / (b[at] / b[2]) for a, b in pairs]),
        )
        print(f"\n{name} time, TRL over ours: a step {steps}; a drawn token {tokens}")


if __name__ == "__main__":
    main()
