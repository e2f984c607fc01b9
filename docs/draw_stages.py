"""Draws docs/stages.svg, the picture of the stage graph in the README: `python docs/draw_stages.py`."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch

from orchestrator.stages import STAGES

PLACES = {
    "tunes": (0, 2),
    "corpus": (1, 2),
    "autoencoder_base": (2, 2),
    "autoencoder": (3, 2),
    "latents": (4, 2),
    "flow": (5, 2),
    "surprisal": (6, 2),
    "reconstruction": (4, 3),
    "causal_audit": (6, 3),
    "solver_audit": (5, 3),
    "pitch_surprisal": (3, 1),
    "pitch": (7, 3),
    "features": (4, 0),
    "eeg": (5, 1),
    "trf": (7, 1),
    "permutations": (7, 0),
    "group": (8, 1),
    "canaries": (8, 0),
}
ARROWS = [
    "tunes>corpus",
    "corpus>autoencoder_base",
    "autoencoder_base>autoencoder",
    "autoencoder>latents",
    "latents>flow",
    "flow>surprisal",
    "autoencoder>reconstruction",
    "flow>causal_audit",
    "flow>solver_audit",
    "corpus>pitch_surprisal",
    "pitch_surprisal>eeg",
    "surprisal>pitch",
    "surprisal>trf",
    "eeg>trf",
    "features>trf",
    "features>permutations",
    "corpus>features",
    "trf>group",
    "permutations>group",
    "permutations>canaries",
    "trf>canaries",
    "surprisal>permutations",
    "eeg>permutations",
]
TRAINING, FAN_OUT = "#fde3cf", "#e4eef8"
WIDTH, HEIGHT = 0.86, 0.42


def draw(path: Path) -> None:
    """Boxes for the stages, arrows for what they read; trainings have a colour of their own."""
    assert set(PLACES) == set(STAGES), set(PLACES) ^ set(STAGES)
    mpl.rcParams["svg.hashsalt"] = "stages"
    figure, axes = plt.subplots(figsize=(13, 4.2))
    for arrow in ARROWS:
        (x0, y0), (x1, y1) = (PLACES[name] for name in arrow.split(">"))
        edge = HEIGHT / 2 if y1 > y0 else -HEIGHT / 2
        start = (x0 + WIDTH / 2, y0) if x1 > x0 else (x0, y0 + edge)
        end = (x1 - WIDTH / 2, y1) if x1 > x0 else (x1, y1 - edge)
        axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": "#8a8a8a", "lw": 0.9}, zorder=1)
    for name, (x, y) in PLACES.items():
        colour = TRAINING if STAGES[name].training else FAN_OUT
        box = FancyBboxPatch(
            (x - WIDTH / 2, y - HEIGHT / 2), WIDTH, HEIGHT, boxstyle="round,pad=0.02", fc=colour, ec="#555555", lw=0.8
        )
        axes.add_patch(box)
        axes.text(x, y, name.replace("_", "\n"), ha="center", va="center", fontsize=9, zorder=3)
    axes.text(-0.43, 3.3, "orange: trainings, one Ray Tune run", fontsize=9, color="#a05a1c")
    axes.text(-0.43, 3.0, "blue: Ray tasks on the CPUs that training leaves", fontsize=9, color="#33608c")
    axes.set(xlim=(-0.5, 8.5), ylim=(-0.4, 3.5))
    axes.axis("off")
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})


if __name__ == "__main__":
    draw(Path(__file__).with_name("stages.svg"))
