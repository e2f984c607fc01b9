"""Training crops: which part of which recording an item of a step is, and its audio."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from tasks.audio.config import SAMPLE_RATE_HZ
from tasks.audio.corpus import load_audio, recordings
from tasks.autoencoder.config import CROP_SAMPLES
from tasks.contract import Artefact, OpenFile, TaskError
from tasks.seeds import numpy_stream

RMS_FLOOR = 0.001
TRIES = 16
CACHE_BYTES = 1 << 30
Audio = NDArray[np.float32]


class Crops:
    """Random crops of 34 304 samples from the recordings of a corpus, each sample of it equally likely.

    Recordings are decoded when a crop first needs them and kept while they fit in 1 GiB.

    Parameters
    ----------
    corpus : Artefact
        A finished corpus.
    open_file : callable
        Opens files of the outside world.

    Raises
    ------
    TaskError
        When no recording is as long as a crop.
    """

    def __init__(self, corpus: Artefact, open_file: OpenFile) -> None:
        self._corpus = corpus
        self._open_file = open_file
        self._recordings = [r for r in recordings(corpus) if _length(r.n_samples, r.sample_rate_hz) >= CROP_SAMPLES]
        if not self._recordings:
            raise TaskError(
                f"corpus {corpus.config.get('role', corpus.signature)}: no recording is as long as a training crop "
                f"({CROP_SAMPLES} samples, {CROP_SAMPLES / SAMPLE_RATE_HZ:.2f} s); add longer recordings"
            )
        lengths = np.array([_length(r.n_samples, r.sample_rate_hz) for r in self._recordings])
        self._ends = np.cumsum(lengths - CROP_SAMPLES + 1)
        self._cache: OrderedDict[int, Audio] = OrderedDict()
        self._cached_bytes = 0

    def draw(self, *stream: str | int) -> Audio:
        """The crop of a named stream, (34304,); a crop of RMS below 0.001 is drawn again, up to 16 times."""
        rng = numpy_stream(*stream)
        crop = self._at(int(rng.integers(self._ends[-1])))
        for _ in range(TRIES - 1):
            if np.sqrt(np.mean(np.square(crop))) >= RMS_FLOOR:
                break
            crop = self._at(int(rng.integers(self._ends[-1])))
        return crop

    def batch(self, size: int, *stream: str | int) -> Audio:
        """Crops of one step, (size, 34304); each item has a stream of its own."""
        return np.stack([self.draw(*stream, item) for item in range(size)])

    def _at(self, place: int) -> Audio:
        index = int(np.searchsorted(self._ends, place, side="right"))
        start = place - (int(self._ends[index - 1]) if index else 0)
        crop = self._audio(index)[start : start + CROP_SAMPLES]
        return np.pad(crop, (0, CROP_SAMPLES - len(crop)))

    def _audio(self, index: int) -> Audio:
        if index in self._cache:
            self._cache.move_to_end(index)
            return self._cache[index]
        audio = load_audio(self._recordings[index], self._corpus, self._open_file)
        self._cache[index] = audio
        self._cached_bytes += audio.nbytes
        while self._cached_bytes > CACHE_BYTES and len(self._cache) > 1:
            self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes
        return audio


def _length(n_samples: int, sample_rate_hz: int) -> int:
    return n_samples * SAMPLE_RATE_HZ // sample_rate_hz
