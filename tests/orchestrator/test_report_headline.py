"""The first sentences of a report: what may be said of listeners, and nothing more."""

from __future__ import annotations

import made_up_study

from orchestrator.report.gathering import gather
from orchestrator.report.headline import headline


def _headline(**options: object) -> tuple[str, ...]:
    graph, ledger = made_up_study.make(("layernorm",), **options)
    return headline(gather(graph, ledger, "demo"))


def test_first_sentence_says_that_nothing_is_claimed():
    first, second, *_ = _headline(effect=0.0)
    assert first.startswith("No noise level of any variant is claimed")
    assert "0.41" in first
    assert "SIMULATED" in second
    assert "says nothing about brains" in second


def test_claims_of_a_simulation_are_recovered_plants():
    sentences = _headline()
    assert sentences[0].startswith("SIMULATED: IC recovers a planted response beyond the listed acoustic features")
    assert "layernorm E+D m=0.0 at s = 0.4, 0.6" in sentences[0]
    assert any("level at which IC best recovers a planted response" in sentence for sentence in sentences)
    assert any(sentence.startswith("Canaries GREEN") for sentence in sentences)


def test_claims_of_real_listeners_name_the_acoustic_features_and_no_brain():
    sentences = _headline(simulated=False)
    assert sentences[0].startswith("IC adds to the listed acoustic features (acoustic_plus/onset)")
    assert not any("brain" in sentence or "SIMULATED" in sentence for sentence in sentences)


def test_red_canaries_withdraw_every_claim():
    sentences = _headline(red=True)
    assert sentences[0].startswith("RED")
    assert not any("recovers a planted response beyond" in sentence or "best" in sentence for sentence in sentences)


def test_few_subjects_are_said():
    sentences = _headline(n_subjects=3)
    assert sentences[0].startswith("No noise level")
    assert any("at least 5" in sentence for sentence in sentences)


def test_without_eeg_nothing_is_said_about_listeners():
    assert "no EEG" in _headline(eeg=False)[0]
