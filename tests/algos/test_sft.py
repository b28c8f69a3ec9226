"""SFT is cross-entropy on what the assistant wrote; its optimum is the data's own distribution."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from onepolicy.algos import sft
from onepolicy.batch import Evaluation
from onepolicy.core.policy import policy_loss
from onepolicy.core.reduce import loss_weights
from onepolicy.learning.learner import PolicyLearner
from onepolicy.learning.optim import OptimConfig
from onepolicy.nn.language import ModelShape, build_model
from onepolicy.nn.token_policy import TokenPolicy

EXAMPLES = [
    ([5, 6, 7, 8, 1], [False, False, True, True, True]),
    ([9, 4, 1], [False, True, True]),
    ([3, 4, 5, 1, 6, 7, 1], [False, True, True, True, False, True, True]),
]
"""Three conversations, the last with two assistant turns; 1 is the end token."""


def model_of(arch="qwen3"):
    shape = ModelShape(width=16, depth=2, heads=2, mlp=24)
    return build_model(shape, 12, context=16, arch=arch, seed=1, pad_token_id=0, eos_token_id=1).double()


@pytest.mark.parametrize("arch", ["qwen3", "llama", "gpt2"])
@pytest.mark.parametrize("pad_id", [0, 7])
def test_its_gradient_is_that_of_torchs_cross_entropy(arch, pad_id):
    """Example by example, without padding, by cross_entropy on the logits one position earlier."""
    model = model_of(arch)
    batch = sft.credit(EXAMPLES, pad_id)
    weight = loss_weights(batch.mask, "token_mean", dtype=torch.float64)
    loss = policy_loss(TokenPolicy(model).evaluate(batch.inputs, batch.action), batch, weight, sft.LOSS).loss
    loss.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    count = sum(sum(mask) for _, mask in EXAMPLES)
    expected = torch.zeros((), dtype=torch.float64)
    for tokens, mask in EXAMPLES:
        target = torch.tensor([t if acts else -100 for t, acts in zip(tokens, mask, strict=True)])
        logits = model(torch.tensor([tokens])).logits[0]
        expected = expected + cross_entropy(logits[:-1], target[1:], reduction="sum") / count
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)  # the policy computes log-probs in float32
    for name, p in model.named_parameters():
        torch.testing.assert_close(found[name], p.grad, rtol=1e-5, atol=1e-7, msg=name)


class Unigram(torch.nn.Module):
    """A policy that knows no state: one logit per token."""

    def __init__(self):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.zeros(4))

    def evaluate(self, inputs, action):
        logp = torch.log_softmax(self.logits, -1)
        taken = torch.where(inputs.is_action, logp[action], 0.0)
        return Evaluation(logp=taken, entropy=torch.zeros_like(taken))


class Always:
    """The same batch for ever."""

    def __init__(self, batch):
        self.batch = batch

    def next(self):
        return self.batch


def fit(examples, steps=300):
    policy, logged = Unigram(), []
    learner = PolicyLearner(policy, sft.LOSS, optim=OptimConfig(lr=0.05, weight_decay=0.0, warmup_steps=0))

    def after(step, metrics):
        logged.append((step, metrics))
        return False

    sft.fit(learner, Always(examples), pad_id=0, start=0, steps=steps, after_step=after)
    return torch.softmax(policy.logits.detach(), -1), logged


def test_the_optimum_is_the_distribution_of_the_data():
    """Three times token 2 to once token 3: probabilities 3/4 and 1/4, loss the entropy 2 ln 2 - 3/4 ln 3 = 0.5623."""
    probability, logged = fit([([1, 2], [False, True])] * 3 + [([1, 3], [False, True])])
    torch.testing.assert_close(probability, torch.tensor([0.0, 0.0, 0.75, 0.25]), atol=0.01, rtol=0)
    assert logged[-1][1]["sft/nll"] == pytest.approx(2 * math.log(2) - 0.75 * math.log(3), abs=0.005)


def test_tokens_the_assistant_did_not_write_teach_nothing():
    """The same data, but the mask says that token 3 was the user's: token 2 becomes certain."""
    probability, logged = fit([([1, 2], [False, True])] * 3 + [([3, 2], [False, True])])
    assert probability[2] > 0.99
    assert logged[0][1]["sft/tokens"] == 4.0


def test_a_loop_that_is_told_to_stop_stops_and_starts_where_it_is_told():
    policy = Unigram()
    learner = PolicyLearner(policy, sft.LOSS, optim=OptimConfig(lr=0.05))
    steps = []

    def after(step, metrics):
        steps.append(step)
        return step == 5

    sft.fit(learner, Always([([1, 2], [False, True])]), pad_id=0, start=3, steps=9, after_step=after)
    assert steps == [4, 5]


def test_no_sampler_is_pretended():
    """Demonstrations have no behaviour policy: a KL from it or a gap to it would be noise that the doctor believes."""
    _, logged = fit([([1, 2], [False, True])], steps=1)
    assert not {"policy/kl_old", "learner/logp_gap"} & set(logged[0][1])
