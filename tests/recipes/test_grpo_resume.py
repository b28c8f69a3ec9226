"""GRPO killed at every step and resumed is, to the bit, GRPO that was let alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from onepolicy.recipes import grpo
from onepolicy.recipes.options import Update
from onepolicy.run.journal import read_lines

EVERYWHERE = [
    (0, "before log"),
    (1, "after sample"),
    (1, "before save"),
    (2, "after log"),
    (2, "in save"),
    (3, "before log"),
    (3, "after save"),
    (4, "in save"),
    (4, "after save"),
]
SOMEWHERE = [(1, "after log"), (2, "in save"), (3, "after sample"), (4, "before log")]


def test_killed_at_every_step(tiny_grpo, resume_through, digests):
    """Weights, optimizer, prompts, metrics and samples; a kill in a save falls back to the one before."""
    straight, killed = tiny_grpo("straight"), tiny_grpo("killed")
    report = grpo.main(straight)
    again = resume_through(grpo.main, killed, EVERYWHERE)
    assert digests(straight.out) == digests(killed.out)
    assert again.metrics == report.metrics
    assert report.metrics["rollout/trained"] == 1.0


def test_killed_between_checkpoints(tiny_grpo, resume_through, digests):
    """With a checkpoint every second step, what came after it is done again, and the files hold it once."""
    straight, killed = tiny_grpo("straight", save_every=2, steps=5), tiny_grpo("killed", save_every=2, steps=5)
    grpo.main(straight)
    resume_through(grpo.main, killed, [(1, "after log"), (2, "before save"), (3, "after log"), (4, "after save")])
    assert digests(straight.out) == digests(killed.out)


VARIANTS = {
    "kl in the loss": {"update": Update(warmup_steps=0, kl_coef=0.1)},
    "kl in the reward": {"convention": "openrlhf", "update": Update(warmup_steps=0, kl_coef=0.1)},
    "minibatches and epochs": {"update": Update(warmup_steps=2, schedule="linear", epochs=2, minibatches=3)},
    "lora with kl, epochs and minibatches": {
        "lora_rank": 2,
        "update": Update(warmup_steps=0, kl_coef=0.1, epochs=2, minibatches=2),
    },
    "groups left out": {"update": Update(warmup_steps=0, zero_variance="drop", truncated="mask"), "max_tokens": 6},
    "dynamic sampling, shaped": {"update": Update(warmup_steps=0, zero_variance="drop", resample=3, overlong_cache=4)},
    "reference replaced": {"update": Update(warmup_steps=0, kl_coef=0.1, reference_every=2), "lr": 1e-2},
    "moving baseline, single samples": {"convention": "reinforce", "group_size": 1},
    "whitened, kl in the reward, corrected": {
        "convention": "reinforce++",
        "update": Update(warmup_steps=0, correction="token_truncate", epochs=2, minibatches=2),
    },
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_killed_at_every_step(variant, tiny_grpo, resume_through, digests):
    straight, killed = tiny_grpo("straight", **VARIANTS[variant]), tiny_grpo("killed", **VARIANTS[variant])
    grpo.main(straight)
    resume_through(grpo.main, killed, SOMEWHERE)
    assert digests(straight.out) == digests(killed.out)


@pytest.mark.parametrize("arch", ["qwen3", "llama", "gpt2"])
def test_a_models_own_directory_killed_at_every_step(arch, tiny_grpo, model_directory, resume_through, digests):
    """Not made on the spot: read again from its directory at every resume, with the checkpoint's weights over it."""
    fields = {"model": str(model_directory(arch)), "steps": 3, "update": Update(warmup_steps=0, kl_coef=0.1)}
    straight, killed = tiny_grpo("straight", **fields), tiny_grpo("killed", **fields)
    grpo.main(straight)
    resume_through(grpo.main, killed, [(1, "after log"), (2, "in save"), (3, "after sample")])
    assert digests(straight.out) == digests(killed.out)


def test_a_replaced_reference_is_the_policy_of_then(tiny_grpo):
    """Replaced every second rollout: the KL is 0 at steps 1, 3 and not at 2, 4."""
    config = tiny_grpo(update=Update(warmup_steps=0, kl_coef=0.01, reference_every=2), lr=1e-2)
    grpo.main(config)
    found = {line["step"]: line for line in read_lines(Path(config.out) / "metrics.jsonl")}
    kl = [found[step]["policy/kl_ref"] for step in (1, 2, 3, 4)]
    assert kl[0] == pytest.approx(0.0, abs=1e-6) == kl[2]
    assert min(kl[1], kl[3]) > 1e-4


def test_warm_start_killed_in_the_middle(tiny_grpo, warm, resume_through, digests):
    """Deaths in the warm start's second step, before its model is whole, and in the first exam after it."""
    straight, killed = tiny_grpo("straight", warm=warm, steps=2), tiny_grpo("killed", warm=warm, steps=2)
    grpo.main(straight)
    resume_through(grpo.main, killed, [(1, "before log"), (2, "after save"), (3, "before save"), (0, "before log")])
    assert digests(straight.out) == digests(killed.out)
    assert digests(Path(straight.out) / "warm") == digests(Path(killed.out) / "warm")


@pytest.mark.parametrize("fields", [{}, {"lora_rank": 4}, {"warm": 3}], ids=["plain", "lora", "warm start"])
def test_the_reference_is_the_starting_policy_after_a_resume_too(fields, tiny_grpo, warm, kill_at):
    """At the end of a resumed run the KL is to the start, so it is that of the straight run and not near 0.

    After a warm start it is to the warm model: at the first step, where nothing has moved yet, it is 0.
    """
    fields = {**fields, "warm": warm} if "warm" in fields else fields
    config = tiny_grpo(update=Update(warmup_steps=0, kl_coef=0.01), lr=1e-2, **fields)
    with kill_at(3, "after save"):
        grpo.main(config)
    resumed = grpo.main(config, resume=Path(config.out)).metrics["policy/kl_ref"]
    straight = replace(config, out=config.out + "-straight")
    assert resumed == grpo.main(straight).metrics["policy/kl_ref"] > 1e-3
    first = next(line for line in read_lines(Path(straight.out) / "metrics.jsonl") if line["step"] == 1)
    assert first["policy/kl_ref"] == pytest.approx(0, abs=1e-6)
