"""A causal language model as a policy: log-probabilities and entropies of the tokens it wrote.

Rows are compacted to the left first, so padding (left, right, both, between) never reaches the model: attention is
plainly causal, needs no mask, and results do not depend on padding at all. Only hidden states whose next token is an
action go through the vocabulary projection. Not here: sampling completions (acting/engine.py), losses (core/policy.py).
"""

from __future__ import annotations

import logging
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from onepolicy.batch import Evaluation, TokenInputs
from onepolicy.errors import ConfigError, DataError, nearest
from onepolicy.nn.ragged import forward_packed, pack, require_packable

logger = logging.getLogger(__name__)

Layout = Literal["padded", "packed"]


class Compact(NamedTuple):
    """Rows with their real tokens moved to the front.

    tokens [B, L]: L is the longest row, `filler` behind a row's end. rank [B, T]: a real token's place in its row.
    """

    tokens: Tensor
    rank: Tensor


def compact(tokens: Tensor, attention: Tensor, filler: int = 0) -> Compact:
    """Every row's real tokens moved to the front, order kept; rows already right-padded are only trimmed.

    >>> compact(torch.tensor([[0, 5, 6, 0], [7, 8, 9, 0]]), torch.tensor([[0, 1, 1, 0], [1, 1, 1, 0]]).bool()).tokens
    tensor([[5, 6, 0],
            [7, 8, 9]])
    """
    longest = int(attention.sum(-1).max()) if attention.numel() else 0
    tokens = tokens.masked_fill(~attention, filler)
    rank = attention.cumsum(-1) - 1
    if bool((attention[:, 1:] & ~attention[:, :-1]).any()):
        order = torch.argsort((~attention).to(torch.uint8), dim=-1, stable=True)
        tokens = tokens.gather(1, order)
    return Compact(tokens[:, :longest], rank)


class TokenPolicy(nn.Module):
    """A causal language model that says how probable the tokens it wrote are.

    model: any Hugging Face causal model, LoRA or not. temperature: logits are divided by it, as in sampling, so the
    two agree. entropy_grad: whether the entropy carries a gradient (only an entropy bonus needs it). layout: "padded"
    runs rows as a rectangle; "packed" runs all real tokens as one row, a prompt that several rows share once: the same
    numbers, faster when lengths differ or groups share prompts, for models that keep to transformers' attention
    interface. head_budget: logits held at once, in elements; above it the projection runs in chunks that are
    recomputed in the backward pass. Dropout is always off, whatever train() says: a policy's probability must not
    depend on a mask drawn at random.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        temperature: float = 1.0,
        entropy_grad: bool = False,
        *,
        layout: Layout = "padded",
        head_budget: int = 1 << 26,
    ) -> None:
        super().__init__()
        if not temperature > 0:
            raise ConfigError(f"temperature is {temperature}; log-probabilities need it above 0. Use 1.0 for training.")
        if layout not in get_args(Layout):
            raise ConfigError(f"unknown layout {layout!r}. {nearest(layout, get_args(Layout))}")
        self.model = model
        self.temperature = temperature
        self.entropy_grad = entropy_grad
        self.layout = layout
        self.head_budget = head_budget
        self.head_is_plain = head_is_plain(model)
        if not self.head_is_plain:
            logger.info("%s changes its logits after the vocabulary projection: using full logits", type(model))
        if layout == "packed":
            require_packable(model)
        self.train(False)

    @property
    def context(self) -> int:
        """The longest sequence the model takes, in tokens."""
        return int(self.model.config.max_position_embeddings)

    def train(self, mode: bool = True) -> TokenPolicy:
        """The policy itself, its model in eval mode."""
        super().train(mode)
        self.model.eval()
        return self

    def evaluate(self, inputs: TokenInputs, action: Tensor) -> Evaluation:
        """log pi(action[b, t] | real tokens before t in row b) and the entropy there, both [B, T] float32.

        Zero where inputs.is_action is False. The entropy has no gradient unless entropy_grad.
        Raises: DataError for an action at a padding position or at a row's first token, or a row beyond the context.
        """
        tokens, rank = compact(inputs.tokens, inputs.attention, harmless_id(self.model))
        row, column = inputs.is_action.nonzero(as_tuple=True)
        before = rank[row, column] - 1
        self._check(inputs, tokens.shape[1], before)
        logp, entropy = self._score(self._states(tokens, row, before), action[row, column])
        place = row * inputs.tokens.shape[1] + column
        return Evaluation(logp=_spread(logp, place, inputs.tokens), entropy=_spread(entropy, place, inputs.tokens))

    def action_logits(self, inputs: TokenInputs) -> Tensor:
        """The tempered logits [N, V] before each action, in the order of is_action.nonzero(); errors as `evaluate`."""
        tokens, rank = compact(inputs.tokens, inputs.attention, harmless_id(self.model))
        row, column = inputs.is_action.nonzero(as_tuple=True)
        before = rank[row, column] - 1
        self._check(inputs, tokens.shape[1], before)
        return self._logits(self._states(tokens, row, before))

    @torch.no_grad()
    def act(self, inputs: TokenInputs, *, rng: torch.Generator) -> tuple[Tensor, Evaluation]:
        """The next token of every row [B], sampled after its last real token, and its log-prob and entropy [B]."""
        tokens, rank = compact(inputs.tokens, inputs.attention, harmless_id(self.model))
        last = rank[:, -1]
        if bool((last < 0).any()):
            raise DataError("a row has no real token; sampling needs a prompt of at least one token in every row.")
        row = torch.arange(len(tokens), device=tokens.device)
        logits = self._logits(self._states(tokens, row, last))
        action = torch.multinomial(logits.softmax(-1), 1, generator=rng).squeeze(-1)
        logp, entropy = _of_logits(logits, action, False)
        return action, Evaluation(logp=logp, entropy=entropy)

    def _check(self, inputs: TokenInputs, longest: int, before: Tensor) -> None:
        if longest > self.context:
            raise DataError(
                f"a row has {longest} tokens but the model's context is {self.context}; shorten prompts or max_tokens, "
                "or build the model with a larger context."
            )
        if bool((inputs.is_action & ~inputs.attention).any()):
            raise DataError("is_action is True at a padding position; an action must be a real token. Fix the mask.")
        if bool((before < 0).any()):
            raise DataError(
                "a row's first token is marked as an action; it has no token before it to be predicted from. "
                "Give every episode a prompt of at least one token."
            )

    def _states(self, tokens: Tensor, row: Tensor, at: Tensor) -> Tensor:
        """The last layer's states [N, D] at places `at` of rows `row` (logits [N, V] if the head is not plain).

        Tokens behind the last place of a row are not computed.
        """
        part = self.model.base_model if self.head_is_plain else self.model
        field = "last_hidden_state" if self.head_is_plain else "logits"
        if self.layout == "packed" and len(row):
            length = at.new_zeros(len(tokens)).scatter_reduce(0, row, at + 1, "amax")
            shared = length.scatter_reduce(0, row, at + 1, "amin")
            packed = pack(tokens, length, shared)
            return embedding(packed.place[row, at], forward_packed(part, packed)[field][0])
        tokens = tokens[:, : int(at.max()) + 1 if len(row) else 1]
        states = part(input_ids=tokens, use_cache=False)[field]
        return embedding(row * tokens.shape[1] + at, states.flatten(0, 1))

    def _logits(self, states: Tensor) -> Tensor:
        """Tempered logits [N, V] of the states [N, D], in float32 or wider."""
        logits = self.model.get_output_embeddings()(states) if self.head_is_plain else states
        logits = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
        return logits if self.temperature == 1.0 else logits / self.temperature

    def _score(self, states: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Log-prob and entropy [N] of the actions, in chunks of at most head_budget logits."""
        rows = max(1, self.head_budget // int(self.model.config.vocab_size))
        if len(states) <= rows or not self.head_is_plain:
            return self._part(states, action)
        parts = [
            checkpoint(self._part, s, a, use_reentrant=False) if torch.is_grad_enabled() else self._part(s, a)
            for s, a in zip(states.split(rows), action.split(rows))
        ]
        logp, entropy = zip(*parts)
        return torch.cat(logp), torch.cat(entropy)

    def _part(self, states: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        return _of_logits(self._logits(states), action, self.entropy_grad)


def _of_logits(logits: Tensor, action: Tensor, entropy_grad: bool) -> tuple[Tensor, Tensor]:
    """log p(action) and the entropy of softmax(logits), both [N]."""
    logp = logits.log_softmax(-1)
    with torch.set_grad_enabled(entropy_grad and torch.is_grad_enabled()):
        source = logp if entropy_grad else logp.detach()
        entropy = -(source.exp() * source.clamp_min(torch.finfo(source.dtype).min)).sum(-1)
    return logp.gather(-1, action.unsqueeze(-1)).squeeze(-1), entropy


def _spread(values: Tensor, place: Tensor, like: Tensor) -> Tensor:
    """Values [N] at their places in a [B, T] tensor of zeros."""
    return values.new_zeros(like.numel()).index_copy(0, place, values).view(like.shape)


def harmless_id(model: PreTrainedModel) -> int:
    """A token id to stand where nothing is read: not the pad id, at which transformers would warn of padding."""
    return 1 if model.config.pad_token_id == 0 else 0


def head_is_plain(model: PreTrainedModel) -> bool:
    """Whether the model's logits are its vocabulary projection of the backbone's last states, and nothing more.

    Found out by one small forward pass in which the projection's output is replaced by large random numbers: soft
    caps, scales and biases applied afterwards change them, a plain model hands them on untouched.
    """
    head = model.get_output_embeddings()
    if head is None:
        return False
    seen: list[Tensor] = []
    planted: list[Tensor] = []

    def spy(_module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
        seen.append(arguments[0])
        steps = torch.arange(output.numel(), device=output.device, dtype=torch.float32)
        planted.append((100.0 * torch.sin(steps)).view(output.shape).to(output.dtype))
        return planted[-1]

    length = min(4, int(getattr(model.config, "max_position_embeddings", 4)))
    tokens = torch.full((1, length), harmless_id(model), device=model.device)
    handle = head.register_forward_hook(spy)
    try:
        with torch.no_grad():
            logits = model(input_ids=tokens, use_cache=False).logits
            states = model.base_model(input_ids=tokens, use_cache=False).last_hidden_state
    finally:
        handle.remove()
    return len(seen) == 1 and torch.equal(logits.to(planted[0].dtype), planted[0]) and torch.allclose(seen[0], states)
