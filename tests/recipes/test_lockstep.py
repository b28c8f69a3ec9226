"""Seeds in lockstep: each is itself, exact resume, and who goes to processes of their own instead."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import onepolicy as op
from onepolicy.batch import Evaluation
from onepolicy.core.advantages import whiten
from onepolicy.core.value import explained_variance
from onepolicy.envs.vector import make
from onepolicy.errors import ModelError, TrainingError
from onepolicy.nn.mlp import NetworkOptions
from onepolicy.nn.policies import CategoricalPolicy, GaussianPolicy
from onepolicy.nn.policy_gradient import PolicyGradient
from onepolicy.nn.stacked_policy import StackedPolicy
from onepolicy.recipes import control, lockstep, side_by_side
from onepolicy.recipes.control_config import Config
from onepolicy.run.config import EXIT_INTERRUPTED
from onepolicy.run.run import Run

SMALL = {"num_envs": 3, "n_steps": 16, "eval_episodes": 2, "eval_every": 0, "save_every": 0}
KINDS = {
    "ppo": Config(**SMALL, batch_size=20, epochs=2, schedule="linear", steps=192, entropy_coef=0.01, value_clip=0.2),
    "whole": Config(**SMALL, batch_size=64, epochs=3, steps=192, norm_obs=True, norm_reward=True),
    "a2c": Config(**SMALL, algo="a2c", lam=1.0, steps=192),
    "gaussian": Config(**SMALL, env="MountainCarContinuous-v0", batch_size=20, epochs=2, steps=144),
    "relu": Config(**SMALL, batch_size=20, epochs=2, steps=96, network=NetworkOptions("relu", orthogonal=False)),
}
ONLY_ALONE = {"learner/oom_retries", "learner/skipped", "learner/micro_batches"}


@pytest.fixture(autouse=True)
def log_every_step(monkeypatch):
    monkeypatch.setattr(control, "LOG_EVERY", 1)
    monkeypatch.setattr(side_by_side, "LOG_EVERY", 1)


def lines(directory):
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_among_others_is_the_seed_alone(kind, tmp_path):
    config = KINDS[kind]
    lockstep.main(replace(config, seeds=3, seed=4, out=str(tmp_path / "all")))
    control.main(replace(config, seed=5, out=str(tmp_path / "one")))
    together, alone = lines(tmp_path / "all"), lines(tmp_path / "one")
    assert [line["step"] for line in together] == [line["step"] for line in alone]
    for both, one in zip(together, alone, strict=True):
        known = {key for key, value in one.items() if value is not None} - ONLY_ALONE - {"step"}
        assert known <= {key.removeprefix("seed5/") for key in both}
        for key in known:
            assert both[f"seed5/{key}"] == pytest.approx(one[key], rel=1e-4, abs=1e-5), (key, one["step"])


def test_others_beside_it_change_nothing(tmp_path):
    config = KINDS["ppo"]
    for seeds in (2, 3):
        lockstep.main(replace(config, seeds=seeds, out=str(tmp_path / f"{seeds}")))
    two, three = lines(tmp_path / "2"), lines(tmp_path / "3")
    for few, many in zip(two, three, strict=True):
        for key in (key for key in few if key.startswith("seed")):
            assert few[key] == pytest.approx(many[key], rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("kind", ["ppo", "whole"])
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(kind, tmp_path, monkeypatch):
    config = replace(KINDS[kind], seeds=2, save_every=48)
    lockstep.main(replace(config, out=str(tmp_path / "whole")))
    save = Run.save

    def then_stop(self, step, **parts):
        found = save(self, step, **parts)
        self.interrupted = step == 96
        return found

    monkeypatch.setattr(Run, "save", then_stop)
    with pytest.raises(SystemExit) as stopped:
        lockstep.main(replace(config, out=str(tmp_path / "cut")))
    assert stopped.value.code == EXIT_INTERRUPTED
    monkeypatch.setattr(Run, "save", save)
    op.resume(tmp_path / "cut")
    assert (tmp_path / "cut/metrics.jsonl").read_bytes() == (tmp_path / "whole/metrics.jsonl").read_bytes()


def test_the_best_seed_is_what_is_loaded(tmp_path):
    report = op.train("a2c", steps=80, seeds=3, eval_episodes=3, out=str(tmp_path / "run"))
    again = op.load(tmp_path / "run")
    scores = side_by_side.last_of(tmp_path / "run", (0, 1, 2), "eval/return")
    assert again.metrics["eval/return"] == max(scores.values())
    obs = torch.randn(5, 4)
    action = torch.zeros(5, dtype=torch.int64)
    assert torch.equal(again.policy.evaluate(obs, action).logp, report.policy.evaluate(obs, action).logp)
    for words in ("seed    0", "mean", "iqm"):
        assert words in (tmp_path / "run/report.md").read_text()


def test_who_trains_in_lockstep():
    env = make("CartPole-v1", 1, 0)
    assert lockstep.in_lockstep(Config(), env)
    assert lockstep.in_lockstep(Config(algo="a2c"), env)
    for changes in ({"target_kl": 0.01}, {"penalty": 1.0, "target_kl": 0.01}, {"algo": "reinforce"}):
        assert not lockstep.in_lockstep(Config(**changes), env)


def test_rows_are_whitened_and_explained_as_whole_batches_are():
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(3, 50, generator=rng) * torch.tensor([[1.0], [9.0], [0.0]]) + 5.0
    mask = torch.ones(50, dtype=torch.bool)
    for row, white in zip(x, lockstep.whitened(x), strict=True):
        torch.testing.assert_close(white, whiten(row, mask))
    value = torch.randn(3, 50, generator=rng)
    batch = type("Batch", (), {"value_old": value, "value_target": x})
    for row, target, share in zip(value, x, lockstep.explained(batch), strict=True):
        torch.testing.assert_close(share.float(), explained_variance(row, target, mask), equal_nan=True)


@pytest.mark.parametrize("policy", [CategoricalPolicy, GaussianPolicy])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_the_stack_s_gradient_is_that_of_each_policy(policy, activation):
    """d loss_s / d parameters of policy s, against autograd through the policies one by one."""
    options = NetworkOptions(activation=activation)
    alone = [policy(3, 2, hidden=(5, 4), seed=seed, options=options) for seed in (0, 1)]
    copies = [policy(3, 2, hidden=(5, 4), seed=seed, options=options) for seed in (0, 1)]
    stack = StackedPolicy(copies)
    rng = torch.Generator().manual_seed(0)
    obs = torch.randn(2, 7, 3, generator=rng)
    action = (
        torch.randn(2, 7, 2, generator=rng) if policy is GaussianPolicy else torch.randint(2, (2, 7), generator=rng)
    )
    weights = torch.randn(3, 2, 7, generator=rng)
    mine = PolicyGradient(stack, stack.activation, stacked=True)
    said = mine.evaluate(obs, action)
    mine.backward(Evaluation(*weights))
    stacked = dict(stack.named_parameters())
    for k, each in enumerate(alone):
        one = each.evaluate(obs[k], action[k])
        torch.testing.assert_close(said.logp[k], one.logp)
        torch.testing.assert_close(said.value[k], one.value)
        (weights[0, k] * one.logp + weights[1, k] * one.entropy + weights[2, k] * one.value).sum().backward()
        for (name, p), (_, copy) in zip(each.named_parameters(), copies[k].named_parameters(), strict=True):
            whole = stacked[name.replace("networks.", "").replace(".", "_")]
            rows = whole.shape[0] // 2
            torch.testing.assert_close(whole.grad[k * rows : (k + 1) * rows].reshape(p.shape), p.grad)
            assert copy.data_ptr() == whole.data[k * rows].data_ptr()


def test_different_policies_are_not_stacked():
    with pytest.raises(ModelError, match="different kinds or shapes"):
        StackedPolicy([CategoricalPolicy(3, 2), CategoricalPolicy(3, 3)])
    with pytest.raises(ModelError, match="cannot be stacked"):
        StackedPolicy([CategoricalPolicy(5, 2, masked=True)])


def test_a_seed_that_diverges_is_named():
    config, worlds = replace(KINDS["a2c"], seeds=2, seed=7, steps=6), [make("CartPole-v1", 2, s) for s in (0, 1)]
    learner, _, _ = lockstep.learners(config, worlds)
    with torch.no_grad():
        next(iter(learner.policy.parameters()))[2] = np.nan
    together = lockstep.Together(worlds, learner.policy, steps=3, seeds=(7, 8))
    with pytest.raises(TrainingError, match="the loss of seed 8 is nan"):
        lockstep.fit(learner, together, config, lambda *_: False)
