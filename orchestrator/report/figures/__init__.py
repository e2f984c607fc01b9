"""The figures of a study, one file each; matplotlib and mne are imported when something is drawn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.report.results import Absence, Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLES = {
    "search": "Search",
    "cortical_tracking": "Cortical tracking of IC over noise levels",
    "scalp_maps": "Scalp maps",
    "kernels": "Kernels of IC",
    "pitch_correlation": "IC and pitch surprisal over noise levels",
    "pitch_levels": "Each arm's noise level, chosen on dev tunes and judged on test tunes",
    "reconstruction": "Reconstruction from noised latents",
}


def draw_all(results: Results, folder: Path) -> tuple[dict[str, Path], list[Absence]]:
    """Draw what the results allow into `folder`; a figure that can't be drawn is named, and the others go on."""
    from orchestrator.report.figures import (
        cortical_tracking,
        kernels,
        pitch_correlation,
        pitch_levels,
        reconstruction,
        scalp_maps,
        style,
        trials,
    )

    drawers: dict[str, Callable[[Results], Figure | None]] = {
        "search": trials.draw,
        "cortical_tracking": cortical_tracking.draw,
        "scalp_maps": scalp_maps.draw,
        "kernels": kernels.draw,
        "pitch_correlation": pitch_correlation.draw,
        "pitch_levels": pitch_levels.draw,
        "reconstruction": reconstruction.draw,
    }
    folder.mkdir(parents=True, exist_ok=True)
    paths: dict[str, Path] = {}
    absences: list[Absence] = []
    for name, draw in drawers.items():
        path = folder / f"{name}.png"
        path.unlink(missing_ok=True)
        try:
            with style.applied():
                figure = draw(results)
                if figure is not None:
                    style.mark_exploratory(figure, results)
                    style.save(figure, path)
                    paths[name] = path
        except Exception as error:  # one broken figure must not cost the report
            absences.append(Absence(f"figure {name}", f"it could not be drawn: {type(error).__name__}: {error}"))
    return paths, absences
