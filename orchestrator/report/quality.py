"""How good the EEG was and what was done to it: a line per subject on the page, a row per trial in quality.csv."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from tasks.eeg.preprocessing_config import PreprocessingConfig

if TYPE_CHECKING:
    from orchestrator.report.results import Results

MOST_CHANNELS = 4
HEADER = ("subject", "trials", "kept", "cut", "marked", "bad channels (trials)", "interpolated", "eyes removed")
COLUMNS = (
    "subject", "trial", "recording", "repetition", "heard_s", "kept_s", "cut_samples", "marked_s", "n_channels",
    "n_bad", "bad", "not_numbers", "bridged", "interpolated", "eyes_removed", "skipped", "simulated",
)  # fmt: skip


class TrialQuality(BaseModel):
    """A trial as the stage `eeg` found it; see tasks.eeg.quality."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    trial: str
    recording: str
    repetition: int = 0
    heard_s: float
    kept_s: float
    cut_samples: int = 0
    marked_s: float = 0.0
    n_channels: int
    bad: dict[str, str] = {}
    not_numbers: dict[str, int] = {}
    bridged: tuple[str, ...] = ()
    interpolated: float = 0.0
    skipped: str | None = None


class Removed(BaseModel):
    """A component that was taken out, and what it goes with."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    component: int
    eog: str
    r: float


class Eyes(BaseModel):
    """What ICA did to a subject's EEG."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    n_components: int
    converged: bool = True
    removed: tuple[Removed, ...] = ()


class SubjectQuality(BaseModel):
    """One subject's trials."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    subject: str
    simulated: bool = False
    sample_rate_hz: int
    quality: tuple[TrialQuality, ...] = ()
    ica: Eyes | None = None

    @property
    def worth_showing(self) -> bool:
        """Whether there is something to say: of simulated listeners only what was removed or found bad."""
        return bool(self.quality) and (
            not self.simulated or self.ica is not None or any(row.bad or row.skipped for row in self.quality)
        )


def _bad(subject: SubjectQuality) -> str:
    """Channels that are bad in most trials first, each with its reason and in how many trials."""
    counts = Counter((name, why) for row in subject.quality for name, why in row.bad.items())
    named = [f"{name} {why} ({n})" for (name, why), n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    more = len(named) - MOST_CHANNELS
    return ", ".join(named[:MOST_CHANNELS]) + (f" and {more} more" if more > 0 else "") if named else "–"


def _eyes(ica: Eyes | None) -> str:
    if ica is None:
        return "–"
    which = ", ".join(f"{part.eog} r = {part.r:.2f}" for part in ica.removed)
    text = f"{len(ica.removed)} of {ica.n_components}" + (f" ({which})" if which else "")
    return text if ica.converged else f"{text}, not converged"


def rows(results: Results) -> list[tuple[str, ...]]:
    """One row per subject."""
    found: list[tuple[str, ...]] = []
    for subject in results.quality:
        used = [row for row in subject.quality if row.skipped is None]
        heard_s, kept_s = (sum(getattr(row, key) for row in subject.quality) for key in ("heard_s", "kept_s"))
        cut_s = sum(row.cut_samples for row in used) / subject.sample_rate_hz
        share = sum(row.interpolated for row in used) / len(used) if used else 0.0
        marked_s = sum(row.marked_s for row in used)
        found.append(
            (
                subject.subject,
                f"{len(used)} of {len(subject.quality)}",
                f"{kept_s:.0f} of {heard_s:.0f} s",
                f"{cut_s:.2f} s",
                f"{marked_s:.1f} s",
                _bad(subject),
                f"{100 * share:.1f} %",
                _eyes(subject.ica),
            )
        )
    return found


def table(results: Results) -> tuple[tuple[str, ...], Sequence[Mapping[str, Any]]]:
    """Columns and rows of quality.csv."""
    return COLUMNS, [
        {**row.model_dump(), "subject": subject.subject, "simulated": subject.simulated, "n_bad": len(row.bad)}
        | {"bad": ";".join(f"{name}:{why}" for name, why in row.bad.items())}
        | {"not_numbers": ";".join(f"{name}:{n}" for name, n in row.not_numbers.items())}
        | {"bridged": ";".join(row.bridged)}
        | {"eyes_removed": None if subject.ica is None else len(subject.ica.removed)}
        for subject in results.quality
        for row in subject.quality
    ]


def cleaning(configs: Sequence[Mapping[str, Any]]) -> str:
    """How the EEG was cleaned, as a sentence; nothing where no cell says it.

    Parameters
    ----------
    configs : sequence of mapping
        Those of the cells of the stage `eeg`; the first one is told.
    """
    first = next((config for config in configs if "preprocessing" in config), None)
    if first is None:
        return ""
    keys, source = first["preprocessing"], first.get("bids") or first.get("raw") or {}
    meg = source.get("sensor_type", "eeg") != "eeg"
    try:
        found = PreprocessingConfig.of_signed(keys)
    except ValidationError:  # written by a newer version
        return ""
    when = {
        "before_resampling": "before resampling",
        "around_resampling": "low-pass before resampling, high-pass after",
    }[found.filters]
    whom = {"all": "all channels", "neighbours": f"the {found.bad_channels.n_neighbours} nearest"}
    text = (
        f"Filters are zero-phase Butterworth, order {found.order} on each side ({when}); channels whose SD differs by "
        f"more than a factor of {found.bad_channel_std_ratio:g} from the median of {whom[found.bad_channels.against]}, "
        f"judged per {found.bad_channels.per}, were "
        + ("left out of all trials" if meg else "interpolated by spherical splines where positions are known")
    )
    if found.ica is not None:
        text += f"; components of ICA ({found.ica.method}) with |r| > {found.ica.threshold:g} to the EOG were removed"
    reference = found.reference if isinstance(found.reference, str) else ", ".join(found.reference)
    text += f"; reference: {reference}"
    return text + (f"; channels kept: {', '.join(found.channels)}. " if found.channels else ". ")
