"""The learnt model: its likelihood by hand, what it learns of a linear world, draws from its elites alone."""

import math

import pytest
import torch

from onepolicy.errors import ConfigError
from onepolicy.nn.dynamics import Dynamics
from onepolicy.nn.stacked import Stacked


def rows(seed, count=256, learners=2):
    """A linear world with noise: s' = s + (0.1 a, -0.2 s_0) + 0.05 noise, r = s_0 - a; the end where s_1 > 1."""
    rng = torch.Generator().manual_seed(seed)
    obs = torch.randn(learners, count, 2, generator=rng)
    action = torch.rand(learners, count, 1, generator=rng) * 2 - 1
    noise = 0.05 * torch.randn(learners, count, 2, generator=rng)
    next_obs = obs + torch.cat([0.1 * action, -0.2 * obs[..., :1]], dim=-1) + noise
    reward = obs[..., 0] - action[..., 0]
    return obs, action, reward, next_obs, obs[..., 1] > 1


def to_members(found, members):
    return [x.unsqueeze(1).expand(x.shape[0], members, *x.shape[1:]) for x in found]


@pytest.fixture(scope="module")
def learnt():
    """A model after 400 steps on 512 rows."""
    model = Dynamics((0, 1), 2, 1, (32, 32), members=3, elites=2)
    found = rows(0, 512)
    model.set_scale(*found[:4])
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(400):
        optimizer.zero_grad()
        (model.loss(*to_members(found, 3)).sum() + model.bounds().sum()).backward()
        optimizer.step()
    return model


def test_the_likelihood_is_that_of_torch_s_distributions():
    model, found = Dynamics((3,), 2, 1, (8,), members=2, elites=1), rows(1, 16, 1)
    model.set_scale(*found[:4])
    obs, action, reward, next_obs, end = to_members(found, 2)
    mean, log_var, logit = model(obs, action)
    goal = torch.cat([next_obs - obs, reward.unsqueeze(-1)], -1)
    middle, spread = goal[0, 0].mean(0), goal[0, 0].std(0, correction=0)
    gaussian = torch.distributions.Normal(mean, torch.exp(0.5 * log_var))
    likely = gaussian.log_prob((goal - middle) / spread).sum(-1) + 1.5 * math.log(2 * math.pi)
    ended = torch.distributions.Bernoulli(logits=logit).log_prob(end.float())
    torch.testing.assert_close(model.loss(obs, action, reward, next_obs, end), -(likely + ended).mean(-1))


def test_a_linear_world_is_learnt_with_its_noise(learnt):
    """The errors left are the noise: 0.05 in s', none in the reward; the variance learnt says so."""
    obs, action, reward, next_obs, end = rows(5, 2000)
    nothing = torch.zeros(2, 2, 2000, 3)
    found = to_members((obs, action), 2)
    ahead = learnt.imagine(*found, nothing)
    next_obs, reward, end = to_members((next_obs, reward, end), 2)
    assert (ahead.next_obs - next_obs).std() == pytest.approx(0.05, rel=0.2)
    assert (ahead.reward - reward).abs().mean() < 0.1
    assert (ahead.terminated == end).float().mean() > 0.95
    drawn = learnt.imagine(*found, torch.randn(2, 2, 2000, 3, generator=torch.Generator().manual_seed(1)))
    spread = (drawn.next_obs - ahead.next_obs).std(2)
    assert spread.flatten().tolist() == pytest.approx([0.05] * 8, rel=0.35)


def test_only_elites_are_drawn_from(learnt):
    """Chosen by error for each learner apart; a step's mean is that of the elite."""
    error = torch.tensor([[3.0, 1.0, 2.0], [0.5, 0.7, 0.1]])
    learnt.choose(error)
    assert learnt.elites.tolist() == [[1, 2], [2, 0]]
    obs, action, *_ = rows(2, 4)
    mean, _, _ = learnt(*to_members((obs, action), 3))
    ahead = learnt.imagine(*to_members((obs, action), 2), torch.zeros(2, 2, 4, 3))
    for learner, elites in enumerate([[1, 2], [2, 0]]):
        for place, member in enumerate(elites):
            found = mean[learner, member] * learnt.targets_std[learner] + learnt.targets_mean[learner]
            torch.testing.assert_close(ahead.next_obs[learner, place], obs[learner] + found[:, :2])
            torch.testing.assert_close(ahead.reward[learner, place], found[:, 2])
    learnt.choose(torch.tensor([[1.0, 2.0, 3.0]] * 2))


def test_a_learner_is_the_same_alone():
    both, one = Dynamics((4, 7), 2, 1, (8,), members=2, elites=1), Dynamics((7,), 2, 1, (8,), members=2, elites=1)
    found = rows(3, 8)
    both.set_scale(*found[:4])
    one.set_scale(*(x[1:] for x in found[:4]))
    together = both.loss(*to_members(found, 2))[1:]
    torch.testing.assert_close(one.loss(*to_members([x[1:] for x in found], 2)), together)
    torch.testing.assert_close(one.error(*(x[1:] for x in found[:4])), both.error(*found[:4])[1:])


def test_silu_in_numpy_is_torch_s():
    net = Stacked((0,), (3, 5, 2), activation="silu", name="x")
    x = torch.randn(1, 7, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(torch.from_numpy(net.numpy_view()(x.numpy())), net(x).detach())


def test_elites_are_members():
    with pytest.raises(ConfigError, match=r"elites is 8 of 7 members"):
        Dynamics((0,), 2, 1, (8,), members=7, elites=8)


def test_the_means_are_what_is_imagined_without_noise(learnt):
    """The scales folded into the layers change nothing but the rounding, also for elites in another order."""
    learnt.choose(torch.tensor([[0.3, 0.1, 0.2], [0.1, 0.3, 0.2]]))
    assert learnt.elites.tolist() == [[1, 2], [0, 2]]
    obs, action, *_ = rows(7, 40)
    found = [x.view(2, 2, 20, -1) for x in (obs, action)]
    ahead, expected = learnt.means()(*found), learnt.imagine(*found, torch.zeros(2, 2, 20, 3))
    torch.testing.assert_close(ahead.next_obs, expected.next_obs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ahead.reward, expected.reward, atol=1e-5, rtol=1e-5)
    assert torch.equal(ahead.terminated, expected.terminated)
    assert 0 < ahead.terminated.sum() < 80


def test_one_learner_s_ensemble_is_a_copy_that_foresees_the_same(learnt):
    own = learnt.alone(1)
    obs, action, *_ = rows(7, 40)
    found = [x.view(2, 2, 20, -1) for x in (obs, action)]
    noise = torch.randn(2, 2, 20, 3, generator=torch.Generator().manual_seed(0))
    both, one = learnt.imagine(*found, noise), own.imagine(*(x[1:] for x in (*found, noise)))
    torch.testing.assert_close(one.next_obs[0], both.next_obs[1])
    torch.testing.assert_close(own.means()(*(x[1:] for x in found)).reward[0], learnt.means()(*found).reward[1])
    with torch.no_grad():
        own.elites.fill_(0)
        for parameter in own.parameters():
            parameter.fill_(0.0)
    again = learnt.imagine(*found, noise)
    assert torch.equal(again.next_obs, both.next_obs)
