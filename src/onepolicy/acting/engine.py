"""The built-in generator: continuous batching over one causal language model.

A fixed number of slots hold running sequences; a finished sequence's slot takes the next waiting one at once; a prompt
runs through the model once for all its samples. In: what a call may ask for, weights and their version, statistics. Not
in: the loops that do it (compiled.py for small models on a CPU, stepping.py for all others), text (episodes.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any, final

import numpy as np
import torch
from transformers import PreTrainedModel

from onepolicy.acting.choice import choose_runner
from onepolicy.acting.plan import Plan, Runner
from onepolicy.acting.sampling import check_sampling
from onepolicy.errors import ConfigError, DataError, ModelError
from onepolicy.types import Completion, Metrics, Sampling


@dataclass(frozen=True)
class EngineStats:
    """What the last `generate` did.

    steps: forward steps. tokens: sampled. seconds: wall clock. occupancy: mean share of the usable rows that were
    live. rows: usable at once. cache_tokens: positions the cache had room for; cache_bytes: their memory, prompts
    included. prefill_tokens: prompt tokens computed; prefill_saved: prompt tokens copied instead of computed again.
    """

    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0
    occupancy: float = 0.0
    rows: int = 0
    cache_tokens: int = 0
    cache_bytes: int = 0
    prefill_tokens: int = 0
    prefill_saved: int = 0

    def metrics(self) -> Metrics:
        """The same as `engine/...` numbers, with tokens per second; wall clock makes them unfit for metrics.jsonl."""
        values = {f"engine/{name}": float(value) for name, value in vars(self).items()}
        return values | {"engine/tokens_per_second": self.tokens / self.seconds if self.seconds > 0 else 0.0}


@final
class Engine:
    """A `Generator` over a Hugging Face causal LM, on whatever device and in whatever dtype the model is.

    model: used in place, not copied; it may be the one being trained. Call `load` (or `refresh`) after its weights
    changed. eos_token_ids: end every completion. decode: token ids -> text, needed for stop strings only.
    slots: sequences in flight at once. cache_tokens: bound on cached positions, shared prompts included; None: as
    many as the slots need. context: longest sequence, prompt and completion together; None: the model's. path: "auto"
    takes the fastest that agrees with the model's own forward; "compiled", "lean" and "module" ask for one (choice.py).

    A sample depends on (seed of its prompt, k, weights) only: its random numbers are hashes of (seed, k, position).
    A max_tokens that would pass the model's context is cut to the room left, and the completion's stop is "length".

    Raises ModelError when the model cannot be driven with cached keys and values or does not say how long a sequence
    may be, ConfigError for settings that cannot work.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        eos_token_ids: Sequence[int],
        decode: Callable[[Sequence[int]], str] | None = None,
        slots: int = 64,
        cache_tokens: int | None = None,
        context: int | None = None,
        path: str = "auto",
    ) -> None:
        if slots < 1:
            raise ConfigError(f"slots is {slots}; the engine needs at least 1. Set slots >= 1.")
        self.version = 0
        self.stats = EngineStats()
        self._model, self._decode, self._slots, self._cache_tokens = model, decode, slots, cache_tokens
        self._vocab = int(model.get_input_embeddings().weight.shape[0])
        self.context = _context(model, context)
        self._eos = tuple(eos_token_ids)
        self._check_tokens("eos_token_ids", self._eos, ConfigError)
        with _inference(model):
            self._runner: Runner = choose_runner(model, path, self.context)

    @property
    def path(self) -> str:
        """Which forward is in use: "compiled", "lean" or "module"."""
        return self._runner.path

    def load(self, state: Mapping[str, Any], version: int) -> None:
        """Copies `state` (parameter name -> tensor) into the model and takes the version over.

        Tensors that already are the model's own cost nothing. Raises ModelError naming a parameter that is missing,
        unknown or of another shape; the weights are then unchanged.
        """
        own = self._model.state_dict()
        unknown = sorted(set(state) - set(own))
        given = {own[name].data_ptr() for name in state if name in own}
        missing = sorted(name for name, tensor in own.items() if name not in state and tensor.data_ptr() not in given)
        if unknown or missing:
            raise ModelError(
                f"the state has {len(unknown)} unknown and {len(missing)} missing parameters, first "
                f"{(unknown or missing)[0]!r}; expected the names of {type(self._model).__name__}.state_dict(). "
                "For a LoRA model pass its merged state."
            )
        for name, tensor in state.items():
            if own[name].shape != tensor.shape:
                raise ModelError(
                    f"{name} has shape {list(tensor.shape)}; the engine's model has {list(own[name].shape)}. "
                    "Build the engine on a model of the same configuration."
                )
        with torch.no_grad():
            for name, tensor in state.items():
                if own[name].data_ptr() != tensor.data_ptr():
                    own[name].copy_(tensor)
        self.refresh(version)

    def refresh(self, version: int) -> None:
        """Takes over weights that were changed in the engine's own model, under a new version."""
        with _inference(self._model):
            self._runner.refresh()
        self.version = version

    def generate(
        self, prompts: Sequence[Sequence[int]], n: int, sampling: Sampling, seeds: Sequence[int]
    ) -> list[list[Completion]]:
        """n completions for each prompt, in order.

        prompts: token ids, each 1 to context - 1 long. seeds: one per prompt. logp is that of the distribution drawn
        from; at temperature 0, of the model's own (temperature 1, unfiltered).

        Raises DataError for a prompt that is empty, too long or has unknown ids; ConfigError for settings that
        cannot work (stop strings without `decode`, a cache too small for one sequence); ModelError when the model
        gives log-probabilities that are not finite.
        """
        began = perf_counter()
        plan = self._plan(prompts, n, sampling, seeds)
        if not plan.prompts:
            return []
        with _inference(self._model):
            done = self._runner.run(plan)
        if not np.isfinite(done.logp).all():
            self._runner.release()  # what is not finite must not stay in the cache
            raise ModelError(
                f"weights of version {self.version} gave log-probabilities that are not finite; the model has "
                "diverged. Go back to an earlier checkpoint and lower the learning rate."
            )
        self.stats = EngineStats(
            steps=done.steps,
            tokens=int(done.count.sum()),
            seconds=perf_counter() - began,
            occupancy=done.occupancy,
            rows=done.rows,
            cache_tokens=done.cache_tokens,
            cache_bytes=done.cache_bytes,
            prefill_tokens=done.prefill_tokens,
            prefill_saved=done.prefill_saved,
        )
        return done.completions(n, self.version)

    def release(self) -> None:
        """Frees the caches between calls, on a device that the trainer needs whole; the next call allocates anew."""
        self._runner.release()

    def _plan(self, prompts: Sequence[Sequence[int]], n: int, sampling: Sampling, seeds: Sequence[int]) -> Plan:
        check_sampling(sampling)
        if n < 1:
            raise ConfigError(f"n is {n}; expected at least 1 completion per prompt. Set n >= 1.")
        if len(seeds) != len(prompts):
            raise ConfigError(f"{len(seeds)} seeds for {len(prompts)} prompts; expected one seed per prompt.")
        if sampling.stop and self._decode is None:
            raise ConfigError(
                f"stop is {sampling.stop!r} but the engine cannot turn tokens into text. Pass decode= to Engine, or "
                "use stop_tokens."
            )
        self._check_tokens("stop_tokens", sampling.stop_tokens, ConfigError)
        for index, prompt in enumerate(prompts):
            self._check_prompt(index, prompt)
        limits = [min(sampling.max_tokens, self.context - len(prompt)) for prompt in prompts]
        return Plan(
            prompts=[list(prompt) for prompt in prompts],
            n=n,
            sampling=sampling,
            seeds=seeds,
            limits=limits,
            stop_tokens=(*self._eos, *sampling.stop_tokens),
            decode=self._decode,
            vocab=self._vocab,
            slots=self._slots,
            cache_tokens=self._cache_tokens,
        )

    def _check_prompt(self, index: int, prompt: Sequence[int]) -> None:
        if not 1 <= len(prompt) < self.context:
            raise DataError(
                f"prompt {index} has {len(prompt)} tokens; expected 1 to {self.context - 1}, as the model's context "
                f"of {self.context} must hold the prompt and at least one new token. Shorten or drop the prompt."
            )
        self._check_tokens(f"prompt {index}", prompt, DataError)

    def _check_tokens(self, name: str, tokens: Sequence[int], error: type[ConfigError] | type[DataError]) -> None:
        if tokens and not 0 <= min(tokens) <= max(tokens) < self._vocab:
            wrong = next(token for token in tokens if not 0 <= token < self._vocab)
            raise error(
                f"{name} has token id {wrong}; the model's vocabulary is 0 to {self._vocab - 1}. Use the tokenizer "
                "the model was built with."
            )


def _context(model: PreTrainedModel, wanted: int | None) -> int:
    """The longest sequence, tokens: `wanted`, or the model's positions.

    Raises: ModelError when neither is known; ConfigError for one below 2 or beyond the model's positions.
    """
    name = type(model).__name__
    own: int | None = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
    context = own if wanted is None else wanted
    if context is None:
        raise ModelError(f"{name} does not say how long a sequence may be. Pass context= to Engine.")
    if context < 2:
        raise ConfigError(f"context is {context}; a prompt and a completion need at least 2 tokens. Set context >= 2.")
    if own is not None and context > own:
        raise ConfigError(f"context is {context}; {name} has {own} positions. Set context <= {own}.")
    return context


@contextmanager
def _inference(model: PreTrainedModel) -> Iterator[None]:
    """A context in which the model records no gradients and drops nothing out."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module in training:
            module.training = True
