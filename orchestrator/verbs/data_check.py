"""Whether the audio at hand is aligned with what the subjects of an EEG data set heard."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from orchestrator.manifest import AUDIO_SUFFIXES, MIDI_SUFFIXES
from orchestrator.outside import OutsideFile, open_outside
from orchestrator.reading import UsageError
from orchestrator.report.tables import aligned
from orchestrator.verbs.data import DESCRIPTION, listed
from orchestrator.verbs.data_bids import heard_in
from tasks.contract import Artefact, Cell, Context, TaskError

if TYPE_CHECKING:
    from tasks.eeg.shipped import Alignment

RATE_HZ = 64
"""At which envelopes of two audio files are compared."""

DURATION_TOLERANCE_S = 2.0


def check(path: str, audio: str, trials: str | None, task: str | None, tolerance: int) -> int:
    """Print the lag of our envelope of each piece behind theirs; exit code 1 when one is misaligned.

    A CND data set ships envelopes; a BIDS data set may have the stimuli themselves in its folder ``stimuli``.

    Raises
    ------
    UsageError
        If the data set or the audio can't be read, or which trial heard what is unknown.
    """
    from tasks.audio.recording import load_audio, recordings
    from tasks.eeg.pairing import read_trial_table
    from tasks.eeg.shipped import align, read_shipped

    files = listed(path)
    if DESCRIPTION in files:
        if trials is not None:
            raise UsageError("--trials: the events of a BIDS data set say what was heard; leave the option out")
        return _check_bids(path, files, audio, task, tolerance)
    stimulus_file = files.get("dataStim.mat")
    if stimulus_file is None or task is not None:
        lacking = "dataStim.mat" if task is None else DESCRIPTION
        raise UsageError(f"{path}: no {lacking} in it; the check is for data sets in CND layout, and for BIDS")
    try:
        shipped = read_shipped(stimulus_file.path, open_outside)
        table = read_trial_table(trials, open_outside) if trials else None
        with tempfile.TemporaryDirectory() as folder:
            corpus = _corpus(audio, Path(folder))
            found, skipped = align(
                shipped, recordings(corpus), table, lambda stimulus: load_audio(stimulus, corpus, open_outside)
            )
    except TaskError as error:
        raise UsageError(str(error).replace("cnd.trials", "--trials")) from None
    wrong = {one.trial: one.misaligned(tolerance) for one in found}
    feature = shipped.names[shipped.envelope]
    print(f"our envelope behind the shipped {feature!r}, in samples at {shipped.rate_hz:g} Hz (allowed: ±{tolerance})")
    print("\n".join(aligned(_CHECKED, [_checked(one, wrong[one.trial]) for one in found])))
    refused = [f"{one.recording}: {wrong[one.trial]}" for one in found if wrong[one.trial]]
    left_out = [str(part) for part in skipped]
    return _verdict(refused, left_out, bool(found), any(part.trial != "-" for part in skipped))


def _verdict(refused: Sequence[str], left_out: Sequence[str], compared: bool, lost: bool) -> int:
    for sentence in left_out:
        print(f"left out: {sentence}")
    if not compared:
        print("nothing could be compared")
    for sentence in refused:
        sys.stderr.write(f"orchestrator: misaligned: {sentence}\n")
    return 1 if refused or not compared or lost else 0


def _check_bids(path: str, files: Mapping[str, OutsideFile], audio: str, task: str | None, tolerance: int) -> int:
    """What events name, against the audio at hand: is it there, how long is it, is it the same as in ``stimuli``."""
    from tasks.audio.recording import Recording, load_audio, recordings
    from tasks.eeg.pairing import by_path

    heard = heard_in(path, files, task)
    found: list[Alignment] = []
    refused: list[str] = []
    left_out: list[str] = []
    try:
        with tempfile.TemporaryDirectory() as folder:
            corpus = _corpus(audio, Path(folder))
            for name, lasted_s in heard.items():
                stimulus = by_path(name, recordings(corpus))
                if not isinstance(stimulus, Recording):
                    left_out.append(stimulus or f"{name}: events name it, and it is not among the audio")
                    continue
                ours_s = stimulus.duration_s
                theirs_s = max(lasted_s, key=lambda seconds: abs(seconds - ours_s), default=ours_s)
                if abs(theirs_s - ours_s) > DURATION_TOLERANCE_S:
                    refused.append(f"{name}: lasts {theirs_s:.1f} s by the events, and our audio {ours_s:.1f} s")
                own = load_audio(stimulus, corpus, open_outside)
                found += _against(files.get(f"stimuli/{name}"), name, own, len(found) + 1)
    except TaskError as error:
        raise UsageError(str(error)) from None
    wrong = {one.trial: one.misaligned(tolerance) for one in found}
    refused += [f"{one.recording}: {wrong[one.trial]}" for one in found if wrong[one.trial]]
    if found:
        print(f"our envelope behind that of the folder stimuli, in samples at {RATE_HZ} Hz (allowed: ±{tolerance})")
        print("\n".join(aligned(_CHECKED, [_checked(one, wrong[one.trial]) for one in found])))
    matched = len(heard) - len(left_out)
    print(f"{matched} of {len(heard)} stimuli that events name are among the audio; {len(found)} are in stimuli too")
    return _verdict(refused, left_out, matched > 0, bool(left_out))


def _against(file: OutsideFile | None, name: str, own: Any, number: int) -> list[Alignment]:
    """Our audio of a stimulus beside the data set's own file of it, if it has one."""
    from tasks.audio.decoding import decode, probe, resample
    from tasks.eeg.features import envelope
    from tasks.eeg.shipped import compared

    if file is None:
        return []
    try:
        with open_outside(file.path) as stream:
            rate, _ = probe(stream)
        with open_outside(file.path) as stream:
            theirs = resample(decode(stream), rate)
    except TaskError as error:
        raise TaskError(f"{file.path}: {error}") from None
    return [compared(number, name, envelope(own, RATE_HZ), envelope(theirs, RATE_HZ), RATE_HZ)]


_CHECKED = ("piece", "trial", "lag", "r", "lag of parts", "longer by (s)", "verdict")


def _checked(one: Alignment, wrong: str | None) -> list[str]:
    lags = sorted(part.samples for part in one.parts)
    parts = f"{lags[0]:+d} to {lags[-1]:+d}" if lags else "-"
    whole = [f"{one.whole.samples:+d}", f"{one.whole.r:.3f}"]
    return [one.recording, str(one.trial), *whole, parts, f"{one.seconds_more:+.2f}", "MISALIGNED" if wrong else "ok"]


def _corpus(audio: str, folder: Path) -> Artefact:
    """The stimuli as a study makes them of a folder of audio or MIDI, in a temporary folder."""
    from tasks.audio.config import DataSet, SplitConfig
    from tasks.audio.corpus import run as make_corpus
    from tasks.audio.melodies import run as make_tunes

    there = listed(audio)
    midi = {name: file for name, file in there.items() if name.lower().endswith(MIDI_SUFFIXES)}
    sound = {name: file for name, file in there.items() if name.lower().endswith(AUDIO_SUFFIXES)}
    if not sound and not midi:
        raise UsageError(f"{audio}: no audio ({', '.join(AUDIO_SUFFIXES)}) and no MIDI in it")
    files = [asdict(file) for file in (sound or midi).values()]
    common: dict[str, Any] = {"seed": 0, "split": SplitConfig().model_dump(mode="json")}
    inputs: dict[str, Artefact] = {}
    if not sound:
        inputs["tunes"] = _made(make_tunes, "tunes", {"source": "midi", "files": files, **common}, {}, folder)
    dataset = DataSet(source="audio" if sound else "midi", path=audio).model_dump(mode="json")
    config = {"role": "stimuli", "dataset": dataset, "files": files if sound else [], **common}
    return _made(make_corpus, "corpus", config, inputs, folder)


def _made(stage: Any, name: str, config: dict[str, Any], inputs: dict[str, Artefact], folder: Path) -> Artefact:
    out = folder / name
    out.mkdir()
    (result,) = stage([Cell(name, name, config, dict(inputs), out)], Context(open_file=open_outside))
    if result.failure is not None:
        raise TaskError(result.failure)

    def opened(file: str) -> BinaryIO:
        return (out / file).open("rb")

    return Artefact(name, name, config, result.metrics, opened)
