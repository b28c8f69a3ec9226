"""The engine against naive full-forward decoding, its samples' independence of the batch, its bounds and its errors."""

from __future__ import annotations

import logging
from itertools import chain

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onepolicy.acting.engine import Engine
from onepolicy.errors import ConfigError, DataError, ModelError
from onepolicy.types import Sampling

FAMILIES = ("qwen3", "llama", "gpt2")
PATHS = ("compiled", "lean", "module")
PROMPTS = [[3, 4, 5], [6] * 17, [7, 8], [9], [3, 4, 5, 9, 9, 2, 12], [30, 31]]
SEEDS = [11, 12, 13, 14, 15, 2**63 - 1]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_equals_naive_full_forward_decoding(family, path, models, naive):
    model = models[family]
    engine = Engine(model, eos_token_ids=[1], slots=4, path=path)
    assert engine.path == path
    out = engine.generate(PROMPTS, 1, Sampling(max_tokens=25, temperature=0.0), SEEDS)
    for prompt, [completion] in zip(PROMPTS, out, strict=True):
        tokens, logp = naive(model, prompt, 25, {1})
        assert list(completion.tokens) == tokens
        assert completion.logp == pytest.approx(logp, abs=1e-4)
        assert completion.stop == ("stop" if tokens[-1] == 1 else "length")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logp_equals_a_full_forward(family, temperature, path, models, full_logp):
    engine = Engine(models[family], eos_token_ids=[1, 2], slots=5, path=path)
    out = engine.generate(PROMPTS, 3, Sampling(max_tokens=30, temperature=temperature), SEEDS)
    for prompt, group in zip(PROMPTS, out, strict=True):
        assert len(group) == 3
        for completion in group:
            expected = full_logp(models[family], prompt, completion.tokens, temperature)
            assert completion.logp == pytest.approx(expected, abs=1e-4)
            assert (completion.stop == "stop") == (completion.tokens[-1] in (1, 2))
            assert not {1, 2} & set(completion.tokens[:-1])


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    order=st.permutations(range(6)),
    keep=st.integers(1, 6),
    slots=st.integers(1, 20),
    n=st.integers(1, 4),
    family=st.sampled_from(FAMILIES),
    path=st.sampled_from(PATHS),
)
def test_a_sample_depends_on_its_seed_k_and_prompt_only(order, keep, slots, n, family, path, models):
    """Any subset in any order in any number of slots, with more or fewer samples each, gives the same samples.

    To the bit on the compiled path; the others' matrix products round by the number of rows.
    """
    sampling = Sampling(max_tokens=20, temperature=0.9)
    whole = Engine(models[family], eos_token_ids=[1], slots=64, path=path).generate(PROMPTS, 4, sampling, SEEDS)
    chosen = list(order)[:keep]
    part = Engine(models[family], eos_token_ids=[1], slots=slots, path=path).generate(
        [PROMPTS[i] for i in chosen], n, sampling, [SEEDS[i] for i in chosen]
    )
    for i, group in zip(chosen, part, strict=True):
        assert [c.tokens for c in group] == [c.tokens for c in whole[i][:n]]
        for a, b in zip(group, whole[i], strict=False):
            assert a.logp == (b.logp if path == "compiled" else pytest.approx(b.logp, abs=1e-5))


@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (5, 1.0), (0, 0.8), (9, 0.6)])
def test_every_path_draws_the_same_samples(top_k, top_p, models):
    sampling = Sampling(max_tokens=25, temperature=0.8, top_k=top_k, top_p=top_p)
    outs = [
        Engine(models["qwen3"], eos_token_ids=[1], path=path).generate(PROMPTS, 3, sampling, SEEDS) for path in PATHS
    ]
    for first, *others in zip(*outs, strict=True):
        for other in others:
            assert [c.tokens for c in first] == [c.tokens for c in other]
            for a, b in zip(first, other, strict=True):
                assert a.logp == pytest.approx(b.logp, abs=1e-4)


def test_samples_of_one_prompt_differ_and_follow_the_seed(models):
    engine = Engine(models["qwen3"], eos_token_ids=[1])
    [first] = engine.generate([[3, 4]], 8, Sampling(max_tokens=12), [1])
    [other] = engine.generate([[3, 4]], 8, Sampling(max_tokens=12), [2])
    assert len({c.tokens for c in first}) == 8
    assert not {c.tokens for c in first} & {c.tokens for c in other}


def test_stop_tokens_of_the_call_end_a_completion_too(models, naive):
    model = models["llama"]
    tokens, _ = naive(model, [3, 4, 5], 20, set())
    stop = tokens[4]
    engine = Engine(model, eos_token_ids=[])
    [[completion]] = engine.generate([[3, 4, 5]], 1, Sampling(20, temperature=0.0, stop_tokens=(stop,)), [0])
    assert list(completion.tokens) == tokens[: tokens.index(stop) + 1]
    assert completion.stop == "stop"


@pytest.mark.parametrize("path", PATHS)
def test_stop_strings_end_a_completion_even_across_tokens(path, models, naive):
    """Each token is two letters; the stop string starts in the middle of one token and ends inside another."""
    model = models["gpt2"]

    def decode(tokens):
        return "".join(f"{chr(65 + t)}{t % 10}" for t in tokens)

    tokens, _ = naive(model, [3, 4, 5], 40, set())
    engine = Engine(model, eos_token_ids=[], decode=decode, path=path)
    for at in (0, 7, 71):
        stop = decode(tokens)[at : at + 3]
        cut = next(i for i in range(1, 41) if stop in decode(tokens[:i]))
        sampling = Sampling(40, temperature=0.0, stop=("nowhere", stop))
        [[completion]] = engine.generate([[3, 4, 5]], 1, sampling, [0])
        assert list(completion.tokens) == tokens[:cut]
        assert len(completion.logp) == cut
        assert completion.stop == "stop"


@pytest.mark.parametrize("path", PATHS)
def test_stop_strings_leave_the_other_samples_as_they_were(path, models):
    """Refilling goes on around samples that a stop string ended: each is its free-running self, cut at the string."""

    def decode(tokens):
        return "".join(chr(65 + t) for t in tokens)

    free = Engine(models["llama"], eos_token_ids=[1], path=path).generate(PROMPTS, 5, Sampling(40), SEEDS)
    engine = Engine(models["llama"], eos_token_ids=[1], decode=decode, slots=3, path=path)
    stopped = engine.generate(PROMPTS, 5, Sampling(40, stop=("E", "KL")), SEEDS)
    for whole, cut in zip(chain(*free), chain(*stopped), strict=True):
        text = decode(whole.tokens)
        ends = [text.find(word) + len(word) for word in ("E", "KL") if word in text]
        assert len(cut.tokens) == min(ends, default=len(text))
        assert cut.tokens == whole.tokens[: len(cut.tokens)]
        assert cut.stop == ("stop" if ends else whole.stop)


@pytest.mark.parametrize("path", PATHS)
def test_a_stop_string_longer_than_what_is_written_does_not_end_it(path, models):
    engine = Engine(models["gpt2"], eos_token_ids=[], decode=lambda tokens: "x" * len(tokens), path=path)
    [[completion]] = engine.generate([[3]], 1, Sampling(9, stop=("x" * 10,)), [0])
    assert (len(completion.tokens), completion.stop) == (9, "length")
    [[completion]] = engine.generate([[3]], 1, Sampling(20, stop=("x" * 10,)), [0])
    assert (len(completion.tokens), completion.stop) == (10, "stop")


def test_max_tokens_is_cut_to_the_room_left_in_the_context(models, naive):
    model = models["gpt2"]
    engine = Engine(model, eos_token_ids=[])
    [[completion]] = engine.generate([[5] * 90], 1, Sampling(50, temperature=0.0), [0])
    assert (len(completion.tokens), completion.stop) == (6, "length")
    assert list(completion.tokens) == naive(model, [5] * 90, 6, set())[0]


def test_load_publishes_weights_and_version(make_model, models):
    engine = Engine(make_model("qwen3"), eos_token_ids=[1])
    [[before]] = engine.generate([[3, 4]], 1, Sampling(10), [0])
    assert before.version == 0
    changed = make_model("qwen3")
    with torch.no_grad():
        for parameter in changed.parameters():
            parameter.mul_(1.3)
    engine.load(changed.state_dict(), 7)
    [[after]] = engine.generate([[3, 4]], 1, Sampling(10), [0])
    [[expected]] = Engine(changed, eos_token_ids=[1]).generate([[3, 4]], 1, Sampling(10), [0])
    assert (after.tokens, after.logp, after.version) == (expected.tokens, expected.logp, 7)
    assert after.logp != before.logp


def test_refresh_follows_weights_trained_in_place(make_model, full_logp):
    model = make_model("llama").train()
    engine = Engine(model, eos_token_ids=[1])
    model(torch.tensor([[3, 4, 5]])).logits.sum().backward()  # the module still trains beside the engine
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * parameter.grad.sign())
    engine.load(model.state_dict(), 1)
    [[completion]] = engine.generate([[3, 4]], 1, Sampling(10), [0])
    assert model.training
    assert completion.logp == pytest.approx(full_logp(model.eval(), [3, 4], completion.tokens), abs=1e-4)


def test_dropout_is_off_while_generating(make_model, full_logp):
    model = make_model("gpt2").train()
    [[completion]] = Engine(model, eos_token_ids=[]).generate([[3, 4]], 1, Sampling(10), [0])
    assert model.training
    assert all(module.training for module in model.modules())
    assert completion.logp == pytest.approx(full_logp(model.eval(), [3, 4], completion.tokens), abs=1e-4)


@pytest.mark.parametrize("path", PATHS)
def test_a_prompt_is_computed_once_for_its_samples(path, models):
    """On the stepping paths a prompt's last token is fed when a sample starts, so it is not part of what is shared."""
    engine = Engine(models["qwen3"], eos_token_ids=[], slots=3, path=path)
    engine.generate(PROMPTS, 5, Sampling(4), SEEDS)
    own = sum(map(len, PROMPTS)) - (0 if path == "compiled" else len(PROMPTS))
    assert engine.stats.prefill_tokens == own
    assert engine.stats.prefill_saved == 4 * own
    assert engine.stats.tokens == 6 * 5 * 4


@pytest.mark.parametrize("path", PATHS)
def test_finished_slots_are_refilled_so_that_steps_follow_the_work(path, models):
    """30 samples of 1 to 20 tokens in 4 slots: steps stay near tokens / 4, not near 8 batches of the longest.

    The compiled path draws first tokens from the prompt's own logits, without a step.
    """
    engine = Engine(models["gpt2"], eos_token_ids=[1, 2, 3, 4, 5, 6], slots=4, path=path)
    out = engine.generate(PROMPTS, 5, Sampling(20), SEEDS)
    tokens = sum(len(c.tokens) for group in out for c in group)
    assert engine.stats.tokens == tokens
    stepped = tokens - (30 if path == "compiled" else 0)
    assert stepped / 4 <= engine.stats.steps <= stepped / 4 + 20
    if path != "compiled":
        assert engine.stats.occupancy == pytest.approx(tokens / engine.stats.steps / 4, abs=1e-6)


@pytest.mark.parametrize(("path", "rows"), [("compiled", 1), ("lean", 2), ("module", 2)])
def test_the_cache_stays_within_its_bound_and_gives_the_same_samples(path, rows, models):
    """Room for 100 positions; a row takes 17 + 20 - 1, and the longest prompt's shared copy 17.

    The compiled path keeps prompt and completion apart and rounds each up to 16: 32 + 32.
    """
    sampling = Sampling(max_tokens=20)
    free = Engine(models["llama"], eos_token_ids=[1], path=path)
    bound = Engine(models["llama"], eos_token_ids=[1], cache_tokens=100, path=path)
    all_at_once = free.generate(PROMPTS, 3, sampling, SEEDS)
    few_at_once = bound.generate(PROMPTS, 3, sampling, SEEDS)
    assert [[c.tokens for c in group] for group in few_at_once] == [[c.tokens for c in g] for g in all_at_once]
    assert bound.stats.rows == rows
    assert bound.stats.cache_tokens <= 100 < free.stats.cache_tokens
    width = 12 + 16 if path == "compiled" else 12 + 12  # of a key and a value
    assert bound.stats.cache_bytes == bound.stats.cache_tokens * 3 * width * 4  # layers, one head, bytes


def test_the_cache_is_freed_on_request(models):
    engine = Engine(models["llama"], eos_token_ids=[1])
    first = engine.generate(PROMPTS, 1, Sampling(5), SEEDS)
    engine.release()
    assert engine.generate(PROMPTS, 1, Sampling(5), SEEDS) == first


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_number_of_threads_changes_nothing_but_the_time(threads, models):
    """Also with a single prompt, whose samples several threads share."""
    before = torch.get_num_threads()
    engine = Engine(models["qwen3"], eos_token_ids=[1], slots=7)
    expected = [engine.generate(prompts, 9, Sampling(20), SEEDS[: len(prompts)]) for prompts in (PROMPTS, PROMPTS[:1])]
    try:
        torch.set_num_threads(threads)
        for prompts, samples in zip((PROMPTS, PROMPTS[:1]), expected, strict=True):
            assert engine.generate(prompts, 9, Sampling(20), SEEDS[: len(prompts)]) == samples
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("prompts", "n", "sampling", "seeds", "error", "word"),
    [
        ([[]], 1, Sampling(5), [0], DataError, "prompt 0 has 0 tokens"),
        ([[1], [2] * 96], 1, Sampling(5), [0, 1], DataError, "prompt 1 has 96 tokens; expected 1 to 95"),
        ([[1, 43]], 1, Sampling(5), [0], DataError, "prompt 0 has token id 43"),
        ([[1]], 0, Sampling(5), [0], ConfigError, "n is 0"),
        ([[1]], 1, Sampling(5), [], ConfigError, "0 seeds for 1 prompts"),
        ([[1]], 1, Sampling(5, stop=("a",)), [0], ConfigError, "Pass decode="),
        ([[1]], 1, Sampling(5, stop_tokens=(99,)), [0], ConfigError, "stop_tokens has token id 99"),
        ([[1] * 20], 1, Sampling(60), [0], ConfigError, "Set cache_tokens >= 96"),
        ([[1]], 1, Sampling(0), [0], ConfigError, "max_tokens is 0"),
    ],
)
def test_bad_input_is_named_with_its_fix(prompts, n, sampling, seeds, error, word, models):
    engine = Engine(models["qwen3"], eos_token_ids=[1], cache_tokens=60)
    with pytest.raises(error, match=word):
        engine.generate(prompts, n, sampling, seeds)


def test_no_prompts_give_no_completions(models):
    assert Engine(models["qwen3"], eos_token_ids=[1]).generate([], 4, Sampling(5), []) == []


@pytest.mark.parametrize("path", PATHS)
def test_a_diverged_model_is_an_error_not_a_completion_and_the_engine_recovers(path, make_model):
    model = make_model("llama")
    engine = Engine(model, eos_token_ids=[1], path=path)
    expected = engine.generate([[3, 4]], 1, Sampling(5), [0])
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        model.model.layers[0].self_attn.v_proj.weight.fill_(float("nan"))
    engine.refresh(5)
    with pytest.raises(ModelError, match="version 5 gave log-probabilities that are not finite"):
        engine.generate([[3, 4]], 1, Sampling(5), [0])
    engine.load(state, 0)
    assert engine.generate([[3, 4]], 1, Sampling(5), [0]) == expected


@pytest.mark.parametrize("change", ["missing", "unknown", "shape"])
def test_a_state_that_does_not_fit_is_an_error_and_changes_nothing(change, make_model):
    model = make_model("qwen3")
    engine = Engine(model, eos_token_ids=[1])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = {name: tensor + 1 for name, tensor in before.items()}
    if change == "missing":
        del state["model.norm.weight"]
    elif change == "unknown":
        state["model.lora_A"] = torch.zeros(1)
    else:
        state["model.norm.weight"] = torch.zeros(3)
    with pytest.raises(ModelError, match=r"model\.norm\.weight|model\.lora_A"):
        engine.load(state, 1)
    assert engine.version == 0
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_slots_and_end_tokens_are_checked_at_construction(models):
    with pytest.raises(ConfigError, match="slots is 0"):
        Engine(models["qwen3"], eos_token_ids=[1], slots=0)
    with pytest.raises(ConfigError, match="eos_token_ids has token id 43"):
        Engine(models["qwen3"], eos_token_ids=[43])


def test_nothing_is_printed_or_logged_when_all_is_well(models, caplog):
    with caplog.at_level(logging.WARNING):
        Engine(models["qwen3"], eos_token_ids=[1]).generate([[3]], 1, Sampling(3), [0])
    assert not caplog.records
