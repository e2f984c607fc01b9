"""IC of recordings from the command line to the files, with a small random codec and flow: all of it is computed."""

from __future__ import annotations

import json
import math
import re
import shutil
import time
from dataclasses import replace
from typing import Any

import boto3
import numpy as np
import pytest
from pyarrow import parquet
from surprisal_house import EXACT, PERIOD_S, House, music, pause

from orchestrator.graph import CellSpec
from orchestrator.ic_files import Level
from orchestrator.ledger import Ledger
from orchestrator.models import Model
from orchestrator.stages import STAGES
from orchestrator.storage import Storage
from orchestrator.verbs.surprisal import chains, probes_by_content
from tasks.config import SurprisalConfig
from tasks.ic import IcSeries


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
