"""A causal language model as a policy: the numbers of a plain full forward pass, whatever the padding or layout."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
)

from onepolicy.batch import TokenInputs
from onepolicy.errors import ConfigError, DataError
from onepolicy.nn.token_policy import TokenPolicy, compact

VOCABULARY = 23
ARCHITECTURES = ["qwen3", "llama", "gpt2"]
LAYOUTS = ["padded", "packed"]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_equals_a_full_forward_pass_of_each_row_alone(lm, arch, layout):
    model, inputs = lm.make(arch), lm.rows()
    with torch.no_grad():
        logp, entropy = lm.reference(model, inputs, temperature=0.7)
    found = TokenPolicy(model, temperature=0.7, layout=layout).evaluate(inputs, inputs.tokens)
    torch.testing.assert_close(found.logp.detach(), logp, rtol=0, atol=1e-10)
    torch.testing.assert_close(found.entropy, entropy, rtol=0, atol=1e-10)
    assert found.value is None


@pytest.mark.parametrize("shared", [False, True], ids=["own prompts", "shared prompts"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_the_gradient_equals_that_of_full_forward_passes(lm, arch, layout, shared):
    """To 1e-10; only where a shared prompt's gradient is summed before a llama's norm, which transformers computes in
    float32 even in a float64 model, to float32's precision."""
    model, inputs = lm.make(arch), lm.rows(1, shared=shared)
    weight = torch.randn(inputs.tokens.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    want = torch.autograd.grad((lm.reference(model, inputs)[0] * weight).sum(), list(model.parameters()))
    logp = TokenPolicy(model, layout=layout).evaluate(inputs, inputs.tokens).logp
    found = torch.autograd.grad((logp * weight).sum(), list(model.parameters()))
    coarse = shared and layout == "packed" and arch != "gpt2"
    for a, b in zip(found, want):
        assert (a - b).abs().max() <= (1e-5 if coarse else 1e-10) * max(1.0, float(b.abs().max()))


@pytest.fixture(scope="module")
def policies(lm):
    return {layout: TokenPolicy(lm.make(), layout=layout) for layout in LAYOUTS}


@settings(max_examples=25, deadline=None)
@given(data=st.data(), seed=st.integers(0, 9), layout=st.sampled_from(LAYOUTS))
def test_padding_anywhere_of_any_amount_and_any_content_changes_nothing(lm, policies, data, seed, layout):
    """Each row's real tokens are strewn, in order, over a wider row; padding holds ids no model has."""
    inputs = lm.rows(seed, count=4)
    policy = policies[layout]
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


@pytest.mark.parametrize("layout", LAYOUTS)
def test_float32_is_within_1e_5_of_float64(lm, layout):
    inputs = lm.rows(3)
    want = TokenPolicy(lm.make()).evaluate(inputs, inputs.tokens)
    found = TokenPolicy(lm.make().float(), layout=layout).evaluate(inputs, inputs.tokens)
    assert found.logp.dtype == torch.float32
    assert (found.logp - want.logp).abs().max() < 1e-5


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bfloat16_models_give_float32_log_probs(lm, layout):
    inputs = lm.rows(3)
    want = TokenPolicy(lm.make()).evaluate(inputs, inputs.tokens)
    found = TokenPolicy(lm.make().bfloat16(), layout=layout).evaluate(inputs, inputs.tokens)
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
def test_actions_need_not_be_contiguous_nor_equal_to_the_tokens(lm, layout):
    """Multi-turn rows have several action spans; another action may be asked about than the one taken."""
    model, inputs = lm.make(), lm.rows(4)
    acts = inputs.is_action & (torch.arange(inputs.tokens.shape[1]) % 3 != 0)
    inputs = TokenInputs(inputs.tokens, inputs.attention, acts)
    other = (inputs.tokens + 1) % VOCABULARY
    found = TokenPolicy(model, layout=layout).evaluate(inputs, other)
    with torch.no_grad():
        padded = model(input_ids=inputs.tokens).logits.log_softmax(-1)
    want = padded[:, :-1].gather(-1, other[:, 1:, None]).squeeze(-1)
    torch.testing.assert_close(found.logp[:, 1:][acts[:, 1:]], want[acts[:, 1:]], rtol=0, atol=1e-10)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_without_actions_are_fine_and_so_is_a_batch_of_them(lm, layout):
    model, inputs = lm.make(), lm.rows(5)
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


def test_the_entropy_has_a_gradient_only_when_asked(lm):
    model, inputs = lm.make(), lm.rows(6)
    assert not TokenPolicy(model).evaluate(inputs, inputs.tokens).entropy.requires_grad
    found = TokenPolicy(model, entropy_grad=True).evaluate(inputs, inputs.tokens).entropy.sum()
    want = lm.reference(model, inputs)[1].sum()
    for a, b in zip(*(torch.autograd.grad(x, list(model.parameters())) for x in (found, want))):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def test_the_head_in_chunks_gives_the_same_numbers_and_gradient(lm):
    model, inputs = lm.make(), lm.rows(7)
    results = []
    for budget in (1 << 26, 3 * VOCABULARY):
        policy = TokenPolicy(model, entropy_grad=True, head_budget=budget)
        found = policy.evaluate(inputs, inputs.tokens)
        grads = torch.autograd.grad((found.logp + 0.1 * found.entropy).sum(), list(model.parameters()))
        results.append([found.logp, found.entropy, *grads])
    for a, b in zip(*results):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_chunks_bound_the_logits_in_memory(lm):
    model, inputs, sizes = lm.make(), lm.rows(8), []
    model.get_output_embeddings().register_forward_hook(lambda _module, _args, output: sizes.append(output.numel()))
    policy = TokenPolicy(model, head_budget=4 * VOCABULARY)
    sizes.clear()
    policy.evaluate(inputs, inputs.tokens).logp.sum().backward()
    assert max(sizes) <= 4 * VOCABULARY
    assert sum(sizes) == 2 * int(inputs.is_action.sum()) * VOCABULARY  # forward, and again in the backward pass


@pytest.mark.parametrize("layout", LAYOUTS)
def test_dropout_stays_off_in_train_mode(lm, layout):
    config = GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=VOCABULARY, bos_token_id=None, eos_token_id=1)
    assert config.resid_pdrop > 0
    policy = TokenPolicy(lm.from_config(config), layout=layout).train()
    inputs = lm.rows(9)
    assert policy.training
    first, second = (policy.evaluate(inputs, inputs.tokens).logp for _ in range(2))
    assert torch.equal(first, second)


def test_right_padding_needs_no_mask_and_left_padding_becomes_right_padding(lm):
    """Attention runs without a mask tensor (plainly causal) for either side of padding."""
    inputs = lm.rows(10)
    fields = (inputs.tokens, inputs.attention, inputs.is_action)
    spare = (~inputs.attention).sum(1).tolist()
    left = TokenInputs(*(torch.stack([row.roll(n) for row, n in zip(x, spare)]) for x in fields))
    for case in (inputs, left):
        with torch.profiler.profile(record_shapes=True) as profile, torch.no_grad():
            TokenPolicy(lm.make().float()).evaluate(case, case.tokens)
        shapes = [e.input_shapes for e in profile.events() if e.name == "aten::scaled_dot_product_attention"]
        assert shapes
        assert all(shape[3] == [] for shape in shapes), "an attention mask was built"


def test_compact_by_hand():
    tokens = torch.tensor([[9, 5, 9, 6], [7, 8, 9, 9]])
    attention = torch.tensor([[0, 1, 0, 1], [1, 1, 0, 0]]).bool()
    found = compact(tokens, attention, filler=3)
    assert found.tokens.tolist() == [[5, 6], [7, 8]]
    assert found.rank[0, [1, 3]].tolist() == [0, 1]


# Sampling one token.


@pytest.mark.parametrize("layout", LAYOUTS)
def test_act_samples_from_the_distribution_it_reports(lm, layout):
    """Frequencies of 4,000 draws from one prompt are within 4 standard errors of the reported probabilities."""
    model = lm.make()
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


def test_bad_input_is_named(lm):
    inputs = lm.rows(12)
    policy = TokenPolicy(lm.make())
    with pytest.raises(ConfigError, match="temperature is 0"):
        TokenPolicy(lm.make(), temperature=0.0)
    with pytest.raises(ConfigError, match="Did you mean 'packed'"):
        TokenPolicy(lm.make(), layout="pack")
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
