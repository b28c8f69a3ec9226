"""Likelihood of given answers: equal to one naive forward for each, whatever the batching."""

from __future__ import annotations

import pytest
import torch

from onepolicy.errors import DataError
from onepolicy.evaluation.choice import NORMS, ChoiceScores, choice_scores
from onepolicy.nn.language import ModelShape, build_model
from onepolicy.nn.token_policy import TokenPolicy

PROMPTS = [[5, 6, 7], [8, 9], [5, 6, 7, 8, 9, 10]]
ANSWERS = [[[11], [12, 13, 14]], [[11, 12], [13], [14, 15, 16, 17]], [[18], [18]]]
CHARACTERS = [[2, 9], [4, 1, 8], [3, 3]]


@pytest.fixture(scope="module")
def policy():
    shape = ModelShape(width=32, depth=2, heads=2, mlp=48)
    return TokenPolicy(build_model(shape, 24, context=32, arch="qwen3", seed=0, pad_token_id=0, eos_token_id=1))


def naive(policy, prompt, answer):
    """sum_t log softmax(logits)[answer_t], one sequence, no padding, no batch."""
    tokens = torch.tensor([prompt + answer])
    with torch.no_grad():
        logp = policy.model(tokens).logits.double().log_softmax(-1)[0]
    return sum(float(logp[len(prompt) - 1 + t, token]) for t, token in enumerate(answer))


@pytest.mark.parametrize("budget", [1, 12, 1000])
def test_sums_are_those_of_a_naive_forward(policy, budget):
    found = choice_scores(policy, PROMPTS, ANSWERS, CHARACTERS, budget=budget)
    for scores, prompt, answers, characters in zip(found, PROMPTS, ANSWERS, CHARACTERS, strict=True):
        assert scores.logp == pytest.approx([naive(policy, prompt, answer) for answer in answers], abs=1e-4)
        assert scores.tokens == tuple(map(len, answers))
        assert scores.characters == tuple(characters)
    assert found[2].logp[0] == found[2].logp[1]


def test_the_norms_by_hand():
    """-6, -8 and -9 nats; per character -3, -1, -1.125; per token -6, -4, -3: each norm picks another answer."""
    scores = ChoiceScores((-6.0, -8.0, -9.0), (2, 8, 8), (1, 2, 3))
    assert {norm: scores.best(norm) for norm in NORMS} == {"acc": 0, "acc_norm": 1, "acc_token": 2}
    assert ChoiceScores((-1.0, -1.0), (1, 1), (1, 1)).best("acc") == 0


def test_empty_answers_are_an_error(policy):
    with pytest.raises(DataError, match="question 0 has an empty"):
        choice_scores(policy, [[5]], [[[]]], [[0]])
