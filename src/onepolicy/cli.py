"""The command. It finds the recipe, reads its fields and prints; the work is done below.

Nothing heavy is imported before a subcommand needs it, so that help and mistakes answer at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from onepolicy import __version__
from onepolicy.errors import ConfigError, OnePolicyError, nearest

if TYPE_CHECKING:
    from onepolicy.acting.player import Player

EXIT_USAGE = 2
EXIT_ERROR = 1
EXIT_STOPPED = 130
OWN_HELP = ("train", "eval", "demo", "plan", "bandit", "data")
"""Commands that explain their fields themselves."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line `argv` (default: the process's own) and exit with its code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        raise SystemExit(0)
    if arguments[0] in ("-V", "--version"):
        print(f"onepolicy {__version__}")
        raise SystemExit(0)
    try:
        if arguments[0] not in COMMANDS:
            raise ConfigError(f"{arguments[0]!r} is not a command. {nearest(arguments[0], COMMANDS)}")
        command, usage, about = COMMANDS[arguments[0]]
        if arguments[0] not in OWN_HELP and {"-h", "--help"} & set(arguments):
            print(f"usage: onepolicy {usage}\n\n{about}")
            raise SystemExit(0)
        command(arguments[1:])
    except ConfigError as error:
        print(f"onepolicy: {error}", file=sys.stderr)
        raise SystemExit(EXIT_USAGE) from None
    except OnePolicyError as error:
        print(f"onepolicy: {error}", file=sys.stderr)
        raise SystemExit(EXIT_ERROR) from None
    except KeyboardInterrupt:
        print("onepolicy: stopped.", file=sys.stderr)
        raise SystemExit(EXIT_STOPPED) from None
    except BrokenPipeError:  # `onepolicy ... | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(EXIT_ERROR) from None


def _help() -> str:
    width = max(len(usage) for _, usage, _ in COMMANDS.values())
    lines = [f"  onepolicy {usage:<{width}}  {about}" for _, usage, about in COMMANDS.values()]
    return "Everything that acts is a policy.\n\n" + "\n".join(lines) + "\n\nEach command explains itself with --help."


def _train(argv: list[str]) -> None:
    from onepolicy.api import decided
    from onepolicy.recipes.catalogue import ALGORITHMS, entry, recipe
    from onepolicy.run.config import parse_args

    if not argv or argv[0] in ("-h", "--help"):
        print("usage: onepolicy train ALGORITHM [--preset NAME] [--field value ...]\n")
        print("\n".join(f"  {name:<14}  {found.about}" for name, found in ALGORITHMS.items()))
        print("\nFields and presets: onepolicy train ALGORITHM --help")
        return
    algorithm, rest = argv[0], argv[1:]
    found = entry(algorithm)
    module = recipe(found.module)
    given = given_fields(rest)
    start = module.starting_point(algorithm, given)
    presets = {**module.PRESETS, "default": start}
    fixed = [f"--{name}={value}" for name, value in decided(algorithm, found, given).items()]
    config = parse_args(module.Config, presets, [*rest, *fixed], prog=f"onepolicy train {algorithm}")
    print(module.main(config).text)


def given_fields(argv: Sequence[str]) -> dict[str, str]:
    """The `--field value` and `--field=value` pairs of a command line, names with underscores; a flag is "True".

    >>> given_fields(["--env", "CartPole-v1", "--num-envs=4", "--plan.use"])
    {'env': 'CartPole-v1', 'num_envs': '4', 'plan.use': 'True'}
    """
    found: dict[str, str] = {}
    for place, word in enumerate(argv):
        if not word.startswith("--"):
            continue
        name, equals, value = word[2:].partition("=")
        following = argv[place + 1] if place + 1 < len(argv) else "--"
        alone = following.startswith("--")
        found[name.replace("-", "_")] = value if equals else "True" if alone else following
    return found


def _resume(argv: list[str]) -> None:
    from onepolicy.api import resume

    print(resume(_one("resume RUN", argv)).text)


def _eval(argv: list[str]) -> None:
    from onepolicy.recipes import evaluate
    from onepolicy.run.config import parse_args

    argv = evaluate.arguments(argv)
    config = parse_args(evaluate.Config, {}, argv, prog="onepolicy eval")
    print(evaluate.main(config).text)


def _data(argv: list[str]) -> None:
    from onepolicy.recipes.data import run

    outcome = run(argv)
    print(outcome.text)
    if outcome.code:
        raise SystemExit(outcome.code)


def _plot(argv: list[str]) -> None:
    from onepolicy.run.plots import curves

    live = "--live" in argv
    words, fields = _split([word for word in argv if word != "--live"], "out", "metric", "smooth")
    if not words:
        raise ConfigError("plot needs at least one run directory: onepolicy plot RUN [RUN ...] [--out curves.png].")
    out, keys, smooth = fields.get("out", "curves.png"), fields.get("metric", ""), _count(fields, "smooth", "0")
    chosen = [key for key in keys.split(",") if key]
    if live:
        from onepolicy.run.live import follow

        follow(words, keys=chosen)
        return
    try:
        if len(words) == 1:
            print(f"{out}: {', '.join(curves(words, out, keys=chosen, smooth=smooth))}")
            return
        from onepolicy.evaluation.compare import compare, sides_of

        found = compare(words, metric=chosen[0] if chosen else "", last=max(1, smooth))
        print(f"{out}: {', '.join(curves(sides_of(words), out, keys=chosen, smooth=smooth))}")
        print(found.text() if found else "The runs have no outcome in common; --metric KEY compares by another metric.")
    except OnePolicyError:
        raise
    except (OSError, ValueError) as error:
        raise ConfigError(f"{out} cannot be drawn ({error}); give --out an image file, such as curves.png.") from error


def _video(argv: list[str]) -> None:
    from onepolicy.api import load
    from onepolicy.recipes.video import record

    words, fields = _split([w for w in argv if w != "--stochastic"], "out", "episodes", "seed", "fps")
    run = _one("video RUN [--episodes 1] [--out x.mp4]", words)
    usual = {"episodes": "1", "seed": "0", "fps": "0"}
    numbers = {name: _count(fields, name, default) for name, default in usual.items()}
    out = fields.get("out", f"{run.rstrip('/')}/video.mp4")
    print(record(_player(load(run).policy, run), out, stochastic="--stochastic" in argv, **numbers))


def _export(argv: list[str]) -> None:
    from onepolicy.api import load
    from onepolicy.recipes.export import export

    words, fields = _split(argv, "onnx")
    run = _one("export RUN --onnx policy.onnx", words)
    if "onnx" not in fields:
        raise ConfigError(f"export needs a file to write: onepolicy export {run} --onnx policy.onnx.")
    print(export(_player(load(run).policy, run), fields["onnx"], source=run))


def _player(policy: object, run: str) -> Player:
    """A control policy of a run. Raises ConfigError for another kind."""
    from onepolicy.acting.player import Player

    if not isinstance(policy, Player):
        raise ConfigError(f"{run} is no run of deep control; its policy is a {type(policy).__name__}.")
    return policy


def _chat(argv: list[str]) -> None:
    from onepolicy.recipes.chat import talk

    words, fields = _split(argv, "max-tokens", "temperature")
    model = _one("chat RUN|MODEL", words)
    max_tokens, temperature = _number(fields, "max-tokens", "256"), _number(fields, "temperature", "0")
    if max_tokens < 1 or max_tokens % 1 or temperature < 0:
        raise ConfigError("--max-tokens is a whole number of at least 1, --temperature a number of at least 0.")
    talk(model, max_tokens=int(max_tokens), temperature=temperature)


def _list(argv: list[str]) -> None:
    from onepolicy.recipes.catalogue import ALGORITHMS, recipe
    from onepolicy.tabular.worlds import WORLDS
    from onepolicy.tasks.base import TASKS

    print("Algorithms and their presets")
    for name, found in ALGORITHMS.items():
        own = [p for p in recipe(found.module).PRESETS if not found.fixed or p.startswith(f"{name}/")]
        print(f"  {name:<14}  {found.about}" + (f"\n{'':18}{', '.join(own)}" if own else ""))
    print("Task sets\n  " + ", ".join(TASKS))
    print("Finite worlds\n  " + ", ".join(WORLDS))


def _doctor(argv: list[str]) -> None:
    from onepolicy.run.doctor import diagnose, format

    print(format(diagnose(_one("doctor RUN", argv)), color=sys.stdout.isatty()))


def _conventions(argv: list[str]) -> None:
    from onepolicy.core.conventions import CONVENTIONS, convention, difference

    if not argv:
        print(", ".join(CONVENTIONS))
    elif len(argv) == 1:
        print("\n".join(f"{name:<14} {value}" for name, value in vars(convention(argv[0])).items()))
    elif len(argv) == 2:
        print(difference(*argv))
    else:
        raise ConfigError(f"expected at most two conventions, got {len(argv)}: onepolicy conventions A [B].")


def _demo(argv: list[str]) -> None:
    from onepolicy.recipes import demo
    from onepolicy.run.config import parse_args

    print(demo.main(parse_args(demo.Config, {}, argv, prog="onepolicy demo")).text)


def _plan(argv: list[str]) -> None:
    from onepolicy.recipes import plan
    from onepolicy.run.config import parse_args

    if argv and not argv[0].startswith("-"):
        argv = ["--world", *argv]
    print(plan.main(parse_args(plan.Config, {}, argv, prog="onepolicy plan")).text)


def _bandit(argv: list[str]) -> None:
    from onepolicy.recipes import bandit
    from onepolicy.run.config import parse_args

    print(bandit.main(parse_args(bandit.Config, {}, argv, prog="onepolicy bandit")).text)


def _verify(argv: list[str]) -> None:
    from onepolicy.recipes import verify

    raise SystemExit(verify.main(argv))


def _one(usage: str, argv: Sequence[str]) -> str:
    """The single argument of a command."""
    if len(argv) != 1 or argv[0].startswith("-"):
        raise ConfigError(f"expected exactly one argument, got {len(argv)}: onepolicy {usage}.")
    return argv[0]


def _split(argv: Sequence[str], *known: str) -> tuple[list[str], dict[str, str]]:
    """Plain words, and the values of `--field value` by the fields' names.

    Raises: ConfigError for an unknown field, offering the nearest, and for one without a value.
    """
    words: list[str] = []
    fields: dict[str, str] = {}
    waiting = iter(argv)
    for word in waiting:
        if not word.startswith("--"):
            words.append(word)
            continue
        name, equals, value = word[2:].replace("_", "-", word.partition("=")[0].count("_")).partition("=")
        if name not in known:
            raise ConfigError(f"--{name} is not an option here. {nearest(name, known)}")
        fields[name] = value if equals else next(waiting, "")
        if not fields[name]:
            raise ConfigError(f"--{name} has no value; write it behind.")
    return words, fields


def _number(fields: Mapping[str, str], name: str, default: str) -> float:
    """A field's value as a number."""
    try:
        return float(fields.get(name, default))
    except ValueError:
        raise ConfigError(f"--{name} is {fields[name]!r}; expected a number.") from None


def _count(fields: Mapping[str, str], name: str, default: str) -> int:
    """A field's value as a whole number of at least 0."""
    found = _number(fields, name, default)
    if found < 0 or found % 1:
        raise ConfigError(f"--{name} is {fields[name]}; expected a whole number of at least 0.")
    return int(found)


COMMANDS: dict[str, tuple[Callable[[list[str]], None], str, str]] = {
    "demo": (_demo, "demo", "a small language model learns to reason, here and now"),
    "train": (_train, "train ALGORITHM [--preset NAME] [--field value ...]", "train anything that acts"),
    "plan": (_plan, "plan WORLD [--method NAME] [--discount D]", "solve a finite world exactly, with certified bounds"),
    "bandit": (_bandit, "bandit [--arms MEANS] [--agents NAMES]", "bandit agents side by side: reward, regret"),
    "eval": (
        _eval,
        "eval MODEL [OTHER] [--tasks NAMES] [-k 16]",
        "a language model on benchmarks, or two side by side",
    ),
    "verify": (_verify, "verify KIND --gold TEXT --answer TEXT [--OPTION VALUE]", "judge one answer, and say why"),
    "data": (_data, "data check|mix|filter|make FILE [...]", "check, mix, filter and make training data"),
    "resume": (_resume, "resume RUN", "continue a run exactly where it stopped"),
    "plot": (
        _plot,
        "plot RUN [RUN ...] [--metric KEYS] [--smooth N] [--live] [--out FILE]",
        "curves of one run; of several also who is better, by how much, how surely",
    ),
    "video": (
        _video,
        "video RUN [--episodes N] [--stochastic] [--out FILE]",
        "a controller's episodes as mp4",
    ),
    "export": (_export, "export RUN --onnx FILE", "a controller as ONNX, its normaliser and bounds baked in"),
    "chat": (_chat, "chat RUN|MODEL [--max-tokens N] [--temperature T]", "talk to a trained model"),
    "list": (_list, "list", "algorithms, presets and task sets"),
    "doctor": (_doctor, "doctor RUN", "what is wrong with a run, alive or dead"),
    "conventions": (_conventions, "conventions [A [B]]", "whose choices: one library's, or the difference of two"),
}
