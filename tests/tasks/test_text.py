"""Overlap with references: numbers by hand, sacrebleu's own, a naive subsequence, several references."""

from __future__ import annotations

import pickle
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU, CHRF, TER

from onepolicy.errors import ConfigError
from onepolicy.tasks.base import conversation
from onepolicy.tasks.text import METRICS, ROUGE, OverlapVerifier, common_subsequence, references_of, rouge_l, rouge_n
from onepolicy.types import Task

GOLD = "The quick brown fox jumps over the lazy dog."
CLOSE = "The quick brown fox jumped over the lazy dogs."


def score(verifier, text, gold=GOLD, **meta):
    return verifier(Task("t", conversation("Go."), gold, verifier, meta), text)


@pytest.mark.parametrize("metric", METRICS)
def test_the_gold_scores_one_a_stranger_little_and_nothing_nothing(metric):
    verifier = OverlapVerifier(metric)
    assert score(verifier, GOLD).value == pytest.approx(1)
    assert score(verifier, f"<think>x y z</think>{GOLD}").value == pytest.approx(1)
    assert score(verifier, "Zwölf Boxkämpfer jagen Viktor quer").value < 0.15
    assert score(verifier, "").value == 0
    assert score(verifier, " \n").value == 0
    assert 0.3 < score(verifier, CLOSE).value < 1
    assert score(verifier, "x" * 30_000).value == 0


def test_bleu_chrf_and_ter_are_sacrebleus():
    expected = {
        "bleu": BLEU(effective_order=True).sentence_score(CLOSE, [GOLD]).score / 100,
        "chrf": CHRF().sentence_score(CLOSE, [GOLD]).score / 100,
        "chrf++": CHRF(word_order=2).sentence_score(CLOSE, [GOLD]).score / 100,
        "ter": 1 - TER().sentence_score(CLOSE, [GOLD]).score / 100,
    }
    for metric, value in expected.items():
        assert score(OverlapVerifier(metric), CLOSE).value == pytest.approx(value, abs=1e-12)
        assert score(OverlapVerifier(metric), CLOSE).parts == {metric: pytest.approx(value)}


def test_bleu_by_hand():
    """`the cat` against `the cat sat`: all of its one- and two-grams match, brevity exp(1 - 3/2)."""
    assert score(OverlapVerifier("bleu"), "the cat", "the cat sat").value == pytest.approx(2.718281828459045**-0.5)


def test_rouge_by_hand():
    """Lin's examples: `police kill the gunman` has 3 of 4 words in common and 3 in order; turned round, 2 in order."""
    gold = "police killed the gunman"
    assert rouge_n("police kill the gunman", [gold], 1) == 0.75
    assert rouge_n("police kill the gunman", [gold], 2) == pytest.approx(1 / 3)
    assert rouge_l("police kill the gunman", [gold]) == 0.75
    assert rouge_l("the gunman kill police", [gold]) == 0.5
    assert rouge_n("the the the the", ["the cat"], 1) == pytest.approx(2 / 6)


def test_the_best_reference_counts():
    meta = {"references": ["Nothing alike at all.", CLOSE]}
    for metric in ("rouge1", "rouge2", "rougeL", "chrf"):
        assert score(OverlapVerifier(metric), CLOSE, **meta).value == pytest.approx(1)
    task = Task("t", conversation("x"), " a ", OverlapVerifier(), {"references": ["b", " ", 3]})
    assert references_of(task) == ["a", "b"]


def test_without_a_reference_there_is_no_verdict():
    for metric in METRICS:
        got = score(OverlapVerifier(metric), CLOSE, "")
        assert (got.state, got.cause) == ("invalid", "gold")
    assert score(OverlapVerifier("ter"), "a", "word " * 101).cause == "gold"


def test_case_threshold_and_signature():
    assert score(OverlapVerifier("chrf", lowercase=True), GOLD.upper()).value == pytest.approx(1)
    assert score(OverlapVerifier("chrf"), GOLD.upper()).value < 0.5
    assert score(OverlapVerifier("rougeL", threshold=0.7), CLOSE).value == 1
    assert score(OverlapVerifier("rougeL", threshold=0.9), CLOSE).value == 0
    assert "tok:13a|smooth:exp" in OverlapVerifier("bleu").signature
    assert "nc:6|nw:2" in OverlapVerifier("chrf++").signature
    assert OverlapVerifier("rouge2").signature.startswith("rouge2|refs:best|f1")
    for wrong in ({"metric": "blue"}, {"tokenize": "13b"}, {"threshold": 0}, {"side": "left"}):
        with pytest.raises(ConfigError):
            OverlapVerifier(**wrong)
    again = pickle.loads(pickle.dumps(OverlapVerifier("bleu")))  # noqa: S301
    assert score(again, CLOSE) == score(OverlapVerifier("bleu"), CLOSE)


def naive_subsequence(one, two):
    table = [[0] * (len(two) + 1) for _ in range(len(one) + 1)]
    for i, a in enumerate(one):
        for j, b in enumerate(two):
            table[i + 1][j + 1] = table[i][j] + 1 if a == b else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


@settings(max_examples=300, deadline=None)
@given(st.text("abc", max_size=12), st.text("abcd", max_size=12))
def test_the_subsequence_agrees_with_the_table(one, two):
    assert common_subsequence(one, two) == naive_subsequence(one, two) == common_subsequence(two, one)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60))
def test_no_text_makes_it_raise_and_scores_are_shares(text):
    for metric in METRICS:
        assert 0 <= score(OverlapVerifier(metric), text).value <= 1


def test_long_text_takes_no_time():
    started = time.process_time()
    for metric in (*ROUGE, "bleu", "chrf"):
        score(OverlapVerifier(metric), "a b " * 5_000, "b a " * 5_000)
    assert time.process_time() - started < 3.0
