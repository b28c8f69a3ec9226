"""A trained controller as an ONNX file that runs without us: written, then compared with the policy itself."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onepolicy import __version__
from onepolicy.acting.onnx_graph import OPSET, graph_of
from onepolicy.acting.player import Player
from onepolicy.envs.vector import Box
from onepolicy.errors import ConfigError, ModelError

TOLERANCE = 1e-5
"""Largest difference of an action's numbers from the policy's, relative to the largest of them beyond 1."""
IR_VERSION = 8
"""Of ONNX's file format, that of opset 17; every onnxruntime since 1.12 reads it."""
ROWS = 256
"""Random observations on which the file is compared with the policy."""


@dataclass(frozen=True)
class Exported:
    """What was written: where, its outputs' names, and the largest difference from the policy's own actions."""

    path: Path
    outputs: tuple[str, ...]
    gap: float

    def __str__(self) -> str:
        return (
            f"{self.path}: obs -> {', '.join(self.outputs)}; on {ROWS} random observations the actions differ by at "
            f"most {self.gap:.1e} from the policy's"
        )


def export(player: Player, path: str | Path, *, source: str = "") -> Exported:
    """Writes the policy's ONNX file and compares it with the policy by onnxruntime.

    Input `obs` [N, D] float32: observations as the world gives them, flattened, any number of rows. Outputs: see
    acting.onnx_graph.graph_of. The metadata hold the world, its spaces and the version. source: where it comes from.
    Raises: ConfigError without the packages or for a file that cannot be written; ModelError for a policy that is not
    of plain layers, and when the file disagrees with it.
    """
    _, runtime = _packages()
    model, names = model_of(player, source)
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(model.SerializeToString())
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error}). Give --onnx a file, as policy.onnx.") from error
    gap = difference(player, runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"]))
    return Exported(path, names, gap)


def model_of(player: Player, source: str = "") -> tuple[Any, tuple[str, ...]]:
    """The policy as an onnx ModelProto, checked, and its outputs' names. Raises: as `export`."""
    onnx, _ = _packages()
    helper, kinds = onnx.helper, {"float32": onnx.TensorProto.FLOAT, "int64": onnx.TensorProto.INT64}
    graph, outputs = graph_of(player)
    made = helper.make_graph(
        graph.nodes,
        "policy",
        [helper.make_tensor_value_info("obs", onnx.TensorProto.FLOAT, ["N", player.obs_dim])],
        [helper.make_tensor_value_info(name, kinds[kind], shape) for name, kind, shape in outputs],
        graph.constants,
    )
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(made, opset_imports=[opset], producer_name="onepolicy", ir_version=IR_VERSION)
    helper.set_model_props(model, metadata(player, source))
    onnx.checker.check_model(model)
    return model, tuple(name for name, *_ in outputs)


def metadata(player: Player, source: str) -> dict[str, str]:
    """What a file says of itself, as text."""
    about: dict[str, Any] = {
        "env": player.env_id,
        "observation_space": str(player.observation_space),
        "action_space": str(player.action_space),
        "policy": type(player.inner).__name__,
        "run": source,
        "onepolicy": __version__,
    }
    if isinstance(player.actions, Box):
        about |= {"low": json.dumps(player.actions.low), "high": json.dumps(player.actions.high)}
    return about


def difference(player: Player, session: Any) -> float:
    """The largest difference between the file's actions and the policy's on random observations, of 1 row and many.

    Numbered actions may differ only where the two best are within TOLERANCE of one another.
    Raises: ModelError beyond TOLERANCE.
    """
    rows = probes(player)
    expected = np.asarray(player.act_on(rows)).reshape(ROWS, -1)
    found = [each.reshape(ROWS, -1) for each in session.run(None, {"obs": rows})]
    action, said = found[0], found[-1] if len(found) == 1 else found[1]
    alone = session.run(None, {"obs": rows[:1]})[0].reshape(1, -1)
    gap, near = 0.0, np.zeros(ROWS, bool)
    if isinstance(player.actions, Box):
        gap = float(np.max(np.abs(action - expected) / np.maximum(1.0, np.abs(expected))))
        agree = gap <= TOLERANCE and np.allclose(alone, action[:1], atol=TOLERANCE)
    else:
        if len(player.actions.sizes) == 1:
            best = np.sort(said, axis=1)
            near = best[:, -1] - best[:, -2] <= TOLERANCE if best.shape[1] > 1 else near
        agree = bool(((action == expected).all(axis=1) | near).all()) and bool((alone == action[:1]).all())
    if not agree:
        raise ModelError(f"the ONNX file disagrees with the policy ({gap:.1e}). Please report it with the run.")
    return gap


def probes(player: Player) -> NDArray[np.float32]:
    """Random observations from a wide Gaussian, [ROWS, D]; all actions are legal in them."""
    rng = np.random.default_rng(0)
    dim = player.obs_dim - player.actions.bits
    rows = rng.normal(0.0, 3.0, (ROWS, dim)).astype(np.float32)
    return np.concatenate([rows, np.ones((ROWS, player.actions.bits), np.float32)], axis=1)


def _packages() -> tuple[Any, Any]:
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise ConfigError(
            f'an export needs onnx and onnxruntime ({error}). Install them: pip install "onepolicy[onnx]"'
        ) from error
    return onnx, onnxruntime
