"""Returns and advantages along time: what to feed `reverse_scan`.

Every function takes [..., T] tensors, time last, any leading dimensions, and two masks already turned to numbers:

    discount = gamma * (1 - terminated)              a terminated step's future is worth nothing
    carry    = 1 - (terminated | truncated)          no credit flows back over the end of an episode

A truncated step keeps its bootstrap `discount * next_value`, where `next_value[t]` is V of the observation that
step t led to (the final observation of a truncated episode, never the first of the next one). Whitening and
clipping are not here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from onepolicy.core import check
from onepolicy.core.scan import reverse_scan
from onepolicy.errors import ConfigError, DataError


def discounted_returns(
    reward: Tensor, discount: Tensor, bootstrap: Tensor | float, carry: Tensor | None = None
) -> Tensor:
    """The discounted return G_t = r_t + d_t * G_{t+1}, with V where the data ends before the episode does.

    reward, discount [..., T]. bootstrap: value after the last step, [...] or a number; or [..., T], the value after
    every step, of which the cut steps (carry 0) and the last are used. carry [..., T] or None: no cut inside.
    Returns: G [..., T], in reward units.
    Raises: DataError when cuts are given with a bootstrap that has no time axis.
    Source: Sutton and Barto 2018, equations 3.8 and 3.9.

    Rewards 1, 1, 1 at discount 0.5, worth 8 afterwards: 1 + 0.5 * 8 = 5, then 1 + 0.5 * 5 = 3.5, then 2.75.

    >>> import torch
    >>> discounted_returns(torch.ones(3), torch.full((3,), 0.5), torch.tensor(8.0))
    tensor([2.7500, 3.5000, 5.0000])
    """
    check.same_shape(reward=reward, discount=discount, carry=carry)
    if not isinstance(bootstrap, Tensor):
        bootstrap = torch.full_like(reward, bootstrap)
    if bootstrap.dim() == reward.dim():
        check.same_shape(reward=reward, bootstrap=bootstrap)
        last = bootstrap[..., -1]
    elif carry is None:
        last = bootstrap
    else:
        raise DataError(
            f"bootstrap has shape {tuple(bootstrap.shape)} and carry {tuple(carry.shape)}; a cut inside the sequence "
            "needs the value of its own final observation. Give bootstrap a value per step, [..., T]."
        )
    if carry is None:
        return reverse_scan(reward, discount, last)
    return reverse_scan(reward + discount * (1.0 - carry) * bootstrap, discount * carry, last)


def n_step_returns(reward: Tensor, discount: Tensor, next_value: Tensor, n: int, carry: Tensor | None = None) -> Tensor:
    """The n-step return G_t^(n) = r_t + d_t r_{t+1} + ... + (d_t ... d_{t+n-1}) V(s_{t+n}).

    Cut earlier, with the bootstrap of the step where it is cut, at the end of an episode (carry 0) and at the end of
    the data. reward, discount, next_value, carry [..., T]; n >= 1 steps.
    Returns: [..., T], in reward units.
    Raises: ConfigError for n < 1.
    Source: Sutton and Barto 2018, equation 7.1; recursion G^(n)_t = r_t + d_t G^(n-1)_{t+1}.
    """
    if n < 1:
        raise ConfigError(f"n is {n}; an n-step return looks at least 1 step ahead. Set n >= 1.")
    check.same_shape(reward=reward, discount=discount, next_value=next_value, carry=carry)
    target = reward + discount * next_value
    for _ in range(min(n, reward.shape[-1]) - 1):
        following = torch.cat([target[..., 1:], next_value[..., -1:]], dim=-1)
        if carry is not None:
            following = carry * following + (1.0 - carry) * next_value
        target = reward + discount * following
    return target


def lambda_returns(
    reward: Tensor, discount: Tensor, next_value: Tensor, lam: float | Tensor, carry: Tensor | None = None
) -> Tensor:
    """The lambda-return G_t = r_t + d_t ((1 - lam) V(s_{t+1}) + lam G_{t+1}).

    lam 0 is the one-step TD target, lam 1 the discounted return. reward, discount, next_value, carry [..., T];
    lam in [0, 1], a number or [..., T].
    Returns: [..., T], in reward units.
    Source: Sutton and Barto 2018, equation 12.2, in the recursive form of rlax `lambda_returns`.
    """
    check.same_shape(reward=reward, discount=discount, next_value=next_value, carry=carry)
    keep = lam if carry is None else lam * carry
    return reverse_scan(reward + discount * (1.0 - keep) * next_value, discount * keep, next_value[..., -1])


def gae(reward: Tensor, value: Tensor, next_value: Tensor, discount: Tensor, carry: Tensor, lam: float) -> Tensor:
    """The generalised advantage A_t = delta_t + d_t c_t lam A_{t+1}, delta_t = r_t + d_t V(s_{t+1}) - V(s_t).

    All [..., T]; lam in [0, 1]: 0 is the TD error, 1 the discounted return minus V. Not whitened.
    Returns: advantage [..., T], in reward units; the critic's target is advantage + value.
    Source: Schulman et al. 2016 (arXiv 1506.02438), equation 16; the two masks as in Pardo et al. 2018.

    One truncated step (carry 0) keeps its bootstrap but takes nothing from the next episode:

    >>> import torch
    >>> one, zero = torch.ones(2), torch.zeros(2)
    >>> gae(one, zero, torch.tensor([10.0, 20.0]), one, torch.tensor([0.0, 1.0]), 1.0)
    tensor([11., 21.])
    """
    check.same_shape(reward=reward, value=value, next_value=next_value, discount=discount, carry=carry)
    delta = torch.addcmul(reward, discount, next_value) - value
    return reverse_scan(delta, discount * carry * lam)


def vtrace(
    logp: Tensor,
    logp_behaviour: Tensor,
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    discount: Tensor,
    carry: Tensor,
    *,
    lam: float = 1.0,
    rho_bar: float = 1.0,
    c_bar: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """V-trace's off-policy value target and policy-gradient advantage, both without gradient.

    rho_t = min(rho_bar, pi/mu), c_t = lam min(c_bar, pi/mu), delta_t = rho_t (r_t + d_t V(s_{t+1}) - V(s_t)),
    v_t = V(s_t) + delta_t + d_t c_t (v_{t+1} - V(s_{t+1})), advantage_t = rho_t (r_t + d_t v_{t+1} - V(s_t)),
    where v_{t+1} is mixed with V(s_{t+1}) by lam, and is V(s_{t+1}) at a cut.
    All [..., T]; logp, logp_behaviour in nats; bounds are at least 0, infinity switches one off.
    Returns: (target v [..., T], advantage [..., T]), in reward units.
    Source: Espeholt et al. 2018 (IMPALA, arXiv 1802.01561), equation 1 and section 4.2; the lambda mix as in rlax
    `vtrace_td_error_and_advantage`.
    """
    check.same_shape(logp=logp, logp_behaviour=logp_behaviour, reward=reward, value=value)
    check.same_shape(reward=reward, next_value=next_value, discount=discount, carry=carry)
    with torch.no_grad():
        ratio = torch.exp(logp - logp_behaviour)
        rho, c = ratio.clamp(max=rho_bar), lam * ratio.clamp(max=c_bar)
        delta = rho * (reward + discount * next_value - value)
        target = value + reverse_scan(delta, discount * carry * c)
        following = torch.cat([target[..., 1:], next_value[..., -1:]], dim=-1)
        keep = lam * carry
        following = keep * following + (1.0 - keep) * next_value
        return target, rho * (reward + discount * following - value)
