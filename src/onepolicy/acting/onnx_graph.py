"""A control policy as an ONNX graph, written node by node: no exporter, so that every version of torch gives the same.

In: the graph of each policy made of plain layers, with its normaliser, its masks and its world's bounds baked in. Not
in: policies with a memory or with eyes, files and their check (recipes/export.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast, final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from onepolicy.acting.joint import JointPolicy
from onepolicy.acting.normalised import NormalisedPolicy
from onepolicy.acting.planning import PlanningPolicy
from onepolicy.acting.player import Player
from onepolicy.envs.normalise import CLIP, EPS
from onepolicy.envs.vector import Box
from onepolicy.errors import ModelError
from onepolicy.nn.actors import LOG_STD, ActorPolicy, SquashedPolicy
from onepolicy.nn.discrete import SoftmaxPolicy
from onepolicy.nn.greedy import GreedyPolicy
from onepolicy.nn.multi import MultiCategoricalPolicy
from onepolicy.nn.policies import ActorCritic, CategoricalPolicy, GaussianPolicy
from onepolicy.nn.stacked import Stacked, StackedQ
from onepolicy.nn.state_noise import EPS as SPREAD_EPS
from onepolicy.nn.state_noise import MEAN_BOUND, StackedStateNoise, StateNoisePolicy

OPSET = 17
LOWEST = float(np.finfo(np.float32).min)


@final
class Graph:
    """Nodes and constants as they are added; every method returns the name of what it makes."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, values: Any, dtype: type[np.generic] = np.float32) -> str:
        """A constant."""
        from onnx import numpy_helper

        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values, dtype=dtype), name))
        return name

    def node(self, kind: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """An operation of one output."""
        from onnx import helper

        found = name or f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [found], **attributes))
        return found

    def affine(self, x: str, weight: Tensor, bias: Tensor) -> str:
        """x weight + bias; weight [in, out]."""
        return self.node("Gemm", x, self.constant(_array(weight)), self.constant(_array(bias).reshape(-1)))

    def part(self, x: str, first: int, last: int) -> str:
        """x[:, first:last]."""
        ends = [self.constant([value], np.int64) for value in (first, last, 1)]
        return self.node("Slice", x, *ends)

    def best(self, x: str) -> str:
        """The place of the greatest of each row, the first where several are, [N] int64."""
        return self.node("ArgMax", x, axis=1, keepdims=0)


def graph_of(player: Player) -> tuple[Graph, list[tuple[str, str, list[Any]]]]:
    """The graph from `obs` [N, D] float32, and its outputs as (name, "int64" or "float32", shape).

    D: of the flattened observation, not normalised, with its mask of actions behind where the world has one. `action`
    is the best one, as env.step takes it: an int64 [N] or [N, choices], or numbers [N, dim] within the world's bounds;
    beside it what the policy says (`logits`, `q`, or `mean` and `std`), and `value` where it has a critic.
    Raises: ModelError for a policy that is not of plain layers.
    """
    graph, inner, obs = Graph(), player.inner, "obs"
    if isinstance(inner, NormalisedPolicy):
        obs, inner = _standardised(graph, obs, inner), inner.policy
    if isinstance(inner, JointPolicy) and not inner.masked:
        number, outputs = _discrete(graph, obs, inner.policy)
        action = _choices_of(graph, number, inner.sizes)
    elif isinstance(inner, CategoricalPolicy | GreedyPolicy | SoftmaxPolicy):
        action, outputs = _discrete(graph, obs, inner)
    elif isinstance(inner, MultiCategoricalPolicy):
        action, outputs = _several(graph, obs, inner)
    elif isinstance(inner, GaussianPolicy | StateNoisePolicy):
        action, outputs = _gaussian(graph, obs, inner)
    elif isinstance(inner, ActorPolicy | SquashedPolicy):
        action, outputs = _actor(graph, obs, inner)
    elif isinstance(inner, PlanningPolicy):
        raise ModelError(
            "a policy that plans cannot be exported: it searches a learnt model at every step, which is no graph of "
            "layers. Run it in Python, op.load(RUN).policy.act(obs), or train mbpo without plan.use and export that."
        )
    else:
        raise ModelError(f"a {type(inner).__name__} cannot be exported here; it is not made of plain layers.")
    return graph, [_native(graph, action, player), *outputs]


def _array(tensor: Tensor) -> NDArray[np.float32]:
    return tensor.detach().cpu().numpy()


def _standardised(graph: Graph, obs: str, policy: NormalisedPolicy) -> str:
    """(obs - mean) / std held within +-CLIP, in float64 as in training; a mask behind it stays as it is."""
    moments = policy.moments
    mean, std = np.asarray(moments.mean), np.sqrt(np.asarray(moments.var) + EPS)
    wide = graph.node("Cast", graph.part(obs, 0, len(mean)), to=11)
    scaled = graph.node(
        "Div", graph.node("Sub", wide, graph.constant(mean, np.float64)), graph.constant(std, np.float64)
    )
    held = graph.node("Clip", scaled, graph.constant(-CLIP, np.float64), graph.constant(CLIP, np.float64))
    seen = graph.node("Cast", held, to=1)
    if policy.obs_dim == len(mean):
        return seen
    return graph.node("Concat", seen, graph.part(obs, len(mean), policy.obs_dim), axis=1)


def _plain(networks: Any) -> ActorCritic:
    if not isinstance(networks, ActorCritic):
        raise ModelError(
            f"{type(networks).__name__} cannot be exported here: it remembers, or sees images. Export a policy of "
            "plain layers, or run this one in Python: op.load(RUN).policy.act(obs)."
        )
    return networks


def _actor_critic(graph: Graph, obs: str, networks: ActorCritic, obs_dim: int) -> tuple[str, str]:
    """The actor's output, masked, and the value [N]."""
    body, seen, heads = networks.body, graph.part(obs, 0, obs_dim - networks.bits), []
    activation = {"tanh": "Tanh", "relu": "Relu"}[body.options.activation]
    for place, head in enumerate((networks.actor, networks.critic)):
        x = seen
        for weight, bias in body.layers:
            x = graph.node(activation, graph.affine(x, getattr(body, weight)[place], getattr(body, bias)[place]))
        heads.append(graph.affine(x, head.weight.T, head.bias))
    out, value = heads
    flat = graph.node("Reshape", value, graph.constant([-1], np.int64), name="value")
    return _masked(graph, out, obs, obs_dim, networks.bits), flat


def _masked(graph: Graph, out: str, obs: str, obs_dim: int, bits: int) -> str:
    """The numbers of illegal actions as low as can be."""
    if not bits:
        return out
    legal = graph.node("Greater", graph.part(obs, obs_dim - bits, obs_dim), graph.constant(0.5))
    return graph.node("Where", legal, out, graph.constant(LOWEST))


def _stacked(graph: Graph, x: str, body: Stacked) -> str:
    """One learner's layers."""
    kind = {"relu": "Relu", "tanh": "Tanh"}.get(body.activation)
    if kind is None or body.learners * body.each != 1:
        raise ModelError(f"layers of {body.activation}, {body.learners * body.each} side by side, cannot be exported.")
    for place, (weight, bias) in enumerate(body.layers):
        x = graph.affine(x, getattr(body, weight)[0], getattr(body, bias)[0])
        x = graph.node(kind, x) if place < len(body.layers) - 1 else x
    return x


def _q(graph: Graph, obs: str, q: StackedQ, obs_dim: int) -> str:
    if q.eyes is not None or (q.dueling and q.bits):
        raise ModelError("Q of images, or dueling with masks, cannot be exported here. Run it in Python.")
    x = _stacked(graph, graph.part(obs, 0, obs_dim - q.bits), q.body)
    if q.dueling:
        x = graph.node("Relu", x)
        half = int(cast(Tensor, q.value.weight0).shape[1])
        above = _stacked(graph, graph.part(x, half, 2 * half), q.advantage)
        mean = graph.node("ReduceMean", above, axes=[1], keepdims=1)
        x = graph.node("Add", _stacked(graph, graph.part(x, 0, half), q.value), graph.node("Sub", above, mean))
    return _masked(graph, x, obs, obs_dim, q.bits)


def _discrete(graph: Graph, obs: str, policy: Any) -> tuple[str, list[tuple[str, str, list[Any]]]]:
    """The best number, and logits or Q."""
    if isinstance(policy, CategoricalPolicy):
        out, _ = _actor_critic(graph, obs, _plain(policy.networks), policy.obs_dim)
        graph.node("Identity", out, name="logits")
        return graph.best(out), [("logits", "float32", ["N", "A"]), ("value", "float32", ["N"])]
    if isinstance(policy, GreedyPolicy):
        out, name = _q(graph, obs, policy.q, policy.obs_dim), "q"
    else:
        actor = policy.actor
        x = _stacked(graph, graph.part(obs, 0, policy.obs_dim - actor.bits), actor.body)
        out, name = _masked(graph, x, obs, policy.obs_dim, actor.bits), "logits"
    graph.node("Identity", out, name=name)
    return graph.best(out), [(name, "float32", ["N", "A"])]


def _choices_of(graph: Graph, number: str, sizes: Sequence[int]) -> str:
    """The choices [N, len(sizes)] of a combination's number [N], the last choice changing fastest."""
    columns = []
    for k, size in enumerate(sizes):
        below = graph.constant(int(np.prod(sizes[k + 1 :], dtype=np.int64)), np.int64)
        choice = graph.node("Mod", graph.node("Div", number, below), graph.constant(size, np.int64))
        columns.append(graph.node("Reshape", choice, graph.constant([-1, 1], np.int64)))
    return graph.node("Concat", *columns, axis=1)


def _several(graph: Graph, obs: str, policy: MultiCategoricalPolicy) -> tuple[str, list[tuple[str, str, list[Any]]]]:
    out, _ = _actor_critic(graph, obs, _plain(policy.networks), policy.obs_dim)
    graph.node("Identity", out, name="logits")
    columns, first = [], 0
    for size in policy.choices.sizes:
        best = graph.best(graph.part(out, first, first + size))
        columns.append(graph.node("Reshape", best, graph.constant([-1, 1], np.int64)))
        first += size
    action = graph.node("Concat", *columns, axis=1)
    return action, [("logits", "float32", ["N", "A"]), ("value", "float32", ["N"])]


def _gaussian(
    graph: Graph, obs: str, policy: GaussianPolicy | StateNoisePolicy
) -> tuple[str, list[tuple[str, str, list[Any]]]]:
    """The mean and the standard deviation."""
    mean, _ = _actor_critic(graph, obs, _plain(policy.networks), policy.obs_dim)
    graph.node("Identity", mean, name="mean")
    if isinstance(policy, StateNoisePolicy):
        dim, body, x = policy.dim, policy.networks.body, obs
        for weight, bias in body.layers:
            x = graph.affine(x, getattr(body, weight)[0], getattr(body, bias)[0])
            x = graph.node({"tanh": "Tanh", "relu": "Relu"}[body.options.activation], x)
        _spread(graph, x, policy.log_std.expand(-1, dim))
    else:
        dim, nothing = len(policy.log_std), graph.node("Mul", mean, graph.constant(0.0))
        graph.node("Add", nothing, graph.constant(np.exp(_array(policy.log_std))), name="std")
    return mean, [("mean", "float32", ["N", dim]), ("std", "float32", ["N", dim]), ("value", "float32", ["N"])]


def _spread(graph: Graph, features: str, log_std: Tensor) -> None:
    """The output `std` of noise that is linear in the features."""
    squared = graph.node("Mul", features, features)
    variance = graph.node("MatMul", squared, graph.constant(np.exp(2.0 * _array(log_std))))
    graph.node("Sqrt", graph.node("Add", variance, graph.constant(SPREAD_EPS)), name="std")


def _actor(
    graph: Graph, obs: str, policy: ActorPolicy | SquashedPolicy
) -> tuple[str, list[tuple[str, str, list[Any]]]]:
    """tanh on the world's bounds; of a squashed Gaussian, mean and std before the squashing beside it."""
    out, outputs = _stacked(graph, obs, policy.actor.body), list[tuple[str, str, list[Any]]]()
    reach, middle = _array(policy.bounded.reach), _array(policy.bounded.middle)
    if isinstance(policy.actor, StackedStateNoise):
        dim, features = len(reach), graph.node("Relu", out)
        _spread(graph, features, policy.actor.log_std[0].expand(-1, dim))
        held = map(graph.constant, (-MEAN_BOUND, MEAN_BOUND))
        out = graph.node("Clip", _stacked(graph, features, policy.actor.head), *held, name="mean")
        outputs = [("mean", "float32", ["N", dim]), ("std", "float32", ["N", dim])]
    elif isinstance(policy, SquashedPolicy):
        dim = len(reach)
        log_std = graph.node("Clip", graph.part(out, dim, 2 * dim), *map(graph.constant, LOG_STD))
        out = graph.node("Identity", graph.part(out, 0, dim), name="mean")
        graph.node("Exp", log_std, name="std")
        outputs = [("mean", "float32", ["N", dim]), ("std", "float32", ["N", dim])]
    scaled = graph.node("Mul", graph.node("Tanh", out), graph.constant(reach))
    return graph.node("Add", scaled, graph.constant(middle)), outputs


def _native(graph: Graph, action: str, player: Player) -> tuple[str, str, list[Any]]:
    """The action as env.step takes it, flat: counted from where the space begins, or within its bounds."""
    space = player.action_space
    if isinstance(player.actions, Box):
        low, high = (graph.constant(np.asarray(end, np.float32)) for end in (player.actions.low, player.actions.high))
        graph.node("Min", graph.node("Max", action, low), high, name="action")
        return "action", "float32", ["N", player.actions.dim]
    start = np.asarray(getattr(space, "start", 0), np.int64).ravel()
    graph.node("Add", action, graph.constant(start, np.int64), name="action")
    choices = len(player.actions.sizes)
    return "action", "int64", ["N"] if choices == 1 else ["N", choices]
