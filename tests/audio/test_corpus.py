import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_audio import corpus_config

from tasks.audio import corpus
from tasks.audio.corpus import load_audio, recordings
from tasks.audio.decoding import fingerprint
from tasks.contract import Artefact, Cell, Context, Stopped, TaskError


def open_file(path: str) -> Any:
    return Path(path).open("rb")


def skipped(artefact: Artefact) -> dict[str, str]:
    return {entry["file"]: entry["reason"] for entry in json.loads(artefact.read_bytes("corpus.json"))["skipped"]}


# Melodies


def test_tunes_of_the_split_are_rendered(run_cell: Any, tunes: Artefact) -> None:
    result, made = run_cell(corpus.run, corpus_config("melodies", source="chorales", split="test"), {"tunes": tunes})
    listed = recordings(made)
    assert [recording.id for recording in listed] == ["t3", "t4", "t5"]
    for recording in listed:
        audio = load_audio(recording, made, open_file)
        assert len(audio) == recording.n_samples
        assert fingerprint(audio) == recording.pcm_fingerprint
        assert np.abs(audio).max() == pytest.approx(0.5, abs=1e-4)
        assert recording.notes is not None
        onset, _, pitch = recording.notes[-1]
        assert isinstance(pitch, int)
        assert np.abs(audio[round(onset * 44_100) :][:3]).max() > 0
        assert (recording.file, recording.path, recording.within_recording) == (f"{recording.id}.flac", None, False)
    assert result.metrics["n_recordings"] == 3
    assert result.metrics["seconds"] == pytest.approx(sum(r.n_samples for r in listed) / 44_100)


def test_rendering_again_gives_the_same_bytes_alone_or_in_a_group(
    run_cell: Any, tunes: Artefact, tmp_path: Path
) -> None:
    config = corpus_config("melodies", source="chorales", split="test")
    _, alone = run_cell(corpus.run, config, {"tunes": tunes})
    cells = []
    for name, role in (("x", "train"), ("y", "melodies")):
        (tmp_path / name).mkdir()
        cells.append(Cell(name, "corpus", {**config, "role": role}, {"tunes": tunes}, tmp_path / name))
    list(corpus.run(cells, Context()))
    for name in ("corpus.json", "t3.flac", "t4.flac", "t5.flac"):
        assert alone.read_bytes(name) == (tmp_path / "y" / name).read_bytes()
    assert alone.read_bytes("t3.flac") != (tmp_path / "x" / "t3.flac").read_bytes()


def test_pieces_prefer_different_music_and_excerpts_shorten(run_cell: Any, tunes: Artefact) -> None:
    dataset = {"source": "chorales", "split": "test"}
    _, two = run_cell(corpus.run, corpus_config("stimuli", pieces=2, **dataset), {"tunes": tunes})
    assert [recording.id for recording in recordings(two)] == ["t3", "t5"]
    _, short = run_cell(corpus.run, corpus_config("stimuli", excerpt_s=1.5, **dataset), {"tunes": tunes})
    for recording in recordings(short):
        assert recording.notes is not None
        assert recording.notes[-1][0] + recording.notes[-1][1] <= 1.5
        assert recording.duration_s <= 1.75


def test_a_tune_that_cannot_be_played_is_named_and_nothing_left_is_a_failure(run_cell: Any, tunes: Artefact) -> None:
    config = corpus_config("stimuli", source="chorales", split="dev", excerpt_s=0.01)
    result, _ = run_cell(corpus.run, config, {"tunes": tunes})
    assert result.failure is not None
    assert "t2: no note ends within 0.01 s" in result.failure


# Audio files


def test_any_rate_and_channels_load_as_mono_at_44100(run_cell: Any, audio_file: Any) -> None:
    files = [audio_file("a.wav", rate=48_000), audio_file("b.flac", rate=22_050), audio_file("c.ogg", channels=1)]
    result, made = run_cell(corpus.run, corpus_config("train", source="audio", path="x", files=files))
    listed = recordings(made)
    assert [(r.id, r.sample_rate_hz, r.n_samples) for r in listed] == [
        ("a", 48_000, 144_000), ("b", 22_050, 66_150), ("c", 44_100, 132_300),
    ]  # fmt: skip
    for recording, file in zip(listed, files, strict=True):
        audio = load_audio(recording, made, open_file)
        assert audio.shape == (132_300,)
        assert audio.dtype == np.float32
        assert fingerprint(audio) == recording.pcm_fingerprint
        assert recording.path == file["path"]
        assert recording.cluster is recording.notes is recording.file is None
    assert result.metrics == {"n_recordings": 3, "seconds": 9.0, "n_skipped": 0, "skipped": [], "overlap": []}


def test_unusable_files_are_named_and_the_rest_goes_on(
    run_cell: Any, audio_file: Any, source_file: Any, tmp_path: Path
) -> None:
    good = audio_file("good.wav")
    flac = audio_file("whole.flac")
    cut = tmp_path / "cut.flac"
    cut.write_bytes(Path(flac["path"]).read_bytes()[:100_000])
    text = tmp_path / "notes.wav"
    text.write_text("not audio")
    nan = np.full(88_200, 0.1)
    nan[100] = np.nan
    files = [
        good,
        source_file(cut),
        source_file(text),
        audio_file("copy.flac", seed=sum(b"good.wav")),
        audio_file("empty.wav", samples=np.zeros(0)),
        audio_file("flat.wav", samples=np.full(88_200, 0.5)),
        audio_file("nan.wav", samples=nan, subtype="FLOAT"),
        audio_file("short.wav", seconds=0.5),
    ]
    result, made = run_cell(corpus.run, corpus_config("train", source="audio", path="x", files=files))
    assert [recording.id for recording in recordings(made)] == ["copy"]  # the first by path
    reasons = skipped(made)
    assert reasons.keys() == {"good.wav", "cut.flac", "notes.wav", "empty.wav", "flat.wav", "nan.wav", "short.wav"}
    assert reasons["good.wav"] == "the same audio as copy"
    assert "damaged" in reasons["cut.flac"]
    assert "not readable" in reasons["notes.wav"]
    assert "silent" in reasons["flat.wav"]
    assert "not finite" in reasons["nan.wav"]
    assert "0.50 s long" in reasons["short.wav"]
    assert result.metrics["n_skipped"] == 7
    assert all(str(tmp_path) not in line for line in result.metrics["skipped"])


def test_splits_by_recording_part_the_files(run_cell: Any, audio_file: Any) -> None:
    files = [audio_file(f"f{i}.wav", seconds=1.2, channels=1) for i in range(10)]
    found = {}
    for split in ("train", "dev", "test", "all"):
        _, made = run_cell(corpus.run, corpus_config("x", source="audio", path="x", split=split, files=files))
        found[split] = {recording.id for recording in recordings(made)}
    assert [len(found[split]) for split in ("train", "dev", "test", "all")] == [6, 2, 2, 10]
    assert found["train"] | found["dev"] | found["test"] == found["all"]
    _, other = run_cell(corpus.run, corpus_config("x", source="audio", path="x", split="test", files=files, seed=5))
    assert {recording.id for recording in recordings(other)} != found["test"]


def test_pieces_and_excerpts_of_audio(run_cell: Any, audio_file: Any) -> None:
    files = [audio_file(f"f{i}.wav", rate=48_000) for i in range(3)]
    config = corpus_config("x", source="audio", path="x", pieces=2, excerpt_s=1.5, files=files[::-1])
    result, made = run_cell(corpus.run, config)
    assert [(r.id, r.start_sample, r.n_samples) for r in recordings(made)] == [("f0", 0, 72_000), ("f1", 0, 72_000)]
    assert result.metrics["seconds"] == 3.0


def test_within_recording_holds_out_the_end_after_a_gap(run_cell: Any, audio_file: Any) -> None:
    files = [audio_file("long.wav", seconds=20, rate=22_050), audio_file("short.wav", seconds=5)]
    shares = {"gap_s": 5.0}
    parts = {}
    for split in ("train", "dev", "test", "all"):
        dataset = {"source": "audio", "path": "x", "split": split, "split_by": "within_recording"}
        _, made = run_cell(corpus.run, corpus_config(split, files=files, shares=shares, **dataset))
        parts[split] = recordings(made)[0]
        if split != "all":
            assert "too short to hold out the last 0.2 after a gap of 5 s" in skipped(made)["short.wav"]
        audio = load_audio(parts[split], made, open_file)
        assert fingerprint(audio) == parts[split].pcm_fingerprint
    rate = 22_050
    ranges = {split: (part.start_sample / rate, part.duration_s) for split, part in parts.items()}
    assert ranges == {"train": (0, 11), "dev": (16, 2), "test": (18, 2), "all": (0, 20)}
    assert [parts[split].within_recording for split in ("train", "test", "all")] == [True, True, False]
    assert parts["train"].id == parts["test"].id == "long"


def test_dev_and_test_of_a_recording_share_no_sample(run_cell: Any, audio_file: Any) -> None:
    odd = audio_file("odd.wav", samples=0.1 * np.random.default_rng(0).standard_normal((132_303, 1)))
    shares = {"gap_s": 0.0, "held_out_share": 0.499}  # 1.5 s are held out: halves of 0.75 s each
    dataset = {"source": "audio", "path": "x", "split_by": "within_recording"}
    for split in ("train", "dev", "test"):
        result, _ = run_cell(corpus.run, corpus_config("x", files=[odd], shares=shares, split=split, **dataset))
        assert "as much for each half of what is held out" in (result.failure or ""), split
    longer = audio_file("longer.wav", samples=0.1 * np.random.default_rng(0).standard_normal((220_501, 1)))
    found = {}
    for split in ("train", "dev", "test"):
        config = corpus_config("x", files=[longer], shares=shares, split=split, **dataset)
        (found[split],) = recordings(run_cell(corpus.run, config)[1])
    ends = {split: part.start_sample + part.n_samples for split, part in found.items()}
    assert found["train"].start_sample == 0
    assert [ends["train"], ends["dev"]] == [found["dev"].start_sample, found["test"].start_sample]
    assert ends["test"] == 220_501
    assert min(part.n_samples for part in found.values()) >= 44_100


def test_a_file_that_was_edited_in_place_is_not_loaded(run_cell: Any, audio_file: Any) -> None:
    file = audio_file("a.wav", seconds=12, channels=1, seed=1)
    dataset = {"source": "audio", "path": "x", "split_by": "within_recording", "split": "train"}
    config = corpus_config("train", files=[file], shares={"gap_s": 0.0}, **dataset)
    _, made = run_cell(corpus.run, config)
    (recording,) = recordings(made)
    assert load_audio(recording, made, open_file).shape == (423_360,)
    content = bytearray(Path(file["path"]).read_bytes())
    content[-400:] = bytes(400)  # outside of this part
    Path(file["path"]).write_bytes(content)
    load_audio(recording, made, open_file)
    content[1000:1400] = bytes(400)
    Path(file["path"]).write_bytes(content)
    with pytest.raises(TaskError, match=r"a\.wav: its audio changed since the corpus was made"):
        load_audio(recording, made, open_file)


def test_no_file_in_the_split_is_a_failure_that_says_so(run_cell: Any, audio_file: Any) -> None:
    config = corpus_config("stimuli", source="audio", path="music", split="test", files=[audio_file("a.wav")])
    result, _ = run_cell(corpus.run, config)
    assert result.failure == (
        "no usable recording for stimuli (split test of music): no file falls in this split. "
        "Add recordings, or set split: all"
    )


def test_a_changed_or_missing_file_fails_its_cell_alone(audio_file: Any, tmp_path: Path) -> None:
    good = audio_file("a.wav")
    cells = []
    for name, file in (
        ("bad", {**good, "size": 1}),
        ("gone", {**good, "path": str(tmp_path / "no.wav")}),
        ("good", good),
    ):
        (tmp_path / name).mkdir()
        config = corpus_config("train", source="audio", path="x", files=[file])
        cells.append(Cell(name, "corpus", config, {}, tmp_path / name))
    bad, gone, fine = corpus.run(cells, Context())
    assert "when the study was planned" in (bad.failure or "")
    assert "can't be opened" in (gone.failure or "")
    assert fine.failure is None


def test_a_study_that_was_asked_to_stop_stops(audio_file: Any, tmp_path: Path) -> None:
    config = corpus_config("train", source="audio", path="x", files=[audio_file("a.wav")])
    with pytest.raises(Stopped):
        list(corpus.run([Cell("a", "corpus", config, {}, tmp_path)], Context(should_stop=lambda: True)))
