"""The hyperplane in which a layer norm leaves latents: coordinates in it, and the probes of 63 dimensions."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.linalg import hadamard as sylvester
from tiny_flow import tiny_flow
from torch.nn.functional import layer_norm

from tasks.contract import Artefact, TaskError
from tasks.flow.crops import read_latents
from tasks.flow.hyperplane import basis, n_coordinates, projected
from tasks.flow.network import new_flow, read_flow
from tasks.flow.probes import FrameProbes, draw_probes, hadamard, n_rows

MakeLatents = Callable[[str, Mapping[str, np.ndarray]], Artefact]


def normed(n_frames: int, seed: int = 0) -> np.ndarray:
    """Latents as bottleneck layernorm leaves them."""
    frames = torch.randn(n_frames, 64, generator=torch.Generator().manual_seed(seed))
    return layer_norm(frames, (64,)).numpy()


@pytest.mark.parametrize("channels", [2, 16, 64])
def test_the_basis_is_orthonormal_and_spans_the_hyperplane(channels: int) -> None:
    rows = basis(channels)
    assert rows.shape == (channels - 1, channels)
    assert np.allclose(rows @ rows.T, np.eye(channels - 1), atol=1e-15)
    assert np.array_equal(rows.sum(1), np.zeros(channels - 1))
    assert set(np.abs(rows).ravel().tolist()) == {1 / math.sqrt(channels)}


@pytest.mark.parametrize("channels", [0, 1, 48, 63])
def test_other_numbers_of_channels_are_refused(channels: int) -> None:
    with pytest.raises(TaskError, match=f"latents of {channels} channels can't be projected; a power of 2 is needed"):
        n_coordinates(channels)


def test_latents_keep_norms_and_distances_and_come_back() -> None:
    frames = normed(50)
    found = projected(frames)
    assert (found.shape, found.dtype) == ((50, 63), np.float32)
    assert np.allclose(np.linalg.norm(found, axis=1), np.linalg.norm(frames, axis=1), rtol=1e-6)
    assert np.allclose(np.linalg.norm(np.diff(found, axis=0), axis=1), np.linalg.norm(np.diff(frames, axis=0), axis=1))
    assert np.allclose(found @ basis(64), frames, atol=1e-5)


def test_a_frame_has_the_bits_it_has_among_others() -> None:
    frames = normed(200)
    whole = projected(frames)
    for start, stop in ((0, 1), (3, 40), (199, 200)):
        assert projected(frames[start:stop]).tobytes() == whole[start:stop].tobytes()
    assert projected(frames[:0]).shape == (0, 63)


def test_latents_off_the_hyperplane_are_refused() -> None:
    frames = normed(20)
    frames[7] += 0.05
    with pytest.raises(TaskError, match=r"means over channels of up to 0\.05; only those of bottleneck layernorm"):
        projected(frames)


def test_latents_on_disk_stay_as_they_are(latents_artefact: MakeLatents) -> None:
    broken = normed(30, 2)
    broken[4, 2], broken[9, 1] = np.nan, np.inf
    artefact = latents_artefact("some", {"a": normed(20, 1), "broken": broken, "short": normed(1, 3)})
    (plain, skipped), (read, skipped_too) = read_latents(artefact), read_latents(artefact, project=True)
    assert skipped == skipped_too
    assert "broken: 2 of 30 latent frames are not finite" in skipped
    assert np.array_equal(plain["a"], normed(20, 1))
    assert np.array_equal(read["a"], projected(normed(20, 1)))
    assert np.array_equal(read.part("a", 3, 9), projected(normed(20, 1)[3:9]))


def test_a_flow_that_projects_has_a_dimension_less() -> None:
    flow = new_flow("tiny", 0, project=True)
    assert (flow.latent_dim, flow.head.out.out_features, flow.backbone.inlet.in_features) == (63, 63, 63)
    assert (new_flow("tiny", 0).latent_dim, new_flow("tiny", 0).project) == (64, False)


# Probes


def test_the_matrix_of_63_is_that_of_64_without_its_constant_column() -> None:
    assert np.array_equal(hadamard(64), sylvester(64))
    rows = hadamard(63).astype(int)
    assert np.array_equal(rows, sylvester(64)[:, 1:])
    assert np.array_equal(rows.T @ rows, 64 * np.eye(63))
    assert np.array_equal(rows @ rows.T, 64 * np.eye(64) - 1)
    assert (n_rows(63), n_rows(64)) == (64, 64)
    with pytest.raises(AssertionError, match="62 is neither"):
        hadamard(62)


def test_probes_of_64_dimensions_are_what_they_were() -> None:
    def digest(array: np.ndarray) -> str:
        return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]

    assert digest(draw_probes("cell", "recording", 50, 70, 64)) == "52d83f51947b5f8d"
    assert digest(FrameProbes("cell", "recording", 50, 64).rows_from(60, 9, 3, 40)) == "d3bcb0a389be5c7a"


def traces(probes: Any, jacobian: np.ndarray) -> np.ndarray:
    """What ``probes (P, N, D)`` make of one Jacobian, by frame."""
    return np.einsum("pni,ij,pnj->n", probes, jacobian, probes) / len(probes)


def test_all_64_probes_of_63_dimensions_give_the_exact_trace() -> None:
    jacobian = np.random.default_rng(0).standard_normal((63, 63))
    drawn = draw_probes("cell", "recording", 10, 64, 63).swapaxes(0, 1).astype(float)
    assert set(np.unique(drawn).tolist()) == {-1, 1}
    assert drawn.shape == (64, 10, 63)
    assert np.allclose(traces(drawn, jacobian), jacobian.trace())
    assert not np.allclose(traces(drawn[:63], jacobian), jacobian.trace(), rtol=1e-3)
    nodes = FrameProbes("cell", "recording", 10, 63)
    every = np.concatenate([nodes.rows_from(place, 4, 2, 8) for place in range(0, 64, 4)]).astype(float)
    assert np.allclose(traces(every, jacobian), jacobian.trace())
    assert np.array_equal(nodes.rows_from(64, 4, 2, 8), nodes.rows_from(0, 4, 2, 8))


def test_probes_of_63_dimensions_are_unbiased_and_vary_less_than_independent_ones() -> None:
    jacobian = np.random.default_rng(1).standard_normal((63, 63))
    drawn = draw_probes("cell", "recording", 3000, 8, 63).swapaxes(0, 1).astype(float)
    errors = traces(drawn, jacobian) - jacobian.trace()
    symmetric = 0.5 * (jacobian + jacobian.T)
    single = 2 * (np.square(symmetric).sum() - np.square(symmetric.diagonal()).sum())
    assert abs(errors.mean()) < 4 * errors.std() / math.sqrt(len(errors))
    assert errors.var() == pytest.approx(single / 8 * (64 - 8) / 63, rel=0.1)


def test_more_probes_than_rows_come_in_rounds() -> None:
    drawn = draw_probes("cell", "recording", 4, 130, 63)
    assert drawn.shape == (4, 130, 63)
    assert np.array_equal(drawn[:2, :20], draw_probes("cell", "recording", 4, 130, 63)[:2, :20])
    assert not np.array_equal(drawn[:, :64], drawn[:, 64:128])


def test_a_flow_of_one_run_is_read_as_it_was_trained(tmp_path: Path, latents_artefact: MakeLatents) -> None:
    latents = latents_artefact("latents", {"a": normed(60), "b": normed(40, 1)})
    flow, _ = read_flow(tiny_flow(tmp_path / "flow", latents, project=True))
    assert (flow.project, flow.latent_dim) == (True, 63)
    flow, _ = read_flow(tiny_flow(tmp_path / "plain", latents))
    assert (flow.project, flow.latent_dim) == (False, 64)
