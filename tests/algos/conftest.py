"""A rollout small enough to do by hand, and a learner that only writes down what it is given."""

import pytest
import torch

from onepolicy.data.rollout import Rollout


@pytest.fixture
def by_hand():
    """One world, four steps: an episode truncated after two, the next terminated after one, the last under way.

    Rewards 1, 2, 3, 4; values 0.5, 1, 1.5, 2; the truncated episode was worth 10 where it stopped, the last one goes on
    at 20.
    """
    return Rollout(
        obs=torch.zeros(1, 4, 2),
        action=torch.tensor([[0, 1, 0, 1]]),
        logp=torch.full((1, 4), -0.7),
        value=torch.tensor([[0.5, 1.0, 1.5, 2.0]]),
        next_value=torch.tensor([[1.0, 10.0, 0.0, 20.0]]),
        reward=torch.tensor([[1.0, 2.0, 3.0, 4.0]]),
        terminated=torch.tensor([[False, False, True, False]]),
        truncated=torch.tensor([[False, True, False, False]]),
        mask=torch.ones(1, 4, dtype=torch.bool),
    )


class Notebook:
    """A learner's stand-in: keeps batches and losses, returns a KL from a list."""

    def __init__(self, kl=()):
        self.batches, self.losses, self.loss = [], [], None
        self.kl = list(kl)

    def step(self, batch):
        self.batches.append(batch)
        self.losses.append(self.loss)
        return {"policy/kl_old": self.kl.pop(0) if self.kl else 0.0, "learner/logp_gap": float(len(self.batches))}


@pytest.fixture
def notebook():
    """Makes a learner's stand-in."""
    return Notebook
