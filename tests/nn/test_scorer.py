"""A reward model reads the last real token wherever it is, is a plain transformers model on disk, keeps its scale."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from onepolicy.batch import TokenInputs
from onepolicy.errors import DataError, ModelError
from onepolicy.nn.language import build_model, save_model
from onepolicy.nn.scorer import Scorer, load_scorer, new_scorer, save_scorer

ROWS = ([5, 6, 7, 8], [9, 3], [4, 4, 4])


def scorer_of(arch: str = "qwen3", context: int = 16) -> Scorer:
    language = build_model("tiny-0.2m", 12, context=context, arch=arch, pad_token_id=0, eos_token_id=1)
    return new_scorer(language, seed=3)


def inputs_of(side: str, width: int = 6) -> TokenInputs:
    tokens = torch.zeros(len(ROWS), width, dtype=torch.int64)
    attention = torch.zeros(len(ROWS), width, dtype=torch.bool)
    for b, row in enumerate(ROWS):
        start = {"right": 0, "left": width - len(row), "middle": 1}[side]
        tokens[b, start : start + len(row)] = torch.tensor(row)
        attention[b, start : start + len(row)] = True
    first = attention & (attention.cumsum(-1) == 1)
    return TokenInputs(tokens, attention, attention & ~first)


@pytest.mark.parametrize("arch", ["qwen3", "llama", "gpt2"])
@pytest.mark.parametrize("side", ["right", "left", "middle"])
@torch.no_grad()
def test_the_score_is_that_of_the_unpadded_row(arch: str, side: str) -> None:
    """Each row alone, through the plain model and its head at the last token; and the same numbers at every token."""
    scorer, inputs = scorer_of(arch), inputs_of(side)
    scores, values, before = scorer(inputs), scorer.values(inputs), scorer.before(inputs)
    for b, row in enumerate(ROWS):
        states = scorer.model.base_model(input_ids=torch.tensor([row])).last_hidden_state[0]
        want = (states @ scorer.model.score.weight[0]).tolist()
        assert scores[b].item() == pytest.approx(want[-1], abs=1e-5)
        assert values[b][inputs.attention[b]].tolist() == pytest.approx(want, abs=1e-5)
        assert before[b][inputs.is_action[b]].tolist() == pytest.approx(want[:-1], abs=1e-5)
    assert not values[~inputs.attention].any()
    assert not before[~inputs.is_action].any()


@torch.no_grad()
def test_transformers_opens_it_and_gives_the_same_numbers(tmp_path) -> None:
    scorer, inputs = scorer_of(), inputs_of("right")
    scorer.rescale(gain=2.0, shift=0.5)
    scorer.rescale(gain=3.0, shift=1.0)  # 3 (2 s - 0.5) - 1 = 6 s - 2.5
    save_scorer(scorer, None, tmp_path)
    raw = AutoModelForSequenceClassification.from_pretrained(tmp_path)(
        input_ids=inputs.tokens, attention_mask=inputs.attention.long()
    ).logits[:, 0]
    again = load_scorer(tmp_path)
    assert torch.allclose(scorer(inputs), 6.0 * raw - 2.5, atol=1e-5)
    assert torch.allclose(again(inputs), scorer(inputs), rtol=1e-6)


def test_the_backbone_is_a_copy_of_the_language_model() -> None:
    language = build_model("tiny-0.2m", 12, context=16, pad_token_id=0, eos_token_id=1)
    scorer = new_scorer(language, seed=0)
    name, theirs = next(iter(language.base_model.named_parameters()))
    ours = dict(scorer.model.base_model.named_parameters())[name]
    assert torch.equal(ours, theirs)
    assert ours.data_ptr() != theirs.data_ptr()
    # N(0, 1/(D+1)) over 64 weights: the standard deviation is 0.124 within 4 standard errors, 0.124 / sqrt(128)
    assert abs(float(scorer.model.score.weight.detach().std()) - 65**-0.5) < 4 * 65**-0.5 / 128**0.5


def test_bad_input_is_refused_by_name(tmp_path) -> None:
    language = build_model("tiny-0.2m", 12, context=4, pad_token_id=0, eos_token_id=1)
    save_model(language, None, tmp_path / "language")
    with pytest.raises(ModelError, match=r"score\.weight"):
        load_scorer(tmp_path / "language")
    with pytest.raises(ModelError, match="does not exist"):
        load_scorer(tmp_path / "none" / "such")
    scorer = new_scorer(language, seed=0)
    with pytest.raises(DataError, match="5 tokens but the reward model's context is 4"):
        scorer(TokenInputs(*(torch.ones(1, 5, dtype=kind) for kind in (torch.int64, torch.bool, torch.bool))))
    empty = TokenInputs(*(torch.zeros(1, 3, dtype=kind) for kind in (torch.int64, torch.bool, torch.bool)))
    with pytest.raises(DataError, match="row 0 has no token"):
        scorer(empty)
    language.config.num_labels = 2
    two = AutoModelForSequenceClassification.from_config(language.config)
    with pytest.raises(ModelError, match="has 2 labels"):
        Scorer(two)
