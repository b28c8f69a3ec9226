"""The cross-entropy search: it finds optima inside and on the bounds, each search apart, and says what cannot be."""

import pytest
import torch

from onepolicy.core.cem import Search, cross_entropy
from onepolicy.errors import ConfigError


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_it_finds_the_top_of_a_hill_and_the_nearest_point_where_that_is_out_of_bounds():
    top = torch.tensor([[0.3, -0.6], [2.0, 0.5]])

    def score(x):
        return -(x - top.unsqueeze(1)).square().sum(-1)

    mean, std = cross_entropy(score, torch.zeros(2, 2), torch.ones(2, 2), Search(rounds=12), generators(0, 1))
    assert mean.flatten().tolist() == pytest.approx([0.3, -0.6, 1.0, 0.5], abs=0.02)
    assert std.max() < 0.05


def test_a_search_is_the_same_alone():
    def score(x):
        return -(x - 0.4).square().sum((-1, -2))

    shape, search = (3, 2), Search(population=30, elites=5, rounds=3)
    both, _ = cross_entropy(score, torch.zeros(2, *shape), torch.ones(2, *shape), search, generators(5, 9))
    one, _ = cross_entropy(score, torch.zeros(1, *shape), torch.ones(1, *shape), search, generators(9))
    assert torch.equal(both[1:], one)


def test_neighbours_may_share_a_generator():
    """Searches 0 and 1 draw from one, 2 and 3 from the other; each pair is what it is alone."""

    def score(x):
        return -(x - 0.4).square().sum(-1)

    search = Search(population=30, elites=5, rounds=3)
    four, _ = cross_entropy(score, torch.zeros(4, 2), torch.ones(4, 2), search, generators(5, 9))
    two, _ = cross_entropy(score, torch.zeros(2, 2), torch.ones(2, 2), search, generators(9))
    assert torch.equal(four[2:], two)
    assert not torch.equal(four[2], four[3])


def test_one_round_by_hand():
    """Two samples, the better one kept: mean 0.1 * 0.5 + 0.9 * it, deviation 0.1 * 0.2 + 0."""
    (rng,) = generators(3)
    drawn = 0.5 + 0.2 * torch.randn(2, 1, generator=torch.Generator().manual_seed(3))
    search = Search(population=2, elites=1, rounds=1)
    mean, std = cross_entropy(
        lambda x: x.sum(-1), torch.full((1, 1), 0.5), torch.full((1, 1), 0.2), search, [rng], low=-9.0, high=9.0
    )
    assert mean.item() == pytest.approx(0.1 * 0.5 + 0.9 * drawn.max().item())
    assert std.item() == pytest.approx(0.02)


def test_what_is_not_finite_is_never_chosen():
    def score(x):
        bad = torch.where(x < 0.1, torch.nan, torch.inf)
        return torch.where((x > 0.2) & (x < 0.3), x, bad).sum(-1)

    search = Search(population=400, elites=4, rounds=4, keep=0.0)
    mean, _ = cross_entropy(score, torch.zeros(1, 1), torch.ones(1, 1), search, generators(0))
    assert 0.2 < mean.item() < 0.3


@pytest.mark.parametrize(
    ("fields", "words"),
    [({"elites": 500}, "elites is 500 of 400"), ({"rounds": 0}, "rounds is 0"), ({"keep": 1.0}, "keep is 1.0")],
)
def test_bad_settings(fields, words):
    with pytest.raises(ConfigError, match=words):
        Search(**fields)


def test_searches_need_equal_shares_of_the_generators():
    with pytest.raises(ConfigError, match="2 generators for 3 searches"):
        cross_entropy(lambda x: x.sum(-1), torch.zeros(3, 1), torch.ones(3, 1), Search(), generators(0, 1))
    with pytest.raises(ConfigError, match="0 generators for 3 searches"):
        cross_entropy(lambda x: x.sum(-1), torch.zeros(3, 1), torch.ones(3, 1), Search(), [])
