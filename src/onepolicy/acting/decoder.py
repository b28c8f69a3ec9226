"""One forward step of a causal language model for rows that stand at different positions.

In: the seam `Decoder`, and `ModuleDecoder`, which drives any Hugging Face causal LM through its own forward with a
cache of ours. Not in: the lean steps of known families (lean.py), scheduling (engine.py), drawing (sampling.py).
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any, Protocol, final

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache as HuggingFaceCache
from transformers.cache_utils import CacheLayerMixin

from onepolicy.acting.cache import Cache, Prompts, Shapes
from onepolicy.errors import ModelError


class Decoder(Protocol):
    """A model seen by the engine: prompts in, caches out; one token per row in, logits out."""

    path: str
    shapes: Shapes

    def prefill(self, tokens: Tensor) -> Prompts:
        """The caches of right-padded prompts, tokens [P, T] int64."""
        ...

    def step(self, tokens: Tensor, positions: Tensor, cache: Cache, length: int) -> Tensor:
        """Logits [R, V] after feeding token r of `tokens` [R] int64 at its row's position `positions` [R] int64.

        Row r of the cache gets the token's keys and values at that position and is attended to up to it.
        length: the largest position + 1.
        """
        ...

    def refresh(self) -> None:
        """Takes over changed weights of the module."""
        ...


@final
class ModuleDecoder:
    """Any causal LM of transformers whose layers cache keys and values, through the module's own forward.

    Raises ModelError at construction when the model keeps another kind of state (recurrent or linear attention).
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.path = "module"
        self._model = model
        config = model.config.get_text_config(decoder=True)
        self._windows: dict[str, int | None] | None = None
        window = getattr(config, "sliding_window", None)
        types = getattr(config, "layer_types", None)
        if types is not None:
            self._windows = {kind: window if kind == "sliding_attention" else None for kind in types}
            unknown = sorted(set(types) - {"full_attention", "sliding_attention"})
            if unknown:
                raise ModelError(
                    f"{type(model).__name__} has layers of type {unknown[0]!r}; the engine caches keys and values of "
                    "full_attention and sliding_attention layers only. Generate with vLLM (acting.vllm) instead."
                )
        self._window: int | None = window if types is None else None
        self._mixed = self._windows is not None and any(w is not None for w in self._windows.values())
        self.shapes: Shapes = [(e.shape[1], e.shape[3]) for e in self._capture(self._probe())]

    def _probe(self) -> Tensor:
        return torch.zeros((1, 1), dtype=torch.int64, device=self._model.device)

    def _capture(self, tokens: Tensor) -> list[Tensor]:
        kept: list[Tensor] = []
        if "past_key_values" not in signature(self._model.forward).parameters:
            raise self._no_cache()

        def store(keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
            kept.extend((keys, values))
            return keys, values

        self._model.base_model(input_ids=tokens, past_key_values=_Layers(lambda index: store), use_cache=True)
        if not kept:
            raise self._no_cache()
        return kept

    def _no_cache(self) -> ModelError:
        return ModelError(
            f"{type(self._model).__name__} does not hand keys and values to a cache; the engine needs a decoder with "
            "attention layers. Generate with vLLM (acting.vllm) instead."
        )

    def prefill(self, tokens: Tensor) -> Prompts:
        return Prompts(self._capture(tokens))

    def step(self, tokens: Tensor, positions: Tensor, cache: Cache, length: int) -> Tensor:
        count = tokens.shape[0]
        rows = torch.arange(count, device=tokens.device)

        def make(index: int) -> Store:
            all_keys, all_values = cache.entries[2 * index : 2 * index + 2]

            def store(keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
                all_keys[rows, :, positions] = keys[:, :, 0]
                all_values[rows, :, positions] = values[:, :, 0]
                return all_keys[:count, :, :length], all_values[:count, :, :length]

            return store

        output = self._model(
            input_ids=tokens[:, None],
            position_ids=positions[:, None],
            attention_mask=self._mask(positions, length),
            past_key_values=_Layers(make),
            use_cache=True,
        )
        return output.logits[:, -1].float()

    def _mask(self, positions: Tensor, length: int) -> Tensor | dict[str, Tensor]:
        if not self._mixed:
            return _additive_mask(positions, length, self._window, self._model.dtype)
        windows = self._windows or {}
        return {kind: _additive_mask(positions, length, w, self._model.dtype) for kind, w in windows.items()}

    def refresh(self) -> None:
        """Nothing: the module is used as it is."""


def _additive_mask(positions: Tensor, length: int, window: int | None, dtype: torch.dtype) -> Tensor:
    """0 where row r may attend, the dtype's minimum elsewhere; [R, 1, 1, length]."""
    column = torch.arange(length, device=positions.device)
    hidden = column > positions[:, None]
    if window is not None:
        hidden |= column <= positions[:, None] - window
    mask = torch.zeros(hidden.shape, dtype=dtype, device=positions.device)
    return mask.masked_fill_(hidden, torch.finfo(dtype).min)[:, None, None]


Store = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(new keys, new values) -> (all keys, all values) the layer attends to."""


class _Layers(HuggingFaceCache):
    """A transformers cache whose layers are given functions, made when the model first asks for each."""

    def __init__(self, make: Callable[[int], Store]) -> None:
        super().__init__(layers=[])
        self._make = make

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
        while len(self.layers) <= layer_idx:
            self.layers.append(_Layer(self._make(len(self.layers))))
        return self.layers[layer_idx].update(key_states, value_states)


class _Layer(CacheLayerMixin):
    """A cache layer that is one function, with an empty past as far as the model's own masks are concerned."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._store = store

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        return self._store(key_states, value_states)

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.is_initialized = True

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return query_length, 0

    def get_seq_length(self) -> int:
        return 0

    def get_max_length(self) -> int:
        return -1
