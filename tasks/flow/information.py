"""Information content (IC) of latent frames at one noise level, by each of its definitions and solvers.

Shapes: T frames of a recording, N frames solved together, D latent channels, C width of a context, P probes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tasks.config import ProbeFile, SurprisalCell
from tasks.contract import TaskError
from tasks.flow.contexts import Window, contexts, windows
from tasks.flow.control import Measured, generated, measure
from tasks.flow.crops import LatentFile
from tasks.flow.field import HeadAt, HeadField
from tasks.flow.likelihood import (
    Step,
    euler,
    euler_transported,
    graded,
    midpoint,
    quadrature,
    ralston,
    standard_normal,
    transported,
)
from tasks.flow.network import Flow
from tasks.flow.probes import FrameProbes, draw_probes, exact_probes, n_rows
from tasks.seeds import numpy_stream

BLOCK_FRAMES = {"cpu": 128, "cuda": 8192}
"""How many frames are solved together, by kind of device.

On a CPU the last block is filled up with zeros: all blocks have one shape, and a frame's bits don't depend on how many
there are.
"""
NODES_MIN = 4
TRANSPORT_STEPS = 48
"""Midpoint steps along the probability flow, from the clean frame to the noise level."""
STEPS: dict[int, Step] = {2: midpoint, 3: ralston}
"""From one node to the next, by order."""
ERROR_NODES = 64
"""Nodes of the rule that gives the error of ``euler``."""


@dataclass(frozen=True)
class _Piece:
    """Frames `first`.. of one sequence, as many as there are targets ``(n, D)`` with their contexts ``(n, C)``."""

    name: tuple[str, int]
    first: int
    targets: Tensor
    contexts: Tensor


class InformationContent:
    """IC at one noise level of whatever recordings it is given; what all share is computed once.

    Parameters
    ----------
    flow : Flow
        In evaluation mode.
    window : int
        Longest context in frames, plus one.
    cell : SurprisalCell
    seed : str
        Names the random streams of probes and noise, with the recording's id: nothing else decides them.
    probes : (P, D) or (P, T - 1, D) array, optional
        Given probes, for the solver ``euler``.
    """

    def __init__(
        self, flow: Flow, window: int, cell: SurprisalCell, seed: str, probes: np.ndarray | None = None
    ) -> None:
        self.flow, self.window, self.cell, self.seed, self.fixed = flow, window, cell, seed, probes
        self.tau = 1.0 - cell.noise_level
        self.device = flow.head.out.weight.device
        self.dtype = flow.head.out.weight.dtype
        self.at = HeadAt(flow.head)
        half = cell.solver != "euler" and cell.precision == "bfloat16"
        self.along = HeadAt(flow.head, torch.bfloat16) if half else self.at
        self.n_draws = cell.n_draws if cell.definition == "expected" and cell.noise_level > 0 else 1
        if cell.context == "none":
            flow.null_contexts(1)  # refuses a flow that has none
        self._lengths: dict[str, int] = {}
        self._probes: dict[tuple[str, int], FrameProbes] = {}
        self._drawn: dict[tuple[str, int], np.ndarray] = {}
        if isinstance(cell.probes, ProbeFile) and probes is None:
            raise ValueError("the cell names a file of probes, and no probes are given")
        self.measured: Measured | None = None
        self.counts: tuple[int, ...] = ()
        self.step = STEPS[cell.order]
        if cell.solver != "euler":
            self.rule = graded(self.tau, max(math.ceil(cell.n_nodes * self.tau), min(cell.n_nodes, NODES_MIN)))
            if self.tau > 0:
                self.measured = measure(self.at, self.along, *self._of_generated(), self.tau, self.rule, self.step)
                self.counts = self._shared_out(self.measured)

    def _shared_out(self, measured: Measured) -> tuple[int, ...]:
        """Probes of each node; of all together as many at every level: towards all noise IC varies less and less."""
        if self.cell.probes == "exact":
            return (n_rows(self.flow.latent_dim),) * len(self.rule.taus)
        return measured.shared_out(self.cell.n_probes * self.cell.n_nodes)

    # Sequences: what is told apart by the definitions

    def noised(self, frames: np.ndarray, name: tuple[str, int]) -> Tensor:
        """What is made of ``frames (T, D)`` at the noise level, before any context is known."""
        level, definition = self.cell.noise_level, self.cell.definition
        clean = torch.from_numpy(frames).to(self.device, self.dtype)
        if definition == "probability_flow":
            return clean
        mean = clean * self.tau
        if definition == "expectation" or level == 0:
            return mean
        n_draws = self.cell.n_draws if definition == "monte_carlo" else 1
        noise = np.zeros(frames.shape)
        for draw in range(n_draws):
            noise += numpy_stream(self.seed, "noise", name[0], name[1] + draw).standard_normal(frames.shape)
        return mean + level / n_draws * torch.from_numpy(noise).to(self.device, self.dtype)

    def _pieces(self, recordings: Mapping[str, np.ndarray], n_draws: int) -> Iterator[_Piece]:
        """All frames behind the first of all recordings, with their contexts, for each of the draws."""
        targets: dict[tuple[str, int], Tensor] = {}

        def read() -> Iterator[Window]:
            for recording in recordings:
                frames = recordings[recording]
                for draw in range(n_draws):
                    name = (recording, draw)
                    targets[name] = self.noised(frames, name)
                    clean = torch.from_numpy(frames).to(self.device, self.dtype)
                    before = targets[name] if self.cell.context == "transformed" else clean
                    yield from windows(name, before, self.window)

        if self.cell.context == "none":
            for window in read():
                wanted = targets[window.name][window.first : window.start + len(window.frames)]
                yield _Piece(window.name, window.first, wanted, self.flow.null_contexts(len(wanted)))
                if window.first + len(wanted) == len(targets[window.name]):
                    del targets[window.name]
            return
        for window, context in contexts(self.flow, read()):
            last = window.first + len(context)
            yield _Piece(window.name, window.first, targets[window.name][window.first : last], context)
            if last == len(targets[window.name]):
                del targets[window.name]

    def _of_generated(self) -> tuple[Tensor, Tensor]:
        """Targets and contexts of the last frames of sequences that the flow generates."""
        made = generated(self.flow).cpu().double().numpy()
        sequences = {str(number): frames.astype(np.float32) for number, frames in enumerate(made)}
        last = {piece.name: piece for piece in self._pieces(sequences, 1)}
        targets = torch.stack([piece.targets[-1] for piece in last.values()])
        context = torch.stack([piece.contexts[-1] for piece in last.values()])
        return self._moved(targets, HeadField(self.at, context)), context

    def _moved(self, targets: Tensor, field: HeadField) -> Tensor:
        """Along the probability flow to the noise level, where the definition says so."""
        if self.cell.definition != "probability_flow" or self.tau == 1:
            return targets
        if self.cell.solver == "euler":
            return euler_transported(field, targets, 1.0, self.tau, self._euler_steps(1 - self.tau))
        return transported(field, targets, 1.0, self.tau, TRANSPORT_STEPS)

    def _euler_steps(self, way: float) -> int:
        """Steps of ``euler`` on a part of the path of length `way`.

        As published: along the probability flow there is one grid from 1 to 0, of which each level takes its share (a
        level between two points of the grid has its steps a little longer or shorter); else all steps go to the way
        from the level to 0.
        """
        one_grid = self.cell.definition == "probability_flow"
        return max(1, round(way * self.cell.n_steps)) if one_grid else self.cell.n_steps

    # Solving

    def of(
        self, recordings: Mapping[str, np.ndarray], tell: Callable[[int], None] = lambda frames: None
    ) -> dict[str, np.ndarray]:
        """IC ``(T,)`` in nats of each recording ``(T, D)``; NaN for frame 0, which has no context.

        `tell` hears how many frames are done.
        """
        self._lengths, self._probes, self._drawn = _lengths(recordings), {}, {}
        found = {name: np.zeros(length) for name, length in self._lengths.items()}
        for values in found.values():
            values[:1] = np.nan
        done = 0
        for block in self._blocks(self._pieces(recordings, self.n_draws)):
            ic = self._solve(block)
            for piece in block:
                part, ic = ic[: len(piece.targets)], ic[len(piece.targets) :]
                found[piece.name[0]][piece.first : piece.first + len(part)] += part / self.n_draws
            done += sum(len(piece.targets) for piece in block)
            tell(done)
        return found

    def given(
        self, recording: str, n_frames: int, frames: Sequence[int], targets: Tensor, context: Tensor
    ) -> np.ndarray:
        """IC ``(N,)`` of frames of one recording of `n_frames` whose contexts are given, ``(N, C)``.

        ``targets (N, D)`` are as they are at the noise level; each frame has the probes that it has in `of`.
        """
        self._lengths, self._probes, self._drawn = {recording: n_frames}, {}, {}
        pieces = (
            _Piece((recording, 0), frame, targets[row : row + 1], context[row : row + 1])
            for row, frame in enumerate(frames)
        )
        return np.concatenate([self._solve(block) for block in self._blocks(pieces)])

    def _blocks(self, pieces: Iterator[_Piece]) -> Iterator[list[_Piece]]:
        """Pieces cut and gathered to blocks of equal size, whatever recordings they are of."""
        room = size = BLOCK_FRAMES[self.device.type]
        block: list[_Piece] = []
        for piece in pieces:
            at = 0
            while at < len(piece.targets):
                part = slice(at, at + room)
                block.append(_Piece(piece.name, piece.first + at, piece.targets[part], piece.contexts[part]))
                at, room = at + len(block[-1].targets), room - len(block[-1].targets)
                if room == 0:
                    yield block
                    block, room = [], size
        if block:
            yield block

    def _solve(self, block: list[_Piece]) -> np.ndarray:
        """IC of a block's frames, ``(N,)``."""
        count = sum(len(piece.targets) for piece in block)
        field = HeadField(self.along, self._filled([piece.contexts for piece in block], 0))
        targets = self._moved(self._filled([piece.targets for piece in block], 0), field)
        if self.cell.solver == "euler":
            found = euler(field, targets, self.tau, self._euler_steps(self.tau), self._fixed(block))
        elif self.measured is None:
            found = standard_normal(targets)
        else:
            probes = self._changing(block, self.measured.basis)
            found = quadrature(field, targets, self.tau, self.rule, probes, self.measured.jacobians, self.step)
            found += self.measured.rule_bias_nats
        return (-found[:count]).cpu().numpy()

    def _filled(self, parts: list[Tensor], dim: int) -> Tensor:
        """Frames of a block side by side along `dim`, with zeros behind them on a CPU: see `BLOCK_FRAMES`."""
        whole = torch.cat(parts, dim).to(self.device, self.dtype)
        missing = BLOCK_FRAMES["cpu"] - whole.shape[dim] if self.device.type == "cpu" else 0
        return torch.cat([whole, whole.new_zeros([*whole.shape[:dim], missing, *whole.shape[dim + 1 :]])], dim)

    def _changing(self, block: list[_Piece], basis: Tensor) -> Callable[[int], Tensor]:
        """Probes ``(P, N, D)`` by node, +-1 along the columns of `basis`."""
        if self.cell.probes == "exact":
            every = self._exact(block)
            return lambda node: every
        drawn = [self._frame_probes(piece.name) for piece in block]

        def at_node(node: int) -> Tensor:
            place = sum(self.counts[:node])
            rows = [
                torch.from_numpy(probes.rows_from(place, self.counts[node], piece.first, len(piece.targets)))
                for probes, piece in zip(drawn, block, strict=True)
            ]
            return self._filled(rows, 1) @ basis.T

        return at_node

    def _frame_probes(self, name: tuple[str, int]) -> FrameProbes:
        if name not in self._probes:
            self._probes = {name: FrameProbes(self.seed, _said(name), self._lengths[name[0]], self.flow.latent_dim)}
        return self._probes[name]

    def _fixed(self, block: list[_Piece]) -> Tensor:
        """Probes ``(P, N, D)`` that stay the same along the path."""
        if self.cell.probes == "exact":
            return self._exact(block)
        return self._filled([torch.from_numpy(self._fixed_of(piece)) for piece in block], 1)

    def _exact(self, block: list[_Piece]) -> Tensor:
        return self._filled([exact_probes(len(piece.targets), self.flow.latent_dim) for piece in block], 1)

    def _fixed_of(self, piece: _Piece) -> np.ndarray:
        part, n_frames = slice(piece.first, piece.first + len(piece.targets)), self._lengths[piece.name[0]]
        if self.fixed is None:
            if piece.name not in self._drawn:
                drawn = draw_probes(self.seed, _said(piece.name), n_frames, self.cell.n_probes, self.flow.latent_dim)
                self._drawn = {piece.name: drawn}
            return self._drawn[piece.name][part].swapaxes(0, 1)
        if self.fixed.ndim == 2:
            return np.repeat(self.fixed[:, None], len(piece.targets), axis=1)
        if self.fixed.shape[1] != n_frames - 1:
            raise TaskError(
                f"{piece.name[0]}: the given probes are for {self.fixed.shape[1]} frames, and the recording has "
                f"{n_frames - 1} behind its first; allowed are shapes (P, {self.flow.latent_dim}) for any recording "
                f"and (P, frames - 1, {self.flow.latent_dim})"
            )
        return self.fixed[:, part.start - 1 : part.stop - 1]

    # Errors

    @property
    def rule_constant_nats(self) -> tuple[float, float] | None:
        """What is added to every frame's IC for what the rule gets wrong of generated frames, and its standard error.

        None where nothing is added.
        """
        if self.measured is None:
            return None
        return -self.measured.rule_bias_nats, self.measured.rule_bias_se_nats

    @property
    def solver_error_nats(self) -> float:
        """How far off the solver is, as the standard deviation of a frame's IC around the exact one; an estimate.

        It is taken on frames that the flow generates. Of the quadrature: what probes leave, and how far the rule is
        from a finer one. Of ``euler``: the RMS difference from a fine rule with the exact divergence. The way along the
        probability flow to the noise level is no part of it. 0 where nothing is integrated.
        """
        if self.measured is not None:
            return self.measured.error_nats(self.counts)
        return self._euler_error() if self.tau > 0 else 0.0

    @torch.inference_mode()
    def _euler_error(self) -> float:
        targets, context = self._of_generated()
        field, (count, dim) = HeadField(self.at, context), targets.shape
        every = exact_probes(count, dim).to(targets)
        drawn = every
        if self.cell.probes != "exact":
            drawn = torch.from_numpy(draw_probes(self.seed, "generated", count, self.cell.n_probes, dim)).to(targets)
            drawn = drawn.transpose(0, 1)
        found = euler(field, targets, self.tau, self._euler_steps(self.tau), drawn)
        truth = quadrature(field, targets, self.tau, graded(self.tau, ERROR_NODES), lambda node: every)
        return float((found - truth).square().mean().sqrt())


def _lengths(recordings: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Frames of each recording; latents in a file aren't read for that."""
    if isinstance(recordings, LatentFile):
        return {name: recordings.n_frames(name) for name in recordings}
    return {name: len(frames) for name, frames in recordings.items()}


def _said(name: tuple[str, int]) -> str:
    """The name of a sequence's random streams: that of its recording, and of its draw where it isn't the first."""
    recording, draw = name
    return f"{recording} draw {draw}" if draw else recording
