"""The library's front door: train, resume, load and evaluate, with the same fields as the command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onepolicy.errors import ConfigError
from onepolicy.recipes.catalogue import Entry, entry, recipe, recipe_of_run
from onepolicy.run.config import apply_overrides, choose_preset, from_json
from onepolicy.run.header import read_header
from onepolicy.run.report import Report
from onepolicy.run.run import Run

if TYPE_CHECKING:
    from onepolicy.recipes.callbacks import Callback

CALLED_BACK = ("onepolicy.recipes.control", "onepolicy.recipes.off_policy")
"""Recipes of deep control: they call callbacks, and their policies act in a gymnasium world."""


def train(algorithm: str, preset: str | None = None, *, callbacks: Sequence[Callback] = (), **fields: Any) -> Report:
    """Train `algorithm` ("ppo", "grpo", ...) from a preset with some fields replaced; the recipe's Report.

    callbacks: of deep control, functions of an `Event` (docs/control.md); one that returns "stop" ends training.
    fields: the recipe's own, as on the command line; a field of a group is written with two underscores
    (exam__size=512).
    Raises: ConfigError for an unknown algorithm, preset or field, offering the nearest.
    """
    found = entry(algorithm)
    module = recipe(found.module)
    dotted = {**_dotted(fields), **decided(algorithm, found, fields)}
    if preset is None:
        start = module.starting_point(algorithm, dotted)
    else:
        start = choose_preset(module.Config, module.PRESETS, preset)
    config = apply_overrides(module.Config, start, dotted)
    return playable(module.main(config, **_callbacks(found.module, algorithm, callbacks)))


def decided(algorithm: str, found: Entry, fields: Mapping[str, Any]) -> dict[str, str]:
    """The fields that an algorithm's name decides. Raises: ConfigError when `fields` has another value for one."""
    for name, value in found.fixed:
        if str(fields.get(name, value)) != value:
            raise ConfigError(f"{name} is {fields[name]!r}, but {algorithm!r} decides it: {value!r}. Leave {name} out.")
    return dict(found.fixed)


def _callbacks(module: str, name: str, callbacks: Sequence[Callback]) -> dict[str, Any]:
    """The argument of a recipe's main(). Raises: ConfigError where the recipe has no use for callbacks."""
    if callbacks and module not in CALLED_BACK:
        raise ConfigError(f"callbacks are for deep control; {name!r} calls none. Leave callbacks out.")
    return {"callbacks": tuple(callbacks)} if callbacks else {}


def playable(report: Report) -> Report:
    """The report with a control policy as a Player: raw observations in, what env.step takes out."""
    header = read_header(report.run_dir)
    if f"onepolicy.recipes.{header['recipe']}" not in CALLED_BACK:
        return report
    from onepolicy.acting.player import Player
    from onepolicy.envs.vector import WorldOptions, make

    config = header["config"]
    options = from_json(WorldOptions, config.get("world", {}))
    return replace(
        report, policy=Player(report.policy, make(config["env"], 1, 0, replace(options, workers=0)), options)
    )


def resume(run: str | Path, *, callbacks: Sequence[Callback] = ()) -> Report:
    """Continue an interrupted or dead run to its end, exactly as if it had not stopped.

    callbacks: as of `train`; a run keeps none.
    Raises: CheckpointError when there is no run, or its checkpoints are damaged beyond the last good one.
    """
    opened = Run.open(run)
    module = recipe_of_run(opened.recipe)
    given = _callbacks(module.__name__, opened.recipe, callbacks)
    return playable(module.main(from_json(module.Config, opened.config), resume=Path(run), **given))


def load(run: str | Path) -> Report:
    """A run's newest checkpoint, ready to use: `load(run).policy.act(obs)`, or `.policy.complete(text)` for language.

    Raises: CheckpointError when there is no run or no valid checkpoint.
    """
    opened = Run.open(run)
    module = recipe_of_run(opened.recipe)
    return playable(module.load(opened))


def evaluate(policy: Any, *, env: str = "", episodes: int = 100, seed: int = 0, **fields: Any) -> Any:
    """How good a policy is, with intervals.

    policy: a controller, played greedily for `episodes` whole episodes of `env`, its own world by default: returns
    evaluation.returns.Returns. Or a language model as a run directory, a Hugging Face directory or a hub id, with the
    fields of recipes.evaluate.Config (tasks="gsm8k", k=16): returns a Report.
    Raises: ConfigError when a controller comes with unknown fields, with no env and none of its own, or with an env
    that it cannot act in.
    """
    if isinstance(policy, str | Path):
        from onepolicy.recipes import evaluate as recipe_module

        chosen = {"model": str(policy), "seed": seed, **_dotted(fields)}
        config = apply_overrides(recipe_module.Config, None, chosen)
        return recipe_module.main(config)
    from onepolicy.acting.player import Player, require_same_world
    from onepolicy.envs.vector import make
    from onepolicy.evaluation.returns import evaluate_policy

    env = env or (policy.env_id if isinstance(policy, Player) else "")
    if not env or fields:
        odd = f"unknown {', '.join(fields)}" if fields else "no env"
        raise ConfigError(f'evaluate() of a controller got {odd}; give env="CartPole-v1", episodes and seed.')
    if isinstance(policy, Player) and env != policy.env_id:
        require_same_world(policy, make(env, 1, seed))
    world = policy.world if isinstance(policy, Player) and env == policy.env_id else None
    return evaluate_policy(policy, env=env, episodes=episodes, seed=seed, world=world)


def _dotted(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of groups written with a dot, as configurations have them."""
    return {name.replace("__", "."): value for name, value in fields.items()}
