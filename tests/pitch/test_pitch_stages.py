"""The stages `pitch_surprisal` and `pitch` on corpora of a few melodies."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from pydantic import ValidationError
from safetensors.numpy import save_file
from scipy import stats

from tasks.alignment import FRAME_S
from tasks.audio.config import TunesConfig
from tasks.config import PitchConfig
from tasks.contract import Artefact, Cell, Context
from tasks.pitch import read_surprisal, run_surprisal
from tasks.pitch_correlation import run as run_correlation
from tasks.ppm.idyom import Melody, PitchModel
from tasks.ppm.interpolated import InterpolatedPpm
from tasks.ppm.viewpoints import tonic_of
from tasks.seeds import numpy_stream


def artefact(stage: str, folder: Path, config: dict[str, Any] | None = None) -> Artefact:
    return Artefact(stage, stage, config or {}, {}, lambda name: (folder / name).open("rb"))


def melody(name: str, n_notes: int = 30) -> list[list[float]]:
    random = numpy_stream("melody", name)
    onsets = np.cumsum(random.uniform(0.2, 0.5, n_notes))
    pitches = 60 + np.cumsum(random.integers(-2, 3, n_notes)) % 12
    return [[float(onset), 0.2, int(pitch)] for onset, pitch in zip(onsets, pitches, strict=True)]


def tune(name: str, cluster: int, split: str) -> dict[str, Any]:
    return {"id": name, "title": name, "cluster": cluster, "split": split, "time_unit": "second", "notes": melody(name)}


def recording(name: str, notes: list[list[float]] | None) -> dict[str, Any]:
    return {
        "id": name,
        "piece": name,
        "cluster": 0,
        "file": f"{name}.flac",
        "path": None,
        "sample_rate_hz": 44100,
        "start_sample": 0,
        "n_samples": 44100 * 20,
        "pcm_fingerprint": "0",
        "within_recording": False,
        "notes": notes,
    }


def write_tunes(folder: Path, tunes: list[dict[str, Any]], **split: Any) -> Artefact:
    folder.mkdir()
    (folder / "tunes.json").write_text(json.dumps({"tunes": tunes, "skipped": []}))
    config = TunesConfig.model_validate({"source": "midi", "split": split, "seed": 0})
    return artefact("tunes", folder, config.model_dump(mode="json"))


def write_corpus(folder: Path, notes: dict[str, list[list[float]] | None], audio: bool = False) -> Artefact:
    folder.mkdir()
    content = {"recordings": [recording(name, listed) for name, listed in notes.items()], "skipped": []}
    for name in notes if audio else ():
        noise = numpy_stream("audio", name).normal(0, 0.1, 44100 * 20)
        soundfile.write(folder / f"{name}.flac", noise, 44100)
    (folder / "corpus.json").write_text(json.dumps(content))
    return artefact("corpus", folder)


def write_ic(folder: Path, series: dict[str, np.ndarray]) -> Artefact:
    folder.mkdir()
    save_file(series, folder / "ic.safetensors")
    about = {"lead_samples": 0, "trail_samples": 0, "n_samples": 44100 * 20}
    content = {
        "noise_level": 0.4,
        "unit": "nats",
        "sample_rate_hz": 44100,
        "frame_samples": 4096,
        "stamp": "start of the frame",
        "recordings": {name: {**about, "n_frames": len(values)} for name, values in series.items()},
    }
    (folder / "ic.json").write_text(json.dumps(content))
    return artefact("surprisal", folder)


def make_cell(stage: str, config: dict[str, Any], inputs: dict[str, Artefact], out_dir: Path) -> Cell:
    out_dir.mkdir()
    return Cell(out_dir.name, stage, config, inputs, out_dir)


@pytest.fixture
def trained(tmp_path: Path) -> tuple[Artefact, Artefact]:
    tunes = [tune("a", 0, "train"), tune("b", 0, "train"), tune("c", 1, "train"), tune("d", 2, "test")]
    corpus = write_corpus(tmp_path / "corpus", {"d": melody("d"), "a": melody("a")})
    return write_tunes(tmp_path / "tunes", tunes), corpus


def pitches(name: str) -> list[int]:
    return [int(note[2]) for note in melody(name)]


def test_surprisal_is_trained_on_the_train_split_alone(tmp_path: Path, trained: tuple[Artefact, Artefact]) -> None:
    inputs = {"tunes": trained[0], "corpus": trained[1]}
    cell = make_cell("pitch_surprisal", {"order_max": 3, "escape": "C", "train_split": "train"}, inputs, tmp_path / "o")
    (result,) = run_surprisal([cell], Context())
    assert result.failure is None
    assert result.metrics["n_notes"] == 60
    assert result.metrics["n_tunes_trained"] == 3
    bits = read_surprisal(artefact("pitch_surprisal", cell.out_dir))
    alphabet = {pitch for name in "abcd" for pitch in pitches(name)}
    model = InterpolatedPpm([pitches(name) for name in "abc"], alphabet, 3)
    np.testing.assert_array_equal(bits["d"], model.surprisal(pitches("d")))


def test_a_training_tune_is_scored_without_its_own_cluster(tmp_path: Path, trained: tuple[Artefact, Artefact]) -> None:
    cell = make_cell("pitch_surprisal", {"order_max": 3}, {"tunes": trained[0], "corpus": trained[1]}, tmp_path / "o")
    (result,) = run_surprisal([cell], Context())
    assert result.metrics["n_pieces_without_own_cluster"] == 1
    bits = read_surprisal(artefact("pitch_surprisal", cell.out_dir))
    alphabet = {pitch for name in "abcd" for pitch in pitches(name)}
    np.testing.assert_array_equal(bits["a"], InterpolatedPpm([pitches("c")], alphabet, 3).surprisal(pitches("a")))


def transposed(notes: list[list[float]], by: int) -> list[list[float]]:
    return [[onset, length, pitch + by] for onset, length, pitch in notes]


def scored(tmp_path: Path, tunes: list[dict[str, Any]], heard: list[list[float]], name: str, **split: Any) -> Any:
    """Metrics and bits of one melody."""
    inputs = {
        "tunes": write_tunes(tmp_path / "tunes", tunes, **split),
        "corpus": write_corpus(tmp_path / "corpus", {name: heard}),
    }
    cell = make_cell("pitch_surprisal", {"order_max": 3}, inputs, tmp_path / "o")
    (result,) = run_surprisal([cell], Context())
    return result.metrics, read_surprisal(artefact("pitch_surprisal", cell.out_dir))[name]


def test_a_melody_is_scored_without_related_tunes_whatever_their_names(tmp_path: Path) -> None:
    tunes = [tune("a", 0, "train"), tune("b", 0, "train"), tune("c", 1, "train")]
    heard = transposed(melody("a"), 2)
    metrics, bits = scored(tmp_path, tunes, heard, "another name")
    alphabet = {pitch for name in "abc" for pitch in pitches(name)} | {int(note[2]) for note in heard}
    model = InterpolatedPpm([pitches("c")], alphabet, 3)
    np.testing.assert_array_equal(bits, model.surprisal([int(note[2]) for note in heard]))
    assert metrics["n_pieces_without_own_cluster"] == 1


def test_a_melody_that_only_has_the_name_of_a_tune_drops_nothing(tmp_path: Path) -> None:
    tunes = [tune("a", 0, "train"), tune("b", 0, "train"), tune("c", 1, "train")]
    metrics, bits = scored(tmp_path, tunes, melody("d"), "a")
    alphabet = {pitch for name in "abcd" for pitch in pitches(name)}
    model = InterpolatedPpm([pitches(name) for name in "abc"], alphabet, 3)
    np.testing.assert_array_equal(bits, model.surprisal(pitches("d")))
    assert metrics["n_pieces_without_own_cluster"] == 0


@pytest.mark.parametrize(("overlap", "dropped"), [(0.3, 1), (0.9, 0)])
def test_relatives_are_those_of_the_split_of_the_tunes(tmp_path: Path, overlap: float, dropped: int) -> None:
    half = [*melody("a")[:20], *melody("d")[20:]]
    metrics, _ = scored(tmp_path, [tune("a", 0, "train"), tune("c", 1, "train")], half, "x", overlap=overlap)
    assert metrics["n_pieces_without_own_cluster"] == dropped


def test_the_unigram_is_how_rare_a_pitch_is_in_training(tmp_path: Path, trained: tuple[Artefact, Artefact]) -> None:
    inputs = {"tunes": trained[0], "corpus": trained[1]}
    cell = make_cell("pitch_surprisal", {"order_max": 3}, inputs, tmp_path / "o")
    list(run_surprisal([cell], Context()))
    found = json.loads((cell.out_dir / "unigram.json").read_text())["d"]
    learned = [pitch for name in "abc" for pitch in pitches(name)]
    alphabet = {*learned, *pitches("d")}
    n, distinct = len(learned), len(set(learned))
    chances = [(learned.count(pitch) + distinct / len(alphabet)) / (n + distinct) for pitch in pitches("d")]
    assert found == pytest.approx((-np.log2(chances)).tolist())


@pytest.mark.parametrize("model", ["ltm", "stm", "both", "both+"])
def test_the_models_of_idyom_score_melodies(tmp_path: Path, trained: tuple[Artefact, Artefact], model: Any) -> None:
    inputs = {"tunes": trained[0], "corpus": trained[1]}
    config = {"model": model, "viewpoint": "cpintfref x cpint", "order_max": None}
    cell = make_cell("pitch_surprisal", config, inputs, tmp_path / "o")
    (result,) = run_surprisal([cell], Context())
    assert result.failure is None
    bits = read_surprisal(artefact("pitch_surprisal", cell.out_dir))
    alphabet = {pitch for name in "abcd" for pitch in pitches(name)}

    def heard(name: str) -> Melody:
        return Melody(pitches(name), tonic_of(pitches(name), [note[1] for note in melody(name)]))

    for name, learned in (("d", "abc"), ("a", "c")):  # a without its own cluster, whatever was scored before it
        own = PitchModel(map(heard, learned), alphabet, model, "cpintfref x cpint")
        np.testing.assert_allclose(bits[name], own.score(heard(name)).bits, rtol=1e-12)


def test_a_plain_ppm_takes_no_other_viewpoint() -> None:
    with pytest.raises(ValidationError, match="choose model ltm"):
        PitchConfig(viewpoint="cpint")
    assert PitchConfig(model="ltm", viewpoint="cpint", order_max=None).escape == "C"


def test_a_corpus_without_notes_fails_with_a_sentence(tmp_path: Path, trained: tuple[Artefact, Artefact]) -> None:
    silent = write_corpus(tmp_path / "silent", {"x": None})
    cell = make_cell("pitch_surprisal", {}, {"tunes": trained[0], "corpus": silent}, tmp_path / "o")
    (result,) = run_surprisal([cell], Context())
    assert result.failure is not None
    assert "notes" in result.failure


def ic_of_notes(notes: list[list[float]], values: np.ndarray) -> np.ndarray:
    """A series whose onset frames hold `values`; the melodies have at most one onset in two frames."""
    series = np.full(220, 5.0)
    series[0] = np.nan
    for note, value in zip(notes, values, strict=True):
        series[int(note[0] / FRAME_S)] = value
    return series


def correlate(tmp_path: Path, ic: dict[str, np.ndarray], bits: dict[str, Any], frames: str = "onset") -> Any:
    notes: dict[str, Any] = {name: melody(name, len(values)) for name, values in bits.items()}
    corpus = write_corpus(tmp_path / "c", notes, audio=True)
    (tmp_path / "p").mkdir()
    unigram = {name: numpy_stream("unigram", name).gamma(2.0, 1.5, len(values)) for name, values in bits.items()}
    for name, table in (("surprisal", bits), ("unigram", unigram)):
        content = json.dumps({recording: list(values) for recording, values in table.items()})
        (tmp_path / "p" / f"{name}.json").write_text(content)
    inputs = {
        "surprisal": write_ic(tmp_path / "s", ic),
        "pitch_surprisal": artefact("pitch_surprisal", tmp_path / "p"),
        "corpus": corpus,
    }
    cell = make_cell("pitch", {"ic_frames": frames}, inputs, tmp_path / "out")
    (result,) = run_correlation([cell], Context())
    return result, cell.out_dir / "correlation.csv"


def bits_of(name: str, n_notes: int = 30) -> np.ndarray:
    return numpy_stream("bits", name).gamma(2.0, 1.5, n_notes)


def test_correlation_per_piece_leaves_out_the_first_note(tmp_path: Path) -> None:
    bits = {name: bits_of(name) for name in ("x", "y")}
    other = numpy_stream("other").normal(size=30)
    heard = {"x": np.append(1e6, bits["x"][1:]), "y": bits["y"] + other}
    ic = {name: ic_of_notes(melody(name), values) for name, values in heard.items()}
    result, table = correlate(tmp_path, ic, bits)
    rows = {row["piece"]: row for row in csv.DictReader(table.open())}
    assert float(rows["x"]["spearman"]) == pytest.approx(1.0)
    assert float(rows["x"]["pearson"]) == pytest.approx(1.0)
    assert float(rows["x"]["spearman_partial"]) > 0.9
    assert rows["x"]["n_notes"] == "29"
    expected = stats.spearmanr(heard["y"][1:], bits["y"][1:]).statistic
    assert float(rows["y"]["spearman"]) == pytest.approx(expected)
    interval = np.abs(np.diff([note[2] for note in melody("y")]))
    assert float(rows["y"]["spearman_interval"]) == pytest.approx(stats.spearmanr(heard["y"][1:], interval).statistic)
    baseline = stats.spearmanr(bits["y"][1:], interval).statistic
    assert float(rows["y"]["baseline_interval_spearman"]) == pytest.approx(baseline)
    unigram = [
        stats.spearmanr(numpy_stream("unigram", name).gamma(2.0, 1.5, 30)[1:], bits[name][1:]).statistic
        for name in bits
    ]
    assert float(rows["y"]["baseline_unigram_spearman"]) == pytest.approx(unigram[1])
    assert result.metrics["baseline_unigram_spearman"] == pytest.approx(np.mean(unigram))
    assert result.metrics["n_pieces"] == 2
    assert result.metrics["spearman_mean"] == pytest.approx((1 + expected) / 2)
    assert result.metrics["spearman_se"] == pytest.approx((1 - expected) / 2)
    assert (result.metrics["n_clusters"], result.metrics["spearman_low"]) == (1, None)


def test_frames_of_a_note_change_the_result(tmp_path: Path) -> None:
    bits = {"x": bits_of("x")}
    later = np.roll(ic_of_notes(melody("x"), bits["x"]), 1)
    later[0] = np.nan
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    onset, _ = correlate(tmp_path / "a", {"x": later}, bits, "onset")
    both, _ = correlate(tmp_path / "b", {"x": later}, bits, "onset_and_next")
    assert onset.failure is not None  # every onset's frame holds the same value
    assert both.metrics["pearson_mean"] == pytest.approx(1.0)


def test_unusable_pieces_are_named_and_the_others_go_on(tmp_path: Path) -> None:
    bits = {"short": bits_of("short", 5), "lost": bits_of("lost"), "good": bits_of("good"), "silent": bits_of("silent")}
    ic = {name: ic_of_notes(melody(name, len(bits[name])), bits[name]) for name in ("short", "good", "silent")}
    ic["silent"][:] = np.nan
    ic["good"][100:] = np.nan
    result, table = correlate(tmp_path, ic, bits)
    assert [row["piece"] for row in csv.DictReader(table.open())] == ["good"]
    assert sorted(line.split(":")[0] for line in result.metrics["skipped"]) == ["lost", "short", "silent"]
    assert result.metrics["spearman_se"] is None


def test_same_bytes_again(tmp_path: Path, trained: tuple[Artefact, Artefact]) -> None:
    inputs = {"tunes": trained[0], "corpus": trained[1]}
    cells = [make_cell("pitch_surprisal", {"order_max": order}, inputs, tmp_path / f"o{order}") for order in (2, 4)]
    again = make_cell("pitch_surprisal", {"order_max": 4}, inputs, tmp_path / "again")
    list(run_surprisal(cells, Context()))
    list(run_surprisal([again], Context()))
    for name in ("surprisal.json", "unigram.json"):
        alone, grouped = ((cell.out_dir / name).read_bytes() for cell in (again, cells[1]))
        assert alone == grouped
