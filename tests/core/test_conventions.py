"""The conventions: complete, usable, honest about what is unsure, and the same in the documentation."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from onepolicy.batch import Evaluation, PolicyBatch
from onepolicy.core import kl, policy
from onepolicy.core.advantages import group_advantage
from onepolicy.core.conventions import CHOICES, CONVENTIONS, Convention, convention, difference, policy_loss_of, table
from onepolicy.core.policy import policy_loss
from onepolicy.core.reduce import loss_weights
from onepolicy.errors import ConfigError

NAMES = [
    "trl",
    "verl",
    "open-instruct",
    "openrlhf",
    "nemo",
    "prime-rl",
    "instructgpt",
    "deepseek-r1",
    "dapo",
    "dr-grpo",
    "grpo",
    "gspo",
    "cispo",
    "rloo",
    "reinforce++",
    "reinforce++-baseline",
    "reinforce",
]
DOCS = Path(__file__).parents[2] / "docs" / "conventions.md"


def test_all_are_there_under_their_names():
    assert sorted(CONVENTIONS) == sorted(NAMES)
    assert all(CONVENTIONS[name].name == name for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_each_has_a_source_and_marks_only_real_fields_as_unsure(name):
    each = convention(name)
    assert len(each.source) > 20
    assert set(each.unsure) <= set(CHOICES)


@pytest.mark.parametrize("name", NAMES)
def test_each_runs_from_scores_to_a_loss(name):
    """Two prompts of two one-token samples, rewards 1 and 0 in each: the first sample's log-prob must rise and the
    second's fall, in every convention."""
    each = convention(name)
    score = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    advantage = group_advantage(score, each.center, each.scale, each.eps).reshape(-1, 1)
    if each.credit == "gae" or each.center == "none":  # a critic, a moving mean or whitening takes the middle away
        advantage = advantage - 0.5
    logp = torch.full((4, 1), -1.0, requires_grad=True)
    fixed = logp.detach()
    batch = PolicyBatch(
        inputs=None,
        action=torch.zeros(4, 1),
        mask=torch.ones(4, 1).bool(),
        logp_behaviour=fixed,
        advantage=advantage,
        logp_ref=fixed,
        value_old=torch.zeros(4, 1),
        value_target=torch.zeros(4, 1),
    )
    weight = loss_weights(batch.mask, each.reduction, length=4.0 if each.reduction == "fixed_length" else None)
    value = torch.zeros(4, 1) if each.value_coef else None
    output = policy_loss(Evaluation(logp, torch.zeros(4, 1), value), batch, weight, policy_loss_of(each))
    (gradient,) = torch.autograd.grad(output.loss, logp)
    torch.testing.assert_close(gradient, -weight * advantage)
    assert gradient.sign().flatten().tolist() == [-1.0, 1.0, -1.0, 1.0]


def test_losses_by_the_table():
    """The clip ranges, dual clip, KL and critic of the published table, read back from the losses."""
    bound = {name: policy_loss_of(convention(name)).surrogate for name in NAMES}
    bounds = {name: each.keywords for name, each in bound.items() if each is not policy.reinforce}
    assert set(NAMES) - set(bounds) == {"rloo", "reinforce"}
    assert bounds["gspo"] == {"low": 3e-4, "high": 4e-4}
    assert policy_loss_of(convention("gspo")).level == "sequence"
    assert bound["cispo"].func is policy.cispo
    assert bounds["trl"] == {"low": 0.2, "high": 0.2}
    assert bounds["verl"] == {"low": 0.2, "high": 0.2, "c": 3.0}
    assert bounds["open-instruct"] == {"low": 0.2, "high": 0.272}
    assert bounds["dapo"] == {"low": 0.2, "high": 0.28}
    assert bounds["deepseek-r1"] == {"low": 10.0, "high": 10.0}
    assert policy_loss_of(convention("verl")).surrogate.func is policy.dual_clipped
    assert policy_loss_of(convention("prime-rl")).surrogate.func is policy.dppo
    in_loss = {name: policy_loss_of(convention(name)).kl_coef for name in NAMES}
    assert {name: coef for name, coef in in_loss.items() if coef} == {
        "open-instruct": 0.05,
        "nemo": 0.01,
        "prime-rl": 2e-3,
        "deepseek-r1": 0.001,
        "grpo": 0.04,
        "reinforce++-baseline": 0.01,
    }
    assert policy_loss_of(convention("nemo")).kl is kl.k3
    in_reward = {each.name: each.kl_coef for each in CONVENTIONS.values() if each.kl_place == "reward"}
    assert in_reward == {"openrlhf": 0.01, "instructgpt": 0.02, "rloo": 0.05, "reinforce++": 0.01}
    critics = {name: policy_loss_of(convention(name)).value_clip for name in NAMES}
    assert {name: clip for name, clip in critics.items() if clip} == {"instructgpt": 0.2}


def test_prime_rl_penalises_the_squared_log_ratio_by_one_thousandth():
    each = policy_loss_of(convention("prime-rl"))
    d = torch.tensor([0.3, -2.0])
    torch.testing.assert_close(each.kl_coef * each.kl(d, torch.zeros(2)), 1e-3 * d.square())


def test_a_difference_shows_what_differs_and_only_that():
    text = difference("trl", "verl")
    head, *rows = text.split("\n\n")[0].splitlines()
    assert head.split() == ["trl", "verl"]
    shown = {row.split()[0]: row.split()[1:] for row in rows}
    assert set(shown) == {f for f in CHOICES if getattr(convention("trl"), f) != getattr(convention("verl"), f)}
    assert shown["eps"] == ["0.0001", "1e-06"]
    assert shown["dual_clip"] == ["-", "3"]
    assert convention("trl").source in text
    assert convention("verl").notes in text


def test_unsure_values_carry_a_question_mark():
    row = next(line for line in difference("instructgpt", "trl").splitlines() if line.startswith("value_clip"))
    assert row.split() == ["value_clip", "0.2?", "-"]


def test_no_difference_is_said_so():
    assert "the same" in difference("trl", "trl").splitlines()[1]


def test_unknown_names_offer_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'verl'"):
        convention("veril")
    with pytest.raises(ConfigError, match="Did you mean 'dr-grpo'"):
        difference("trl", "drgrpo")


def test_a_convention_cannot_contradict_itself():
    with pytest.raises(ConfigError, match="they go together"):
        replace(convention("trl"), dual_clip=3.0)
    with pytest.raises(ConfigError, match="they go together"):
        replace(convention("verl"), dual_clip=None)
    assert isinstance(replace(convention("trl"), high=0.3), Convention)


def test_the_documentation_has_this_very_table():
    assert table() in DOCS.read_text(encoding="utf-8")
