"""Sums at shifts from one transform equal those of the shifted series themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tasks.eeg.lags import Lagged, lagged
from tasks.eeg.shift_sums import Shifted, against_copies, shift_sums
from tasks.eeg.sufficient import Layout, Part, ResponseSums, regressor_sums, response_sums
from tasks.eeg.tiles import TILE, tiles, whole_tiles
from tasks.eeg.toeplitz import windows_of

Array = np.ndarray[Any, Any]
LAYOUT = Layout(("one", "two"), ((Part("a", 211, 1), Part("a", 205, 2)), (Part("b", 240, 2),)))
SHORT = Layout(("one", "two"), ((Part("a", 211, 1), Part("a", 60, 2)), (Part("b", 3, 1),)))
LENGTHS = {"a": 211, "b": 240}


def world(
    lags: Array, layout: Layout, first: int, last: int, n_versions: int = 7
) -> tuple[dict[str, Lagged], dict[str, Shifted], list[ResponseSums]]:
    """Design, versions with a regressor from sample `first` to `last` before the end, and two subjects."""
    random = np.random.default_rng(11)
    design = {key: Lagged(random.normal(size=(n, 2)), lags) for key, n in LENGTHS.items()}
    versions = {}
    for key, n in LENGTHS.items():
        fit = np.zeros(n)
        fit[first : n - last] = random.normal(size=n - first - last)
        residual = random.normal(size=n - first - last)
        versions[key] = Shifted(fit, residual, first, random.integers(30, 150, size=n_versions))
    responses = []
    for n_channels in (3, 18):
        trials = [
            [[random.normal(size=(part.n_samples, n_channels)) + 1.0 for _ in range(part.n_trials)] for part in parts]
            for parts in layout.parts
        ]
        responses.append(response_sums(layout, design, trials))
    return design, versions, responses


@pytest.mark.parametrize("layout", [LAYOUT, SHORT], ids=["whole", "short"])
@pytest.mark.parametrize(("first", "last"), [(0, 0), (3, 0), (2, 9), (0, 17)])
@pytest.mark.parametrize("window", [(0, 8), (-4, 5), (-9, -3), (3, 7), (0, 1), (-3, 1)])
def test_equal_to_the_sums_of_the_series(layout: Layout, first: int, last: int, window: tuple[int, int]) -> None:
    lags = np.arange(*window)
    design, versions, responses = world(lags, layout, first, last)
    series = {key: own.series() for key, own in versions.items()}
    columns = {key: own[:] for key, own in design.items()}
    slow, slow_crosses = regressor_sums(layout, columns, series, lags, responses)
    fast, crosses = shift_sums(layout, design, versions, lags, responses)
    for name in ("reduced", "products", "totals"):
        np.testing.assert_allclose(getattr(fast, name), getattr(slow, name), atol=1e-11)
    for own, other in zip(crosses, slow_crosses, strict=True):
        np.testing.assert_allclose(own, other, atol=1e-11)


@pytest.mark.parametrize("with_fit", [True, False], ids=["versions", "residuals"])
def test_masked_samples_do_not_count(with_fit: bool) -> None:
    lags = np.arange(-2, 4)
    design, versions, _ = world(lags, LAYOUT, 3, 2)
    own, rows = versions["a"], np.ones(205, dtype=bool)
    rows[[0, 1, 90, 204]] = False
    spans = [(0, 2), (90, 91), (204, 205)]
    found = against_copies(own, lags, windows_of(design["a"], 205), with_fit, spans)
    series = own.series() if with_fit else own.series() - own.fit
    for version, block in zip(series, found, strict=True):
        expected = lagged(version[:, None], lags)[:205][rows].T @ design["a"][:205][rows]
        np.testing.assert_allclose(block.reshape(lags.size, -1), expected, atol=1e-11)


def test_the_company_changes_no_bit() -> None:
    lags = np.arange(-4, 8)
    design, versions, responses = world(lags, LAYOUT, 3, 0)
    together, crosses = shift_sums(LAYOUT, design, versions, lags, responses)
    few = {key: Shifted(own.fit, own.residual, own.first, own.shifts[2:4]) for key, own in versions.items()}
    alone, [cross] = shift_sums(LAYOUT, design, few, lags, responses[1:])
    rows = slice(2 * lags.size, 4 * lags.size)
    assert np.array_equal(alone.reduced, together.reduced[:, rows])
    assert np.array_equal(alone.products, together.products[:, 2:4])
    assert np.array_equal(alone.totals, together.totals[:, rows])
    assert np.array_equal(cross, crosses[1][:, rows])


def test_tiles_are_whole_and_in_place() -> None:
    assert whole_tiles(range(TILE + 5, 3 * TILE + 1)) == range(TILE, 4 * TILE)
    assert whole_tiles(range(0, TILE)) == range(0, TILE)
    lags = np.arange(3)
    design, versions, responses = world(lags, LAYOUT, 0, 0, n_versions=2 * TILE)
    sums, crosses = shift_sums(LAYOUT, design, versions, lags, responses)
    found = list(tiles(sums, crosses))
    assert [tile.products.shape[1] for tile, _ in found] == [TILE, TILE]
    assert np.array_equal(np.concatenate([tile.reduced for tile, _ in found], axis=1), sums.reduced)
    assert np.array_equal(np.concatenate([tile.totals for tile, _ in found], axis=1), sums.totals)
    assert np.array_equal(np.concatenate([cross[1] for _, cross in found], axis=1), crosses[1])
