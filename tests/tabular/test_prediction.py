"""Every prediction algorithm against the plain loop of its textbook, on episodes that terminate and are truncated."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from onepolicy.core import returns as torch_returns
from onepolicy.tabular import prediction
from onepolicy.tabular.features import from_matrix, one_hot, to_sparse
from onepolicy.tabular.mdp import MDP
from onepolicy.tabular.prediction import Problem, importance_ratios
from onepolicy.tabular.simulate import Episodes, sample_episodes, sampler

STATES, GAMMA, ALPHA = 6, 0.9, 0.13
TARGET = np.array([0.8, 0.2, 0.5, 0.5, 0.1, 0.9, 1.0, 0.0, 0.3, 0.7])


def world() -> MDP:
    """Five states with two actions and random successors, state 5 terminal."""
    rng = np.random.default_rng(3)
    s, a, t = (x.ravel() for x in np.meshgrid(np.arange(5), np.arange(2), np.arange(STATES), indexing="ij"))
    p = rng.dirichlet([1, 1, 1, 1, 1, 0.4], size=10).ravel()
    return MDP.from_coo(s, a, t, p, rng.normal(size=len(s)), num_states=STATES, start=[1, 0, 0, 0, 0, 0])


def problem(features=None, *, ratio=False, runs=3) -> Problem:
    """Episodes of at most 8 steps: some terminate, some are cut."""
    mdp = world()
    episodes = sample_episodes(sampler(mdp), 5, runs=runs, seed=1, max_steps=8)
    assert episodes.truncated.any()
    assert episodes.terminated.any()
    rho = importance_ratios(mdp, TARGET, None) if ratio else None
    return Problem(episodes, features or one_hot(STATES), GAMMA, start=0.25, ratio=rho)


def dense_features():
    return from_matrix(np.random.default_rng(4).normal(size=(STATES, 3)))


class Steps:
    """One episode in Python numbers: (x, reward, x', ended, rho) per step, x' zero where it is terminal."""

    def __init__(self, data: Problem, run: int, episode: int) -> None:
        e, i = data.episodes, run * data.per_run + episode
        x = to_sparse(data.features).toarray()
        steps = range(e.ptr[i], e.ptr[i + 1])
        self.states = [int(e.state[t]) for t in steps]
        self.x = [x[e.state[t]] for t in steps]
        self.r = [float(e.reward[t]) for t in steps]
        self.next = [x[e.next_state[t]] * (not e.terminated[t]) for t in steps]
        self.rho = [1.0 if data.ratio is None else float(data.ratio[e.row[t]]) for t in steps]
        self.length = len(self.r)

    def n_step(self, t, n, w):
        """(G_{t:t+n} with the bootstrap of weights w, the product of the ratios)."""
        stop = min(t + n, self.length)
        total = sum(GAMMA ** (k - t) * self.r[k] for k in range(t, stop))
        return total + GAMMA ** (stop - t) * (self.next[stop - 1] @ w), float(np.prod(self.rho[t:stop]))

    def lambda_return(self, t, lam, w):
        """The mixture of n-step returns, by its definition."""
        left = self.length - t
        parts = [(1 - lam) * lam ** (n - 1) * self.n_step(t, n, w)[0] for n in range(1, left)]
        return sum(parts) + lam ** (left - 1) * self.n_step(t, left, w)[0]


def learnt(data: Problem, episode_update) -> np.ndarray:
    """Weights [R, d] of a plain update run over all episodes of all runs."""
    weights = np.full((data.episodes.runs, data.features.size), 0.25)
    for run in range(data.episodes.runs):
        for episode in range(data.per_run):
            episode_update(weights[run], Steps(data, run, episode))
    return weights


def monte_carlo(w, steps, *, first):
    returns = [steps.lambda_return(t, 1.0, w) for t in range(steps.length)]
    for t, g in enumerate(returns):
        if not first or steps.states[t] not in steps.states[:t]:
            w += ALPHA * (g - steps.x[t] @ w) * steps.x[t]


def n_step(w, steps, *, n, on_error=True):
    """The book's loop over times t with the delayed update of tau = t - n + 1."""
    t = 0
    while True:
        tau = t - n + 1
        if tau >= 0:
            g, rho = steps.n_step(tau, n, w)
            now = steps.x[tau] @ w
            w += ALPHA * (rho * (g - now) if on_error else rho * g - now) * steps.x[tau]
        if tau >= steps.length - 1:
            return
        t += 1


def td_lambda(w, steps, *, lam, replacing=False):
    z = np.zeros_like(w)
    for x, r, after, rho in zip(steps.x, steps.r, steps.next, steps.rho):
        z = np.where(x == 1, x, GAMMA * lam * z) if replacing else rho * (GAMMA * lam * z + x)
        w += ALPHA * (r + GAMMA * (after @ w) - x @ w) * z


def offline_backward(w, steps, *, lam):
    """TD(lambda) with w fixed during the episode."""
    z, change = np.zeros_like(w), np.zeros_like(w)
    for x, r, after in zip(steps.x, steps.r, steps.next):
        z = GAMMA * lam * z + x
        change += ALPHA * (r + GAMMA * (after @ w) - x @ w) * z
    w += change


def offline_return(w, steps, *, lam):
    returns = [steps.lambda_return(t, lam, w) for t in range(steps.length)]
    for x, g in zip(steps.x, returns):
        w += ALPHA * (g - x @ w) * x


def online_forward(w, steps, *, lam):
    """The online lambda-return algorithm: at each horizon h all updates are made anew, from the episode's start.

    n-step returns that end at step k bootstrap with the weights that the algorithm had at horizon k - 1.
    """
    history = [w.copy()]
    for h in range(1, steps.length + 1):
        now = w.copy()
        for t in range(h):
            ends = [steps.n_step(t, n, history[t + n - 1])[0] for n in range(1, h - t + 1)]
            g = sum((1 - lam) * lam ** (i - 1) * g for i, g in enumerate(ends[:-1], start=1))
            now += ALPHA * (g + lam ** (h - t - 1) * ends[-1] - steps.x[t] @ now) * steps.x[t]
        history.append(now)
    w[:] = history[-1]


ON_POLICY = [
    (prediction.first_visit_mc, {}, lambda w, s: monte_carlo(w, s, first=True)),
    (prediction.every_visit_mc, {}, lambda w, s: monte_carlo(w, s, first=False)),
    (prediction.td0, {}, lambda w, s: n_step(w, s, n=1)),
    (prediction.n_step_td, {"n": 3}, lambda w, s: n_step(w, s, n=3)),
    (prediction.n_step_td, {"n": 99}, lambda w, s: n_step(w, s, n=99)),
    (prediction.lambda_return_td, {"lam": 0.7}, lambda w, s: offline_return(w, s, lam=0.7)),
    (prediction.offline_td_lambda, {"lam": 0.7}, lambda w, s: offline_backward(w, s, lam=0.7)),
    (prediction.td_lambda, {"lam": 0.7}, lambda w, s: td_lambda(w, s, lam=0.7)),
    (prediction.td_lambda, {"lam": 0.0}, lambda w, s: n_step(w, s, n=1)),
    (prediction.true_online_td, {"lam": 0.7}, lambda w, s: online_forward(w, s, lam=0.7)),
    (prediction.true_online_td, {"lam": 0.0}, lambda w, s: n_step(w, s, n=1)),
]


@pytest.mark.parametrize(("algorithm", "settings", "plain"), ON_POLICY)
@pytest.mark.parametrize("features", [None, dense_features()], ids=["table", "features"])
def test_compiled_and_plain_loops_agree(algorithm, settings, plain, features):
    data = problem(features)
    found = algorithm(data, step_size=ALPHA, **settings)
    assert found.weights == pytest.approx(learnt(data, plain), abs=1e-12)
    if features is None:
        assert np.array_equal(found.values[:, :5], found.weights[:, :5])
        assert np.all(found.values[:, 5] == 0)


def test_monte_carlo_with_a_truncated_tail_uses_the_value_of_the_time():
    """Its bootstrap is from before the episode's updates, that of n-step TD from after the first ones.

    They differ only where an episode is cut in a state that it has updated: n beyond every length is Monte Carlo on
    terminated data.
    """
    mdp = world()
    data = Problem(sample_episodes(sampler(mdp), 5, runs=3, seed=1), one_hot(STATES), GAMMA)
    assert not data.episodes.truncated.any()
    one, other = prediction.every_visit_mc(data, step_size=0.1), prediction.n_step_td(data, n=10**6, step_size=0.1)
    assert one.weights == pytest.approx(other.weights, abs=1e-14)


def test_replacing_traces():
    data = problem()
    found = prediction.td_lambda_replacing(data, lam=0.7, step_size=ALPHA)
    assert found.weights == pytest.approx(learnt(data, lambda w, s: td_lambda(w, s, lam=0.7, replacing=True)))


@pytest.mark.parametrize(
    ("algorithm", "settings", "plain"),
    [
        (prediction.td0, {}, lambda w, s: n_step(w, s, n=1)),
        (prediction.n_step_td, {"n": 3}, lambda w, s: n_step(w, s, n=3)),
        (prediction.n_step_td_weighted_target, {"n": 2}, lambda w, s: n_step(w, s, n=2, on_error=False)),
        (prediction.td_lambda, {"lam": 0.7}, lambda w, s: td_lambda(w, s, lam=0.7)),
    ],
)
def test_importance_ratios(algorithm, settings, plain):
    data = problem(dense_features(), ratio=True)
    assert algorithm(data, step_size=ALPHA, **settings).weights == pytest.approx(learnt(data, plain), abs=1e-12)


def test_step_size_one_over_n_is_the_mean_of_the_returns():
    data = problem(runs=1)
    returns: dict[str, dict[int, list[float]]] = {"first": {}, "every": {}}
    episodes = data.episodes
    no_values = prediction.lambda_returns(data, np.zeros(len(episodes.state)), lam=1.0)
    whole = [i for i in range(5) if episodes.terminated[episodes.ptr[i + 1] - 1]]
    for i in whole:
        seen = set()
        for t in range(episodes.ptr[i], episodes.ptr[i + 1]):
            s = int(episodes.state[t])
            returns["every"].setdefault(s, []).append(no_values[t])
            if s not in seen:
                returns["first"].setdefault(s, []).append(no_values[t])
            seen.add(s)
    kept = Problem(_only(episodes, whole), one_hot(STATES), GAMMA)
    first, every = (f(kept, step_size=None).values[0] for f in (prediction.first_visit_mc, prediction.every_visit_mc))
    for name, values in (("first", first), ("every", every)):
        for s, seen_returns in returns[name].items():
            assert values[s] == pytest.approx(np.mean(seen_returns))
    assert first != pytest.approx(every)


def _only(episodes: Episodes, chosen: list[int]) -> Episodes:
    steps = np.concatenate([np.arange(episodes.ptr[i], episodes.ptr[i + 1]) for i in chosen])
    ptr = np.concatenate([[0], np.cumsum([episodes.ptr[i + 1] - episodes.ptr[i] for i in chosen])])
    return Episodes(*(array[steps] for array in episodes[:6]), ptr, 1)


@pytest.mark.parametrize("lam", [0.0, 0.6, 1.0])
def test_returns_are_those_of_the_core(lam):
    """Random episodes, terminated, truncated and empty: compiled loops and torch's recurrence agree."""
    rng = np.random.default_rng(8)
    lengths = rng.integers(0, 12, size=40)
    ptr, steps = np.concatenate([[0], np.cumsum(lengths)]), int(lengths.sum())
    ends = ptr[1:][lengths > 0] - 1
    terminated, truncated = np.zeros(steps, bool), np.zeros(steps, bool)
    terminated[ends] = rng.random(len(ends)) < 0.5
    truncated[ends] = ~terminated[ends]
    reward, value = rng.normal(size=steps), rng.normal(size=steps)
    states = np.zeros(steps, np.int32)
    data = Problem(Episodes(states, states, reward, states, terminated, truncated, ptr, 1), one_hot(1), GAMMA)
    r, v = torch.from_numpy(reward), torch.from_numpy(value)
    discount = GAMMA * torch.from_numpy(1.0 - terminated)
    carry = torch.from_numpy(1.0 - (terminated | truncated))
    expected = torch_returns.lambda_returns(r, discount, v, lam, carry).numpy()
    assert prediction.lambda_returns(data, value, lam=lam) == pytest.approx(expected, abs=1e-12)
    if lam == 1.0:
        expected = torch_returns.discounted_returns(r, discount, v, carry).numpy()
        assert prediction.lambda_returns(data, value, lam=1.0) == pytest.approx(expected, abs=1e-12)
    for n in (1, 3, 50):
        expected = torch_returns.n_step_returns(r, discount, v, n, carry).numpy()
        assert prediction.n_step_returns(data, value, n=n) == pytest.approx(expected, abs=1e-12)


def test_runs_do_not_depend_on_threads_or_on_each_other():
    data = problem(dense_features())
    one, two = (
        prediction.td_lambda(Problem(data.episodes, data.features, GAMMA, threads=n), lam=0.5, step_size=0.1).weights
        for n in (1, 3)
    )
    assert np.array_equal(one, two)
    alone = Problem(problem(runs=1).episodes, data.features, GAMMA)
    assert np.array_equal(prediction.td_lambda(alone, lam=0.5, step_size=0.1).weights[0], one[0])
