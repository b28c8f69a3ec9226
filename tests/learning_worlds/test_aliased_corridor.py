"""The corridor s1 s2 s3 s2' s4, where the two s2 look alike: a policy that must decide loops, one that may toss a coin
gets home."""

import itertools

import numpy as np
import pytest
import torch
from tests.learning_worlds.conftest import train_ppo, train_reinforce

from onepolicy.tabular.planning.policy_value import evaluate
from onepolicy.tabular.worlds.walks import ALIASED_OBSERVATIONS, aliased_corridor

GAMMA, LIMIT, CELLS = 0.9, 50, 5
LEFT, RIGHT, DOWN = range(3)
SEEN = [look - 1 for look in ALIASED_OBSERVATIONS[:CELLS]]
S1, S2, S3, S4 = range(4)


@pytest.fixture
def corridor(tabular):
    """Sixteen copies of the corridor's five cells; the model's own moves and rewards, seen as one of four looks."""
    model = aliased_corridor().csr()
    rows = np.array([np.arange(model.row_ptr[s], model.row_ptr[s + 1]) for s in range(CELLS)])
    following = model.successors[model.ptr[rows]]
    ends = following >= CELLS
    return tabular(model.rewards[rows], np.where(ends, 0, following), ends, limit=LIMIT, seen=SEEN)


def outcomes(world, choose):
    """How an episode from each cell ends, by choose(look): "goal", "death" or, after LIMIT steps, "loops"."""
    found = []
    for cell in range(CELLS):
        for _ in range(LIMIT):
            action = choose(SEEN[cell])
            if world.terminal[cell, action]:
                break
            cell = world.following[cell, action]
        else:
            found.append("loops")
            continue
        found.append("goal" if world.reward[cell, action] > 0 else "death")
    return found


def test_whatever_a_deterministic_policy_does_one_s2_does_not_get_home(corridor):
    """All 3^4 of them; the best still get home from three cells of five."""
    home = []
    for policy in itertools.product(range(3), repeat=4):
        ends = outcomes(corridor, lambda look, policy=policy: policy[look])
        assert ends[1] != "goal" or ends[3] != "goal"
        home.append(ends.count("goal"))
    assert max(home) == 3


def q_learning(world, steps, *, alpha=0.1, epsilon=0.2, seed=0):
    """Q [looks, actions] after epsilon-greedy Q-learning on what is seen."""
    rng, q = np.random.default_rng(seed), np.zeros((world.obs_dim, world.actions.n))
    rows = np.arange(world.num_envs)
    for _ in range(steps):
        look = world.obs.numpy().argmax(1)
        random = rng.integers(world.actions.n, size=world.num_envs)
        action = np.where(rng.random(world.num_envs) < epsilon, random, q[look].argmax(1))
        step = world.step(torch.from_numpy(action))
        following = q[step.final_obs.numpy().argmax(1)].max(1) * ~step.terminated.numpy()
        for k in rows:
            q[look[k], action[k]] += alpha * (step.reward[k].item() + GAMMA * following[k] - q[look[k], action[k]])
    return q


@pytest.mark.parametrize("seed", range(3))
def test_q_learning_loops_for_ever(corridor, seed):
    """It knows what to do in s1, s3 and s4, and from one of the two s2 walks to and fro until time is up."""
    q = q_learning(corridor, 2000, seed=seed)
    assert [q[look].argmax() for look in (S1, S3, S4)] == [RIGHT, DOWN, LEFT]
    assert q[S2].argmax() in (LEFT, RIGHT)
    ends = outcomes(corridor, lambda look: q[look].argmax())
    assert "loops" in (ends[1], ends[3])
    assert ends.count("goal") == 3


@pytest.mark.parametrize(("train", "updates"), [(train_ppo, 160), (train_reinforce, 60)])
def test_a_policy_gradient_learns_to_toss_a_coin(train, updates, corridor):
    """Left and right in s2 both stay likely. The exact value is over 0.5 in all cells; who loops has 0 in one s2."""
    policy, _ = train(corridor, updates, gamma=GAMMA)
    with torch.no_grad():
        p = torch.softmax(policy.networks(torch.eye(4))[0].double(), -1).numpy()
    assert min(p[S2, LEFT], p[S2, RIGHT]) > 0.2
    assert evaluate(aliased_corridor(), p[SEEN].ravel(), GAMMA).value[:CELLS].min() > 0.5
    rng = np.random.default_rng(0)
    for _ in range(20):
        assert "loops" not in outcomes(corridor, lambda look: rng.choice(3, p=p[look]))
