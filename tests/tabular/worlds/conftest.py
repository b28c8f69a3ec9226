"""An oracle beside the package's planners: dense matrices, numpy's solver, policy iteration; for small worlds."""

import numpy as np
import pytest


class Exact:
    """One MDP as dense arrays: P [K, S], r [K], and the state of each row."""

    def __init__(self, mdp):
        model = mdp.csr()
        rows, states = len(model.rewards), len(model.terminal)
        self.mdp, self.r, self.terminal, self.start = mdp, model.rewards, model.terminal, model.start
        self.P = np.zeros((rows, states))
        self.P[np.repeat(np.arange(rows), np.diff(model.ptr)), model.successors] = model.probabilities
        self.actions = np.diff(model.row_ptr)
        self.state = np.repeat(np.arange(states), self.actions)
        self.first = model.row_ptr[:-1]
        self.alive = np.flatnonzero(self.actions)

    def uniform(self):
        return 1.0 / self.actions[self.state]

    def rows(self, policy):
        """Rows of a deterministic policy, local actions [S]."""
        return (self.first + policy)[self.alive]

    def chances(self, policy, epsilon=0.0):
        """Probabilities of the rows when a deterministic policy is acted epsilon-greedily."""
        p = epsilon * self.uniform()
        p[self.rows(policy)] += 1.0 - epsilon
        return p

    def chain(self, policy):
        """P_pi [S, S] and r_pi [S] of a policy: local actions [S] or probabilities [K]."""
        p = self.chances(policy) if np.issubdtype(policy.dtype, np.integer) else policy
        spread = np.zeros((len(self.terminal), len(p)))
        spread[self.state, np.arange(len(p))] = p
        return spread @ self.P, spread @ self.r

    def evaluate(self, policy, discount):
        """V of a policy by a linear solve over the states with actions."""
        P, r = self.chain(policy)
        value, a = np.zeros(len(self.terminal)), self.alive
        value[a] = np.linalg.solve(np.eye(len(a)) - discount * P[np.ix_(a, a)], r[a])
        return value

    def q(self, value, discount):
        return self.r + discount * self.P @ value

    def best(self, q):
        """max_a Q(s, a) [S], 0 where there is no action."""
        top = np.zeros(len(self.terminal))
        top[self.alive] = np.maximum.reduceat(q, self.first[self.alive])
        return top

    def optimal_rows(self, discount):
        """Which rows are optimal, bool [K]: Q within 1e-9 of the best; optimal policies tie, their rows do not."""
        value, _, _ = self.optimum(discount)
        q = self.q(value, discount)
        return q >= self.best(q)[self.state] - 1e-9

    def greedy(self, q, old=None):
        """Local actions that are best in q, the old one where it ties with the best."""
        policy = np.zeros(len(self.terminal), dtype=np.int64)
        top = self.best(q)
        for s in self.alive:
            mine = q[self.first[s] : self.first[s] + self.actions[s]]
            keep = old is not None and mine[old[s]] >= top[s] - 1e-11
            policy[s] = old[s] if keep else mine.argmax()
        return policy

    def optimum(self, discount, policy=None, epsilon=0.0):
        """Policy iteration among epsilon-soft policies, from `policy` or the random one: (V, policy, evaluations)."""
        first = policy is None
        value = self.evaluate(self.uniform() if first else self.chances(policy, epsilon), discount)
        for evaluations in range(1, 100):
            better = self.greedy(self.q(value, discount), None if first else policy)
            if not first and (better == policy).all():
                return value, policy, evaluations
            policy, first = better, False
            value = self.evaluate(self.chances(policy, epsilon), discount)
        raise AssertionError("policy iteration did not end")

    def gain(self, policy):
        """Average reward and bias (0 in state 0) of a policy with one recurrent class."""
        P, r = self.chain(policy)
        system = np.eye(len(r)) - P
        system[:, 0] = 1.0
        solution = np.linalg.solve(system, r)
        bias = solution.copy()
        bias[0] = 0.0
        return solution[0], bias

    def best_gain(self, epsilon=0.0):
        """Policy iteration for the average reward among epsilon-soft policies: (gain, policy)."""
        policy = np.zeros(len(self.terminal), dtype=np.int64)
        for _ in range(100):
            gain, bias = self.gain(self.chances(policy, epsilon))
            better = self.greedy(self.q(bias, 1.0), policy)
            if (better == policy).all():
                return gain, policy
            policy = better
        raise AssertionError("policy iteration did not end")

    def within(self, steps, policy=None, discount=1.0):
        """Best expected reward in so many steps, or that of a policy: V_steps .. V_0, [steps + 1, S]."""
        values = [np.zeros(len(self.terminal))]
        if policy is not None:
            P, r = self.chain(policy)
        for _ in range(steps):
            later = discount * values[-1]
            values.append(self.best(self.q(later, 1.0)) if policy is None else r + P @ later)
        return np.array(values[::-1])

    def in_place(self, value, discount, policy=None):
        """One sweep in the order of the states, max or a policy's mean; the largest change."""
        change = 0.0
        for s in self.alive:
            rows = slice(self.first[s], self.first[s] + self.actions[s])
            q = self.r[rows] + discount * self.P[rows] @ value
            new = q.max() if policy is None else policy[rows] @ q
            change, value[s] = max(change, abs(new - value[s])), new
        return change


@pytest.fixture(scope="session")
def gym_rows():
    """Gymnasium's table `env.P` as P [S, A, S] and expected rewards [S, A]."""

    def dense(env):
        table = env.unwrapped.P
        P = np.zeros((len(table), len(table[0]), len(table)))
        r = np.zeros(P.shape[:2])
        for s, actions in table.items():
            for a, outcomes in actions.items():
                for p, to, reward, _ in outcomes:
                    P[s, a, to] += p
                    r[s, a] += p * reward
        return P, r

    return dense


@pytest.fixture(scope="session")
def exact():
    """The oracle, of an MDP."""
    return Exact
