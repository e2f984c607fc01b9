"""A model of melodic pitch expectation as IDyOM's (Pearce 2005): a long-term and a short-term PPM*, and both of them.

The long-term model (escape method C) knows a training set, the short-term model (X, with update exclusion) the notes of
the present melody so far. ``both`` is their geometric mean, weighted by certainty with bias 7. With a ``+`` the
long-term model learns the notes of the present melody too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from tasks.contract import TaskError
from tasks.ppm.star import Escape, Floats, PpmStar, combine, entropy_bits
from tasks.ppm.suffix_tree import START, Place
from tasks.ppm.viewpoints import Value, Viewpoint, value

Memory = Literal["ltm", "ltm+", "stm", "both", "both+"]

LTM_STM_BIAS = 7


@dataclass(frozen=True)
class Melody:
    """MIDI pitches, and the tonic's pitch class, which only viewpoints with scale degrees need."""

    pitches: Sequence[int]
    tonic: int = 0


@dataclass(frozen=True)
class Expectation:
    """What a model made of a melody.

    Attributes
    ----------
    bits : ndarray of float64, shape (number of notes,)
        Information content of each note given those before it, ``-log2 p``.
    entropy_bits : ndarray of float64, shape (number of notes,)
        Entropy of the distribution over pitches before each note was heard.
    """

    bits: npt.NDArray[np.float64]
    entropy_bits: npt.NDArray[np.float64]


class PitchModel:
    """Predicts pitches of melodies.

    Parameters
    ----------
    training : iterable of Melody
        What the long-term model has heard, in this order.
    alphabet : iterable of int
        All MIDI pitches that a melody may have; a superset of those in training and in what is scored.
    memory : {"ltm", "ltm+", "stm", "both", "both+"}
        Which of the two models predicts; with a ``+`` the long-term model learns what it hears.
    viewpoint : {"cpitch", "cpint", "cpintfref x cpint"}
        What the models see of a melody. Distributions are always over pitches. A first note, of which an interval
        shows nothing, gets all pitches equally likely.
    order_max : int or None
        Longest context of both models in symbols; None for no bound.
    escape : {"C", "X"}
        Of the long-term model.
    """

    def __init__(
        self,
        training: Iterable[Melody],
        alphabet: Iterable[int],
        memory: Memory = "both+",
        viewpoint: Viewpoint = "cpitch",
        order_max: int | None = None,
        escape: Escape = "C",
    ) -> None:
        self.alphabet = tuple(sorted(set(alphabet)))
        self.memory, self.viewpoint, self.order_max = memory, viewpoint, order_max
        self._symbols: dict[Value, int] = {}
        self._ltm = PpmStar(escape, order_max=order_max)
        for melody in training if memory != "stm" else ():
            self._check(melody)
            seen = (self._symbol(melody, place) for place in range(len(melody.pitches)))
            self._ltm.tree.learn(symbol for symbol in seen if symbol is not None)

    def score(self, melody: Melody, keep: bool = False) -> Expectation:
        """Predict every note of a melody from those before it.

        Parameters
        ----------
        melody : Melody
            Pitches in the model's alphabet.
        keep : bool
            Whether a long-term model that learns (``+``) still knows this melody afterwards, as in IDyOM's
            cross-validation, where it goes on to the next melody of the fold. By default it forgets, and the order in
            which melodies are scored does not matter.

        Returns
        -------
        Expectation

        Raises
        ------
        TaskError
            For a pitch outside of the alphabet.
        """
        self._check(melody)
        forgets = self.memory.endswith("+") and not keep
        ltm = replace(self._ltm, tree=self._ltm.tree.copy()) if forgets else self._ltm
        run = _Run(ltm, PpmStar("X", update_exclusion=True, order_max=self.order_max), self.memory)
        bits, entropies = [], []
        index = {pitch: position for position, pitch in enumerate(self.alphabet)}
        for position, pitch in enumerate(melody.pitches):
            chances = self._chances(run, melody, position)
            bits.append(-np.log2(chances[index[pitch]]))
            entropies.append(entropy_bits(chances))
            run.hear(self._symbol(melody, position))
        if keep:
            run.close()
        return Expectation(np.array(bits, dtype=np.float64), np.array(entropies, dtype=np.float64))

    def _check(self, melody: Melody) -> None:
        unknown = set(melody.pitches) - set(self.alphabet)
        if unknown:
            raise TaskError(
                f"pitch {min(unknown)} is outside of the pitch model's alphabet of {len(self.alphabet)} pitches; "
                "build the alphabet from training and evaluated melodies"
            )

    def _numbered(self, shown: Value | None) -> int | None:
        return None if shown is None else self._symbols.setdefault(shown, len(self._symbols))

    def _symbol(self, melody: Melody, position: int) -> int | None:
        before = melody.pitches[position - 1] if position else None
        return self._numbered(value(self.viewpoint, melody.pitches[position], before, melody.tonic))

    def _chances(self, run: _Run, melody: Melody, position: int) -> Floats:
        """Distribution over `alphabet` before the note at `position`."""
        before = melody.pitches[position - 1] if position else None
        seen = (self._numbered(value(self.viewpoint, pitch, before, melody.tonic)) for pitch in self.alphabet)
        possible = [symbol for symbol in seen if symbol is not None]
        return run.predict(possible) if possible else np.full(len(self.alphabet), 1 / len(self.alphabet))


@dataclass
class _Run:
    """Both models on their way through one melody."""

    ltm: PpmStar
    stm: PpmStar
    memory: Memory
    ltm_place: Place = START
    stm_place: Place = START

    def predict(self, possible: Sequence[int]) -> Floats:
        """Distribution over `possible` symbols."""
        if self.memory == "stm":
            return self.stm.predict(self.stm_place, possible)
        long = self.ltm.predict(self.ltm_place, possible)
        if not self.memory.startswith("both"):
            return long
        return combine((long, self.stm.predict(self.stm_place, possible)), LTM_STM_BIAS)

    def hear(self, symbol: int | None) -> None:
        """Go on by one note."""
        if symbol is None:
            return
        move = self.ltm.tree.grow if self.memory.endswith("+") else self.ltm.tree.follow
        self.ltm_place = move(self.ltm_place, symbol)
        self.stm_place = self.stm.tree.grow(self.stm_place, symbol)

    def close(self) -> None:
        """The melody ends: IDyOM puts its end mark into the long-term model even where that learns nothing else."""
        self.ltm.tree.close(self.ltm_place)
