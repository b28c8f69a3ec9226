"""A causal language model as a policy: the numbers of a plain full forward pass, whatever the padding or layout."""

from __future__ import annotations

import logging
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    GraniteConfig,
    MambaConfig,
    MistralConfig,
    Qwen3Config,
    Qwen3MoeConfig,
)

from onepolicy.batch import TokenInputs
from onepolicy.errors import ConfigError, DataError, ModelError
from onepolicy.nn.language import ModelShape, build_model
from onepolicy.nn.ragged import ATTENTION, pack
from onepolicy.nn.token_policy import TokenPolicy, compact, head_is_plain

VOCABULARY = 23
ARCHITECTURES = ["qwen3", "llama", "gpt2"]
LAYOUTS = ["padded", "packed"]
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
COMMON = {"vocab_size": VOCABULARY, "max_position_embeddings": 64, "bos_token_id": None, "eos_token_id": 1}


def loud(model):
    """The model in float64 with weights scaled up, so that attention and probabilities are far from uniform."""
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(4.0 if p.dim() > 1 else 1.0)
    return model.double().eval()


def make(arch="qwen3"):
    shape = ModelShape(width=16, depth=2, heads=2, mlp=24)
    return loud(build_model(shape, VOCABULARY, context=64, arch=arch, pad_token_id=0, eos_token_id=1))


def from_config(config):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return loud(AutoModelForCausalLM.from_config(config))


def rows(seed=0, count=6, shared=True):
    """Right-padded rows: prompts (the same for pairs of rows, if shared) and completions of varying length."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low, high, size=(1,)):
        return torch.randint(low, high, size, generator=generator)

    sequences = []
    for i in range(count):
        if i % 2 == 0 or not shared:
            prompt = draw(0, VOCABULARY, (int(draw(1, 6)),))
        sequences.append((prompt, draw(0, VOCABULARY, (int(draw(1, 12)),))))
    width = max(len(p) + len(c) for p, c in sequences)
    tokens = torch.zeros(count, width, dtype=torch.int64)
    attention, acts = torch.zeros(2, count, width, dtype=torch.bool)
    for i, (p, c) in enumerate(sequences):
        n = len(p) + len(c)
        tokens[i, :n] = torch.cat([p, c])
        attention[i, :n] = True
        acts[i, len(p) : n] = True
    return TokenInputs(tokens, attention, acts)


def reference(model, inputs, temperature=1.0):
    """Log-prob and entropy by a full forward pass of each row alone, padding removed."""
    logp, entropy = (torch.zeros(inputs.tokens.shape, dtype=model.dtype) for _ in range(2))
    for b, (tokens, attention, acts) in enumerate(zip(inputs.tokens, inputs.attention, inputs.is_action)):
        real = attention.nonzero().squeeze(-1)
        logits = model(input_ids=tokens[real][None]).logits[0] / temperature
        all_logp = logits.log_softmax(-1)
        for place, t in enumerate(real.tolist()):
            if acts[t]:
                logp[b, t] = all_logp[place - 1, tokens[t]]
                entropy[b, t] = -(all_logp[place - 1].exp() * all_logp[place - 1]).sum()
    return logp, entropy


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_equals_a_full_forward_pass_of_each_row_alone(arch, layout):
    model, inputs = make(arch), rows()
    with torch.no_grad():
        logp, entropy = reference(model, inputs, temperature=0.7)
    found = TokenPolicy(model, temperature=0.7, layout=layout).evaluate(inputs, inputs.tokens)
    torch.testing.assert_close(found.logp.detach(), logp, rtol=0, atol=1e-10)
    torch.testing.assert_close(found.entropy, entropy, rtol=0, atol=1e-10)
    assert found.value is None


@pytest.mark.parametrize("shared", [False, True], ids=["own prompts", "shared prompts"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_the_gradient_equals_that_of_full_forward_passes(arch, layout, shared):
    """To 1e-10; only where a shared prompt's gradient is summed before a llama's norm, which transformers computes in
    float32 even in a float64 model, to float32's precision."""
    model, inputs = make(arch), rows(1, shared=shared)
    weight = torch.randn(inputs.tokens.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    want = torch.autograd.grad((reference(model, inputs)[0] * weight).sum(), list(model.parameters()))
    logp = TokenPolicy(model, layout=layout).evaluate(inputs, inputs.tokens).logp
    found = torch.autograd.grad((logp * weight).sum(), list(model.parameters()))
    coarse = shared and layout == "packed" and arch != "gpt2"
    for a, b in zip(found, want):
        assert (a - b).abs().max() <= (1e-5 if coarse else 1e-10) * max(1.0, float(b.abs().max()))


@settings(max_examples=25, deadline=None)
@given(data=st.data(), seed=st.integers(0, 9), layout=st.sampled_from(LAYOUTS))
def test_padding_anywhere_of_any_amount_and_any_content_changes_nothing(data, seed, layout):
    """Each row's real tokens are strewn, in order, over a wider row; padding holds ids no model has."""
    inputs = rows(seed, count=4)
    policy = POLICIES[layout]
    plain = policy.evaluate(inputs, inputs.tokens)
    width = inputs.tokens.shape[1] + data.draw(st.integers(0, 9))
    tokens = torch.full((4, width), -100)
    attention, acts = torch.zeros(2, 4, width, dtype=torch.bool)
    places = []
    for b in range(4):
        real = inputs.attention[b].nonzero().squeeze(-1)
        place = torch.tensor(sorted(data.draw(st.permutations(range(width)))[: len(real)]))
        tokens[b, place] = inputs.tokens[b, real]
        attention[b, place] = True
        acts[b, place] = inputs.is_action[b, real]
        places.append((b, real, place))
    found = policy.evaluate(TokenInputs(tokens, attention, acts), tokens)
    for b, real, place in places:
        torch.testing.assert_close(found.logp[b, place], plain.logp[b, real], rtol=0, atol=1e-10)
        torch.testing.assert_close(found.entropy[b, place], plain.entropy[b, real], rtol=0, atol=1e-10)
    assert not found.logp[~acts].any()
    assert not found.entropy[~acts].any()


POLICIES = {layout: TokenPolicy(make(), layout=layout) for layout in LAYOUTS}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_float32_is_within_1e_5_of_float64(layout):
    inputs = rows(3)
    want = TokenPolicy(make()).evaluate(inputs, inputs.tokens)
    found = TokenPolicy(make().float(), layout=layout).evaluate(inputs, inputs.tokens)
    assert found.logp.dtype == torch.float32
    assert (found.logp - want.logp).abs().max() < 1e-5


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bfloat16_models_give_float32_log_probs(layout):
    inputs = rows(3)
    want = TokenPolicy(make()).evaluate(inputs, inputs.tokens)
    found = TokenPolicy(make().bfloat16(), layout=layout).evaluate(inputs, inputs.tokens)
    assert found.logp.dtype == torch.float32
    assert (found.logp - want.logp).abs().max() < 0.2


def test_two_actions_by_hand():
    """A GPT-2 whose blocks are empty and whose embedding is the identity predicts from the last token alone.

    Width 2, vocabulary 2, no position embedding: state of token i is layer-norm of e_i, which is +-1; logits are that
    state again. p(same) = 1 / (1 + e^-2), entropy of that coin.
    """
    config = GPT2Config(vocab_size=2, n_embd=2, n_layer=0, n_head=1, n_positions=8, layer_norm_epsilon=0.0)
    model = AutoModelForCausalLM.from_config(config).double()
    with torch.no_grad():
        model.transformer.wte.weight.copy_(torch.eye(2))
        model.transformer.wpe.weight.zero_()
    tokens = torch.tensor([[0, 0, 1]])
    every = torch.ones(1, 3, dtype=torch.bool)
    found = TokenPolicy(model).evaluate(TokenInputs(tokens, every, torch.tensor([[False, True, True]])), tokens)
    same, other = 1 / (1 + math.exp(-2)), 1 / (1 + math.exp(2))
    coin = -same * math.log(same) - other * math.log(other)
    torch.testing.assert_close(found.logp.tolist(), [[0.0, math.log(same), math.log(other)]], rtol=1e-12, atol=0)
    torch.testing.assert_close(found.entropy.tolist(), [[0.0, coin, coin]], rtol=1e-12, atol=0)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_actions_need_not_be_contiguous_nor_equal_to_the_tokens(layout):
    """Multi-turn rows have several action spans; another action may be asked about than the one taken."""
    model, inputs = make(), rows(4)
    acts = inputs.is_action & (torch.arange(inputs.tokens.shape[1]) % 3 != 0)
    inputs = TokenInputs(inputs.tokens, inputs.attention, acts)
    other = (inputs.tokens + 1) % VOCABULARY
    found = TokenPolicy(model, layout=layout).evaluate(inputs, other)
    with torch.no_grad():
        padded = model(input_ids=inputs.tokens).logits.log_softmax(-1)
    want = padded[:, :-1].gather(-1, other[:, 1:, None]).squeeze(-1)
    torch.testing.assert_close(found.logp[:, 1:][acts[:, 1:]], want[acts[:, 1:]], rtol=0, atol=1e-10)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_without_actions_are_fine_and_so_is_a_batch_of_them(layout):
    model, inputs = make(), rows(5)
    acts = inputs.is_action.clone()
    acts[::2] = False
    policy = TokenPolicy(model, layout=layout)
    whole = policy.evaluate(inputs, inputs.tokens).logp
    half = policy.evaluate(TokenInputs(inputs.tokens, inputs.attention, acts), inputs.tokens).logp
    torch.testing.assert_close(half, torch.where(acts, whole, 0.0), rtol=0, atol=1e-10)
    none = TokenInputs(inputs.tokens, inputs.attention, torch.zeros_like(acts))
    logp = policy.evaluate(none, inputs.tokens).logp
    assert not logp.any()
    logp.sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_the_entropy_has_a_gradient_only_when_asked():
    model, inputs = make(), rows(6)
    assert not TokenPolicy(model).evaluate(inputs, inputs.tokens).entropy.requires_grad
    found = TokenPolicy(model, entropy_grad=True).evaluate(inputs, inputs.tokens).entropy.sum()
    want = reference(model, inputs)[1].sum()
    for a, b in zip(*(torch.autograd.grad(x, list(model.parameters())) for x in (found, want))):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def test_the_head_in_chunks_gives_the_same_numbers_and_gradient():
    model, inputs = make(), rows(7)
    results = []
    for budget in (1 << 26, 3 * VOCABULARY):
        policy = TokenPolicy(model, entropy_grad=True, head_budget=budget)
        found = policy.evaluate(inputs, inputs.tokens)
        grads = torch.autograd.grad((found.logp + 0.1 * found.entropy).sum(), list(model.parameters()))
        results.append([found.logp, found.entropy, *grads])
    for a, b in zip(*results):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_chunks_bound_the_logits_in_memory():
    model, inputs, sizes = make(), rows(8), []
    model.get_output_embeddings().register_forward_hook(lambda _module, _args, output: sizes.append(output.numel()))
    policy = TokenPolicy(model, head_budget=4 * VOCABULARY)
    sizes.clear()
    policy.evaluate(inputs, inputs.tokens).logp.sum().backward()
    assert max(sizes) <= 4 * VOCABULARY
    assert sum(sizes) == 2 * int(inputs.is_action.sum()) * VOCABULARY  # forward, and again in the backward pass


@pytest.mark.parametrize("layout", LAYOUTS)
def test_dropout_stays_off_in_train_mode(layout):
    config = GPT2Config(n_embd=16, n_layer=2, n_head=2, **COMMON)
    assert config.resid_pdrop > 0
    policy = TokenPolicy(from_config(config), layout=layout).train()
    inputs = rows(9)
    assert policy.training
    first, second = (policy.evaluate(inputs, inputs.tokens).logp for _ in range(2))
    assert torch.equal(first, second)


def test_right_padding_needs_no_mask_and_left_padding_becomes_right_padding():
    """Attention runs without a mask tensor (plainly causal) for either side of padding."""
    inputs = rows(10)
    fields = (inputs.tokens, inputs.attention, inputs.is_action)
    spare = (~inputs.attention).sum(1).tolist()
    left = TokenInputs(*(torch.stack([row.roll(n) for row, n in zip(x, spare)]) for x in fields))
    for case in (inputs, left):
        with torch.profiler.profile(record_shapes=True) as profile, torch.no_grad():
            TokenPolicy(make().float()).evaluate(case, case.tokens)
        shapes = [e.input_shapes for e in profile.events() if e.name == "aten::scaled_dot_product_attention"]
        assert shapes
        assert all(shape[3] == [] for shape in shapes), "an attention mask was built"


def test_compact_by_hand():
    tokens = torch.tensor([[9, 5, 9, 6], [7, 8, 9, 9]])
    attention = torch.tensor([[0, 1, 0, 1], [1, 1, 0, 0]]).bool()
    found = compact(tokens, attention, filler=3)
    assert found.tokens.tolist() == [[5, 6], [7, 8]]
    assert found.rank[0, [1, 3]].tolist() == [0, 1]


# Architectures beyond the presets: the same numbers, or a clear refusal.

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
def test_other_architectures_equal_their_own_full_forward_pass(kind, layout):
    model, inputs = from_config(SPECIAL[kind]).float(), rows(11)
    found = TokenPolicy(model, layout=layout).evaluate(inputs, inputs.tokens)
    with torch.no_grad():
        logp, entropy = reference(model, inputs)
    torch.testing.assert_close(found.logp.detach(), logp, rtol=0, atol=2e-5)
    torch.testing.assert_close(found.entropy, entropy, rtol=0, atol=2e-5)


def test_a_head_with_something_after_it_is_found_out_and_logged(caplog):
    with caplog.at_level(logging.INFO):
        for kind, config in SPECIAL.items():
            policy = TokenPolicy(from_config(config).float())
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


def test_a_packed_policys_model_still_takes_padded_and_cached_input():
    """The engine or `generate` may use the same module: without a layout its attention is plain sdpa."""
    plain, model = make(), make()
    TokenPolicy(model, layout="packed")
    assert model.config._attn_implementation == ATTENTION
    tokens = torch.tensor([[3, 4, 5, 6], [7, 8, 9, 2]])
    mask = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]])
    torch.testing.assert_close(
        model(input_ids=tokens, attention_mask=mask).logits, plain(input_ids=tokens, attention_mask=mask).logits
    )
    options = {"attention_mask": mask, "do_sample": False, "max_new_tokens": 6, "pad_token_id": 0}
    assert torch.equal(model.generate(tokens, **options), plain.generate(tokens, **options))


def test_a_shared_prompt_is_run_once():
    """Two rows of 5 + 2 and 5 + 4 tokens, the last token of each never an input: 5 + 1 + 3 = 9 tokens are run."""
    inputs, seen = TokenInputs(*(torch.zeros(2, 9, dtype=t) for t in (torch.int64, torch.bool, torch.bool))), []
    inputs.tokens[:, :5] = torch.tensor([4, 5, 6, 7, 8])
    inputs.tokens[:, 5:] = torch.tensor([[2, 3, 0, 0], [9, 8, 7, 6]])
    for b, n in enumerate((7, 9)):
        inputs.attention[b, :n] = True
        inputs.is_action[b, 5:n] = True
    model = make()
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


# Sampling one token.


@pytest.mark.parametrize("layout", LAYOUTS)
def test_act_samples_from_the_distribution_it_reports(layout):
    """Frequencies of 4,000 draws from one prompt are within 4 standard errors of the reported probabilities."""
    model = make()
    policy = TokenPolicy(model, temperature=0.8, layout=layout)
    tokens = torch.tensor([[0, 3, 4, 5]]).expand(4000, 4)
    inputs = TokenInputs(tokens, tokens > 0, torch.zeros_like(tokens, dtype=torch.bool))
    action, found = policy.act(inputs, rng=torch.Generator().manual_seed(0))
    p = (model(input_ids=torch.tensor([[3, 4, 5]])).logits[0, -1] / 0.8).softmax(-1).detach()
    torch.testing.assert_close(found.logp, p.log()[action], rtol=0, atol=1e-10)
    torch.testing.assert_close(found.entropy, -(p * p.log()).sum().expand(4000), rtol=0, atol=1e-10)
    frequency = torch.bincount(action, minlength=VOCABULARY) / 4000
    assert ((frequency - p).abs() < 4 * (p * (1 - p) / 4000).sqrt() + 1e-3).all()
    again, _ = policy.act(inputs, rng=torch.Generator().manual_seed(0))
    assert torch.equal(again, action)


# Bad input.


def test_bad_input_is_named():
    inputs = rows(12)
    policy = TokenPolicy(make())
    with pytest.raises(ConfigError, match="temperature is 0"):
        TokenPolicy(make(), temperature=0.0)
    with pytest.raises(ConfigError, match="Did you mean 'packed'"):
        TokenPolicy(make(), layout="pack")
    first = inputs.is_action.clone()
    first[2, 0] = True
    with pytest.raises(DataError, match="first token"):
        policy.evaluate(TokenInputs(inputs.tokens, inputs.attention, first), inputs.tokens)
    with pytest.raises(DataError, match="padding position"):
        policy.evaluate(TokenInputs(inputs.tokens, inputs.attention & False, inputs.is_action), inputs.tokens)
    long = torch.full((1, 65), 4)
    with pytest.raises(DataError, match="65 tokens but the model's context is 64"):
        policy.evaluate(TokenInputs(long, long > 0, long < 0), long)
    with pytest.raises(DataError, match="no real token"):
        policy.act(TokenInputs(long, long < 0, long < 0), rng=torch.Generator())
