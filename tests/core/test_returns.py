"""Returns, GAE and V-trace: by hand, against double loops, at their limits, and across the ends of episodes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onepolicy.core.returns import discounted_returns, gae, lambda_returns, n_step_returns, vtrace
from onepolicy.errors import ConfigError, DataError

GAMMA = 0.9


def world(steps=12, rows=3, seed=0):
    """Rewards, values and a random pattern of ends, in float64: (reward, value, next_value, discount, carry)."""
    rng = torch.Generator().manual_seed(seed)
    reward, value, next_value = (torch.randn(rows, steps, generator=rng, dtype=torch.float64) for _ in range(3))
    end = torch.rand(rows, steps, generator=rng)
    terminated, truncated = end < 0.15, (end >= 0.15) & (end < 0.3)
    ended = terminated | truncated
    next_value[:, :-1] = torch.where(ended[:, :-1], next_value[:, :-1], value[:, 1:])  # as collected
    return reward, value, next_value, GAMMA * (~terminated).double(), (~ended).double()


def test_discounted_return_by_hand():
    """G_2 = 3 + 0.5 * 4 = 5; G_1 = 2 + 0 (terminated) = 2; G_0 = 1 + 0.5 * 2 = 2."""
    reward, discount = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, 0.0, 0.5])
    assert discounted_returns(reward, discount, torch.tensor(4.0)).tolist() == [2.0, 2.0, 5.0]
    assert discounted_returns(reward, discount, 4.0).tolist() == [2.0, 2.0, 5.0]


def test_truncated_bootstraps_and_terminated_does_not():
    """Both episodes end at step 0 with a final observation worth 100: 1 + 0.9 * 100 = 91 when truncated, 1 when
    terminated; nothing of step 1 (worth 1000 and more) comes back over either end."""
    reward, bootstrap = torch.tensor([1.0, 1000.0]), torch.tensor([100.0, 0.0])
    cut, through = torch.tensor([0.0, 1.0]), torch.full((2,), GAMMA)
    stop = torch.tensor([0.0, GAMMA])
    assert discounted_returns(reward, through, bootstrap, cut)[0] == pytest.approx(91.0)
    assert discounted_returns(reward, stop, bootstrap, cut)[0] == 1.0
    value = torch.zeros(2)
    for lam in (0.0, 0.5, 1.0):
        assert gae(reward, value, bootstrap, through, cut, lam)[0] == pytest.approx(91.0)
        assert gae(reward, value, bootstrap, stop, cut, lam)[0] == 1.0
        assert lambda_returns(reward, through, bootstrap, lam, cut)[0] == pytest.approx(91.0)
        assert n_step_returns(reward, through, bootstrap, 2, cut)[0] == pytest.approx(91.0)
        zero = torch.zeros(2)
        target, advantage = vtrace(zero, zero, reward, value, bootstrap, through, cut, lam=lam)
        assert target[0] == pytest.approx(91.0)
        assert advantage[0] == pytest.approx(91.0)


def test_a_cut_needs_a_value_of_its_own():
    with pytest.raises(DataError, match="value per step"):
        discounted_returns(torch.ones(2, 3), torch.ones(2, 3), torch.ones(2), torch.ones(2, 3))


@pytest.mark.parametrize("n", [1, 2, 3, 7, 50])
@pytest.mark.parametrize("cuts", [True, False])
def test_n_step_return_equals_a_naive_double_loop(n, cuts):
    reward, _, next_value, discount, carry = world()
    expected = torch.empty_like(reward)
    rows, steps = reward.shape
    for row in range(rows):
        for t in range(steps):
            total, weight = 0.0, 1.0
            for k in range(t, min(t + n, steps)):
                total += weight * reward[row, k]
                weight *= discount[row, k]
                if k == min(t + n, steps) - 1 or (cuts and carry[row, k] == 0):
                    total += weight * next_value[row, k]
                    break
            expected[row, t] = total
    actual = n_step_returns(reward, discount, next_value, n, carry if cuts else None)
    torch.testing.assert_close(actual, expected)


def test_n_step_needs_a_step():
    with pytest.raises(ConfigError, match="n is 0"):
        n_step_returns(torch.ones(3), torch.ones(3), torch.ones(3), 0)


@pytest.mark.parametrize("lam", [0.0, 0.3, 0.95, 1.0])
def test_lambda_return_is_the_mixture_of_n_step_returns(lam):
    """Within one episode of T steps, (1 - lam) sum_{n < T - t} lam^{n-1} G^(n) + lam^{T-t-1} G.

    Sutton and Barto 2018, equation 12.3."""
    reward, _, next_value, _, _ = world()
    steps = reward.shape[1]
    discount = torch.full_like(reward, GAMMA)
    n_step = [n_step_returns(reward, discount, next_value, n) for n in range(1, steps + 1)]
    expected = torch.empty_like(reward)
    for t in range(steps):
        left = steps - t
        mix = sum((1 - lam) * lam ** (n - 1) * n_step[n - 1][:, t] for n in range(1, left))
        expected[:, t] = mix + lam ** (left - 1) * n_step[left - 1][:, t]
    torch.testing.assert_close(lambda_returns(reward, discount, next_value, lam), expected)


def test_lambda_return_limits():
    reward, _, next_value, discount, carry = world()
    torch.testing.assert_close(lambda_returns(reward, discount, next_value, 0.0, carry), reward + discount * next_value)
    torch.testing.assert_close(
        lambda_returns(reward, discount, next_value, 1.0, carry),
        discounted_returns(reward, discount, next_value, carry),
    )


def test_gae_by_hand():
    """gamma 0.5, lambda 0.5. delta = (1 + 0.5 * 2 - 1, 0 + 0.5 * 4 - 2) = (1, 0.), A_1 = 0, A_0 = 1 + 0.25 * 0 = 1;
    with reward 3 in step 1, delta_1 = 3 and A_0 = 1 + 0.25 * 3 = 1.75."""
    value, next_value = torch.tensor([1.0, 2.0]), torch.tensor([2.0, 4.0])
    half, carry = torch.full((2,), 0.5), torch.ones(2)
    assert gae(torch.tensor([1.0, 0.0]), value, next_value, half, carry, 0.5).tolist() == [1.0, 0.0]
    assert gae(torch.tensor([1.0, 3.0]), value, next_value, half, carry, 0.5).tolist() == [1.75, 3.0]


@pytest.mark.parametrize("lam", [0.0, 0.5, 0.97, 1.0])
def test_gae_equals_a_naive_double_loop(lam):
    """A_t = sum_k (product of d c lam from t to t + k - 1) delta_{t+k}, the sum written out."""
    reward, value, next_value, discount, carry = world(steps=15, rows=4, seed=1)
    delta = reward + discount * next_value - value
    expected = torch.zeros_like(reward)
    for row in range(4):
        for t in range(15):
            weight = 1.0
            for k in range(t, 15):
                expected[row, t] += weight * delta[row, k]
                weight = weight * discount[row, k] * carry[row, k] * lam
    torch.testing.assert_close(gae(reward, value, next_value, discount, carry, lam), expected)


def test_gae_limits():
    """lambda 0: the TD error. lambda 1: the discounted return minus V."""
    reward, value, next_value, discount, carry = world()
    td = reward + discount * next_value - value
    torch.testing.assert_close(gae(reward, value, next_value, discount, carry, 0.0), td)
    monte_carlo = discounted_returns(reward, discount, next_value, carry) - value
    torch.testing.assert_close(gae(reward, value, next_value, discount, carry, 1.0), monte_carlo)


@pytest.mark.parametrize("lam", [0.0, 0.4, 1.0])
def test_gae_plus_value_is_the_lambda_return(lam):
    reward, value, next_value, discount, carry = world()
    advantage = gae(reward, value, next_value, discount, carry, lam)
    torch.testing.assert_close(advantage + value, lambda_returns(reward, discount, next_value, lam, carry))


def test_advantages_of_a_perfect_critic_are_zero():
    """Reward 1 for ever is worth 1 / (1 - gamma)."""
    value = torch.full((20,), 1.0 / (1.0 - GAMMA), dtype=torch.float64)
    one, discount = torch.ones_like(value), torch.full_like(value, GAMMA)
    torch.testing.assert_close(gae(one, value, value, discount, one, 0.95), torch.zeros_like(value))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), steps=st.integers(2, 40), lam=st.floats(0.0, 1.0))
def test_episodes_do_not_see_one_another(seed, steps, lam):
    """Cutting the data at an end of an episode and computing each part alone changes nothing."""
    data = world(steps, rows=1, seed=seed)
    ends = (data[4][0] == 0).nonzero().flatten().tolist()
    whole = gae(*data, lam)
    start = 0
    for stop in [*[end + 1 for end in ends], steps]:
        if stop > start:
            part = gae(*(x[:, start:stop] for x in data), lam)
            torch.testing.assert_close(whole[:, start:stop], part)
        start = stop


@pytest.mark.parametrize("lam", [1.0, 0.7])
@pytest.mark.parametrize(("rho_bar", "c_bar"), [(1.0, 1.0), (2.0, 0.5), (float("inf"), float("inf"))])
def test_vtrace_equals_its_definition(lam, rho_bar, c_bar):
    """v_s = V(x_s) + sum_t gamma^{t-s} (prod_{i<t} c_i) rho_t delta_t: equation 1 of IMPALA as a double loop."""
    reward, value, next_value, discount, carry = world(seed=2)
    rng = torch.Generator().manual_seed(3)
    logp, behaviour = (-torch.rand(reward.shape, generator=rng, dtype=torch.float64) for _ in range(2))
    ratio = (logp - behaviour).exp()
    rho, c = ratio.clamp(max=rho_bar), lam * ratio.clamp(max=c_bar)
    td = reward + discount * next_value - value
    expected = value.clone()
    rows, steps = reward.shape
    for row in range(rows):
        for s in range(steps):
            weight = 1.0
            for t in range(s, steps):
                expected[row, s] += weight * rho[row, t] * td[row, t]
                weight = weight * discount[row, t] * carry[row, t] * c[row, t]
    target, advantage = vtrace(
        logp, behaviour, reward, value, next_value, discount, carry, lam=lam, rho_bar=rho_bar, c_bar=c_bar
    )
    torch.testing.assert_close(target, expected)
    for row in range(rows):
        for t in range(steps):
            inside = t + 1 < steps and carry[row, t] == 1
            after = lam * target[row, t + 1] + (1 - lam) * next_value[row, t] if inside else next_value[row, t]
            hand = rho[row, t] * (reward[row, t] + discount[row, t] * after - value[row, t])
            assert float(advantage[row, t]) == pytest.approx(float(hand))


@pytest.mark.parametrize("lam", [0.0, 0.6, 1.0])
def test_vtrace_on_policy_is_the_lambda_return(lam):
    reward, value, next_value, discount, carry = world()
    logp = torch.randn_like(reward)
    target, advantage = vtrace(logp, logp, reward, value, next_value, discount, carry, lam=lam)
    torch.testing.assert_close(target, lambda_returns(reward, discount, next_value, lam, carry))
    torch.testing.assert_close(advantage, gae(reward, value, next_value, discount, carry, lam))


def test_vtrace_with_rho_bar_zero_keeps_the_critic():
    """Steps that the policy would never take teach nothing."""
    reward, value, next_value, discount, carry = world()
    never = torch.full_like(reward, -float("inf"))
    target, advantage = vtrace(never, torch.zeros_like(reward), reward, value, next_value, discount, carry)
    torch.testing.assert_close(target, value)
    torch.testing.assert_close(advantage, torch.zeros_like(value))


def test_returns_are_differentiable_in_rewards_and_values():
    reward, value, next_value, discount, carry = world(steps=11, rows=2)
    leaves = [x.requires_grad_() for x in (reward, value, next_value)]
    assert torch.autograd.gradcheck(lambda r, v, n: gae(r, v, n, discount, carry, 0.9), leaves)
    assert torch.autograd.gradcheck(lambda r, n: lambda_returns(r, discount, n, 0.9, carry), [reward, next_value])
    assert torch.autograd.gradcheck(lambda r, n: n_step_returns(r, discount, n, 3, carry), [reward, next_value])
    assert torch.autograd.gradcheck(lambda r, n: discounted_returns(r, discount, n, carry), [reward, next_value])


def test_vtrace_gives_targets_without_gradient():
    reward, value, next_value, discount, carry = world()
    target, advantage = vtrace(
        reward.clone().requires_grad_(), reward, reward, value.requires_grad_(), next_value, discount, carry
    )
    assert not target.requires_grad
    assert not advantage.requires_grad


def test_shapes_that_disagree_are_named():
    with pytest.raises(DataError, match=r"carry has shape \(2, 3\) but reward has shape \(2, 4\)"):
        gae(*(torch.zeros(2, 4) for _ in range(4)), torch.zeros(2, 3), 0.9)
