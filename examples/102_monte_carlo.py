"""Monte Carlo: expectations from samples, and importance sampling when the samples come from somewhere else.

    python examples/102_monte_carlo.py
    python examples/102_monte_carlo.py --samples 1000 --episodes 2000

    E_p[f] ~ 1/N sum_i f(x_i),  x_i from p            Monte Carlo
    E_p[f] = E_q[f p/q] ~ 1/N sum_i f(x_i) p(x_i)/q(x_i),  x_i from q

The same with episodes: the ratio is the product of pi(a|s) / mu(a|s) over the steps, f the return, and the answer is
what a policy pi is worth, from the log of another policy mu.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
from rich.console import Console
from rich.table import Table

from onepolicy.tabular.estimation import importance_sampling, log_ratio, monte_carlo, weighted_importance_sampling
from onepolicy.tabular.estimation.episodes import LoggedEpisodes, off_policy_evaluation
from onepolicy.tabular.planning.policy_value import evaluate
from onepolicy.tabular.simulate import row_probabilities, sample_episodes, sampler
from onepolicy.tabular.worlds import make
from onepolicy.tabular.worlds.games import NATURAL, blackjack_state


def die(samples: int, seed: int) -> None:
    """The probability that a fair die shows 4 or more: 1/2, from a fair die and from a loaded one."""
    rng = np.random.default_rng(seed)
    fair, loaded = np.full(6, 1 / 6), np.array([1 / 12] * 3 + [1 / 4] * 3)
    print("a die shows 4 or more, true value 1/2: estimate [95 % interval]")
    print(f"  thrown fair:   {monte_carlo(rng.integers(0, 6, samples) >= 3)}")
    # The loaded die throws what matters more often; each such throw counts 2/3. The variance is a third: 1/12, not 1/4.
    thrown = rng.choice(6, size=samples, p=loaded)
    weight = log_ratio(fair[thrown], loaded[thrown])
    print(f"  thrown loaded: {importance_sampling(thrown >= 3, weight)}")
    print(f"  self-normalised: {weighted_importance_sampling(thrown >= 3, weight)}")


def blackjack(episodes: int, seed: int) -> None:
    """What "stick on 20 and more" is worth, 13 with a usable ace against a 2, from games that a coin played."""
    game = make("blackjack")
    state = blackjack_state(13, 2, True)
    game = replace(game, start=np.eye(game.num_states)[state])
    policy = np.ones(game.num_states, dtype=np.int64)  # hit, but:
    policy[NATURAL : NATURAL + 10] = 0
    policy[[blackjack_state(t, dealer, soft) for t in (20, 21) for dealer in range(1, 11) for soft in (0, 1)]] = 0
    target, coin = row_probabilities(game.csr(), policy), row_probabilities(game.csr(), None)

    log = sample_episodes(sampler(game, coin), episodes, seed=seed)
    lengths = np.diff(log.ptr)
    mask = np.arange(lengths.max()) < lengths[:, None]  # [episodes, steps], True where a step took place
    reward, ratio, q, v = np.zeros((4, *mask.shape))
    reward[mask], ratio[mask] = log.reward, log_ratio(target[log.row], coin[log.row])
    # The model knows the values but for an error of 0.2 everywhere: "direct" believes it, "doubly robust" corrects it.
    exact = evaluate(game, policy, 1.0)
    q[mask], v[mask] = exact.q()[log.row] + 0.2, exact.value[log.state] + 0.2
    answers = off_policy_evaluation(LoggedEpisodes(reward, ratio, mask), q, v)

    table = Table("estimator", "value", "95 % interval", "worth so many games")
    for name, found in answers.items():
        interval = f"[{found.low:.4f}, {found.high:.4f}]"
        table.add_row(name.replace("_", " "), f"{found.value:.4f}", interval, f"{found.effective:.0f}")
    print(f"\n{game.state_name(state)}; stick on 20+, from {episodes} games that a coin played")
    Console().print(table)
    print(f"exact value: {exact.value[state]:.8f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samples", type=int, default=100_000, help="throws of the die")
    parser.add_argument("--episodes", type=int, default=100_000, help="games of blackjack in the log")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    die(given.samples, given.seed)
    blackjack(given.episodes, given.seed)


if __name__ == "__main__":
    main()
