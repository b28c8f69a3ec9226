"""The library's front door: train, resume, load and evaluate, with the same fields as the command."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onepolicy.errors import ConfigError
from onepolicy.recipes.catalogue import Entry, entry, recipe, recipe_of_run
from onepolicy.run.config import apply_overrides, choose_preset, from_json
from onepolicy.run.report import Report
from onepolicy.run.run import Run


def train(algorithm: str, preset: str | None = None, **fields: Any) -> Report:
    """Train `algorithm` ("ppo", "grpo", ...) from a preset with some fields replaced; the recipe's Report.

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
    return module.main(apply_overrides(module.Config, start, dotted))  # type: ignore[no-any-return]


def decided(algorithm: str, found: Entry, fields: Mapping[str, Any]) -> dict[str, str]:
    """The fields that an algorithm's name decides. Raises: ConfigError when `fields` has another value for one."""
    for name, value in found.fixed:
        if str(fields.get(name, value)) != value:
            raise ConfigError(f"{name} is {fields[name]!r}, but {algorithm!r} decides it: {value!r}. Leave {name} out.")
    return dict(found.fixed)


def resume(run: str | Path) -> Report:
    """Continue an interrupted or dead run to its end, exactly as if it had not stopped.

    Raises: CheckpointError when there is no run, or its checkpoints are damaged beyond the last good one.
    """
    opened = Run.open(run)
    module = recipe_of_run(opened.recipe)
    return module.main(from_json(module.Config, opened.config), resume=Path(run))  # type: ignore[no-any-return]


def load(run: str | Path) -> Report:
    """A run's newest checkpoint, ready to use: `load(run).policy.act(obs)`, or `.policy.complete(text)` for language.

    Raises: CheckpointError when there is no run or no valid checkpoint.
    """
    opened = Run.open(run)
    module = recipe_of_run(opened.recipe)
    return module.load(opened)  # type: ignore[no-any-return]


def evaluate(policy: Any, *, env: str = "", episodes: int = 100, seed: int = 0, **fields: Any) -> Any:
    """How good a policy is, with intervals.

    policy: a controller, played greedily for `episodes` whole episodes of `env`: returns evaluation.returns.Returns.
    Or a language model as a run directory, a Hugging Face directory or a hub id, with the fields of
    recipes.evaluate.Config (tasks="gsm8k", k=16): returns a Report.
    Raises: ConfigError when a controller comes without an env.
    """
    if isinstance(policy, str | Path):
        from onepolicy.recipes import evaluate as recipe_module

        chosen = {"model": str(policy), "seed": seed, **_dotted(fields)}
        config = apply_overrides(recipe_module.Config, None, chosen)
        return recipe_module.main(config)
    if not env or fields:
        odd = f"unknown {', '.join(fields)}" if fields else "no env"
        raise ConfigError(f'evaluate() of a controller got {odd}; give env="CartPole-v1", episodes and seed.')
    from onepolicy.evaluation.returns import evaluate_policy

    return evaluate_policy(policy, env=env, episodes=episodes, seed=seed)


def _dotted(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of groups written with a dot, as configurations have them."""
    return {name.replace("__", "."): value for name, value in fields.items()}
