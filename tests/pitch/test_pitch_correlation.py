"""The statistics of IC against pitch surprisal, on hand-made notes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tasks.alignment import FRAME_S
from tasks.cluster_bootstrap import bootstrap, table
from tasks.contract import TaskError
from tasks.ic import IcSeries
from tasks.pitch_correlation import COLUMNS, SILENCE_DB, Notes, correlations, frame_levels_db, notes_of, summary
from tasks.seeds import numpy_stream


def made(**changed: list[float]) -> Notes:
    """Seven notes; what isn't given is the same for all."""
    columns = {
        "ic": [9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        "bits": [9.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0],
        "unigram": [9.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0],
        "interval": [np.nan, 0.0, 0.0, 1.0, 2.0, 2.0, 3.0],
    } | changed
    constant = {name: [1.0] * 7 for name in ("gap", "level_db", "phase")}
    return Notes(**{name: np.array(values) for name, values in (constant | columns).items()})


def test_correlations_by_hand() -> None:
    row = correlations(made())
    assert row["n_notes"] == 6
    # the first note is left out. Rank differences of the others: 1, 1, 0, 0, 1, 1: rho = 1 - 6 * 4 / (6 * 35)
    assert row["spearman"] == pytest.approx(1 - 24 / 210)
    assert row["pearson"] == pytest.approx(1 - 24 / 210)  # the values are their own ranks
    assert row["baseline_unigram_spearman"] == pytest.approx(-(1 - 24 / 210))
    # ranks of |interval|: 1.5 1.5 3 4.5 4.5 6
    ranks = [1.5, 1.5, 3, 4.5, 4.5, 6]
    assert row["baseline_interval_spearman"] == pytest.approx(np.corrcoef(ranks, [2, 1, 3, 4, 6, 5])[0, 1])
    assert row["baseline_interval_pearson"] == pytest.approx(np.corrcoef([0, 0, 1, 2, 2, 3], [2, 1, 3, 4, 6, 5])[0, 1])
    assert row["spearman_interval"] == pytest.approx(np.corrcoef(ranks, [1, 2, 3, 4, 5, 6])[0, 1])
    # not being one of the two repeated notes, which are the least surprising ones
    assert row["baseline_repetition_spearman"] == pytest.approx(
        np.corrcoef([2, 1, 3, 4, 6, 5], [0, 0, 1, 1, 1, 1])[0, 1]
    )


@pytest.mark.parametrize("control", ["interval", "gap", "level_db", "phase"])
def test_the_partial_correlation_leaves_out_each_control(control: str) -> None:
    third = [np.nan, 2.0, 0.0, 1.0, 3.0, 9.0, 4.0]
    notes = made(**{"interval": [np.nan, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0], control: third})
    xy, xz, yz = (
        stats.spearmanr(one, other).statistic
        for one, other in (
            (notes.ic[1:], notes.bits[1:]),
            (notes.ic[1:], third[1:]),
            (notes.bits[1:], third[1:]),
        )
    )
    expected = (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))
    assert correlations(notes)["spearman_partial"] == pytest.approx(expected)
    assert expected < xy - 0.01


def test_loudness_that_drives_both_leaves_no_partial_correlation() -> None:
    random = numpy_stream("loudness")
    level = random.normal(0, 10, 400)
    ic, bits = np.exp(level / 10) + random.normal(0, 0.3, 400), level + random.normal(0, 3, 400)
    rest = {name: random.normal(size=400) for name in ("unigram", "interval", "gap", "phase")}
    row = correlations(Notes(ic=ic, bits=bits, level_db=level, **rest))
    assert float(row["spearman"] or 0) > 0.8
    assert abs(float(row["spearman_partial"] or 0)) < 0.15


def test_notes_without_a_value_are_left_out_and_too_few_are_refused() -> None:
    assert correlations(made(ic=[9.0, np.nan, 2.0, 3.0, 4.0, 5.0, 6.0]))["n_notes"] == 5
    with pytest.raises(TaskError, match="4 usable notes, and a correlation needs 5"):
        correlations(made(ic=[9.0, np.nan, np.nan, 3.0, 4.0, 5.0, 6.0]))
    with pytest.raises(TaskError, match="the same for every note"):
        correlations(made(ic=[9.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]))


def test_levels_of_frames() -> None:
    audio = np.concatenate([np.full(4096, 0.5), np.zeros(4096), np.full(2048, 1.0)]).astype(np.float32)
    levels = frame_levels_db(audio, np.arange(4) * FRAME_S)
    np.testing.assert_allclose(levels, [20 * np.log10(0.5), SILENCE_DB, 10 * np.log10(0.5), SILENCE_DB])
    late = frame_levels_db(audio, np.array([2048 / 44100]))
    np.testing.assert_allclose(late, [10 * np.log10(0.125)])


def test_everything_is_put_on_the_frames_of_the_onset() -> None:
    series = IcSeries(np.array([np.nan, 1.0, 3.0, 9.0]), lead_samples=4096)
    level = np.array([-30.0, -20.0, -10.0, -40.0])
    notes = [(2.25 * FRAME_S, 0.1, 60), (3.5 * FRAME_S, 0.1, 63), (9 * FRAME_S, 0.1, 61)]
    found = notes_of(series, notes, level, np.arange(3.0), np.zeros(3), "onset_and_next")
    np.testing.assert_array_equal(found.ic, [2, 6, np.nan])
    np.testing.assert_array_equal(found.level_db, [-15, -25, np.nan])
    np.testing.assert_allclose(found.phase, [0.25, 0.5, np.nan])
    np.testing.assert_array_equal(found.interval, [np.nan, 3, 2])
    np.testing.assert_allclose(found.gap, [np.nan, 1.25 * FRAME_S, 5.5 * FRAME_S])
    np.testing.assert_array_equal(notes_of(series, notes, level, *np.zeros((2, 3)), "maximum").ic, [3, 9, np.nan])


# Intervals


def test_two_clusters_are_drawn_whole() -> None:
    found = bootstrap(np.array([[0.0, 0.0, 0.0, 1.0, 1.0]]), ["a", "a", "a", "b", "b"])
    assert found is not None
    assert found.mean == pytest.approx(0.4)
    assert (found.low, found.high) == (0.0, 1.0)  # a quarter of the draws has one cluster alone
    assert (found.n_seeds, found.n_pieces, found.n_clusters) == (1, 5, 2)


def test_more_pieces_of_a_cluster_narrow_nothing() -> None:
    values = numpy_stream("values").normal(size=30)
    one = bootstrap(values[np.newaxis], list(range(30)))
    ten = bootstrap(np.repeat(values, 10)[np.newaxis], [cluster for cluster in range(30) for _ in range(10)])
    assert one is not None
    assert ten is not None
    assert (ten.low, ten.high) == (pytest.approx(one.low), pytest.approx(one.high))
    half_width = 1.96 * values.std() / np.sqrt(30)
    assert one.low == pytest.approx(values.mean() - half_width, abs=0.1 * half_width)
    assert one.high == pytest.approx(values.mean() + half_width, abs=0.1 * half_width)


def test_what_varies_between_seeds_is_in_the_interval() -> None:
    pieces = np.zeros(200)
    same = bootstrap(np.array([pieces, pieces, pieces]), list(range(200)))
    apart = bootstrap(np.array([pieces - 1, pieces, pieces + 1]), list(range(200)))
    assert same is not None
    assert apart is not None
    assert (same.low, same.high) == (0.0, 0.0)
    assert apart.mean == pytest.approx(0.0)
    assert (apart.low, apart.high) == (-1.0, 1.0)  # each is drawn three times in one of 27
    assert apart.n_seeds == 3


def test_paired_differences_do_not_carry_what_pieces_share() -> None:
    random = numpy_stream("paired")
    shared = random.normal(0, 1, 60)
    one, other = shared + 0.1 + random.normal(0, 0.05, 60), shared + random.normal(0, 0.05, 60)
    paired = bootstrap((one - other)[np.newaxis], list(range(60)))
    alone = bootstrap(one[np.newaxis], list(range(60)))
    assert paired is not None
    assert alone is not None
    assert 0.05 < (paired.low or 0) < 0.1 < (paired.high or 0) < 0.15
    assert (alone.high or 0) - (alone.low or 0) > 10 * ((paired.high or 0) - (paired.low or 0))


def test_missing_values_and_single_clusters() -> None:
    pieces, values = table([{"x": 1.0, "y": None}, {"x": 3.0, "z": 5.0}])
    assert pieces == ["x", "y", "z"]
    np.testing.assert_array_equal(values, [[1, np.nan, np.nan], [3, np.nan, 5]])
    found = bootstrap(values, ["a", "b", "a"])
    assert found is not None
    assert found.mean == 3.0
    assert (found.low, found.high, found.n_pieces, found.n_clusters) == (None, None, 2, 1)
    assert bootstrap(np.full((2, 3), np.nan), ["a", "b", "c"]) is None


def test_a_summary_names_clusters_by_piece_where_there_are_none() -> None:
    blank = dict.fromkeys(COLUMNS)
    rows = [{**blank, "piece": piece, "cluster": "", "spearman": rho} for piece, rho in (("a", 0.1), ("b", 0.3))]
    metrics = summary(rows)
    assert metrics["spearman_mean"] == pytest.approx(0.2)
    assert metrics["spearman_se"] == pytest.approx(0.1)
    assert (metrics["spearman_low"], metrics["spearman_high"]) == (pytest.approx(0.1), pytest.approx(0.3))
    assert (metrics["n_pieces"], metrics["n_clusters"], metrics["pearson_mean"]) == (2, 2, None)
