"""Episodes to rectangular batches, and rows to micro-batches that waste little on padding.

In: `token_batch`, `minibatches`, `split_by_tokens`. Not here: moving to a device, loss weights (core/reduce.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch

from onepolicy.batch import PolicyBatch, TokenInputs
from onepolicy.errors import ConfigError, DataError
from onepolicy.types import Episode


def token_batch(
    episodes: Sequence[Episode],
    advantage: Sequence[float] | Sequence[Sequence[float]] | np.ndarray,
    pad_id: int,
    *,
    truncated: Literal["keep", "mask"] = "keep",
) -> PolicyBatch:
    """Episodes as one right-padded [B, T] batch; T is the longest episode.

    advantage: one number per episode (given to each of its action tokens), or one number per token of each episode
    (prompt tokens included, read at action tokens only). truncated: "mask" takes no gradient from episodes whose last
    completion was cut off; they stay in the batch, with mask False.

    Returns: float32 tensors on the CPU; `action` equals the tokens; mask equals is_action.
    Raises: DataError for no episodes, an advantage of the wrong length, or one that is not finite at an action token.

    >>> from onepolicy.types import Episode, Score
    >>> e = Episode("a", 0, (5, 6, 7), (False, True, True), (0.0, -0.1, -0.2), Score(1.0))
    >>> f = Episode("b", 0, (5, 8), (False, True), (0.0, -0.3), Score(0.0))
    >>> batch = token_batch([e, f], [1.0, -1.0], pad_id=0)
    >>> batch.inputs.tokens.tolist(), batch.advantage.tolist()
    ([[5, 6, 7], [5, 8, 0]], [[0.0, 1.0, 1.0], [0.0, -1.0, 0.0]])
    """
    if not episodes:
        raise DataError("token_batch got 0 episodes; expected at least one. Skip the step when a batch is empty.")
    if len(advantage) != len(episodes):
        raise DataError(
            f"advantage has {len(advantage)} entries for {len(episodes)} episodes; give one number, or one sequence "
            "of numbers per token, for each episode."
        )
    shape = (len(episodes), max(len(e.tokens) for e in episodes))
    tokens = np.full(shape, pad_id, dtype=np.int64)
    attention = np.zeros(shape, dtype=bool)
    is_action = np.zeros(shape, dtype=bool)
    logp = np.zeros(shape, dtype=np.float32)
    credit = np.zeros(shape, dtype=np.float32)
    for i, (episode, value) in enumerate(zip(episodes, advantage)):
        n = len(episode.tokens)
        acts = np.asarray(episode.is_action, dtype=bool)
        tokens[i, :n] = episode.tokens
        attention[i, :n] = True
        if truncated == "keep" or not episode.truncated:
            is_action[i, :n] = acts
        logp[i, :n] = np.where(acts, np.asarray(episode.logp, dtype=np.float32), 0.0)
        credit[i, :n] = np.where(acts, _per_token(value, n, i), 0.0)
    if not np.isfinite(credit[is_action]).all():
        row = int(np.nonzero(~np.isfinite(np.where(is_action, credit, 0.0)).all(axis=1))[0][0])
        raise DataError(
            f"the advantage of episode {row} (task {episodes[row].task_id!r}) is not finite; exclude episodes whose "
            "score is None before batching."
        )
    actions = torch.from_numpy(tokens)
    mask = torch.from_numpy(is_action)
    inputs = TokenInputs(tokens=actions, attention=torch.from_numpy(attention), is_action=mask)
    return PolicyBatch(
        inputs=inputs,
        action=actions,
        mask=mask,
        logp_behaviour=torch.from_numpy(logp),
        advantage=torch.from_numpy(credit),
    )


def minibatches(batch: PolicyBatch, count: int, seed: int) -> list[PolicyBatch]:
    """The batch's rows in `count` seeded random parts of nearly equal size."""
    if count == 1:
        return [batch]
    order = torch.randperm(len(batch), generator=torch.Generator().manual_seed(seed))
    return [batch.rows(part) for part in order.tensor_split(min(count, len(batch)))]


def split_by_tokens(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Row indices in groups whose rows x longest row is at most `budget` tokens, longest rows first.

    Rows are sorted by length (ties by index), so a group holds rows of similar length, padding is small, and the number
    of groups is the least possible for groups of neighbours in that order. Deterministic.

    Raises: ConfigError when one row alone is longer than the budget.

    >>> split_by_tokens([3, 10, 4, 9], budget=20)
    [[1, 3], [2, 0]]
    """
    groups: list[list[int]] = []
    room = 0
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        longest = max(lengths[index], 1)
        if longest > budget:
            raise ConfigError(
                f"row {index} has {longest} tokens but the micro-batch budget is {budget}; set micro_tokens to at "
                f"least {longest}, or shorten prompts and completions."
            )
        if room == 0:
            groups.append([])
            room = budget // longest
        groups[-1].append(index)
        room -= 1
    return groups


def _per_token(value: Any, n: int, row: int) -> np.ndarray:
    """An episode's advantage as n numbers (or one, to be broadcast)."""
    values = np.asarray(value, dtype=np.float32)
    if values.ndim > 1 or (values.ndim == 1 and len(values) != n):
        raise DataError(
            f"the advantage of episode {row} has shape {values.shape}; expected one number or {n}, one per token."
        )
    return values
