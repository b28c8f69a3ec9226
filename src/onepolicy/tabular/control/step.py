"""What every learner's step is made of: the world's answer, the choice of an action, the target, the update.

Compiled by numba, and callable from Python one at a time, which is how the path for gymnasium worlds and the tests use
them. A choice takes its random number as an argument, so that one function serves both paths.

Order of the draws from a run's stream (what a plain loop must repeat to get the same run): the start; then in each
step the successor (only of a row with several), the reward's noise (two numbers, only of a row that has some), the
choice. What a learner draws besides is said in its docstring.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onepolicy.errors import ConfigError
from onepolicy.tabular.jit import jit
from onepolicy.tabular.simulate import cumulative_sums, uniform

if TYPE_CHECKING:
    from onepolicy.tabular.mdp import MDP

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Stream = NDArray[np.uint64]

SARSA, Q_LEARNING, EXPECTED_SARSA = 0, 1, 2
"""The one-step rules, as `bootstrap` numbers them."""


class Dynamics(NamedTuple):
    """A finite model as the compiled learners read it: S states, K rows (state, action), N transitions.

    start [S]: cumulative start distribution. row_ptr [S+1]: rows of a state. ptr [K+1]: transitions of a row.
    successors [N]. cumulative [N]: probabilities summed up within the row. rewards [N]: of each transition.
    noise [K]: standard deviation of a Gaussian added to a row's reward. terminal [S].

    Compiled functions are handed its arrays, never the tuple: that would count references to each array at each step,
    and costs six times the rest of the step.
    """

    start: Floats
    row_ptr: Ints
    ptr: Ints
    successors: NDArray[np.int32]
    cumulative: Floats
    rewards: Floats
    noise: Floats
    terminal: NDArray[np.bool_]


def dynamics_of(mdp: MDP, reward_std: ArrayLike = 0.0) -> Dynamics:
    """What the compiled learners need of a model. reward_std: of a Gaussian added to the reward, a number or [K].

    Raises: ConfigError for a negative reward_std or one of another shape.
    """
    csr = mdp.csr()
    rows = len(csr.ptr) - 1
    noise = np.asarray(reward_std, dtype=np.float64)
    if noise.shape not in ((), (rows,)):
        raise ConfigError(f"reward_std has shape {noise.shape}; it needs a number, or one for each of the {rows} rows.")
    if not np.all(noise >= 0.0):
        raise ConfigError(f"reward_std has {np.min(noise)}; a standard deviation is at least 0.")
    return Dynamics(
        start=cumulative_sums(np.array([0, len(csr.start)]), csr.start),
        row_ptr=np.asarray(csr.row_ptr, dtype=np.int64),
        ptr=np.asarray(csr.ptr, dtype=np.int64),
        successors=np.asarray(csr.successors, dtype=np.int32),
        cumulative=cumulative_sums(csr.ptr, csr.probabilities),
        rewards=np.asarray(csr.transition_rewards, dtype=np.float64),
        noise=np.full(rows, noise),
        terminal=np.asarray(csr.terminal, dtype=np.bool_),
    )


@jit
def normal(stream: Stream) -> float:
    """A standard normal number from a stream's next two. Source: Box and Muller 1958."""
    radius = np.sqrt(-2.0 * np.log(1.0 - uniform(stream)))
    return radius * np.cos(2.0 * np.pi * uniform(stream))


@jit
def reward_of(rewards: Floats, noise: Floats, row: int, transition: int, stream: Stream) -> float:
    """The reward of a transition of a row, with the row's noise if it has any."""
    if noise[row] > 0.0:
        return rewards[transition] + noise[row] * normal(stream)
    return rewards[transition]


@jit
def best(q: Floats, first: int, last: int) -> float:
    """max_a Q(s, a) over the rows first .. last-1 of a state."""
    top = q[first]
    for k in range(first + 1, last):
        if q[k] > top:
            top = q[k]
    return top


@jit
def greedy(q: Floats, first: int, last: int, u: float) -> int:
    """The row with the largest Q among first .. last-1; among several, the one the uniform number u falls on."""
    top, chosen, ties = q[first], first, 1
    for k in range(first + 1, last):
        if q[k] > top:
            top, chosen, ties = q[k], k, 1
        elif q[k] == top:
            ties += 1
    if ties > 1:
        left = int(u * ties)
        for k in range(chosen, last):
            if q[k] == top:
                if left == 0:
                    return k
                left -= 1
    return chosen


@jit
def choose(q: Floats, first: int, last: int, epsilon: float, u: float) -> int:
    """An epsilon-greedy row of a state: 1 - eps + eps/|A| for the greedy one, eps/|A| for each other, ties at random.

    q [K]; the state's rows are first .. last-1; one uniform number u in [0, 1) decides everything.

    >>> q = np.array([0.0, 1.0, 1.0])
    >>> [choose(q, 0, 3, 0.3, u) for u in (0.05, 0.15, 0.29, 0.31, 0.99)]
    [0, 1, 2, 1, 2]
    """
    if u < epsilon:
        return first + int(u / epsilon * (last - first))
    return greedy(q, first, last, (u - epsilon) / (1.0 - epsilon))


@jit
def expected(q: Floats, first: int, last: int, epsilon: float) -> float:
    """E_pi Q(s, .) of the epsilon-greedy policy: (1 - eps) max + eps mean, however ties are broken."""
    top = total = q[first]
    for k in range(first + 1, last):
        total += q[k]
        if q[k] > top:
            top = q[k]
    return (1.0 - epsilon) * top + epsilon * total / (last - first)


@jit
def bootstrap(rule: int, q: Floats, first: int, last: int, following: int, epsilon: float) -> float:
    """What a one-step target takes for the next state: Q(s', a') of SARSA, max_a Q(s', a) of Q-learning, E_pi Q(s', .)
    of Expected SARSA. Its rows are first .. last-1; following is the row of a', which SARSA alone reads."""
    if rule == SARSA:
        return q[following]
    if rule == Q_LEARNING:
        return best(q, first, last)
    return expected(q, first, last, epsilon)


@jit
def step_size(alpha: float, power: float, n: int) -> float:
    """The step size alpha / n^power of a row's n-th update: power 0 constant, power 1 with alpha 1 the sample mean."""
    if power == 0.0:
        return alpha
    if power == 1.0:
        return alpha / n
    return alpha / n**power


@jit
def update(q: Floats, visits: Ints, row: int, target: float, alpha: float, power: float) -> float:
    """Q(s, a) += alpha_n (target - Q(s, a)), in place, and n counted; the error target - Q(s, a) before it.

    The course's grid, Q(s6, right) = 0.5, reward 10 and the end, alpha 1:

    >>> q, visits = np.array([0.5]), np.zeros(1, dtype=np.int64)
    >>> update(q, visits, 0, 10.0, 1.0, 0.0), float(q[0])
    (9.5, 10.0)
    """
    visits[row] += 1
    error = target - q[row]
    q[row] += step_size(alpha, power, visits[row]) * error
    return error
