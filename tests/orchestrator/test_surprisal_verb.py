"""IC of recordings from the command line to the files, with a small random codec and flow: all of it is computed."""

from __future__ import annotations

import json
import math
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import boto3
import numpy as np
import pytest
import soundfile
import torch
from published_checkpoint import Sizes, checkpoint, write
from pyarrow import parquet
from safetensors.numpy import load
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.graph import CellSpec, Graph
from orchestrator.ic_files import Level
from orchestrator.ledger import Ledger
from orchestrator.models import Model
from orchestrator.reasons import Reason
from orchestrator.signature import sign
from orchestrator.stages import STAGES
from orchestrator.storage import Storage
from orchestrator.study import Execution, run_study
from orchestrator.verbs.surprisal import OPTIONS, chains, probes_by_content
from tasks.autoencoder.codec import Codec
from tasks.autoencoder.config import ARCHITECTURES
from tasks.autoencoder.network import Autoencoder
from tasks.config import SurprisalCell, SurprisalConfig
from tasks.flow.config import FlowConfig
from tasks.flow.hyperplane import projected
from tasks.flow.information import InformationContent
from tasks.flow.network import read_flow
from tasks.ic import IcSeries

torch.set_num_threads(1)

_PROBES = ("--probes", "exact") if "probes" in SurprisalConfig.model_fields else ("--n-probes", "64")
EXACT = ("--solver", "euler", "--n-steps", "3", *_PROBES)
"""With the exact divergence (of 64 orthogonal probes) nothing depends on which probes were drawn."""

PERIOD_S = 4096 / 44_100


def call(*words: str) -> Any:
    return CliRunner().invoke(app, list(words))


def music(seconds: float, rate_hz: int = 44_100, seed: int = 0) -> np.ndarray:
    """Partials below 1.5 kHz whose loudness moves: the same sound at any sampling rate."""
    random = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    sound = np.zeros(len(t))
    for frequency, speed, phase in zip(random.uniform(100, 1500, 8), random.uniform(0.3, 3, 8), range(8), strict=True):
        sound += np.sin(2 * np.pi * frequency * t + phase) * (1.2 + np.sin(2 * np.pi * speed * t + phase))
    return 0.04 * sound


def pause(seconds: float, rate_hz: int = 44_100) -> np.ndarray:
    return np.zeros(round(seconds * rate_hz))


@dataclass(frozen=True)
class House:
    """A ledger with an autoencoder in it, and a file of published weights beside it."""

    folder: Path
    ledger: Ledger
    codec: CellSpec
    weights: Path

    def surprisal(self, *words: Any, model: str | None = None, out: str = "out") -> Any:
        """Of files in the folder, by name."""
        autoencoder = [] if "--autoencoder" in words else ["--autoencoder", self.codec.signature[:12]]
        chosen = ["--model", model or str(self.weights), *autoencoder]
        files = [str(self.folder / word) if str(word).endswith((".wav", "music")) else str(word) for word in words]
        where = ["--ledger", self.ledger.storage.root, "--out", str(self.folder / out)]
        return call("surprisal", *chosen, *where, *files)

    def sound(self, name: str, audio: np.ndarray, rate_hz: int = 44_100, subtype: str = "FLOAT") -> None:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, audio, rate_hz, subtype=subtype)

    def table(self, name: str) -> tuple[list[str], np.ndarray]:
        """Header and ``(rows, columns)``."""
        header, *lines = (self.folder / name).read_text().splitlines()
        return header.split(","), np.array([[float(value) for value in line.split(",")] for line in lines])

    def about(self, name: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.folder / name).read_text())
        return content


@pytest.fixture
def house(tmp_path: Path) -> House:
    torch.manual_seed(0)
    codec = Codec(Autoencoder(ARCHITECTURES["tiny"], "layernorm"), "tiny", "layernorm", 0.0, 1.0)
    ledger = Ledger(Storage(str(tmp_path / "ledger")))
    signature = sign("autoencoder", STAGES["autoencoder"].version, {"made": "up"}, {})
    cell = CellSpec("autoencoder", "ae made up", {"made": "up"}, {}, signature)
    attempt = ledger.begin(cell, Reason.NEW, "driver")
    codec.save(attempt.out_dir)
    ledger.publish(attempt, attempt.out_dir, {}, 0.0)
    return House(tmp_path, ledger, cell, write(tmp_path / "flow.pt", checkpoint()))


def test_recordings_of_unequal_length_have_the_ic_that_each_has_alone(house: House) -> None:
    for name, seconds in (("long", 3.0), ("short", 1.2), ("middle", 2.1)):
        house.sound(f"music/{name}.wav", music(seconds, seed=len(name)))
    together = house.surprisal("music", "--noise-levels", "0.2", *EXACT)
    assert together.exit_code == 0, together.output
    for name, seconds in (("long", 3.0), ("short", 1.2), ("middle", 2.1)):
        assert house.surprisal(f"music/{name}.wav", "--noise-levels", "0.2", *EXACT, out="alone").exit_code == 0
        (_, among), (_, alone) = house.table(f"out/{name}.csv"), house.table(f"alone/{name}.csv")
        n_frames = (round(44_100 * seconds) - 1536) // 4096
        assert len(among) == len(alone) == n_frames
        assert np.isfinite(among[1:, 1]).all()
        assert math.isnan(among[0, 1])
        assert np.allclose(among, alone, rtol=1e-4, equal_nan=True)


def test_levels_come_as_typed_off_the_grid_in_any_order_and_no_column_more(house: House) -> None:
    house.sound("a.wav", music(1.5))
    result = house.surprisal("a.wav", "--noise-levels", "0.370, 0,1.0,.123", *EXACT)
    assert result.exit_code == 0, result.output
    header, table = house.table("out/a.csv")
    assert header == ["Time", "IC_0.370", "IC_0", "IC_1.0", "IC_.123"]
    assert np.allclose(table[1:, 3], 32 * math.log(2 * math.pi))
    for column, level in ((1, "0.37"), (2, "0.0"), (4, "0.123")):
        assert house.surprisal("a.wav", "--noise-levels", level, *EXACT, out="one").exit_code == 0
        assert np.allclose(house.table("one/a.csv")[1][1:, 1], table[1:, column], rtol=1e-5)


@pytest.mark.parametrize("rate_hz", [48_000, 22_050, 96_000])
def test_stereo_at_other_rates_has_the_silence_and_the_ic_of_mono(house: House, rate_hz: int) -> None:
    for name, rate in (("mono", 44_100), ("stereo", rate_hz)):
        sound = np.concatenate([pause(2, rate), music(3, rate), pause(1.5, rate)])
        channels = sound if name == "mono" else np.stack([1.5 * sound, 0.5 * sound], axis=1)
        house.sound(f"{name}.wav", channels, rate)
    result = house.surprisal("mono.wav", "stereo.wav", "--noise-levels", "0.3", *EXACT)
    assert result.exit_code == 0, result.output
    mono, stereo = house.about("out/mono.json")["time"], house.about("out/stereo.json")["time"]
    assert 88_200 - 2048 <= stereo["lead_samples"] <= 88_200
    assert 1.5 * 44_100 - 2048 <= stereo["trail_samples"] <= 1.5 * 44_100
    assert {key: stereo[key] for key in ("lead_samples", "n_frames")} == {
        key: mono[key] for key in ("lead_samples", "n_frames")
    }
    table, wanted = house.table("out/stereo.csv")[1], house.table("out/mono.csv")[1]
    missing = np.flatnonzero(~np.isnan(table[:, 1]))
    assert missing[0] == stereo["lead_samples"] // 4096 + 1
    assert len(table) - 1 - missing[-1] == -(-stereo["trail_samples"] // 4096)
    assert np.array_equal(table[:, 0], (stereo["lead_samples"] + 4096 * np.arange(-21, len(table) - 21)) / 44_100)
    assert np.allclose(table[22 : missing[-1], 1], wanted[22 : missing[-1], 1], rtol=0.02)


def test_the_published_stamps_are_the_published_tools(house: House) -> None:
    house.sound("a.wav", np.concatenate([pause(1), music(2), pause(1)]))
    for stamp in ("start", "end", "published"):
        assert house.surprisal("a.wav", "--stamp", stamp, *EXACT, out=stamp).exit_code == 0
    (_, starts), (_, ends), (_, published) = (house.table(f"{stamp}/a.csv") for stamp in ("start", "end", "published"))
    assert len(published) == len(starts) - 1
    assert np.array_equal(published[:, 0], (np.arange(len(published)) + 1) * 4096 / 44_100)
    assert np.allclose(ends[:, 0] - starts[:, 0], PERIOD_S)
    ic = starts[~np.isnan(starts[:, 1]), 1]
    assert np.array_equal(published[~np.isnan(published[:, 1]), 1], ic)
    assert [house.about(f"{stamp}/a.json")["time"]["stamp"].split()[0] for stamp in ("start", "end", "published")] == [
        "start", "end", "4096",
    ]  # fmt: skip


def test_a_description_lies_beside_each_table(house: House) -> None:
    house.sound("a.wav", np.concatenate([pause(0.5), music(1.5)]))
    result = house.surprisal("a.wav", "--noise-levels", "0.30,0", *EXACT)
    assert result.exit_code == 0, result.output
    about = house.about("out/a.json")
    lead = about["time"]["lead_samples"]
    assert about["unit"] == "nats"
    assert about["time"]["frame_period_s"] == "4096/44100"
    assert about["time"]["first_stamp_s"] == f"{lead % 4096}/44100"
    assert about["columns"] == {"IC_0.30": {"noise_level": 0.3}, "IC_0": {"noise_level": 0.0}}
    assert (about["definition"], about["solver"], about["n_steps"]) == ("expectation", "euler", 3)
    assert about["context"] == "transformed"
    assert set(about["solver_error_nats"]) == {"0.30", "0"}
    assert about["model"]["signature"] in house.ledger.signatures("flow")
    assert about["autoencoder"] == {"name": "ae made up", "signature": house.codec.signature}
    assert list(about["cells"].values()) != []
    assert all(house.ledger.status("surprisal", cell) is not None for cell in about["cells"].values())
    assert about["version"]["surprisal"] == STAGES["surprisal"].version
    assert about["path"] == str(house.folder / "a.wav")


def test_parquet_holds_what_the_csv_holds(house: House) -> None:
    house.sound("a.wav", music(1.2))
    for form in ("csv", "parquet"):
        assert house.surprisal("a.wav", "--format", form, *EXACT).exit_code == 0
    read = parquet.read_table(house.folder / "out/a.parquet")
    header, table = house.table("out/a.csv")
    assert read.column_names == header
    columns = np.stack([read[name].to_numpy() for name in header], axis=1)
    assert np.array_equal(columns, table, equal_nan=True)


def test_it_resumes_and_a_new_level_computes_only_that(house: House) -> None:
    house.sound("a.wav", music(1.2))
    first = house.surprisal("a.wav", "--noise-levels", "0.3", *EXACT)
    assert "3 computed" in first.output
    (house.folder / "out/a.csv").unlink()
    again = house.surprisal("a.wav", "--noise-levels", "0.3", *EXACT)
    assert re.search(r"0 computed, 5 cached", again.output), again.output
    more = house.surprisal("a.wav", "--noise-levels", "0.3,0.7", *EXACT)
    assert re.search(r"1 computed, 5 cached", more.output), more.output
    assert house.table("out/a.csv")[0] == ["Time", "IC_0.3", "IC_0.7"]


def test_company_and_order_change_no_bit(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("a", 1.2), ("b", 1.5), ("c", 1.3)):
        house.sound(f"music/{name}.wav", music(seconds, seed=len(name)))
    house.sound("music/other.wav", music(1.4, seed=5))
    (house.folder / "link").symlink_to(house.folder / "music")
    a, b, c = (f"music/{name}.wav" for name in "abc")
    levels = ("--noise-levels", "0.3,0", "--definition", "monte_carlo", "--solver", "euler", "--n-steps", "2")
    drawn = (*levels, "--n-probes", "2", "--n-draws", "1")
    monkeypatch.chdir(house.folder / "link")
    asked: list[tuple[str, ...]] = [(a,), (c, a, b), (b, a), ("music",), (".",), ("../link", b)]
    for number, files in enumerate(asked):
        # a ledger of its own: what is compared was computed, not found
        shutil.copytree(house.folder / "ledger", house.folder / f"ledger-{number}")
        own = replace(house, ledger=Ledger(Storage(str(house.folder / f"ledger-{number}"))))
        result = own.surprisal(*files, *drawn, out=f"out-{number}")
        assert result.exit_code == 0, result.output
    tables = {(house.folder / f"out-{number}/a.csv").read_bytes() for number in range(len(asked))}
    assert len(tables) == 1
    cells = {json.dumps(house.about(f"out-{number}/a.json")["cells"]) for number in range(len(asked))}
    assert len(cells) == 1
    for number in (1, 2, 5):
        assert (house.folder / f"out-{number}/b.csv").read_bytes() == (house.folder / "out-3/b.csv").read_bytes()


def test_another_file_computes_only_that(house: House) -> None:
    house.sound("music/b.wav", music(1.2))
    assert house.surprisal("music", "--noise-levels", "0,0.5", *EXACT).exit_code == 0
    house.sound("music/a.wav", music(1.3))
    more = house.surprisal("music", "--noise-levels", "0,0.5", *EXACT)
    assert re.search(r"4 computed, 6 cached", more.output), more.output


def test_the_same_audio_under_two_names_has_two_tables(house: House) -> None:
    house.sound("music/a.wav", music(1.2))
    house.sound("music/b.wav", music(1.2))
    (house.folder / "music/deep").mkdir()
    (house.folder / "music/deep/a.wav").write_bytes((house.folder / "music/a.wav").read_bytes())
    result = house.surprisal("music", *EXACT)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (house.folder / "out").glob("*.csv")) == ["a-2.csv", "a.csv", "b.csv"]
    (_, first), (_, second), (_, third) = (house.table(f"out/{name}.csv") for name in ("a", "b", "a-2"))
    assert np.allclose(first, second, rtol=1e-4, equal_nan=True)
    assert np.allclose(first, third, rtol=1e-4, equal_nan=True)
    about = house.about("out/a-2.json")
    assert (about["recording"], about["path"]) == ("a-2", str(house.folder / "music/deep/a.wav"))


def test_thousands_of_recordings_are_planned_in_a_moment() -> None:
    cell = CellSpec("flow", "made up", {}, {}, "f" * 64)
    files = [{"path": f"/music/{i % 50}/{i}.wav", "size": 1, "version": "sha256:0"} for i in range(5000)]
    configs = {"0": (0.0, SurprisalConfig().cell(0.0)), "0.5": (0.5, SurprisalConfig().cell(0.5))}
    began = time.process_time()
    asked = chains(files, Model(cell, cell), configs)
    assert time.process_time() - began < 10
    assert len({one.signature for recording in asked for one in recording.cells}) == 20_000
    assert chains(files[7:8], Model(cell, cell), configs) == asked[7:8]


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_files_of_others_are_not_replaced(house: House, form: str) -> None:
    house.sound("music/song.wav", music(1.2))
    (house.folder / "out").mkdir()
    for name, content in (
        ("song.json", '{"title": "mine"}'),
        ("song.json", "[1]"),
        ("song.json", "no JSON"),
        (f"song.{form}", "mine"),
    ):
        path = house.folder / "out" / name
        path.write_text(content)
        result = house.surprisal("music", "--format", form, *EXACT)
        assert (result.exit_code, result.output.count("\n")) == (2, 1), result.output
        assert result.stderr.startswith(f"orchestrator: {path}: not a file of this command's")
        assert path.read_text() == content
        assert not house.ledger.signatures("corpus")
        path.unlink()
    assert house.surprisal("music", "--format", form, *EXACT).exit_code == 0
    written = (house.folder / f"out/song.{form}").read_bytes()
    again = house.surprisal("music", "--format", form, "--noise-levels", "0.5", *EXACT)
    assert again.exit_code == 0, again.output
    assert (house.folder / f"out/song.{form}").read_bytes() != written


def spoil(house: House) -> None:
    house.sound("music/good.wav", music(1.5))
    house.sound("music/silent.wav", pause(2))
    spoiled = music(1.5)
    spoiled[30_000] = np.nan
    house.sound("music/nan.wav", spoiled)
    house.sound("music/short.wav", music(0.2))
    house.sound("music/blip.wav", np.concatenate([pause(0.6), music(0.06, seed=1), pause(0.6)]))
    (house.folder / "music/damaged.wav").write_bytes(b"RIFF no audio here")


def test_bad_files_are_named_and_the_others_go_on(house: House) -> None:
    spoil(house)
    result = house.surprisal("music", "--noise-levels", "0.2,0.9", *EXACT)
    assert result.exit_code == 1
    said = [line for line in result.stderr.splitlines() if line.startswith("orchestrator: skipped ")]
    told = dict(line.removeprefix("orchestrator: skipped ").split(": ", 1) for line in said)
    assert len(told) == len(said) == 5, said
    for name, reason in (
        ("silent", "silent: RMS 0"),
        ("nan", ""),
        ("short", "0.20 s long: at least 1 s"),
        ("damaged", "not readable as audio"),
        ("blip", "1 latent frame(s), at least 2 are needed"),
    ):
        assert told[str(house.folder / f"music/{name}.wav")].startswith(reason), told
    assert "not finite" in told[str(house.folder / "music/nan.wav")]
    assert sorted(path.name for path in (house.folder / "out").iterdir()) == ["good.csv", "good.json"]
    assert np.isfinite(house.table("out/good.csv")[1][1:]).all()


def test_bad_files_alone_leave_a_sentence_each(house: House) -> None:
    house.sound("silent.wav", pause(2))
    result = house.surprisal("silent.wav", *EXACT)
    assert result.exit_code == 1
    assert "silent.wav: silent: RMS 0" in result.output
    assert not list((house.folder / "out").iterdir())


def test_recordings_come_from_an_s3_prefix(house: House, s3_root: str) -> None:
    house.sound("a.wav", music(1.2))
    bucket, prefix = s3_root.removeprefix("s3://").split("/", 1)
    for name in ("set/a.wav", "set/deep/b.wav"):
        boto3.client("s3").put_object(
            Bucket=bucket, Key=f"{prefix}/{name}", Body=(house.folder / "a.wav").read_bytes() + name.encode()
        )
    result = house.surprisal(f"{s3_root}/set/deep", *EXACT)
    assert result.exit_code == 0, result.output
    assert house.surprisal("a.wav", *EXACT, out="local").exit_code == 0
    local, remote = house.table("local/a.csv")[1], house.table("out/b.csv")[1]
    assert np.allclose(local, remote, rtol=1e-5, equal_nan=True)
    assert house.about("out/b.json")["path"] == f"{s3_root}/set/deep/b.wav"


# What is refused before anything is computed


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--noise-levels", "0,1.2"), "--noise-levels '0,1.2': comma-separated numbers in [0, 1]"),
        (("--noise-levels", "nan"), "--noise-levels 'nan': comma-separated numbers in [0, 1]"),
        (("--noise-levels", "-0.1"), "--noise-levels '-0.1': comma-separated numbers in [0, 1]"),
        (("--noise-levels", ""), "--noise-levels '': comma-separated numbers"),
        (("--noise-levels", "0.3,0.3"), "--noise-levels '0.3,0.3': each level is allowed once"),
        (("--noise-levels", "0.3,0.30"), "--noise-levels: 0.3 is given twice"),
        (("--definition", "guess"), "--definition 'guess': input should be 'expectation'"),
        (("--solver", "magic"), "--solver 'magic': input should be '"),
        (("--n-probes", "0"), "--n-probes 0: input should be greater than or equal to 1"),
        (("--format", "xls"), "--format 'xls': allowed: csv, parquet"),
        (("--stamp", "middle"), "--stamp 'middle': allowed: start, end, published"),
        (("--autoencoder", "ffff"), "--autoencoder 'ffff': no autoencoder of that signature; the ledger has "),
        (("--model", "ffff"), "--model 'ffff': no flow of that signature; the ledger has none"),
        (("--model", "gone.pt"), "gone.pt: no such file"),
        (("--probes", "gone.npy"), "gone.npy: no such file"),
        (("--probes", "some"), "--probes 'some': "),
    ],
)
def test_bad_words_are_one_line(house: House, more: tuple[str, ...], said: str) -> None:
    house.sound("a.wav", music(1.2))
    result = house.surprisal("a.wav", *more)
    assert result.exit_code == 2
    assert result.output.count("\n") == 1
    assert result.stderr.startswith(f"orchestrator: {said}"), result.stderr
    assert not (house.folder / "out").exists()


def test_an_output_that_can_not_be_made_is_refused_before_the_work(house: House) -> None:
    house.sound("a.wav", music(1.2))
    (house.folder / "out").write_text("a file")
    result = house.surprisal("a.wav")
    assert (result.exit_code, result.output.count("\n")) == (2, 1)
    assert "--out" in result.stderr
    assert not house.ledger.signatures("latents")


def test_every_word_of_the_config_is_offered_and_every_key_has_an_option() -> None:
    assert set(OPTIONS) >= set(SurprisalConfig.model_fields)
    text = re.sub(r"\s+", " ", call("surprisal", "--help").output)
    for key, known in SurprisalConfig.model_fields.items():
        offered = re.search(rf"{OPTIONS[key]} (\S+)", text)
        assert offered is not None, key
        words = {word for word in get_args(known.annotation) if isinstance(word, str)}
        assert words <= set(offered[1].split("|")), key


def test_given_probes_are_known_by_their_content(house: House) -> None:
    path, storage = house.folder / "probes.npy", house.ledger.storage
    np.save(path, np.ones((4, 64)))
    first = probes_by_content(str(path), storage)
    np.save(path, -np.ones((4, 64)))
    second = probes_by_content(str(path), storage)
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    assert first["path"] == second["path"] == str(path)
    assert first["sha256"] != second["sha256"]
    assert (probes_by_content("exact", storage), probes_by_content(None, storage)) == ("exact", None)


def test_the_same_probes_at_another_path_are_the_same_cell(house: House) -> None:
    house.sound("a.wav", music(1.2))
    first, second = house.folder / "probes.npy", house.folder / "elsewhere.npy"
    np.save(first, np.ones((2, 64), dtype=np.float32))
    words = ("a.wav", "--solver", "euler", "--n-steps", "2", "--probes")
    assert house.surprisal(*words, str(first)).exit_code == 0
    first.rename(second)
    again = house.surprisal(*words, str(second), out="again")
    assert again.exit_code == 0, again.output
    assert re.search(r"0 computed, 5 cached", again.output), again.output
    assert house.about("again/a.json")["cells"] == house.about("out/a.json")["cells"]
    assert house.about("out/a.json")["probes"].keys() == {"sha256"}
    np.save(second, -np.ones((2, 64), dtype=np.float32))
    others = house.surprisal(*words, str(second), out="others")
    assert re.search(r"1 computed, 4 cached", others.output), others.output


def test_a_model_of_other_latents_is_refused(house: House) -> None:
    house.sound("a.wav", music(1.2))
    other = write(house.folder / "other.pt", checkpoint(Sizes(latent_dim=16)))
    result = house.surprisal("a.wav", model=str(other))
    assert (result.exit_code, result.output.count("\n")) == (2, 1)
    assert "models latents of 16 channels" in result.stderr
    assert f"ae made up ({house.codec.signature[:12]}) makes 64" in result.stderr


# A flow of 63 coordinates


def projected_flow(house: House, name: str) -> str:
    """The signature of one trained on the latents that the ledger has of the recording `name`."""
    assert house.surprisal(name, *EXACT, out="for its latents").exit_code == 0
    (latents,) = house.ledger.signatures("latents")
    sizes = {"size": "tiny", "steps": 5, "batch_size": 2, "sequence_frames": 8, "warmup_steps": 1}
    config = {"seed": 0, "flow": FlowConfig.model_validate({**sizes, "project": True}).signed()}
    inputs = {"train": latents, "validation": latents}
    cells = {latents: CellSpec("latents", "latents", house.ledger.config("latents", latents)["config"], {}, latents)}
    signature = sign("flow", STAGES["flow"].version, config, inputs)
    cells[signature] = CellSpec("flow", "flow projected", config, inputs, signature)
    assert run_study(Graph(cells), house.ledger, Execution(inline=True)).exit_code == 0
    return signature


def test_a_projected_flow_has_the_ic_of_63_coordinates(house: House) -> None:
    house.sound("a.wav", music(1.6))
    signature = projected_flow(house, "a.wav")
    levels = ("--noise-levels", "0.3,1")
    result = house.surprisal("a.wav", *levels, *EXACT, "--autoencoder", house.codec.signature, model=signature[:12])
    assert result.exit_code == 0, result.output
    _, table = house.table("out/a.csv")
    assert np.allclose(table[1:, 2], 31.5 * math.log(2 * math.pi))
    (latents,) = house.ledger.signatures("latents")
    stored = load(house.ledger.artefact("latents", latents, None).read_bytes("latents.safetensors"))
    (frames,) = stored.values()
    assert frames.shape[1] == 64
    flow, window = read_flow(house.ledger.artefact("flow", signature, None))
    cell = SurprisalConfig(solver="euler", n_steps=3, probes="exact").cell(0.3)
    with torch.inference_mode():
        by_hand = InformationContent(flow, window, SurprisalCell.model_validate(cell), "any")
        assert np.allclose(by_hand.of({"a": projected(frames)})["a"], table[:, 1], rtol=1e-6, equal_nan=True)


def test_an_imported_model_is_never_projected(house: House) -> None:
    house.sound("a.wav", music(1.2))
    narrow = write(house.folder / "narrow.pt", checkpoint(Sizes(latent_dim=63)))
    result = house.surprisal("a.wav", model=str(narrow))
    assert (result.exit_code, result.output.count("\n")) == (2, 1)
    assert "models latents of 63 channels" in result.stderr
    assert house.surprisal("a.wav", "--noise-levels", "1", *EXACT).exit_code == 0
    assert np.allclose(house.table("out/a.csv")[1][1:, 1], 32 * math.log(2 * math.pi))


# Imported weights


def imported(house: House, *words: str) -> Any:
    return call("import-weights", *(words or (str(house.weights),)), "--ledger", house.ledger.storage.root)


def test_imported_weights_are_a_flow_of_their_own_signature(house: House) -> None:
    result = imported(house, str(house.weights))
    assert result.exit_code == 0, result.output
    (signature,) = house.ledger.signatures("flow")
    assert f"flow flow.pt: flow {signature[:12]}, imported" in result.stdout
    assert f"--model {signature[:12]} --autoencoder SIGNATURE" in result.stdout
    status = house.ledger.status("flow", signature)
    assert status is not None
    assert set(status.files) == {"flow.json", "flow.safetensors"}
    assert status.metrics["sequence_frames"] == 128
    assert "imported before" in imported(house).stdout
    renamed = house.weights.rename(house.folder / "renamed.pt")
    assert "imported before" in imported(house, str(renamed)).stdout
    assert len(house.ledger.attempts("flow", signature)) == 1
    write(renamed, checkpoint(seed=1))
    assert imported(house, str(renamed)).stdout.endswith(house.ledger.storage.root + "\n")
    assert len(house.ledger.signatures("flow")) == 2


def test_by_file_or_by_signature_the_ic_is_the_same(house: House) -> None:
    house.sound("a.wav", music(1.2))
    assert house.surprisal("a.wav", *EXACT).exit_code == 0
    (signature,) = house.ledger.signatures("flow")
    result = house.surprisal("a.wav", *EXACT, model=signature[:8], out="again")
    assert result.exit_code == 0
    assert "0 computed" in result.output
    assert (house.folder / "out/a.csv").read_bytes() == (house.folder / "again/a.csv").read_bytes()
    explained = call("explain", signature, "--ledger", house.ledger.storage.root)
    assert explained.exit_code == 0
    assert "flow flow.pt" in explained.output


def test_imported_weights_need_an_autoencoder(house: House) -> None:
    house.sound("a.wav", music(1.2))
    words = ["surprisal", str(house.folder / "a.wav"), "--model", str(house.weights)]
    result = call(*words, "--ledger", house.ledger.storage.root, "--out", str(house.folder / "out"))
    assert (result.exit_code, result.output.count("\n")) == (2, 1)
    assert "give --autoencoder SIGNATURE" in result.stderr
    assert house.codec.signature[:12] in result.stderr


def test_weights_imported_by_another_version_are_to_be_imported_again(house: House) -> None:
    house.sound("a.wav", music(1.2))
    imported(house)
    (signature,) = house.ledger.signatures("flow")
    path = house.folder / "ledger/flow" / signature / "config.json"
    path.write_text(path.read_text().replace(f'"version": {STAGES["flow"].version}', '"version": 999'))
    result = house.surprisal("a.wav", model=signature)
    assert result.exit_code == 2
    assert "made by version 999" in result.stderr
    assert "orchestrator import-weights FILE" in result.stderr


def truncated(folder: Path) -> Path:
    path = write(folder / "bad.pt", checkpoint())
    path.write_bytes(path.read_bytes()[:-500])
    return path


def unknown_layout(folder: Path) -> Path:
    return write(folder / "bad.pt", {"state_dict": {}, "epoch": 3})


def unmatched_key(folder: Path) -> Path:
    content = checkpoint()
    content["model_state_dict"]["backbone.project_out.weight"] = torch.zeros(64, 48)
    return write(folder / "bad.pt", content)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.mkdir, ("made by a pickle",)


def pickled_code(folder: Path) -> Path:
    return write(folder / "bad.pt", checkpoint() | {"extra": Evil()})


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (truncated, "not a checkpoint that torch can read: truncated, damaged, or another kind of file"),
        (unknown_layout, "no flow checkpoint of the published layout: it has no model_state_dict, max_seq_length"),
        (unmatched_key, "model_state_dict: backbone.project_out.weight has no counterpart here"),
        (pickled_code, "holds pickled code (posix.mkdir), which is refused"),
        (lambda folder: folder / "gone.pt", "no such file"),
        (lambda folder: folder, "can't be opened (Is a directory)"),
    ],
)
@pytest.mark.parametrize("verb", ["import-weights", "surprisal"])
def test_bad_weights_are_one_line_and_nothing_is_written(
    house: House, monkeypatch: pytest.MonkeyPatch, verb: str, make: Callable[[Path], Path], said: str
) -> None:
    monkeypatch.chdir(house.folder)
    (house.folder / "weights.pt").mkdir()
    path = make(house.folder / "weights.pt")
    house.sound("a.wav", music(1.2))
    result = imported(house, str(path)) if verb == "import-weights" else house.surprisal("a.wav", model=str(path))
    assert (result.exit_code, result.output.count("\n")) == (2, 1)
    assert result.stderr.startswith(f"orchestrator: {path}: {said}"), result.stderr
    assert not house.ledger.signatures("flow")
    assert not (house.folder / "made by a pickle").exists()


def test_what_a_file_of_weights_is_needs_no_option(house: House) -> None:
    assert "--kind" not in call("import-weights", "--help").output
    assert imported(house, str(house.weights), "--kind", "flow").exit_code == 2


@pytest.mark.parametrize(
    ("about", "metrics", "error"),
    [
        ({}, {}, None),
        ({}, {"solver_error_nats": 0.2}, 0.2),
        ({"solver_error_nats": 0.1}, {"solver_error_nats": 0.2}, 0.1),
        ({"solver_error_nats": {"a": 0.3}}, {}, 0.3),
        ({"solver_error_nats": 0.1, "recordings": {"a": {"solver_error_nats": 0.4}}}, {}, 0.4),
        ({"solver_error_nats": math.nan}, {}, None),
    ],
)
def test_the_solvers_error_is_told_where_it_is_known(
    house: House, about: dict[str, Any], metrics: dict[str, Any], error: float | None
) -> None:
    status = house.ledger.status("autoencoder", house.codec.signature)
    assert status is not None
    series = {"a": IcSeries(np.zeros(2))}
    level = Level("0", 0.0, house.codec, replace(status, metrics=metrics), {"recordings": {}, **about}, series)
    assert level.solver_error_nats("a") == error
