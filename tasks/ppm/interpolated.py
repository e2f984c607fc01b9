"""Interpolated PPM: a variable-order Markov model of symbols, with escape method C and no exclusion.

Cleary & Witten (1984) introduced prediction by partial matching, Moffat (1990) escape method C, Bunton (1997) the
interpolated form, Pearce & Wiggins (2004) applied it to melodies. With N(c) the number of times context c was followed
by anything in training, D(c) the number of distinct symbols that followed it, and n(s, c) how often s did::

    p_k(s) = (n(s, c_k) + D(c_k) * p_{k-1}(s)) / (N(c_k) + D(c_k)),        p_{-1}(s) = 1 / |alphabet|

where c_k are the last k symbols. The prediction is p_k for the longest context that occurs in training.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from tasks.contract import TaskError

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


class InterpolatedPpm:
    """A long-term model: trained once on whole sequences, unchanged by what it then predicts.

    The contexts are not stored. All training sequences lie behind one another in one array; the places that follow a
    context of k symbols are found by narrowing those that follow its last k - 1, so memory grows with the number of
    symbols, also without a bound on the order.

    Parameters
    ----------
    sequences : sequence of sequence of int
        Training sequences. Contexts never reach across a sequence's start.
    alphabet : iterable of int
        All symbols that may ever be predicted; a superset of those in `sequences`.
    order_max : int or None
        Longest context in symbols; None for no bound.

    Raises
    ------
    TaskError
        If a training symbol is outside of the alphabet.
    """

    def __init__(self, sequences: Sequence[Sequence[int]], alphabet: Iterable[int], order_max: int | None) -> None:
        self.alphabet = tuple(sorted(set(alphabet)))
        self.order_max = order_max
        self._index = {symbol: place for place, symbol in enumerate(self.alphabet)}
        self._symbols = np.concatenate([np.zeros(0, dtype=np.int64), *map(self._encode, sequences)])
        lengths = [len(sequence) for sequence in sequences]
        self._before = np.concatenate([np.zeros(0, dtype=np.int64), *map(np.arange, lengths)]).astype(np.int64)
        follows = np.flatnonzero(self._before >= 1)
        last = self._symbols[follows - 1]
        self._after = [follows[last == place] for place in range(len(self.alphabet))]

    def _encode(self, sequence: Sequence[int]) -> Indices:
        try:
            return np.array([self._index[symbol] for symbol in sequence], dtype=np.int64)
        except KeyError as unknown:
            raise TaskError(
                f"symbol {unknown} is outside of the pitch model's alphabet of {len(self.alphabet)} symbols; "
                "build the alphabet from training and evaluated sequences"
            ) from None

    def _blend(self, lower: Floats, places: Indices) -> Floats:
        counts = np.bincount(self._symbols[places], minlength=len(self.alphabet))
        distinct = int(np.count_nonzero(counts))
        blended: Floats = (counts + distinct * lower) / (places.size + distinct)
        return blended

    def _distribution(self, history: Indices, order_0: Floats) -> Floats:
        """Probabilities after `history` (encoded), given those of order 0."""
        bound = history.size if self.order_max is None else min(self.order_max, history.size)
        probabilities = order_0
        places = self._after[int(history[-1])] if bound >= 1 else np.zeros(0, dtype=np.int64)
        for order in range(1, bound + 1):
            if order > 1:
                places = places[self._before[places] >= order]
                places = places[self._symbols[places - order] == history[-order]]
            if places.size == 0:
                break
            probabilities = self._blend(probabilities, places)
        return probabilities

    def _order_0(self) -> Floats:
        size = len(self.alphabet)
        uniform = np.full(size, 1.0 / size)
        everywhere = np.arange(self._symbols.size, dtype=np.int64)
        return self._blend(uniform, everywhere) if everywhere.size else uniform

    def probabilities(self, context: Sequence[int]) -> Floats:
        """Distribution of the symbol after `context`.

        Returns
        -------
        ndarray of float64, shape (len(alphabet),)
            In the order of `alphabet`; sums to 1.
        """
        return self._distribution(self._encode(context), self._order_0())

    def unigram(self, sequence: Sequence[int]) -> Floats:
        """Bits of every symbol of `sequence` by order 0 alone: how rare it is in training, whatever came before.

        Returns
        -------
        ndarray of float64, shape (len(sequence),)
            ``-log2 p_0``.
        """
        bits: Floats = -np.log2(self._order_0()[self._encode(sequence)])
        return bits

    def surprisal(self, sequence: Sequence[int]) -> Floats:
        """Bits of every symbol of `sequence` given those before it, the first one included.

        Returns
        -------
        ndarray of float64, shape (len(sequence),)
            ``-log2 p``.
        """
        encoded = self._encode(sequence)
        order_0 = self._order_0()
        chances = [self._distribution(encoded[:k], order_0)[encoded[k]] for k in range(encoded.size)]
        return -np.log2(np.array(chances, dtype=np.float64))
