"""TRL's side of losses_vs_trl.py, run in TRL's own environment. Arguments: WORK.json OUT.json.

The losses are those of TRL's trainers: their own methods, called with a model that answers with the given tensors in
place of a network. Only the trainers' construction is left out, but for the advantages, which come out of a whole
GRPOTrainer.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from accelerate import Accelerator
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOTrainer, GRPOConfig, GRPOTrainer, KTOTrainer
from trl.experimental.cpo import CPOTrainer
from trl.experimental.orpo import ORPOTrainer

from common import Record, write_json

Loss = Callable[[torch.Tensor], torch.Tensor]
"""Token log-probabilities, [B, T], to the scalar loss."""


def stand_in(**fields: Any) -> SimpleNamespace:
    """What the trainers' methods read of their trainer."""
    usual = {
        "model": SimpleNamespace(training=True),
        "accelerator": Accelerator(cpu=True),
        "aux_loss_enabled": False,
        "_metrics": {"train": defaultdict(list)},
        "_total_train_tokens": 0,
        "_tp_size": 1,
    }
    return SimpleNamespace(**(usual | fields))


def answering(logp: torch.Tensor) -> Callable[..., SimpleNamespace]:
    """A model whose log-probabilities of tokens 1 to T are the given ones of tokens 1 to T."""
    inner = logp[:, 1:]
    rest = torch.zeros_like(inner)
    said = SimpleNamespace(log_probs=inner, entropy=rest, mean_logits=rest, is_top1=rest.bool())
    return lambda **_: said


def dpo(work: Record, case: Record) -> Loss:
    """DPOTrainer's loss; rows alternate chosen and rejected."""
    mask, ref = torch.tensor(work["mask"]), torch.tensor(work["ref"])
    order = [*range(0, len(mask), 2), *range(1, len(mask), 2)]
    fields = {"label_smoothing": 0.0, "ld_alpha": None, "precompute_ref_logps": True, "use_weighting": False}
    trainer = stand_in(
        **fields | {k: v for k, v in case.items() if k in ("beta", "label_smoothing")},
        f_divergence_type="reverse_kl", loss_types=[case["loss_type"]], loss_weights=[1.0],
    )  # fmt: skip
    sums = (ref * mask).sum(-1)
    inputs = {
        "input_ids": torch.zeros(mask.shape, dtype=torch.int64),
        "attention_mask": torch.ones(mask.shape, dtype=torch.int64),
        "completion_mask": mask[order].long(),
        "ref_chosen_logps": sums[0::2],
        "ref_rejected_logps": sums[1::2],
    }
    return lambda logp: DPOTrainer._compute_loss(trainer, answering((logp * mask)[order]), inputs, False)


def kto(work: Record, case: Record) -> Loss:
    """KTOTrainer's loss; the given KL is that of its own mismatched answers."""
    mask, ref = torch.tensor(work["mask"]), torch.tensor(work["ref"])
    trainer = stand_in(
        beta=case["beta"], loss_type="kto", calculate_KL=True, precompute_ref_logps=True,
        desirable_weight=case["good"], undesirable_weight=case["bad"],
        _compute_kl_logps=lambda model, batch: torch.tensor(work["kl"]),
    )  # fmt: skip
    inputs = {
        "input_ids": torch.zeros(mask.shape, dtype=torch.int64),
        "attention_mask": torch.ones(mask.shape, dtype=torch.int64),
        "completion_mask": mask.long(),
        "label": torch.tensor(work["good"]),
        "ref_logps": (ref * mask).sum(-1),
        "ref_KL_logps": torch.zeros(len(work["kl"])),
    }
    return lambda logp: KTOTrainer._compute_loss(trainer, answering(logp * mask), inputs, False)


def cpo(work: Record, case: Record) -> Loss:
    """CPOTrainer's loss without its likelihood term: SimPO, or DPO without a reference."""
    mask = torch.tensor(work["mask"])
    fields = {"alpha": 0.0, "label_smoothing": 0.0, "simpo_gamma": 0.0}
    trainer = stand_in(**fields | {k: v for k, v in case.items() if k not in ("name", "trainer")})

    def loss(logp: torch.Tensor) -> torch.Tensor:
        total = (logp * mask).sum(-1)
        each = total / mask.sum(-1) if case["loss_type"] in ("ipo", "simpo") else total
        found: torch.Tensor = CPOTrainer.cpo_loss(trainer, each[0::2], each[1::2])[0].mean()
        return found

    return loss


def orpo(work: Record, case: Record) -> Loss:
    """ORPOTrainer's odds-ratio term; its likelihood is of prompt and answer together, and not compared."""
    mask = torch.tensor(work["mask"])
    trainer = stand_in(beta=case["beta"])

    def loss(logp: torch.Tensor) -> torch.Tensor:
        each = (logp * mask).sum(-1) / mask.sum(-1)
        found: torch.Tensor = -ORPOTrainer.odds_ratio_loss(trainer, each[0::2], each[1::2])[0].mean()
        return found

    return loss


def grpo(work: Record, case: Record) -> Loss:
    """GRPOTrainer's loss; position 0 is the prompt."""
    mask = torch.tensor(work[case.get("mask", "mask")])[:, 1:].long()
    ids = torch.zeros(mask.shape, dtype=torch.int64)
    inputs = {
        "prompt_ids": ids[:, :1],
        "prompt_mask": torch.ones_like(ids[:, :1]),
        "completion_ids": ids,
        "completion_mask": mask,
        "advantages": torch.tensor(work["advantage"]),
        "old_per_token_logps": torch.tensor(work["old"])[:, 1:],
        "ref_per_token_logps": torch.tensor(work["ref"])[:, 1:],
        "num_items_in_batch": mask.sum(),
    }
    extra = {"delta": None, "use_bias_correction_kl": False, "steps_per_generation": 1}
    usual = {"importance_sampling_level": "token", "beta": 0.0, "max_completion_length": work["length"]}
    trainer = stand_in(
        **usual | {k: v for k, v in case.items() if k not in ("name", "trainer", "mask")},
        args=SimpleNamespace(**extra), top_entropy_quantile=1.0, off_policy_mask_threshold=None, use_vllm=False,
        _entropy_bonus_enabled=False, current_gradient_accumulation_steps=1,
    )  # fmt: skip

    def loss(logp: torch.Tensor) -> torch.Tensor:
        inner = logp[:, 1:]
        trainer._get_per_token_logps_and_entropies = lambda *_, **__: (inner, torch.zeros_like(inner), None)
        found: torch.Tensor = GRPOTrainer._compute_loss(trainer, None, inputs)
        return found

    return loss


def advantages(work: Record, scale: str) -> list[list[float]]:
    """What a whole GRPOTrainer makes of the given rewards."""
    size = len(work["rewards"][0])
    flat = [reward for group in work["rewards"] for reward in group]
    with tempfile.TemporaryDirectory() as folder:
        trainer = GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(work["model"], dtype=torch.float32),
            reward_funcs=lambda completions, **_: flat,
            args=GRPOConfig(
                output_dir=folder, per_device_train_batch_size=len(flat), num_generations=size, scale_rewards=scale,
                max_completion_length=2, use_cpu=True, bf16=False, report_to=[], beta=0.0,
            ),
            train_dataset=Dataset.from_list([{"prompt": "1"}] * len(work["rewards"])),
            processing_class=AutoTokenizer.from_pretrained(work["model"]),
        )  # fmt: skip
        trainer.model.train()
        found = trainer._generate_and_score_completions([{"prompt": "1"}] * len(flat))["advantages"]
    return [list(map(float, row)) for row in found.view(-1, size)]


def main(work: Record) -> Record:
    """Loss and gradient of every case, advantages of every scale; what fails says why."""
    makers: dict[str, Callable[[Record, Record], Loss]] = {
        "dpo": dpo, "kto": kto, "cpo": cpo, "orpo": orpo, "grpo": grpo,
    }  # fmt: skip
    found: Record = {}
    for case in work["cases"]:
        logp = torch.tensor(work["logp"], requires_grad=True)
        loss = makers[case["trainer"]](work, case)(logp)
        loss.backward()
        assert logp.grad is not None
        found[case["name"]] = {"loss": loss.item(), "gradient": logp.grad.tolist()}
    names = ("trl", "transformers", "torch", "accelerate")
    return {
        "versions": {name: version(name) for name in names},
        "losses": found,
        "advantages": {scale: advantages(work, scale) for scale in ("group", "none")},
    }


if __name__ == "__main__":
    write_json(sys.argv[2], main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
