"""A vocabulary small enough to enumerate: every completion, its probability, and the exact gradient of what it earns.

What training follows on average is then a finite sum: every step that could be drawn goes through the loop of
`algos/` and the learner's loss, weighed by its probability, and the sum is compared with the derivative of the
expected reward. Numbers are float64 but for what the library makes float32 (scores, log-probabilities of a sampler).
docs/laboratory.md says what was found; `stated` reads its numbers.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from onepolicy.algos import grpo
from onepolicy.batch import Evaluation, PolicyBatch, TokenInputs
from onepolicy.core.policy import PolicyLoss, policy_loss, reinforce
from onepolicy.core.reduce import Reduction, loss_count, loss_weights
from onepolicy.nn.language import ModelShape, build_model
from onepolicy.nn.token_policy import TokenPolicy
from onepolicy.recipes.grpo import make_learner
from onepolicy.recipes.grpo_config import Config, credit_of
from onepolicy.recipes.options import Update
from onepolicy.types import Episode, Score

END, PROMPT, VOCABULARY = 0, 3, 4
WORTH = {0: 0.25, 1: 1.0, 2: -0.5, 3: 0.5}
"""Reward of each token, units of 1/4 so that sums, means of two and four are exact in float32."""

REINFORCE = PolicyLoss(surrogate=reinforce)
NUMBER = r"-?[\d.]+"
PAGE = Path(__file__).parents[2] / "docs" / "laboratory.md"


def completions(longest: int) -> list[tuple[int, ...]]:
    """Every completion: up to `longest` tokens, the last of them END, or `longest` without one (cut off)."""
    found = []
    for length in range(1, longest + 1):
        for tokens in product(range(VOCABULARY), repeat=length):
            if END not in tokens[:-1] and (tokens[-1] == END or length == longest):
                found.append(tokens)
    return found


def worth(tokens: Sequence[int]) -> float:
    """The reward of a completion, reward units: that of its tokens."""
    return sum(WORTH[t] for t in tokens)


class Tabular(nn.Module):
    """A softmax over the next token of its own for every prefix: any distribution over completions.

    logits [prefixes, V].
    """

    def __init__(self, longest: int, seed: int = 0) -> None:
        super().__init__()
        count = sum(VOCABULARY**n for n in range(longest))
        draw = torch.randn(count, VOCABULARY, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        self.logits = nn.Parameter(0.7 * draw)

    @staticmethod
    def prefix(tokens: Tensor) -> Tensor:
        """The number of the prefix before each token [B, T] of rows that begin with a prompt of one token."""
        number, found = torch.zeros_like(tokens[:, 0]), [torch.zeros_like(tokens[:, 0])]
        for t in range(1, tokens.shape[1]):
            found.append(number)
            number = number * VOCABULARY + tokens[:, t] + 1
        return torch.stack(found, 1)

    def evaluate(self, inputs: TokenInputs, action: Tensor) -> Evaluation:
        """log pi and entropy [B, T], zero where is_action is False."""
        at = torch.where(inputs.is_action, self.prefix(inputs.tokens), 0)
        logp = self.logits.log_softmax(-1)[at]
        entropy = -(logp.exp() * logp).sum(-1).detach()
        chosen = logp.gather(-1, action[..., None])[..., 0]
        return Evaluation(*(torch.where(inputs.is_action, x, 0.0) for x in (chosen, entropy)))


def language_model(seed: int = 0, longest: int = 3, like: TokenPolicy | None = None, by: float = 0.0) -> TokenPolicy:
    """A transformer of nn/language in float64, far from uniform; with `like`, that one moved by noise of size `by`."""
    shape = ModelShape(width=8, depth=1, heads=2, mlp=16)
    model = build_model(shape, VOCABULARY, context=8, arch="gpt2", seed=seed, pad_token_id=END, eos_token_id=END)
    model.config.pad_token_id = None  # nothing here is padding to transformers, which would warn of END
    policy = TokenPolicy(model.double())
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        start = list(policy.parameters()) if like is None else list(like.parameters())
        for p, old in zip(policy.parameters(), start, strict=True):
            noise = torch.randn(p.shape, generator=rng, dtype=torch.float64)
            p.copy_(old + by * noise if like is not None else p + 0.3 * noise)
    return policy


class Laboratory:
    """A policy and every completion it could give to one prompt, N of them.

    score [N]: reward units. sampler: who draws the completions, the policy itself unless given.
    """

    def __init__(self, policy: nn.Module, longest: int = 3, score: Callable[..., float] = worth, sampler=None) -> None:
        self.policy, self.longest, self.sampler = policy, longest, sampler or policy
        self.every = completions(longest)
        self.score = torch.tensor([score(y) for y in self.every], dtype=torch.float64)
        self.length = torch.tensor([float(len(y)) for y in self.every], dtype=torch.float64)
        tokens = torch.tensor([(PROMPT, *y) + (END,) * (longest - len(y)) for y in self.every])
        place = torch.arange(longest + 1)
        self.rows = TokenInputs(tokens, place <= self.length[:, None], (place > 0) & (place <= self.length[:, None]))
        self.parameters = list(policy.parameters())
        self._slopes: Tensor | None = None

    def tokens_logp(self, policy: nn.Module | None = None) -> Tensor:
        """log-probability of every token of every completion [N, T]."""
        return (policy or self.policy).evaluate(self.rows, self.rows.tokens).logp

    def logp(self, policy: nn.Module | None = None) -> Tensor:
        """log-probability of every completion [N]."""
        return self.tokens_logp(policy).sum(-1)

    def derivative(self, number: Tensor) -> Tensor:
        """The gradient of a number in all parameters, as one vector."""
        found = torch.autograd.grad(number, self.parameters, allow_unused=True)
        return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(self.parameters, found)])

    def expectation(self, value: Tensor) -> Tensor:
        """sum_y pi(y) value(y), with gradient through pi alone unless value has one."""
        return (self.logp().exp() * value).sum()

    def gradient(self, value: Tensor | None = None) -> Tensor:
        """The exact policy gradient: the derivative of the expected reward, or of the expectation of `value` [N]."""
        return self.derivative(self.expectation(self.score if value is None else value))

    def slopes(self) -> Tensor:
        """The gradient of every token's log-probability, [N, T, parameters]."""
        if self._slopes is None:
            every = torch.stack([self.derivative(self.tokens_logp()[i, t]) for i, t in self.rows.is_action.nonzero()])
            self._slopes = every.new_zeros(*self.rows.tokens.shape, every.shape[1])
            self._slopes[self.rows.is_action] = every
        return self._slopes

    def divergence(self, reference: nn.Module) -> Tensor:
        """KL(pi || reference) of whole completions, nats."""
        logp = self.logp()
        return (logp.exp() * (logp - self.logp(reference).detach())).sum()

    def token_divergence(self, reference: nn.Module) -> Tensor:
        """sum over prefixes of p(prefix) KL(pi(.|prefix) || reference(.|prefix)), p without gradient.

        Its value is the KL of completions; its derivative leaves out that tokens decide which prefixes follow.
        """
        logp, frozen = self.tokens_logp(), self.tokens_logp(reference).detach()
        gap = (logp - frozen) * self.rows.is_action
        # d/dpi of a prefix's own KL is E[gap dlogp]: the surrogate that has it as its derivative
        return (self.logp().exp().detach()[:, None] * gap.detach() * logp).sum()

    @torch.no_grad()
    def episodes(self) -> list[Episode]:
        """Every completion as the sampler would hand it over."""
        logp = self.tokens_logp(self.sampler)
        return [
            Episode(
                "one", 0, (PROMPT, *y), (False,) + (True,) * len(y), tuple(logp[i, : len(y) + 1].tolist()),
                Score(float(self.score[i])), truncated=y[-1] != END,
            )
            for i, y in enumerate(self.every)
        ]  # fmt: skip

    @torch.no_grad()
    def chances(self, steps: Tensor) -> Tensor:
        """The probability [M] of each step: steps [M, n] are completions by number, in any order within a step."""
        logp = self.logp(self.sampler)
        orders = [
            math.factorial(steps.shape[1]) / math.prod(map(math.factorial, Counter(row).values()))
            for row in steps.tolist()
        ]
        return torch.tensor(orders, dtype=torch.float64) * logp[steps].sum(-1).exp()

    def of(self, values: Tensor) -> Callable[[PolicyBatch], Tensor]:
        """The function that gives each row of a batch its completion's values [T] out of values [N, T]."""
        base = VOCABULARY ** torch.arange(self.longest + 1)
        number = {int(code): i for i, code in enumerate((self.rows.tokens * base).sum(-1))}

        def look(batch: PolicyBatch) -> Tensor:
            width = batch.mask.shape[1]
            codes = (batch.inputs.tokens * base[:width]).sum(-1).tolist()
            return values[[number[c] for c in codes], :width]

        return look


@cache
def groups(count: int, size: int) -> Tensor:
    """Every multiset of `size` completions out of `count`, [M, size]."""
    return torch.combinations(torch.arange(count), size, with_replacement=True)


class Recorder:
    """A learner's stand-in: writes down the batches it is given and the step they belong to."""

    def __init__(self) -> None:
        self.batches: list[PolicyBatch] = []
        self.steps: list[int] = []

    def step(self, batch: PolicyBatch, mix: Sequence[object] = ()) -> dict[str, float]:
        self.batches.append(batch)
        return {"learner/logp_gap": 0.0}

    def publish(self, version: int) -> None:
        self.steps.append(version - 1)

    def next(self) -> list[object]:
        return [None]


def rollouts(lab: Laboratory, steps: Tensor, credit: grpo.Credit, **extra: object) -> Recorder:
    """What algos/grpo.fit would have a learner learn from, for every step [M, n] of completions."""
    recorder, episodes = Recorder(), lab.episodes()
    table = steps.tolist()
    grpo.fit(
        recorder, recorder, act=lambda tasks, step: ([episodes[i] for i in table[step]], {}),
        reference=extra.pop("reference", None), publish=recorder.publish, credit=credit, epochs=1, parts=1, pad_id=END,
        seed=0, start=0, steps=len(table), after_step=lambda step, metrics: False, **extra,
    )  # fmt: skip
    return recorder


def by_convention(
    lab: Laboratory, name: str, size: int, reference: nn.Module | None = None, **update: object
) -> Tensor:
    """What a convention follows on average with groups of `size`, one a step; the recipe's own choices, KL off."""
    config = Config(
        convention=name, group_size=size, max_tokens=lab.longest, update=Update(**{"kl_coef": 0.0, **update})
    )
    learner = make_learner(config, lab.policy, PAGE.parent)
    steps, frozen = groups(len(lab.every), size), None
    if reference is not None:
        frozen = lab.of(lab.tokens_logp(reference).detach())
    credit = credit_of(config)
    if credit.whiten:
        made = rollouts(lab, steps, credit, reference=frozen)
        return expected(lab, made, lab.chances(steps), learner.loss, learner.reduction, learner.length)
    return follow(lab, credit, learner.loss, learner.reduction, learner.length, reference=frozen)


def follow(
    lab: Laboratory,
    credit: grpo.Credit,
    loss: PolicyLoss = REINFORCE,
    reduction: Reduction = "sequence_sum",
    length: int | None = None,
    **extra: object,
) -> Tensor:
    """`expected` of every group as a step of its own, credited all together: faster, and where nothing varies the KL
    still pulls, as it does in a step of which another group varies."""
    steps = groups(len(lab.every), credit.group_size)
    (batch,) = rollouts(lab, steps.reshape(1, -1), credit, **extra).batches
    weight = group_weights(batch.mask, credit.group_size, lab.chances(steps), reduction, length)
    return ascent(lab, batch, weight, loss)


def joined(batches: Sequence[PolicyBatch], width: int) -> PolicyBatch:
    """Batches one below the other, padded to `width` columns."""
    wide = [b.map(lambda x: pad(x, (0, width - x.shape[1]))) for b in batches]
    inputs = TokenInputs(
        *(torch.cat([getattr(b.inputs, n) for b in wide]) for n in ("tokens", "attention", "is_action"))
    )
    names = [n for n, value in vars(wide[0]).items() if isinstance(value, Tensor)]
    return PolicyBatch(inputs=inputs, **{n: torch.cat([getattr(b, n) for b in wide]) for n in names})


def expected(
    lab: Laboratory,
    recorder: Recorder,
    chances: Tensor,
    loss: PolicyLoss = REINFORCE,
    reduction: Reduction = "sequence_sum",
    length: int | None = None,
) -> Tensor:
    """The ascent direction of the learner's loss, summed over all steps by their probability [M]; a vector."""
    weights = [
        chances[step] * pad(each, (0, lab.longest + 1 - each.shape[1]))
        for step, batch in zip(recorder.steps, recorder.batches, strict=True)
        for each in [loss_weights(batch.mask, reduction, length=length, dtype=torch.float64)]
    ]
    return ascent(lab, joined(recorder.batches, lab.longest + 1), torch.cat(weights), loss)


def ascent(lab: Laboratory, batch: PolicyBatch, weight: Tensor, loss: PolicyLoss) -> Tensor:
    """Minus the derivative of the batch's weighed loss."""
    out = policy_loss(lab.policy.evaluate(batch.inputs, batch.action), batch, weight, loss)
    return -lab.derivative(out.loss)


def scatter(
    lab: Laboratory,
    credit: grpo.Credit,
    loss: PolicyLoss = REINFORCE,
    reduction: Reduction = "sequence_sum",
    **extra: object,
) -> tuple[Tensor, float]:
    """What one group's step follows: the mean, a vector, and the standard deviation over that one's length."""
    steps = groups(len(lab.every), credit.group_size)
    (batch,) = rollouts(lab, steps.reshape(1, -1), credit, **extra).batches
    weight = group_weights(batch.mask, credit.group_size, torch.ones(len(steps), dtype=torch.float64), reduction)
    said = lab.policy.evaluate(batch.inputs, batch.action)
    logp = said.logp.detach().requires_grad_()
    (slope,) = torch.autograd.grad(policy_loss(replace(said, logp=logp), batch, weight, loss).loss, logp)
    each = -torch.einsum("mgt,mgtd->md", slope.view(*steps.shape, -1), lab.slopes()[steps])
    chances = lab.chances(steps)
    mean = chances @ each
    spread = chances @ (each - mean).square().sum(-1)
    return mean, float(spread.sqrt() / mean.norm())


def group_weights(mask: Tensor, size: int, chances: Tensor, reduction: Reduction, length: int | None = None) -> Tensor:
    """Weights of rows [M * size, T] when each group of `size` is an optimizer step of its own, by probability [M]."""
    counts = [loss_count(group, reduction) for group in mask.view(-1, size, mask.shape[1])]
    count = torch.stack(counts).repeat_interleave(size)[:, None]
    weight = loss_weights(mask, reduction, count=count, length=length, dtype=torch.float64)
    return weight * chances.repeat_interleave(size)[:, None]


def compared(found: Tensor, exact: Tensor) -> tuple[float, float]:
    """(how long `found` is along `exact`, as a multiple; the angle between them, degrees)."""
    along = float(found @ exact / (exact @ exact))
    unit, other = found / found.norm(), exact / exact.norm()
    return along, math.degrees(2.0 * math.asin(min(1.0, float((unit - other).norm()) / 2.0)))


def same(found: Tensor, exact: Tensor, multiple: float = 1.0, tolerance: float = 1e-6) -> bool:
    """Whether found = multiple * exact, to a share `tolerance` of its length."""
    return float((found - multiple * exact).norm()) <= tolerance * abs(multiple) * float(exact.norm())


@cache
def page() -> dict[tuple[str, str], list[str]]:
    """The tables of docs/laboratory.md: (section, a row's first cell) -> its other cells, numbers all."""
    found, section = {}, ""
    for line in PAGE.read_text("utf-8").splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ")
        cells = [cell.strip() for cell in line.strip("| ").split(" | ")]
        if line.startswith("| ") and all(re.fullmatch(NUMBER, cell) for cell in cells[1:]):
            found[section, cells[0]] = cells[1:]
    return found


def stated(section: str, row: str, *found: float) -> None:
    """Asserts that the numbers of a row of the page are those that were found, to the digits printed."""
    printed = page().get((section, row))
    assert printed is not None, (
        f"section {section!r} of the page has no row {row!r}; found {[*map('{:.4g}'.format, found)]}"
    )
    assert len(printed) == len(found), (row, printed, found)
    for text, value in zip(printed, found, strict=True):
        unit = 10.0 ** -len(text.partition(".")[2])
        assert abs(float(text) - value) <= 0.51 * unit, f"{row}: the page says {printed}, found {found}"


def scored(values: Sequence[float]) -> list[Episode]:
    """Episodes of one token with these scores."""
    return [Episode("one", 0, (PROMPT, END), (False, True), (0.0, -1.0), Score(value)) for value in values]
