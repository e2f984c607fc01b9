"""Melodies of a seeded random walk as MIDI files: `python tunes.py FOLDER_OR_URL`."""

from __future__ import annotations

import io
import random
import sys

import fsspec
import mido

N_TUNES = 24
N_NOTES = 24
SCALE = (60, 62, 64, 65, 67, 69, 71, 72, 74, 76)
TICKS = 480


def tune(seed: int) -> bytes:
    """One melody: a walk on a scale, in eighths, quarters and halves."""
    chance = random.Random(seed)
    track = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(120 + seed % 4 * 6), time=0)])
    place = chance.randrange(len(SCALE))
    for _ in range(N_NOTES):
        place = min(max(place + chance.choice((-3, -2, -1, -1, 0, 1, 1, 2, 3)), 0), len(SCALE) - 1)
        length = chance.choice((TICKS // 2, TICKS // 2, TICKS, 2 * TICKS))
        track.append(mido.Message("note_on", note=SCALE[place], velocity=chance.randint(60, 110), time=0))
        track.append(mido.Message("note_off", note=SCALE[place], velocity=0, time=length))
    file = mido.MidiFile(ticks_per_beat=TICKS)
    file.tracks.append(track)
    stream = io.BytesIO()
    file.save(file=stream)
    return stream.getvalue()


def main(target: str) -> None:
    fs, folder = fsspec.core.url_to_fs(target)
    fs.makedirs(folder, exist_ok=True)
    for seed in range(N_TUNES):
        fs.pipe_file(f"{folder}/{seed:02d}.mid", tune(seed))


if __name__ == "__main__":
    main(sys.argv[1])
