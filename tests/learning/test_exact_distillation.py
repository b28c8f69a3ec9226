"""The exactness laboratory: a teacher instead of a reward. docs/laboratory.md, "A critic, and a teacher"."""

from __future__ import annotations

from dataclasses import replace

from tests.learning import laboratory as at
from tests.learning.laboratory import Laboratory, compared, language_model, same, stated

from onepolicy.algos import distill, grpo

SECTION = "A critic, and a teacher"


def test_distillation_pulls_on_each_prefix_alone():
    """-(logp - logp_teacher) per token is minus the gradient of every prefix's KL: k2 in the loss, coefficient 1."""
    policy = language_model()
    lab, reference = Laboratory(policy), language_model(seed=5, like=policy, by=0.15)
    batch = distill.credit(lab.episodes(), lab.of(lab.tokens_logp(reference).detach()), at.END)
    chance = lab.logp().exp().detach()[:, None] * batch.mask
    found = at.ascent(lab, batch, chance, distill.LOSS)
    assert same(found, -lab.derivative(lab.token_divergence(reference)))
    whole = -lab.derivative(lab.divergence(reference))
    stated(SECTION, "distillation, each token for itself", *compared(found, whole))
    nothing = replace(batch, advantage=0.0 * batch.advantage, logp_ref=lab.tokens_logp(reference).detach())
    assert same(at.ascent(lab, grpo.charge_kl(nothing, 1.0), chance, distill.LOSS), whole)
