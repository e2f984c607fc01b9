import json
from pathlib import Path
from typing import Any

import mido
import numpy as np
import pytest
from made_audio import corpus_config

from tasks.audio import corpus, melodies
from tasks.audio.melodies import Tune, monophonic, read_chorales
from tasks.contract import Context, Stopped, TaskError

SPLIT = {"train": 0.6, "dev": 0.2, "ngram": 6, "overlap": 0.3}


def note(pitch: int, wait: int, length: int, channel: int = 0, velocity: int = 64) -> list[mido.Message]:
    on = mido.Message("note_on", note=pitch, velocity=velocity, time=wait, channel=channel)
    return [on, mido.Message("note_off", note=pitch, time=length, channel=channel)]


def tempo(bpm: float, time: int = 0) -> mido.MetaMessage:
    return mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(bpm), time=time)


def config(*files: dict[str, Any]) -> dict[str, Any]:
    return {"source": "midi", "files": list(files), "split": SPLIT, "seed": 0}


def test_chorales_are_read_with_ties_merged() -> None:
    tunes, skipped = read_chorales(Context(), [1, 371, 43])
    assert not skipped
    assert [tune.id for tune in tunes] == ["chorale001", "chorale371", "chorale043"]
    first = tunes[0]
    assert first.title == "Chorale 1, BWV 269"
    assert first.notes[:4] == ((0.0, 1.0, 67), (1.0, 2.0, 67), (3.0, 1.0, 74), (4.0, 1.5, 71))
    assert (14.0, 2.0, 71) in tunes[2].notes  # two tied quarter notes in the score
    for tune in tunes:
        assert tune.time_unit == "quarter"
        assert tune.notes[0][0] == 0
        ends = [on + length for on, length, _ in tune.notes]
        assert all(end <= on + 1e-9 for end, (on, _, _) in zip(ends, tune.notes[1:], strict=False))


def test_a_work_with_several_files_and_one_that_stands_twice_are_read() -> None:
    from music21.corpus.chorales import Iterator

    works = list(Iterator(returnType="filename"))
    twice = [number + 1 for number, work in enumerate(works) if work == "bach/bwv112.5"]
    tunes, skipped = read_chorales(Context(), twice)
    assert not skipped
    assert len(twice) == 2
    assert tunes[0].notes == tunes[1].notes
    assert tunes[0].id != tunes[1].id


def test_a_chorale_that_cannot_be_parsed_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    from music21 import corpus

    monkeypatch.setattr(corpus, "getWork", lambda work: "/nowhere/" + work)
    tunes, skipped = read_chorales(Context(), [1])
    assert not tunes
    assert skipped[0]["file"] == "bach/bwv269"
    assert "music21 can't parse it" in skipped[0]["reason"]


def test_midi_times_follow_the_tempo_map(run_cell: Any, midi_file: Any) -> None:
    melody = [*note(60, 0, 480), *note(62, 480, 240), *note(64, 0, 480)]
    result, tunes = run_cell(melodies.run, config(midi_file("a.mid", [tempo(60), tempo(120, 960)], melody)))
    (tune,) = json.loads(tunes.read_bytes("tunes.json"))["tunes"]
    assert tune["notes"] == [[0.0, 1.0, 60, 64], [2.0, 0.25, 62, 64], [2.25, 0.5, 64, 64]]
    assert (tune["id"], tune["time_unit"], tune["cluster"], tune["split"]) == ("a", "second", 0, "train")
    assert result.metrics == {"n_tunes": 1, "n_clusters": 1, "n_notes": 3, "n_skipped": 0}


def test_midi_without_tempo_plays_at_120_and_drums_are_left_out(run_cell: Any, midi_file: Any) -> None:
    file = midi_file("a.mid", [*note(60, 480, 480)], note(40, 0, 480, channel=9))
    _, tunes = run_cell(melodies.run, config(file))
    assert json.loads(tunes.read_bytes("tunes.json"))["tunes"][0]["notes"] == [[0.5, 0.5, 60, 64]]


def test_a_note_without_an_end_lasts_until_the_end_of_the_file(run_cell: Any, midi_file: Any) -> None:
    messages = [mido.Message("note_on", note=60, velocity=64, time=0), mido.MetaMessage("end_of_track", time=960)]
    _, tunes = run_cell(melodies.run, config(midi_file("a.mid", messages)))
    assert json.loads(tunes.read_bytes("tunes.json"))["tunes"][0]["notes"] == [[0.0, 1.0, 60, 64]]


def test_broken_and_empty_midi_is_named_and_the_rest_goes_on(
    run_cell: Any, midi_file: Any, source_file: Any, tmp_path: Path
) -> None:
    good = midi_file("good.mid", note(60, 0, 480))
    empty = midi_file("empty.mid", [tempo(100)])
    for name, content in (
        ("noise.mid", b"not midi at all"),
        ("cut.mid", Path(good["path"]).read_bytes()[:30]),
        ("nil.mid", b""),
    ):
        (tmp_path / name).write_bytes(content)
    broken = [source_file(tmp_path / name) for name in ("noise.mid", "cut.mid", "nil.mid")]
    result, tunes = run_cell(melodies.run, config(*broken, empty, good))
    listed = json.loads(tunes.read_bytes("tunes.json"))
    assert [tune["id"] for tune in listed["tunes"]] == ["good"]
    reasons = {entry["file"]: entry["reason"] for entry in listed["skipped"]}
    assert reasons.keys() == {"noise.mid", "cut.mid", "nil.mid", "empty.mid"}
    assert reasons["empty.mid"] == "it has no notes"
    assert "not readable as MIDI" in reasons["noise.mid"]
    assert result.metrics["n_skipped"] == 4


def test_without_any_melody_the_cell_fails_with_the_reason(run_cell: Any, midi_file: Any) -> None:
    result, _ = run_cell(melodies.run, config(midi_file("empty.mid", [tempo(100)])))
    assert "empty.mid: it has no notes" in result.failure
    result, _ = run_cell(melodies.run, config())
    assert "the folder is empty" in result.failure


def test_a_file_that_is_gone_or_changed_fails_the_cell(run_cell: Any, midi_file: Any) -> None:
    file = midi_file("a.mid", note(60, 0, 480))
    result, _ = run_cell(melodies.run, config({**file, "size": 3}))
    assert "3 when the study was planned" in result.failure
    Path(file["path"]).unlink()
    result, _ = run_cell(melodies.run, config(file))
    assert "can't be opened" in result.failure


def test_equal_stems_get_different_ids(run_cell: Any, midi_file: Any, source_file: Any, tmp_path: Path) -> None:
    one = midi_file("air no. 1.mid", note(60, 0, 480))
    (tmp_path / "other").mkdir()
    copy = tmp_path / "other" / "air no. 1.mid"
    copy.write_bytes(Path(one["path"]).read_bytes())
    _, tunes = run_cell(melodies.run, config(source_file(copy), one))
    listed = json.loads(tunes.read_bytes("tunes.json"))["tunes"]
    assert [tune["id"] for tune in listed] == ["air_no._1", "air_no._1-2"]
    assert [tune["cluster"] for tune in listed] == [0, 0]


def test_stage_splits_whole_clusters_and_writes_the_same_bytes_again(
    run_cell: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    for number in range(40):
        walk = np.cumsum(np.random.default_rng(number // 2).integers(-5, 6, size=30))
        notes = tuple((float(i), 1.0, 60 + number + int(step)) for i, step in enumerate(walk))
        made.append(Tune(f"chorale{number:03d}", "made", "quarter", notes))
    monkeypatch.setattr(melodies, "read_chorales", lambda _: (made, []))
    chorales = {"source": "chorales", "split": SPLIT, "seed": 3}
    result, tunes = run_cell(melodies.run, chorales)
    _, again = run_cell(melodies.run, chorales)
    content = tunes.read_bytes("tunes.json")
    assert content == again.read_bytes("tunes.json")
    listed = json.loads(content)["tunes"]
    assert result.metrics["n_clusters"] == 20
    splits = {cluster: {t["split"] for t in listed if t["cluster"] == cluster} for cluster in range(20)}
    assert all(len(found) == 1 for found in splits.values())
    assert sum(tune["split"] == "train" for tune in listed) == 24


def test_a_study_that_was_asked_to_stop_stops() -> None:
    with pytest.raises(Stopped):
        read_chorales(Context(should_stop=lambda: True))


def test_monophonic_cuts_overlaps_and_keeps_the_highest_of_a_chord() -> None:
    notes = [(1.0, 1.0, 60), (0.0, 1.5, 62), (1.0, 2.0, 65), (3.5, 0.0, 70), (4.0, 1.0, 60)]
    assert monophonic(notes) == ((0.0, 1.0, 62), (1.0, 2.0, 65), (4.0, 1.0, 60))
    with pytest.raises(TaskError, match="no notes"):
        monophonic([(0.0, 0.0, 60)])


def test_monophonic_keeps_the_velocity_of_the_note_that_stays() -> None:
    notes = [(0.0, 2.0, 60, 90), (0.0, 2.0, 64, 30), (1.0, 1.0, 62, 127)]
    assert monophonic(notes) == ((0.0, 1.0, 64, 30), (1.0, 1.0, 62, 127))


def test_velocities_of_midi_are_kept_and_heard(run_cell: Any, midi_file: Any) -> None:
    velocities = [127, 64, 90, 127, 40, 1]
    line = [message for velocity in velocities for message in note(69, 0, 480, velocity=velocity)]
    _, tunes = run_cell(melodies.run, config(midi_file("chorale001.mid", [tempo(120), *line])))
    (tune,) = json.loads(tunes.read_bytes("tunes.json"))["tunes"]
    assert [note[3] for note in tune["notes"]] == velocities
    _, made = run_cell(corpus.run, corpus_config("train", source="midi", path="x"), {"tunes": tunes})
    (recording,) = corpus.recordings(made)
    assert recording.notes == tuple((0.5 * k, 0.5, 69) for k in range(6))
    audio = corpus.load_audio(recording, made, Context().open_file)
    peaks = np.abs(audio[: 6 * 22_050].reshape(6, -1)).max(axis=1)
    expected_db = [max(20 * np.log10(velocity / 127), -9.0) for velocity in velocities]
    np.testing.assert_allclose(20 * np.log10(peaks / peaks[0]), expected_db, atol=0.01)


def test_a_file_whose_damaged_times_last_for_hours_is_skipped(run_cell: Any, midi_file: Any) -> None:
    hours = midi_file("hours.mid", [*note(60, 0, 480), *note(62, 480 * 2 * 7200, 480)])
    result, _ = run_cell(melodies.run, config(hours))
    assert "hours.mid: it ends after 7201 s: up to 3600 s are allowed" in str(result.failure)
