"""On-policy distillation: its credit by hand, and its gradient against the divergence's own."""

from __future__ import annotations

import pytest
import torch

from onepolicy.algos import distill
from onepolicy.batch import PolicyBatch, TokenInputs
from onepolicy.core.kl import exact
from onepolicy.core.policy import policy_loss
from onepolicy.core.reduce import loss_weights
from onepolicy.data.packing import token_batch
from onepolicy.nn.divergence import Divergence
from onepolicy.nn.language import ModelShape, build_model
from onepolicy.nn.token_policy import TokenPolicy
from onepolicy.types import Episode, Score


def episode(*tokens, logp):
    """One prompt token, then the student's."""
    return Episode("a", 0, tokens, (False,) + (True,) * len(logp), (0.0, *logp), Score(0.0))


def policy(seed, vocabulary=7):
    ids = {"pad_token_id": 0, "eos_token_id": 1}
    shape = ModelShape(width=16, depth=1, heads=2, mlp=16)
    torch.manual_seed(seed)
    model = build_model(shape, vocabulary, context=8, arch="qwen3", seed=seed, **ids)
    for p in model.parameters():
        p.data += 0.3 * torch.randn_like(p)
    return TokenPolicy(model.double())


def test_advantage_is_the_teachers_lead_at_each_token():
    """-( -1 - -0.5) = 0.5 and -(-2 - -3) = -1: what the teacher likes better than the student is encouraged."""
    rows = [episode(5, 3, 4, logp=(-1.0, -2.0)), episode(5, 3, logp=(-0.25,))]
    teacher = torch.tensor([[9.0, -0.5, -3.0], [9.0, -0.25, 9.0]])
    batch = distill.credit(rows, lambda _: teacher, pad_id=0)
    assert batch.advantage.tolist() == [[0.0, 0.5, -1.0], [0.0, 0.0, 0.0]]
    assert distill.divergence(batch) == {"distill/kl": pytest.approx(0.5 / 3), "distill/kl_sequence": 0.25}


def test_expected_gradient_of_the_drawn_token_is_that_of_the_exact_divergence():
    """Every token enumerated and weighed by its probability: sum_v pi(v) grad[-A_v log pi(v)] = grad KL."""
    student, teacher = policy(0), policy(1)
    tokens = torch.tensor([[5, 3, v] for v in range(7)])
    acts = torch.tensor([[False, False, True]] * 7)
    inputs = TokenInputs(tokens, torch.ones_like(tokens).bool(), acts)
    with torch.no_grad():
        old, wanted = student.evaluate(inputs, tokens).logp, teacher.evaluate(inputs, tokens).logp
    advantage = torch.where(acts, wanted - old, 0.0)
    batch = PolicyBatch(inputs, tokens, acts, old, advantage)
    found = policy_loss(student.evaluate(inputs, tokens), batch, torch.where(acts, old.exp(), 0.0), distill.LOSS)
    drawn = torch.autograd.grad(found.loss, list(student.parameters()), allow_unused=True)
    one = TokenInputs(tokens[:1], inputs.attention[:1], acts[:1])
    kl = exact(student.action_logits(one), teacher.action_logits(one).detach()).sum()
    own = torch.autograd.grad(kl, list(student.parameters()), allow_unused=True)
    assert sum(float(g.abs().sum()) for g in own if g is not None) > 0.1
    for a, b in zip(drawn, own, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_the_divergence_over_the_vocabulary_is_the_sum_by_hand():
    """sum_v pi (log pi - log pi_T) at each action's place, whatever token was drawn; no gradient for the teacher."""
    student, teacher = policy(2), policy(3)
    rows = [episode(5, 3, 4, logp=(-1.0, -1.0)), episode(6, 2, logp=(-1.0,))]
    batch = token_batch(rows, [0.0, 0.0], 0)
    apart = Divergence(student, teacher)
    found = apart.evaluate(batch.inputs, batch.action)
    for b, row in enumerate(rows):
        for t in range(1, len(row.tokens)):
            prefix = torch.tensor([row.tokens[:t]])
            p = student.model(input_ids=prefix).logits[0, -1].log_softmax(-1).detach()
            q = teacher.model(input_ids=prefix).logits[0, -1].log_softmax(-1).detach()
            assert float(found.logp[b, t].detach()) == pytest.approx(-float((p.exp() * (p - q)).sum()), abs=1e-9)
            assert float(found.entropy[b, t].detach()) == pytest.approx(-float((p.exp() * p).sum()), abs=1e-9)
    assert found.logp[1, 2] == 0
    weight = loss_weights(batch.mask, "token_mean", dtype=torch.float64)
    (-(found.logp * weight).sum()).backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in student.parameters())


def test_a_student_that_is_its_teacher_stays():
    """No divergence, no advantage."""
    student = policy(4)
    batch = token_batch([episode(5, 3, 4, logp=(0.0, 0.0))], [0.0], 0)
    logp = student.evaluate(batch.inputs, batch.action).logp.detach()
    row = episode(5, 3, 4, logp=tuple(float(x) for x in logp[0, 1:]))
    credited = distill.credit([row], lambda b: student.evaluate(b.inputs, b.action).logp.detach(), 0)
    assert credited.advantage.abs().max() < 1e-6
