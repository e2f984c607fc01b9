"""PPM*: predicting the next symbol from the contexts of a suffix tree, as IDyOM has it.

Cleary & Teahan (1997) let the order of PPM be unbounded, Bunton (1997) mixed the orders, Pearce (2005) applied the two
to melodies. With n(s, c) how often symbol s followed context c, and the contexts c_k, c_{k-1}, ..., c_0 (empty), each
the one before it without its first symbol::

    p(s) = sum over i from k to 0 of  e_i w_i n(s, c_i) / N_i  +  e_{-1} / (|A| + 1 - D_0)
    N_i  = sum of n(s, c_i) over the symbols s that have not followed c_{i+1}
    w_i  = N_i / (N_i + t_i),      e_k = 1,      e_{i-1} = e_i (1 - w_i)

normalised at the end. t_i says how much to trust shorter contexts: under escape method C it is the number of distinct
symbols that followed c_i, under X one more than the number of those that followed once. D_0 is the number of distinct
symbols seen at all, |A| the size of the alphabet. Note that the numerator keeps the symbols that N_i leaves out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from tasks.ppm.suffix_tree import START, Place, SuffixTree

Floats = npt.NDArray[np.float64]
Escape = Literal["C", "X"]

NEARLY_ONE = 0.999
"""Sums between this and 1 count as 1: IDyOM leaves such distributions as they are."""


@dataclass
class PpmStar:
    """A memory of symbol sequences that predicts what comes next.

    Parameters
    ----------
    escape : {"C", "X"}
        How a context shares its prediction with shorter ones.
    update_exclusion : bool
        Count a symbol at the longest known context alone, as news, instead of at all contexts that it followed. Not
        done at the context where prediction starts when that is a shorter one than the longest.
    order_max : int or None
        Longest context in symbols. None: the longest that has occurred or, where this was followed by one symbol alone,
        the shortest of the contexts of which that is true.
    """

    escape: Escape = "C"
    update_exclusion: bool = False
    order_max: int | None = None
    tree: SuffixTree = field(default_factory=SuffixTree)

    def predict(self, place: Place, alphabet: Sequence[int]) -> Floats:
        """Distribution of the symbol after `place`.

        Parameters
        ----------
        place : Place
            A context in `tree`.
        alphabet : sequence of int
            The symbols that are possible now. What the tree knows of others is left out.

        Returns
        -------
        ndarray of float64, shape (len(alphabet),)
        """
        index = {symbol: position for position, symbol in enumerate(alphabet)}
        chances = [0.0] * len(alphabet)
        escape = 1.0
        longer: dict[int, int] = {}
        here = self._start(place)
        news = self.update_exclusion and here == place
        while True:
            seen = self._followers(here, index, news)
            total = sum(count for symbol, count in seen.items() if symbol not in longer)
            types = self._types(seen)
            weight = total / (total + types) if total + types else 0.0
            for symbol, count in seen.items() if total else ():
                chances[index[symbol]] += escape * weight * count / total
            escape, longer, news = escape * (1 - weight), seen, self.update_exclusion
            if here == START:
                return normalised(np.array(chances) + escape / (len(alphabet) + 1 - len(seen)))
            here = self.tree.shorter(here)

    def _start(self, place: Place) -> Place:
        """The context at which prediction starts."""
        if self.order_max is not None:
            while self.tree.order(place) > self.order_max:
                place = self.tree.shorter(place)
            return place
        chosen = place
        while place.deterministic:
            chosen, place = place, self.tree.shorter(place)
        return chosen

    def _followers(self, place: Place, index: dict[int, int], news: bool) -> dict[int, int]:
        followers = self.tree.followers(place, news)
        return {symbol: count for symbol, count in followers.items() if symbol in index}

    def _types(self, seen: dict[int, int]) -> int:
        if self.escape == "X":
            return 1 + sum(count == 1 for count in seen.values())
        return len(seen)


def normalised(chances: Floats) -> Floats:
    """`chances` made to sum to 1, unless they almost do."""
    total = float(chances.sum())
    return chances if NEARLY_ONE < total < 1 else chances / total


def entropy_bits(chances: Floats) -> float:
    """Shannon's entropy of a distribution without zeros."""
    return float(-np.sum(chances * np.log2(chances)))


def combine(distributions: Sequence[Floats], bias: float) -> Floats:
    """Geometric mean of distributions, each weighted by how certain it is (Pearce, Conklin & Wiggins 2004).

    Parameters
    ----------
    distributions : sequence of ndarray, each of shape (n,)
        Over the same alphabet, without zeros.
    bias : float
        Weights are ``(entropy / log2 n) ** -bias``; 0 weighs all alike.

    Returns
    -------
    ndarray of float64, shape (n,)
    """
    size = len(distributions[0])
    most = np.log2(size) if size > 1 else 1.0
    relative = [entropy_bits(chances) / most if size > 1 else 1.0 for chances in distributions]
    weights = np.array(relative) ** -bias
    logs = np.array([np.log(chances) for chances in distributions])
    return normalised(np.exp(weights @ logs / weights.sum()))
