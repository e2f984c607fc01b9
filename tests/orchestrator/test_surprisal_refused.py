"""What the command refuses or leaves out, in a line each."""

from __future__ import annotations

import re
from typing import get_args

import numpy as np
import pytest
from surprisal_house import EXACT, House, call, music, pause

from orchestrator.verbs.surprisal import OPTIONS
from tasks.config import SurprisalConfig


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
