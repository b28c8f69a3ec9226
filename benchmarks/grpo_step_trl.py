"""TRL's side of grpo_vs_trl.py, run in TRL's own environment. Arguments: WORK.json SETTINGS OUT.json.

SETTINGS is a JSON object of GRPOConfig fields that replace those below.
"""

from __future__ import annotations

import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from common import Record, write_json
from grpo_reward import share_of_digits


class Clock(TrainerCallback):  # type: ignore[misc]
    """Seconds of each step, counted from the end of one to the end of the next; what is not rollout is training."""

    def __init__(self) -> None:
        self.steps: list[Record] = []
        self.part: Record = {}
        self.began = (0.0, 0.0)

    def on_train_begin(self, *arguments: Any, **options: Any) -> None:
        self.began = perf_counter(), process_time()

    def on_step_end(self, *arguments: Any, **options: Any) -> None:
        seconds, cpu = perf_counter() - self.began[0], process_time() - self.began[1]
        train = seconds - self.part.pop("rollout")
        self.steps.append({"seconds": seconds, "cpu": cpu, "train": train, **self.part})
        self.part = {}
        self.began = perf_counter(), process_time()


def watch(trainer: GRPOTrainer, clock: Clock) -> None:
    """Lets the clock see how long the trainer generates, and how long its rollout (rewards, advantages) takes."""
    generate, rollout = trainer._generate_single_turn, trainer._generate_and_score_completions

    def timed_generate(prompt_ids: Any, *arguments: Any, **options: Any) -> Any:
        began = perf_counter()
        result = generate(prompt_ids, *arguments, **options)
        clock.part["generate"] = perf_counter() - began
        clock.part["lengths"] = [len(ids) for ids in result[0]]
        clock.part["prompts"] = [list(ids) for ids in prompt_ids]
        return result

    def timed_rollout(inputs: Any) -> Any:
        began = perf_counter()
        result = rollout(inputs)
        clock.part["rollout"] = perf_counter() - began
        return result

    trainer._generate_single_turn, trainer._generate_and_score_completions = timed_generate, timed_rollout


def measure(work: Record, settings: Record) -> Record:
    """Seconds of each step but the first ones, in all and generating, and the lengths sampled in them."""
    torch.set_num_threads(work["threads"])
    tokenizer = AutoTokenizer.from_pretrained(work["model"])
    model = AutoModelForCausalLM.from_pretrained(work["model"], dtype=torch.float32)
    texts = [tokenizer.decode(ids, skip_special_tokens=False) for ids in work["prompts"]]
    steps = work["warmup"] + work["steps"]
    with tempfile.TemporaryDirectory() as folder:
        fields = {
            "output_dir": folder,
            "per_device_train_batch_size": len(texts) * work["group_size"],
            "gradient_accumulation_steps": 1,
            "num_generations": work["group_size"],
            "max_completion_length": work["max_tokens"],
            "max_steps": steps,
            "learning_rate": work["lr"],
            "lr_scheduler_type": "constant",
            "beta": 0.0,
            "temperature": 1.0,
            "bf16": False,
            "gradient_checkpointing": False,
            "shuffle_dataset": False,
            "seed": work["seed"],
            "use_cpu": True,
            "logging_strategy": "no",
            "save_strategy": "no",
            "report_to": [],
            "disable_tqdm": True,
        } | settings
        trainer = GRPOTrainer(
            model=model,
            reward_funcs=share_of_digits,
            args=GRPOConfig(**fields),
            train_dataset=Dataset.from_list([{"prompt": text} for text in texts * steps]),
            processing_class=tokenizer,
        )
        clock = Clock()
        trainer.add_callback(clock)
        watch(trainer, clock)
        trainer.train()
    for step in clock.steps:
        if step.pop("prompts") != [ids for ids in work["prompts"] for _ in range(work["group_size"])]:
            raise SystemExit("the prompts are not those of the other side")
    names = ("trl", "transformers", "torch", "accelerate")
    return {"versions": {name: version(name) for name in names}, "steps": clock.steps[work["warmup"] :]}


if __name__ == "__main__":
    record = measure(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), json.loads(sys.argv[2]))
    write_json(sys.argv[3], record)
