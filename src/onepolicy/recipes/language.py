"""The set-up the language recipes share: model, tokenizer, rendering, the engine, and their place in a checkpoint."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError

from onepolicy.acting.engine import Engine
from onepolicy.data.chat_template import check_stable, render
from onepolicy.data.tokenizer import char_tokenizer, check_vocabulary, end_tokens, load_tokenizer
from onepolicy.errors import ConfigError, ModelError
from onepolicy.nn.language import TINY, add_lora, build_model, load_model, merged_state, plain_copy, save_model
from onepolicy.nn.token_policy import TokenPolicy
from onepolicy.recipes.options import Tiny
from onepolicy.run import manifest
from onepolicy.run.files import out_of_space
from onepolicy.run.report import Report
from onepolicy.run.run import Run
from onepolicy.run.seeding import derive_seed
from onepolicy.tasks.base import TaskSet
from onepolicy.types import Completion, Generator, Message, Sampling, Task

PRINTABLE = "".join(map(chr, range(32, 127))) + "\n"
"""Characters that a tiny preset on open text knows at least."""


@dataclass(frozen=True)
class Language:
    """A language model ready to act and to learn.

    model: what is trained (a peft model when LoRA is on). policy: its TokenPolicy. lora: whether only adapters train.
    """

    model: Any
    tokenizer: Any
    policy: TokenPolicy
    lora: bool

    @property
    def context(self) -> int:
        """Longest sequence the model takes, tokens."""
        return self.policy.context

    @property
    def pad_id(self) -> int:
        """Token id that fills a batch; never attended to."""
        return int(self.tokenizer.pad_token_id)

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Token ids that end a completion: the tokenizer's end token and those of the model's generation settings."""
        return end_tokens(self.tokenizer, self.model.generation_config)

    def render(self, task: Task) -> list[int]:
        """The task's prompt as token ids."""
        return render(self.tokenizer, task.messages)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of completion tokens, tags kept, without the stop token."""
        end = len(tokens) - 1 if tokens and tokens[-1] in self.stop_ids else len(tokens)
        return str(self.tokenizer.decode(list(tokens[:end]), skip_special_tokens=False))

    def state(self) -> dict[str, torch.Tensor]:
        """The weights a generator needs, LoRA merged, named as in the plain model."""
        return merged_state(self.model)

    def complete(self, messages: str | Sequence[Message], *, max_tokens: int = 256, temperature: float = 0.0) -> str:
        """The model's reply to a question or a conversation; greedy unless a temperature is given."""
        turns = [Message("user", messages)] if isinstance(messages, str) else list(messages)
        generator = self.engine(slots=1, cache_tokens=None)
        return self.decode(self.reply(generator, turns, max_tokens=max_tokens, temperature=temperature).tokens)

    def reply(
        self, generator: Generator, turns: Sequence[Message], *, max_tokens: int, temperature: float
    ) -> Completion:
        """What `generator` says next in a conversation; the same question in the same words gets the same answer."""
        prompt = render(self.tokenizer, turns)
        seed = derive_seed("chat", *prompt)
        return generator.generate([prompt], 1, Sampling(max_tokens, temperature), [seed])[0][0]

    def engine(self, *, slots: int, cache_tokens: int | None) -> Engine:
        """A generator over the same weights; with LoRA over a plain copy, which `state` keeps up to date."""
        plain = plain_copy(self.model) if self.lora else self.model
        engine = Engine(plain, eos_token_ids=self.stop_ids, decode=self.decode, slots=slots, cache_tokens=cache_tokens)
        engine.load(self.state(), 0)
        return engine

    def frozen_policy(self) -> TokenPolicy:
        """A copy of the policy as it is now that takes no gradient: the reference of a KL term."""
        policy = copy.deepcopy(self.policy)
        policy.requires_grad_(False)
        return policy

    def parts(self) -> dict[str, Any]:
        """What a checkpoint holds of the model: a Hugging Face directory, and the adapters' own tensors with LoRA."""
        return (
            {"model": HuggingFace(self), "adapter": Trainable(self.model)}
            if self.lora
            else {"model": HuggingFace(self)}
        )


@dataclass(frozen=True)
class HuggingFace:
    """The model as a directory that transformers and vLLM open as it is, LoRA merged."""

    language: Language

    def save_to(self, directory: Path) -> None:
        """Write model and tokenizer."""
        save_model(self.language.model, self.language.tokenizer, directory)

    def load_from(self, directory: Path) -> None:
        """Read the weights back, to the bit; adapters are read by `Trainable`, so that with LoRA nothing is to do."""
        if not self.language.lora:
            self.language.model.load_state_dict(load_model(directory).state_dict())


@dataclass(frozen=True)
class Trainable:
    """The tensors of a model that train."""

    model: Any

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Trained tensors by name."""
        return {name: p.detach() for name, p in self.model.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """The inverse of state_dict."""
        for name, p in self.model.named_parameters():
            if p.requires_grad:
                p.copy_(state[name])


def open_language(
    model: str,
    *,
    tiny: Tiny,
    tasks: TaskSet,
    characters: str,
    seed: int,
    lora_rank: int = 0,
    temperature: float = 1.0,
    device: str = "cpu",
    layout: Literal["padded", "packed"] = "padded",
) -> Language:
    """The model `model`: a tiny preset's name (made on the spot over `characters`), a directory, or a hub id.

    tasks: what it is to be examined on; the chat template is checked with the first.
    Raises: ConfigError for a misspelt preset; ModelError when model or tokenizer cannot be used; DataError when the
    chat template is not stable.
    """
    check_name(model)
    if model in TINY:
        tokenizer: Any = char_tokenizer(characters)
        network = build_model(
            model,
            len(tokenizer),
            context=tiny.context,
            arch=tiny.arch,
            seed=seed,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    else:
        network = load_model(model)
        tokenizer = load_tokenizer(model)
        check_vocabulary(tokenizer, network.get_input_embeddings().weight.shape[0])
    first = tasks.tasks[0]
    check_stable(tokenizer, 1, question=first.messages[-1].content, answers=(tasks.form.write("", first.answer),))
    network.to(device)
    if lora_rank:
        network = add_lora(network, lora_rank)
    return Language(network, tokenizer, TokenPolicy(network, temperature=temperature, layout=layout), bool(lora_rank))


def check_name(model: str) -> None:
    """Nothing, unless a model's name is clearly a slip: the hub is not asked for those.

    Raises: ConfigError for a misspelt preset; ModelError for a path into a directory that lacks it.
    """
    place = Path(model)
    if model in TINY or place.exists():
        return
    if close := get_close_matches(model, TINY, n=1):
        raise ConfigError(f"{model!r} is no preset, directory or hub id. Did you mean {close[0]!r}?")
    if place.name != model and place.parent.is_dir():
        beside = sorted(path.name for path in place.parent.iterdir() if path.is_dir())
        raise ModelError(f"{model} does not exist. {place.parent} has {', '.join(beside[:20]) or 'no directory'}.")


def characters_of(*sets: TaskSet) -> str:
    """Every character of the tasks: what the sets say, or for open text what is found in it, and all of ASCII."""
    if all(tasks.characters for tasks in sets):
        return "".join(sorted(set().union(*(tasks.characters for tasks in sets))))
    found = set(PRINTABLE)
    for tasks in sets:
        for task in tasks:
            found.update(task.answer, *(message.content for message in task.messages))
            found.update(tasks.demonstrate(task) if tasks.demonstrate else "")
    return "".join(sorted(found))


def is_run(place: Path) -> bool:
    """Whether a directory is that of a run, not of a model."""
    return (place / "status.json").is_file() or (place / "checkpoints").is_dir()


def language_of(
    path: str | Path, *, lora_rank: int = 0, layout: Literal["padded", "packed"] = "padded", temperature: float = 1.0
) -> Language:
    """The language model in a run directory (its newest checkpoint), a Hugging Face directory or on the hub.

    Raises: ConfigError for a preset; CheckpointError for a run without a valid checkpoint; ModelError for anything else
    that cannot be opened.
    """
    if str(path) in TINY:
        raise ConfigError(f"{path} is a preset that training makes anew; there is nothing to load. Name a run.")
    check_name(str(path))
    place = Path(path)
    if is_run(place):
        run = Run.open(place)
        _, checkpoint, _ = manifest.newest_readable(run.checkpoints)
        if not (checkpoint / "model").is_dir():
            raise ModelError(
                f"{place} is a run of {run.recipe}, which trains no language model. Name one of sft or grpo."
            )
        place = checkpoint / "model"
    name = str(place) if place.exists() else str(path)
    model, tokenizer = load_model(name), load_tokenizer(name)
    check_vocabulary(tokenizer, model.get_input_embeddings().weight.shape[0])
    if lora_rank:
        model = add_lora(model, lora_rank)
    policy = TokenPolicy(model, temperature=temperature, layout=layout)
    return Language(model, tokenizer, policy, lora=bool(lora_rank))


def save_final(run: Run, language: Language) -> str:
    """The model in the run's directory `model`, all of it or nothing; where it is, in words."""
    final = run.directory / "model"
    building = final.with_name("model.tmp")
    shutil.rmtree(building, ignore_errors=True)
    try:
        language.parts()["model"].save_to(building)
        manifest.publish(building, final)
    except (OSError, SafetensorError) as error:
        if not out_of_space(error):
            raise
        shutil.rmtree(building, ignore_errors=True)
        run.say(f"No model in {final}: the disk is full. Free some room: onepolicy resume {run.directory}")
        return "The disk was full, the model is not written."
    return f"The model is in {final}; talk to it: onepolicy chat {run.directory}"


def load_language(run: Run) -> Report:
    """The newest checkpoint of a language run as a Report whose policy can be talked to."""
    return Report(run.directory, {}, language_of(run.directory), f"{run.recipe} from {run.directory}")
