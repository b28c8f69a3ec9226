"""Actor-critic: a policy of its own beside the value. From here it is one step to PPO.

    python examples/110_actor_critic.py
    python examples/110_actor_critic.py --runs 5 --episodes 500

    delta  = R + gamma v_w(S') - v_w(S)              how much better than expected it went
    w     += alpha delta x(S)                        the critic: expect it next time
    theta += alpha' delta grad log pi(A|S)           the actor: do it more often; pi = softmax(theta_a . x(S))

The course's corridor `s1 s2 s3 s2 s4`: the goal lies under s3, death under s1 and s4, and the two s2 look alike. What a
value function says of "s2" sends one of the two the wrong way; a policy may toss a coin there, and gets home.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.table import Table

from onepolicy.tabular import control
from onepolicy.tabular.draw import curves_table, mean_curve, value_map, value_map_table
from onepolicy.tabular.features import aggregation
from onepolicy.tabular.planning import plan
from onepolicy.tabular.planning.policy_value import evaluate
from onepolicy.tabular.simulate import row_probabilities
from onepolicy.tabular.worlds import grid_shape, make
from onepolicy.tabular.worlds.walks import ALIASED_OBSERVATIONS


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=20, help="independent runs")
    parser.add_argument("--episodes", type=int, default=2000, help="episodes of a run")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    console, gamma = Console(), 0.9

    corridor = make("aliased-corridor")
    seen = aggregation(np.array(ALIASED_OBSERVATIONS) - 1)  # one feature for each look; the ends have none
    common = {"episodes": given.episodes, "gamma": gamma, "runs": given.runs, "seed": given.seed, "max_steps": 200}
    actor = control.actor_critic(corridor, control.Settings(alpha=0.1, **common), actor_alpha=0.1, features=seen)
    values = control.sarsa_lambda(corridor, control.Settings(alpha=0.1, epsilon=0.1, **common), lam=0.0, features=seen)

    def worth(policies: Sequence[np.ndarray]) -> str:
        """The value of a start, exactly: the mean over the policies."""
        found = [corridor.start @ evaluate(corridor, policy, gamma).value for policy in policies]
        return f"{np.mean(found):.3f}"

    best = plan(corridor, gamma)
    first, second = corridor.row_ptr[[1, 3]]  # rows of the two s2: left, right, down
    coin = row_probabilities(corridor.csr(), best.policy)
    coin[[first, first + 1, second, second + 1]] = 0.5
    learnt = actor.tables["policy"].mean(axis=0)
    table = Table("acts by", "value of a start", "left, right in s2")
    table.add_row("knowing which s2 it is", worth([best.policy]), "0, 1 and 1, 0")
    table.add_row("a coin in s2, else the best", worth([coin]), "0.50, 0.50")
    table.add_row("actor-critic", worth(actor.tables["policy"]), f"{learnt[first]:.2f}, {learnt[first + 1]:.2f}")
    greedy = [np.maximum(values.policy(run), 0) for run in range(given.runs)]
    table.add_row("argmax of SARSA's Q", worth(greedy), "1, 0 or 0, 1")
    console.print(table)

    # The same learner on the cliff, a feature for each cell. It explores by its own doubt, not by a fixed epsilon.
    cliff = make("cliff")
    settings = control.Settings(episodes=given.episodes, alpha=0.2, runs=given.runs, seed=given.seed, max_steps=500)
    walker = control.actor_critic(cliff, settings, actor_alpha=0.05)
    capped = np.maximum(walker.returns, -150)
    console.print(curves_table([mean_curve("actor-critic at the cliff", capped)], width=36))
    picture = value_map(cliff, walker.tables["values"].mean(axis=0), grid_shape("cliff"), walker.q.mean(axis=0))
    console.print(value_map_table(picture, "the critic's values, the actor's favourite moves"))
    last = walker.returns[:, -100:].mean()
    print(f"return of the last 100 episodes: {last:.1f} (the best is -13, SARSA with epsilon 0.1 had about -27)")

    print(
        "\nPPO is this actor and this critic with four changes: both are networks, so that no world needs a table; many"
        "\nworlds play at once, and deltas are summed up over steps (GAE); each batch is used several times; and the"
        "\nratio pi/pi_old is clipped, so that no batch changes the policy too much. Go on with"
        "\n\n    python examples/201_ppo_cartpole.py\n    onepolicy train ppo --env CartPole-v1"
    )


if __name__ == "__main__":
    main()
