"""Stage `canaries`: listeners whose verdict is known beforehand. A red one says that no other result can be trusted.

Unrelated noise and listeners to acoustics alone must not be found: each of their channels is a listener with a p-value
of its own, and more rejections than the binomial 99.9 % bound are red. A listener to IC must be found, and its kernel
with it. Canaries never count as subjects.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy.signal import butter, sosfiltfilt
from scipy.stats import binom

from tasks.config import Config, Level
from tasks.contract import Artefact, Cell, Context, Result, TaskError
from tasks.eeg.config import ModelConfig, PreprocessingConfig
from tasks.eeg.evidence import Fit, read_described, read_fit, read_null
from tasks.eeg.maxima import exceedances, p_value, studentised

Floats = npt.NDArray[np.float64]

BOUND_LEVEL = 0.999
LEAST_KERNEL_R = 0.9
KERNEL_BELOW_HZ = 5.0
PADDING_S = 4.0
"""Zeros around a kernel before it is filtered, so that filters ring out."""


class ListenerEntry(Config):
    """Where a canary's fit, permutation blocks and EEG lie in the inputs."""

    kind: Literal["noise", "acoustic", "positive"]
    trf: int
    permutations: tuple[int, ...] = Field(min_length=1)
    eeg: int


class CanariesCellConfig(Config):
    """The config of a `canaries` cell."""

    model: ModelConfig
    alpha: float = Field(gt=0, lt=1)
    variant: str
    noise_level: Level
    listeners: tuple[ListenerEntry, ...] = Field(min_length=1)


def judge_channels(kind: str, gain: Floats, null: Floats, alpha: float) -> dict[str, Any]:
    """Rejections among channels that are listeners by themselves.

    Parameters
    ----------
    kind : str
    gain : ndarray, shape (C,)
        delta_r of each.
    null : ndarray, shape (B, C)
    alpha : float

    Returns
    -------
    dict
        kind, rejections (p <= alpha), channels, bound (the binomial 99.9 % quantile), green.
    """
    p = p_value((null >= gain).sum(axis=0), len(null))
    rejections, bound = int((p <= alpha).sum()), int(binom.ppf(BOUND_LEVEL, gain.size, alpha))
    return {"kind": kind, "rejections": rejections, "channels": gain.size, "bound": bound, "green": rejections <= bound}


def judge_positive(
    fit: Fit, null: Floats, eeg: Mapping[str, Any], band_hz: tuple[float, float], alpha: float
) -> dict[str, Any]:
    """The planted response must be found.

    p is that of the largest studentised delta_r over channels against the same maximum of the permutations. The kernel
    is judged at the channel with the largest delta_r. `delta_r` says how large the planted response came out: p and
    kernel_r prove little where it is far above the effects that the study looks for.

    Returns
    -------
    dict
        kind, p, kernel_r, delta_r (median over channels), delta_r_max, green.
    """
    observed, permuted = studentised(fit.gain, null)
    p = float(p_value(exceedances(observed, permuted), len(null)).min())
    r = kernel_r(fit, eeg, band_hz)
    size = {"delta_r": float(np.median(fit.gain)), "delta_r_max": float(fit.gain.max())}
    return {"kind": "positive", "p": p, "kernel_r": r, **size, "green": p <= alpha and r > LEAST_KERNEL_R}


def _filtered(kernel: Floats, rate: float, kind: str, edges: float | tuple[float, float]) -> Floats:
    padding = round(PADDING_S * rate)
    sections = butter(2, edges, kind, fs=rate, output="sos")
    padded = np.pad(kernel, padding)
    return np.asarray(sosfiltfilt(sections, padded)[padding : padding + kernel.size], dtype=np.float64)


def kernel_r(fit: Fit, eeg: Mapping[str, Any], band_hz: tuple[float, float]) -> float:
    """Correlation of the estimated with the planted kernel, below 5 Hz.

    The planted kernel gets the EEG's band-pass, which is part of what the TRF estimates; then both are cut to the TRF's
    lags and low-passed alike.

    Raises
    ------
    TaskError
        If the EEG doesn't say what was planted.
    """
    rate = float(eeg["sample_rate_hz"])
    channel = int(fit.gain.argmax())
    lags, planted = _planted(eeg, fit.channels[channel])
    wide = np.arange(-round(PADDING_S * rate), round(PADDING_S * rate) + 1) / rate
    response = np.interp(wide, lags, planted, left=0.0, right=0.0)
    low, high = band_hz
    if high < rate / 2:
        response = _filtered(response, rate, "bandpass", (low, high))
    else:
        response = _filtered(response, rate, "highpass", low)
    truth = np.interp(fit.lags_s, wide, response)
    estimate = fit.kernel[:, channel]
    if rate / 2 > KERNEL_BELOW_HZ:
        truth, estimate = (_filtered(part, rate, "lowpass", KERNEL_BELOW_HZ) for part in (truth, estimate))
    spread = truth.std() * estimate.std()
    return float(((truth - truth.mean()) * (estimate - estimate.mean())).mean() / spread) if spread > 0 else 0.0


def _planted(eeg: Mapping[str, Any], channel: str) -> tuple[Floats, Floats]:
    """Lags in seconds and planted kernel at one channel."""
    truth = eeg.get("truth") or {}
    driver = (truth.get("drivers") or {}).get("ic")
    if driver is None:
        raise TaskError(f"{eeg['subject']}: eeg.json doesn't hold the planted kernel of IC; repeat the stage eeg")
    kernel = np.array(driver["kernel"], dtype=np.float64)
    weights, names = driver.get("weights"), list(eeg["channels"])
    if weights is not None and len(weights) == len(names):
        kernel = kernel * float(np.sign(weights[names.index(channel)]))
    return np.array(truth["lags_s"], dtype=np.float64), kernel


def judge(config: CanariesCellConfig, cell: Cell) -> dict[str, Any]:
    """The content of ``canaries.json``."""
    trf, permutations, eeg = (cell.collection(role) for role in ("trf", "permutations", "eeg"))
    listeners = []
    for entry in config.listeners:
        fit, null = read_fit(trf[entry.trf]), read_null([permutations[index] for index in entry.permutations])
        if entry.kind == "positive":
            source = eeg[entry.eeg]
            listeners.append(judge_positive(fit, null, read_described(source), _band(source), config.alpha))
        else:
            listeners.append(judge_channels(entry.kind, fit.gain, null, config.alpha))
    green = all(listener["green"] for listener in listeners)
    return {
        "verdict": "green" if green else "red",
        "variant": config.variant,
        "noise_level": config.noise_level,
        "alpha": config.alpha,
        "listeners": listeners,
        "sentence": sentence(listeners),
    }


def _band(eeg: Artefact) -> tuple[float, float]:
    return PreprocessingConfig.of_signed(eeg.config.get("preprocessing", {})).band_hz


def sentence(listeners: Sequence[Mapping[str, Any]]) -> str:
    """What happened, the worst first."""
    said = []
    for listener in sorted(listeners, key=lambda entry: bool(entry["green"])):
        if listener["kind"] == "positive":
            found = "found" if listener["green"] else "NOT recovered"
            said.append(
                f"the planted IC response is {found} (delta_r = {listener['delta_r']:.2g}, p = {listener['p']:.3g}, "
                f"kernel r = {listener['kernel_r']:.2f})"
            )
        else:
            name = "noise channels" if listener["kind"] == "noise" else "acoustic-only listeners"
            limit = "within" if listener["green"] else "ABOVE"
            said.append(
                f"{listener['rejections']} of {listener['channels']} {name} rejected "
                f"({limit} the bound of {listener['bound']})"
            )
    start = "Green" if all(listener["green"] for listener in listeners) else "Red, do not trust the other results"
    return f"{start}: {'; '.join(said)}."


def run(cells: Sequence[Cell], context: Context) -> Iterator[Result]:
    """Stage `canaries`: judge the three canaries in one condition.

    Writes ``canaries.json``.

    Parameters
    ----------
    cells : sequence of Cell
        Config as `CanariesCellConfig`; inputs ``trf``, ``permutations``, ``eeg``.
    context : Context
        Hears about progress.

    Yields
    ------
    Result
        Metrics verdict, noise_rejections, acoustic_rejections, positive_p, positive_delta_r (median over
        channels), positive_kernel_r; or why there is none.
    """
    for done, cell in enumerate(cells):
        try:
            result = judge(CanariesCellConfig.of_signed(cell.config), cell)
        except TaskError as error:
            yield Result(cell.signature, failure=str(error))
            continue
        (cell.out_dir / "canaries.json").write_text(json.dumps(result, sort_keys=True), encoding="utf-8")
        context.progress(done + 1, len(cells), {})
        by_kind = {listener["kind"]: listener for listener in result["listeners"]}
        yield Result(cell.signature, {
            "verdict": result["verdict"],
            "noise_rejections": by_kind.get("noise", {}).get("rejections"),
            "acoustic_rejections": by_kind.get("acoustic", {}).get("rejections"),
            "positive_p": by_kind.get("positive", {}).get("p"),
            "positive_delta_r": by_kind.get("positive", {}).get("delta_r"),
            "positive_kernel_r": by_kind.get("positive", {}).get("kernel_r"),
        })  # fmt: skip
