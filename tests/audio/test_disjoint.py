import json
from typing import Any

import pytest
from made_audio import corpus_config

from tasks.audio import corpus
from tasks.audio.corpus import check_disjoint
from tasks.contract import Artefact


@pytest.fixture
def rendered(run_cell: Any, tunes: Artefact) -> Any:
    def make(role: str, **dataset: Any) -> Artefact:
        _, made = run_cell(corpus.run, corpus_config(role, **{"source": "chorales", **dataset}), {"tunes": tunes})
        return made

    return make


@pytest.fixture
def recorded(run_cell: Any) -> Any:
    def make(role: str, files: list[dict[str, Any]], **dataset: Any) -> Artefact:
        shares = {"gap_s": 2.0}
        _, made = run_cell(
            corpus.run, corpus_config(role, files=files, shares=shares, source="audio", path="x", **dataset)
        )
        return made

    return make


def test_splits_of_tunes_are_disjoint(rendered: Any) -> None:
    roles = {"train": rendered("train", split="train"), "validation": rendered("validation", split="dev")}
    assert check_disjoint({**roles, "stimuli": rendered("stimuli", split="test")}) == []


def test_a_shared_cluster_is_named_though_the_sound_differs(rendered: Any) -> None:
    found = check_disjoint({"train": rendered("train", split="train"), "stimuli": rendered("stimuli", split="all")})
    assert [line.split(" has ")[0] for line in found] == ["stimuli: t0", "stimuli: t1"]
    assert all("a melody related to that of" in line for line in found)


def test_what_is_judged_shares_nothing_with_what_chose(run_cell: Any, tunes: Artefact, rendered: Any) -> None:
    judged = rendered("melodies", split="test")
    for split, overlap, failure in (
        ("dev", False, None),
        ("all", False, "melodies_dev: t3"),
        ("all", True, "melodies_dev: t3"),
    ):
        config = corpus_config("melodies_dev", source="midi", path="folder", split=split) | {"allow_overlap": overlap}
        result, _ = run_cell(corpus.run, config, {"tunes": tunes, "melodies": judged})
        if failure is None:
            assert result.failure is None
        else:
            assert (result.failure or "").startswith(failure)
            assert "in melodies (and 2 more). Choose other recordings or another split" in (result.failure or "")
            assert "allow_overlap" not in (result.failure or "")


def test_melodies_of_another_source_are_compared_note_by_note(rendered: Any) -> None:
    other = rendered("stimuli", source="midi", path="folder", split="all")
    found = check_disjoint({"train": rendered("train", split="train"), "stimuli": other})
    assert [line.split(" has ")[0] for line in found] == ["stimuli: t0", "stimuli: t1"]
    dev = rendered("stimuli", source="midi", path="folder", split="test")
    assert check_disjoint({"train": rendered("train", split="train"), "stimuli": dev}) == []


def test_the_same_sound_is_named(recorded: Any, audio_file: Any) -> None:
    train = recorded("train", [audio_file("a.wav", seed=1), audio_file("b.wav", seed=2)])
    test = recorded("stimuli", [audio_file("c.flac", seed=3), audio_file("d.flac", seed=2)])
    assert check_disjoint({"train": train, "stimuli": test}) == ["stimuli: d has the same audio as b in train"]


def test_parts_of_one_recording_are_disjoint_until_they_overlap(recorded: Any, audio_file: Any) -> None:
    files = [audio_file("a.wav", seconds=10)]
    parts = {
        split: recorded(split, files, split=split, split_by="within_recording")
        for split in ("train", "dev", "test", "all")
    }
    assert check_disjoint({"train": parts["train"], "validation": parts["dev"], "stimuli": parts["test"]}) == []
    assert check_disjoint({"train": parts["dev"], "stimuli": parts["test"]}) == []
    overlap = check_disjoint({"train": parts["all"], "stimuli": parts["test"]})
    assert overlap == ["stimuli: a is a part of the file of a that train holds too"]


def test_corpora_are_read_back_as_they_were_written(rendered: Any) -> None:
    made = rendered("stimuli", split="test")
    listed = json.loads(made.read_bytes("corpus.json"))["recordings"]
    for entry, recording in zip(listed, corpus.recordings(made), strict=True):
        assert recording.pcm_fingerprint == entry["pcm_fingerprint"]
        assert [list(note) for note in recording.notes or ()] == entry["notes"]


def test_an_evaluation_corpus_that_training_has_heard_is_refused(run_cell: Any, tunes: Artefact, rendered: Any) -> None:
    train = rendered("train", split="train")
    config = corpus_config("stimuli", source="chorales", split="all")
    result, _ = run_cell(corpus.run, config, {"tunes": tunes, "train": train})
    assert "stimuli: t0" in result.failure
    assert "allow_overlap" in result.failure
    allowed, _ = run_cell(corpus.run, {**config, "allow_overlap": True}, {"tunes": tunes, "train": train})
    assert allowed.failure is None
    assert len(allowed.metrics["overlap"]) == 2
