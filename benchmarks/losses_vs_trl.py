"""Our losses and group advantages against TRL's on the same tensors: values and gradients, row by row of a table.

Random log-probabilities of policy, sampler and reference on 12 rows of unequal length go through our own path
(algos/dpo.py and core/policy.py with core/reduce.py) and through the methods of TRL's trainers. A row that is to agree
must agree to 1e-5 in the loss and in each token's gradient, or the script fails; a row that is to differ is a
convention that differs, explained in docs/conventions.md, and fails if it agrees. Writes results/losses_vs_trl.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common import FOLDER, RESULTS, Record, machine, peer_python, run_side, table, write_json
from onepolicy.algos import dpo
from onepolicy.batch import Evaluation, PolicyBatch
from onepolicy.core import preference
from onepolicy.core.advantages import Scale, group_advantage
from onepolicy.core.policy import PolicyLoss, cispo, clipped, policy_loss
from onepolicy.core.reduce import Reduction, loss_weights
from onepolicy.data.tokenizer import char_tokenizer
from onepolicy.nn.language import ModelShape, build_model, save_model
from onepolicy.recipes.language import PRINTABLE

TOLERANCE = 1e-5
ROWS, WIDTH, LENGTH = 12, 10, 16
Ours = Callable[[Tensor, Record], Tensor]
"""(log-probabilities [B, T], the work) -> the scalar loss."""


class Said(torch.nn.Module):
    """A policy that says the given log-probabilities."""

    def __init__(self, logp: Tensor) -> None:
        super().__init__()
        self.none = torch.nn.Parameter(torch.zeros(()))
        self.logp = logp

    def evaluate(self, inputs: Any, action: Tensor) -> Evaluation:
        """The log-probabilities, whatever is asked."""
        return Evaluation(self.logp, torch.zeros_like(self.logp))


def pairs_loss(logp: Tensor, work: Record, **objective: Any) -> Tensor:
    """The pair objectives' loss as the learner computes it, mean over pairs."""
    mask, ref = torch.tensor(work["mask"]), (torch.tensor(work["ref"]) * torch.tensor(work["mask"])).sum(-1).tolist()
    examples = [([1] * WIDTH, row) for row in work["mask"]]
    rows = [dpo.Pair(examples[i], examples[i + 1], ref[i], ref[i + 1]) for i in range(0, ROWS, 2)]
    return dpo.loss(Said(logp * mask), rows, 2 / ROWS, objective=dpo.Objective(**objective), pad_id=0).loss


def kto_loss(logp: Tensor, work: Record, **objective: Any) -> Tensor:
    """KTO's loss as the learner computes it, mean over answers."""
    mask, ref = torch.tensor(work["mask"]), (torch.tensor(work["ref"]) * torch.tensor(work["mask"])).sum(-1).tolist()
    examples = [([1] * WIDTH, row) for row in work["mask"]]
    rows = [dpo.Single(e, good, e, r) for e, good, r in zip(examples, work["good"], ref, strict=True)]
    z = max(0.0, sum(work["kl"]) / len(work["kl"]))
    return dpo.kto_loss(
        Said(logp * mask), rows, 1 / ROWS, divergence=lambda: z, objective=dpo.Objective("kto", **objective), pad_id=0
    ).loss


def unreferenced(logp: Tensor, work: Record, **options: Any) -> Tensor:
    """DPO without a reference, which is CPO's preference term."""
    total = (logp * torch.tensor(work["mask"])).sum(-1)
    zero = torch.zeros(ROWS // 2)
    return preference.dpo(total[0::2], total[1::2], zero, zero, **options).mean()


def odds(logp: Tensor, work: Record, beta: float) -> Tensor:
    """ORPO's penalty alone."""
    mask = torch.tensor(work["mask"])
    each = (logp * mask).sum(-1) / mask.sum(-1)
    return beta * preference.odds_ratio(each[0::2], each[1::2]).mean()


def policy(
    logp: Tensor, work: Record, surrogate: Any, reduction: Reduction, level: Any = "token", kl_coef: float = 0.0,
    counted: str = "mask",
) -> Tensor:  # fmt: skip
    """The policy loss of a batch of completions."""
    mask = torch.tensor(work[counted])
    advantage = torch.tensor(work["advantage"])[:, None].expand(mask.shape)
    batch = PolicyBatch(
        None, torch.zeros(mask.shape), mask, torch.tensor(work["old"]), advantage, logp_ref=torch.tensor(work["ref"])
    )
    weight = loss_weights(mask, reduction, length=LENGTH if reduction == "fixed_length" else None)
    loss = PolicyLoss(surrogate=surrogate, level=level, kl_coef=kl_coef)
    return policy_loss(Evaluation(logp, torch.zeros_like(logp)), batch, weight, loss).loss


CLIP = partial(clipped, low=0.2, high=0.28)
EPSILONS = {"epsilon_low": 0.2, "epsilon_high": 0.28}
SEQUENCE = {"importance_sampling_level": "sequence"}
CASES: dict[str, tuple[bool, str, Record, Ours]] = {
    "DPO": (True, "dpo", {"loss_type": "sigmoid", "beta": 0.3}, partial(pairs_loss, kind="sigmoid", beta=0.3)),
    "hinge": (True, "dpo", {"loss_type": "hinge", "beta": 0.3}, partial(pairs_loss, kind="hinge", beta=0.3)),
    "robust": (
        True, "dpo", {"loss_type": "robust", "beta": 0.3, "label_smoothing": 0.1},
        partial(pairs_loss, kind="robust", beta=0.3, label_smoothing=0.1),
    ),
    "IPO, per token": (
        True, "dpo", {"loss_type": "ipo", "beta": 0.3}, partial(pairs_loss, kind="ipo", beta=0.3, per_token=True),
    ),
    "IPO, sums": (False, "dpo", {"loss_type": "ipo", "beta": 0.3}, partial(pairs_loss, kind="ipo", beta=0.3)),
    "length-normalised DPO": (
        True, "dpo", {"loss_type": "sigmoid_norm", "beta": 0.3}, partial(pairs_loss, beta=0.3, per_token=True),
    ),
    "conservative, TRL's DPO": (
        False, "dpo", {"loss_type": "sigmoid", "beta": 0.3, "label_smoothing": 0.1},
        partial(pairs_loss, beta=0.3, label_smoothing=0.1),
    ),
    "conservative, TRL's CPO": (
        True, "cpo", {"loss_type": "sigmoid", "beta": 0.3, "label_smoothing": 0.1},
        partial(unreferenced, beta=0.3, label_smoothing=0.1),
    ),
    "CPO": (True, "cpo", {"loss_type": "sigmoid", "beta": 0.3}, partial(unreferenced, beta=0.3)),
    "SimPO": (
        True, "cpo", {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 0.5},
        partial(pairs_loss, kind="simpo", beta=2.0, margin=0.5),
    ),
    "ORPO's penalty": (True, "orpo", {"beta": 0.3}, partial(odds, beta=0.3)),
    "KTO": (True, "kto", {"beta": 0.3, "good": 1.0, "bad": 1.2}, partial(kto_loss, beta=0.3, good=1.0, bad=1.2)),
    "GRPO": (
        True, "grpo", {"loss_type": "grpo", **EPSILONS}, partial(policy, surrogate=CLIP, reduction="sequence_mean"),
    ),
    "GRPO with k3": (
        True, "grpo", {"loss_type": "grpo", "beta": 0.04, **EPSILONS},
        partial(policy, surrogate=CLIP, reduction="sequence_mean", kl_coef=0.04),
    ),
    "DAPO": (True, "grpo", {"loss_type": "dapo", **EPSILONS}, partial(policy, surrogate=CLIP, reduction="token_mean")),
    "BNPO": (True, "grpo", {"loss_type": "bnpo", **EPSILONS}, partial(policy, surrogate=CLIP, reduction="token_mean")),
    "Dr. GRPO": (
        True, "grpo", {"loss_type": "dr_grpo", **EPSILONS}, partial(policy, surrogate=CLIP, reduction="fixed_length"),
    ),
    "GSPO": (
        True, "grpo", {"loss_type": "grpo", **SEQUENCE, **EPSILONS},
        partial(policy, surrogate=CLIP, reduction="sequence_mean", level="sequence"),
    ),
    "GRPO, a row masked out": (
        False, "grpo", {"loss_type": "grpo", "mask": "cut", **EPSILONS},
        partial(policy, surrogate=CLIP, reduction="sequence_mean", counted="cut"),
    ),
    "CISPO, cap 5": (
        True, "grpo", {"loss_type": "cispo", "epsilon_low": 0.2, "epsilon_high": 5.0},
        partial(policy, surrogate=partial(cispo, low=1.0, high=4.0), reduction="token_mean"),
    ),
    "CISPO, TRL's default 0.2": (
        False, "grpo", {"loss_type": "cispo", "epsilon_low": 0.2, "epsilon_high": 0.2},
        partial(policy, surrogate=partial(cispo, low=1.0, high=0.2), reduction="token_mean"),
    ),
}  # fmt: skip
"""Whether the sides are to agree, TRL's trainer and settings, and our loss."""


def work_of(folder: Path) -> Record:
    """The tensors of both sides: lengths 2 to 9, ratios on both sides of the clip, two signs of advantage."""
    draw = torch.Generator().manual_seed(0)
    normal = partial(torch.randn, generator=draw)
    length = torch.randint(2, WIDTH, (ROWS,), generator=draw)
    place = torch.arange(WIDTH)
    mask = (place >= 1) & (place <= length[:, None])
    logp = -normal(ROWS, WIDTH).abs() - 0.05
    near, far = logp + 0.3 * normal(ROWS, WIDTH), logp + 0.5 * normal(ROWS, WIDTH)
    tokenizer: Any = char_tokenizer(PRINTABLE)
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    model = build_model(ModelShape(width=16, depth=1, heads=2, mlp=16), len(tokenizer), context=32, seed=0, **ids)
    return {
        "mask": mask.tolist(), "cut": (mask & (torch.arange(ROWS) > 0)[:, None]).tolist(),
        "logp": logp.tolist(), "old": near.clamp(max=-1e-3).tolist(),
        "ref": far.clamp(max=-1e-3).tolist(), "good": [i % 3 > 0 for i in range(ROWS)], "kl": [0.9, -0.2, 0.4],
        "advantage": normal(ROWS).tolist(), "length": LENGTH,
        "rewards": [[1.0, 2.0, 3.0, 5.0], [1.0, 0.0, 0.0, 0.0], [2.0, 2.0, 2.0, 2.0], [0.1, 0.7, 0.7, 0.2]],
        "cases": [{"name": name, "trainer": trainer, **case} for name, (_, trainer, case, _) in CASES.items()],
        "model": str(save_model(model, tokenizer, folder / "model")),
    }  # fmt: skip


def compared(work: Record, theirs: Record) -> list[Record]:
    """A record a row: both losses, and the largest difference of loss and of any token's gradient."""
    rows = []
    for name, (agrees, _, _, ours) in CASES.items():
        logp = torch.tensor(work["logp"], requires_grad=True)
        loss = ours(logp, work)
        loss.backward()
        assert logp.grad is not None
        peer = theirs["losses"][name]
        apart = (logp.grad - torch.tensor(peer["gradient"])).abs().max().item()
        rows.append({
            "name": name, "agrees": agrees, "ours": loss.item(), "trl": peer["loss"],
            "difference": abs(loss.item() - peer["loss"]), "gradient_difference": apart,
        })  # fmt: skip
    rewards = torch.tensor(work["rewards"])
    advantages: tuple[tuple[str, bool, Scale, float, str], ...] = (
        ("group advantage, std + 1e-4", True, "std", 1e-4, "group"),
        ("group advantage, std + 1e-6", False, "std", 1e-6, "group"),
        ("group advantage, no scale", True, "none", 0.0, "none"),
    )
    for name, agrees, scale, eps, kind in advantages:
        mine, other = group_advantage(rewards, "mean", scale, eps), torch.tensor(theirs["advantages"][kind])
        rows.append({
            "name": name, "agrees": agrees, "ours": mine[0, 0].item(), "trl": other[0, 0].item(),
            "difference": (mine - other).abs().max().item(), "gradient_difference": 0.0,
        })  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default=str(RESULTS / "losses_vs_trl.json"), help="where the JSON goes")
    arguments = parser.parse_args()
    python = peer_python("bench-trl", FOLDER / "requirements-trl.txt")
    with tempfile.TemporaryDirectory() as folder:
        work = work_of(Path(folder))
        place = Path(folder) / "work.json"
        place.write_text(json.dumps(work), encoding="utf-8")
        theirs = run_side(python, FOLDER / "losses_side_trl.py", str(place), threads=1)
    rows = compared(work, theirs)
    write_json(
        arguments.out,
        {"machine": machine("torch"), "peer": theirs["versions"], "tolerance": TOLERANCE, "rows": rows},
    )
    cells = []
    for row in rows:
        apart = max(row["difference"], row["gradient_difference"])
        row["as said"] = (apart <= TOLERANCE) == row["agrees"]
        verdict = ("equal" if apart <= TOLERANCE else "differs") + ("" if row["as said"] else ", UNEXPECTED")
        differences = (f"{row['difference']:.1e}", f"{row['gradient_difference']:.1e}")
        cells.append((row["name"], f"{row['ours']:.6f}", f"{row['trl']:.6f}", *differences, verdict))
    print(table(("loss", "ours", "TRL", "difference", "of a gradient", ""), cells))
    if not all(row["as said"] for row in rows):
        raise SystemExit("some rows are not as docs/conventions.md says")


if __name__ == "__main__":
    main()
