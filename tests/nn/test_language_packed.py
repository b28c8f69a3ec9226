"""The packed layout: sequences in one row, shared prompts once, and architectures beyond the presets."""

from __future__ import annotations

import logging

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GraniteConfig,
    MambaConfig,
    MistralConfig,
    Qwen3Config,
    Qwen3MoeConfig,
)

from onepolicy.batch import TokenInputs
from onepolicy.errors import ModelError
from onepolicy.nn.language import add_lora, plain_copy, save_model
from onepolicy.nn.ragged import ATTENTION, pack
from onepolicy.nn.token_policy import TokenPolicy, head_is_plain

VOCABULARY = 23
LAYOUTS = ["padded", "packed"]
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
COMMON = {"vocab_size": VOCABULARY, "max_position_embeddings": 64, "bos_token_id": None, "eos_token_id": 1}

SPECIAL = {
    "tied, two key heads for four": Qwen3Config(
        **COMMON, **(SIZES | {"num_attention_heads": 4}), num_key_value_heads=2, head_dim=8
    ),
    "sliding window": MistralConfig(**COMMON, **SIZES, num_key_value_heads=1, sliding_window=4),
    "mixture of experts": Qwen3MoeConfig(
        **COMMON, **SIZES, num_key_value_heads=1, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=8
    ),
    "logits scaled after the head": GraniteConfig(**COMMON, **SIZES, num_key_value_heads=1, logits_scaling=8.0),
    "logits capped after the head": Gemma2Config(
        **COMMON, **SIZES, num_key_value_heads=1, head_dim=8, final_logit_softcapping=2.0, attn_logit_softcapping=None
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", SPECIAL)
def test_other_architectures_equal_their_own_full_forward_pass(lm, kind, layout):
    model, inputs = lm.from_config(SPECIAL[kind]).float(), lm.rows(11)
    found = TokenPolicy(model, layout=layout).evaluate(inputs, inputs.tokens)
    with torch.no_grad():
        logp, entropy = lm.reference(model, inputs)
    torch.testing.assert_close(found.logp.detach(), logp, rtol=0, atol=2e-5)
    torch.testing.assert_close(found.entropy, entropy, rtol=0, atol=2e-5)


def test_a_head_with_something_after_it_is_found_out_and_logged(lm, caplog):
    with caplog.at_level(logging.INFO):
        for kind, config in SPECIAL.items():
            policy = TokenPolicy(lm.from_config(config).float())
            assert policy.head_is_plain == ("after the head" not in kind)
            assert policy.head_is_plain == head_is_plain(policy.model)
    assert sum("using full logits" in r.getMessage() for r in caplog.records) == 2


def test_a_recurrent_model_cannot_be_packed_and_stays_as_it_was():
    config = MambaConfig(vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=1, state_size=4)
    model = AutoModelForCausalLM.from_config(config).eval()
    before = model.config._attn_implementation
    with pytest.raises(ModelError, match='layout="padded"'):
        TokenPolicy(model, layout="packed")
    assert model.config._attn_implementation == before


def test_a_packed_policys_model_still_takes_padded_and_cached_input(lm):
    """The engine or `generate` may use the same module: without a layout its attention is plain sdpa."""
    plain, model = lm.make(), lm.make()
    TokenPolicy(model, layout="packed")
    assert model.config._attn_implementation == ATTENTION
    tokens = torch.tensor([[3, 4, 5, 6], [7, 8, 9, 2]])
    mask = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]])
    torch.testing.assert_close(
        model(input_ids=tokens, attention_mask=mask).logits, plain(input_ids=tokens, attention_mask=mask).logits
    )
    options = {"attention_mask": mask, "do_sample": False, "max_new_tokens": 6, "pad_token_id": 0}
    assert torch.equal(model.generate(tokens, **options), plain.generate(tokens, **options))


def test_a_shared_prompt_is_run_once(lm):
    """Two rows of 5 + 2 and 5 + 4 tokens, the last token of each never an input: 5 + 1 + 3 = 9 tokens are run."""
    inputs, seen = TokenInputs(*(torch.zeros(2, 9, dtype=t) for t in (torch.int64, torch.bool, torch.bool))), []
    inputs.tokens[:, :5] = torch.tensor([4, 5, 6, 7, 8])
    inputs.tokens[:, 5:] = torch.tensor([[2, 3, 0, 0], [9, 8, 7, 6]])
    for b, n in enumerate((7, 9)):
        inputs.attention[b, :n] = True
        inputs.is_action[b, 5:n] = True
    model = lm.make()
    policy = TokenPolicy(model, layout="packed")
    hook = lambda _module, args: seen.append(args[0].shape)  # noqa: E731
    model.get_input_embeddings().register_forward_pre_hook(hook)
    policy.evaluate(inputs, inputs.tokens)
    assert seen == [(1, 9)]


@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=8).filter(any),
    seed=st.integers(0, 99),
)
def test_packing_loses_and_invents_nothing(lengths, seed):
    """`place` finds every token, positions are ranks, buckets and owner are each other's inverse."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, 2, (len(lengths), 9), generator=generator)
    length = torch.tensor(lengths)
    shared = (torch.rand(len(lengths), generator=generator) * (length + 1)).long()
    packed = pack(tokens, length, shared)
    used = set()
    for b, n in enumerate(lengths):
        place = packed.place[b, :n]
        assert torch.equal(packed.tokens[0, place], tokens[b, :n])
        assert torch.equal(packed.positions[0, place], torch.arange(n))
        used |= set(place.tolist())
    assert used == set(range(packed.tokens.shape[1]))
    laid_out = torch.cat([index.flatten() for index in packed.ragged.buckets])
    assert torch.equal(laid_out[packed.ragged.owner], torch.arange(packed.tokens.shape[1]))


@pytest.mark.parametrize("lora", [False, True])
def test_copies_and_saves_leave_the_packed_model_packed(lm, tmp_path, lora):
    model = add_lora(lm.make(), 2) if lora else lm.make()
    inputs, policy = lm.rows(13), TokenPolicy(model, layout="packed")
    want = policy.evaluate(inputs, inputs.tokens).logp
    save_model(model, None, tmp_path)
    assert plain_copy(model).config._attn_implementation == "sdpa"
    assert torch.equal(policy.evaluate(inputs, inputs.tokens).logp, want)


def test_a_model_whose_attention_was_changed_behind_the_policy_is_an_error(lm):
    """Without the guard, tokens of different sequences would see each other."""
    inputs, policy = lm.rows(13), TokenPolicy(lm.make(), layout="packed")
    policy.model.set_attn_implementation("eager")
    with pytest.raises(ModelError, match="'eager'"):
        policy.evaluate(inputs, inputs.tokens)
