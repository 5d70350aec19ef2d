"""A GRPO step against TRL's, the same model and problems, alternating steps in one process.

    python -m tests.bench.bench_grpo --pairs 6                   # nano; wall and processor time
    python -m tests.bench.bench_grpo --model FOLDER --threads 2 --data FILE --peft lora
    python -m tests.bench.bench_grpo --model FOLDER --data FILE --peft lora --alone ours    # and: trl; the peak memory

A step: draw `--samples` of each of `--prompts` problems, judge them by the final answer, learn. Both in fp32 (`--bf16`:
TRL in bf16, where the processor computes in it), loss over tokens, no reference. TRL 1.16 generates by transformers;
before the pairs its ways to cut the batch and its kernels of attention are tried, and the fastest is taken; its
gradient checkpointing, on by default, is off. `--data`: prompts with answers, in place of word problems. `--alone`: two
steps of one of the two, and the most memory that the process held; `--split` gives every second sample of a group a
reward, so that groups of a model that solves nothing are learned from. Needs the extra `train`.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from reason_engine.answers import find
from reason_engine.engines.open import bundled_model
from reason_engine.training.common.models import load_model
from reason_engine.training.online.actor import Actor
from reason_engine.training.online.environment import Curriculum
from reason_engine.training.online.grpo import Groups, GrpoConfig
from reason_engine.training.online.loop import Batch, gather, learn, make_learner
from tests.bench._measure import machine, paired

Spent = tuple[float, float, int]
"""Wall seconds, processor seconds, drawn tokens."""


class Ours:
    """One step at a time."""

    def __init__(self, config: GrpoConfig, actor: Actor, split: bool) -> None:
        import torch

        self.config, self.actor, self.curriculum, self.split = config, actor, Curriculum(config), split
        self.model, _ = load_model(config.model)
        self.learner, self.adapted = make_learner(config, Groups, self.model)
        trained = [p for p in self.learner.modules["policy"].parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(trained, lr=config.rate, weight_decay=0.0)
        self.done = 0

    def step(self) -> Spent:
        wall, own = time.perf_counter(), time.process_time()
        batch, metrics = gather(self.config, self.actor, self.curriculum, self.done)
        if self.split:
            halves = [[float(number % 2) for number in range(self.config.samples)]] * len(batch.groups)
            batch = Batch(batch.groups, replace(batch.rewards, outcome=halves))
        learn(self.config, self.learner, self.optimiser, batch, self.done + 1)
        self.actor.take_weights(self.model, self.adapted)
        self.done += 1
        return time.perf_counter() - wall, time.process_time() - own, metrics["drawn"]


def trl_run(
    config: GrpoConfig, steps: int, cuts: int, attention: str, bf16: bool, between: Any, split: bool = False
) -> list[Spent]:
    """Steps of TRL; `between` is called after each. `cuts`: passes that a batch is learned in."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    tasks = Curriculum(config).take(steps * config.prompts)
    rows = [{"prompt": [{"role": "user", "content": t.problem.question}], "answer": t.problem.reference} for t in tasks]
    drawn: list[int] = []

    def right(completions: Any, answer: list[str], completion_ids: Any, **rest: Any) -> list[float]:
        drawn.append(sum(map(len, completion_ids)))
        if split:
            return [float(number % 2) for number in range(len(answer))]
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
        adapter = None
        if config.peft is not None:
            from peft import LoraConfig

            rank = config.peft.rank
            adapter = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules="all-linear")
        trainer = GRPOTrainer(
            peft_config=adapter, model=model, args=settings, reward_funcs=right, train_dataset=Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(config.model), callbacks=[Clock()],
        )  # fmt: skip
        trainer.train()
    return spent


WORDS = {"family": "words", "share": 1, "params": {"steps": [3, 8], "digits": [1, 2]}}


def alone(config: GrpoConfig, given: argparse.Namespace) -> None:
    """Two steps of one of the two: the second one's time, and the most memory of the process."""
    if given.alone == "ours":
        with Actor(config) as actor:
            stepper = Ours(config, actor, given.split)
            spent = [stepper.step() for _ in range(2)]
    else:
        spent = trl_run(config, 2, 1, "sdpa", given.bf16, lambda: None, given.split)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    wall, own, tokens = spent[-1]
    print(f"{given.alone}: {wall:.1f} s, processor {own:.1f} s, {tokens} tokens; peak {peak:.2f} GiB; {machine()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=bundled_model())
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--max-tokens", type=int, default=160)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--peft", choices=("lora",))
    parser.add_argument("--micro-tokens", type=int, default=2048)
    parser.add_argument("--alone", choices=("ours", "trl"))
    parser.add_argument("--split", action="store_true")
    given = parser.parse_args()
    import torch

    torch.set_num_threads(given.threads)
    config = GrpoConfig.model_validate(
        {
            "out": "none", "model": given.model, "rewards": [{"verifier": "exact"}], "steps": given.pairs + 1,
            "mixture": [] if given.data else [WORDS], "data": given.data, "peft": given.peft,
            "prompts": given.prompts, "samples": given.samples, "max_tokens": given.max_tokens,
            "threads": given.threads, "micro_tokens": given.micro_tokens, "rate": 1e-6, "seed": 3,
        }
    )  # fmt: skip
    if given.alone:
        return alone(config, given)
    tried: dict[tuple[int, str], float] = {}
    for cuts, attention in ((1, "sdpa"), (1, "eager"), (4, "sdpa"), (4, "eager")):
        spent = trl_run(config, 2, cuts, attention, given.bf16, lambda: None, given.split)
        tried[cuts, attention] = spent[-1][1] / spent[-1][2]
        print(f"TRL tried: {cuts} passes, {attention}: {1e3 * tried[cuts, attention]:.2f} ms a drawn token", flush=True)
    cuts, attention = min(tried, key=lambda way: tried[way])
    ours: list[Spent] = []
    with Actor(config) as actor:
        stepper = Ours(config, actor, given.split)
        theirs = trl_run(
            config, given.pairs + 1, cuts, attention, given.bf16, lambda: ours.append(stepper.step()), given.split
        )
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
