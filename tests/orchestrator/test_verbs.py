"""plan, status and explain as a person calls them, on ledgers whose results are made up."""

from __future__ import annotations

import json

import made_up_study
from tiny_study import DEMO, SMALL, as_run, call, fill, named, planned, tiny

from orchestrator.opening import survey
from orchestrator.reasons import Reason, State
from orchestrator.report.gathering import gather
from orchestrator.standing import stand

# plan


def test_plan_names_what_is_to_do_and_why(tmp_path):
    study = tiny(tmp_path)
    fill(study, [named(study, "tunes chorales")])
    text = call("plan", DEMO, *SMALL, "--ledger", str(tmp_path / "ledger")).stdout
    assert text.splitlines()[0] == f"study tiny: {len(study.graph)} cells, ledger {tmp_path / 'ledger'}"
    assert "corpus train  (no result yet)" in text
    assert "ae base layernorm  (an input is still to do)" in text
    assert "more (--all names them" in text
    everything = call("plan", DEMO, *SMALL, "--ledger", str(tmp_path / "ledger"), "--all").stdout
    assert everything.count("  to do    ") == len(study.graph) - 1


def test_plan_as_json_counts_and_links_every_cell(tmp_path):
    content = planned(tmp_path)
    assert content["counts"] == {"to do": len(content["cells"])}
    signatures = {cell["signature"] for cell in content["cells"]}
    assert all(signatures.issuperset(cell["inputs"]) for cell in content["cells"])
    assert {cell["reason"] for cell in content["cells"] if cell["inputs"]} == {"input_to_do"}
    assert {cell["reason"] for cell in content["cells"] if not cell["inputs"]} == {"new"}


def test_plan_shows_where_each_value_comes_from(tmp_path):
    text = call("plan", DEMO, *SMALL, "--ledger", str(tmp_path / "ledger"), "--show-config").stdout
    levels = next(line for line in text.splitlines() if "surprisal.noise_levels" in line and "=" in line)
    assert "command line" in levels
    assert "demo.yaml" in next(line for line in text.splitlines() if "autoencoder.size" in line)
    assert "[default]" in text


def test_plan_of_a_finished_study_has_nothing_to_compute(tmp_path):
    study = tiny(tmp_path)
    fill(study, study.graph)
    text = call("plan", DEMO, *SMALL, "--ledger", str(tmp_path / "ledger")).stdout
    assert text.splitlines()[-1] == "everything is cached: a run would compute nothing"


def test_plan_of_a_study_with_failures_shows_what_a_run_computes(tmp_path):
    study = tiny(tmp_path)
    lost = {"eeg S02", "eeg canary-noise"}
    ledger = made_up_study.RealLedger(study.ledger.storage)
    for name in lost:
        ledger.fail(named(study, name), f"{name}: truncated")
    smaller = as_run(study)
    groups = [cell for cell in study.graph if cell.stage == "group"]
    assert set(smaller) == {cell.signature for cell in groups}

    before = {cell["name"]: cell for cell in planned(tmp_path)["cells"]}
    for cell in groups:
        assert before[cell.name]["signature"] == smaller[cell.signature].signature
        assert before[cell.name]["reason"] == "input_to_do"
    assert before["canaries"]["state"] == "blocked"

    fill(study, [cell for cell in study.graph if before[cell.name]["state"] == "to do" and cell.stage != "group"])
    fill(study, smaller.values())
    after = planned(tmp_path)["cells"]
    assert {cell["state"] for cell in after if cell["stage"] == "group"} == {"cached"}
    text = call("plan", DEMO, *SMALL, "--ledger", str(tmp_path / "ledger")).stdout
    assert "nothing is to do: a run would compute nothing" in text
    assert not [line for line in text.splitlines() if line.startswith("  to do")]
    assert "  blocked  " in text


def test_report_and_plan_agree_on_reduced_groups_whatever_failed(tmp_path):
    """The sentence of what blocks an input is part of a reduced group: a second survey must not lose it."""
    study = tiny(tmp_path)
    ledger = made_up_study.RealLedger(study.ledger.storage)
    ledger.fail(named(study, "IC layernorm none stimuli s=0.0"), "it diverged")
    smaller = as_run(study)
    graph, states = stand(study.graph, study.ledger)
    again, _ = stand(study.graph, study.ledger, survey(study, full=False))
    groups = {cell.signature for cell in graph if cell.stage == "group"}
    assert groups == {cell.signature for cell in smaller.values()}
    assert groups == {cell.signature for cell in again if cell.stage == "group"}
    assert {states[key][0] for key in groups} == {State.TO_DO}
    content = {"model": {"reduced": "acoustic_plus", "regressor": "onset"}, "tested": True, "n_subjects": 2}
    fill(study, smaller.values(), {"group.json": json.dumps(content).encode()})
    assert len(gather(study.graph, study.ledger, "tiny", survey(study, full=False)).groups) == len(groups)


# status


def test_status_counts_names_failures_and_drivers(tmp_path):
    study = tiny(tmp_path)
    made_up_study.RealLedger(study.ledger.storage).fail(named(study, "eeg S02"), "S02: truncated")
    study.ledger.heartbeat("me")
    words = ["status", DEMO, *SMALL, "--ledger", str(tmp_path / "ledger")]
    text = call(*words).stdout
    assert "eeg S02: S02: truncated" in text
    assert "(an input failed)" in text
    assert text.splitlines()[-1] == "drivers at work: me"
    content = json.loads(call(*words, "--json").stdout)
    assert content["drivers"] == ["me"]
    assert [one["failure"] for one in content["failures"]] == ["S02: truncated"]
    assert content["stages"]["eeg"] == {"to do": 5, "failed": 1}


# explain


RECORDINGS = [
    {"id": f"tune{k}", "path": None, "file": f"tune{k}.flac", "pcm_fingerprint": f"{k:012x}"} for k in range(30)
]


def test_explain_walks_from_a_result_to_the_recordings(tmp_path):
    study = tiny(tmp_path)
    content = {"corpus.json": json.dumps({"recordings": RECORDINGS, "skipped": []}).encode()}
    fill(study, study.graph, content)
    flow = next(cell for cell in study.graph if cell.stage == "flow")
    words = ["explain", flow.signature[:8], "--ledger", str(tmp_path / "ledger")]
    lines = call(*words).stdout.splitlines()
    assert lines[0].startswith(f"{flow.signature[:12]}  {flow.name}  [done]")
    assert any("corpus train" in line for line in lines)
    assert any(line.endswith("recording tune3  000000000003  tune3.flac") for line in lines)
    assert any("and 10 more recordings" in line for line in lines)

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    steps = json.loads(call(*words, "--json").stdout, parse_constant=refuse)
    corpus = next(step for step in steps if step["name"] == "corpus train")
    assert [one["pcm_fingerprint"] for one in corpus["recordings"]] == [one["pcm_fingerprint"] for one in RECORDINGS]
    assert steps[0]["metrics"]["bad"] == "nan"


def test_explain_shows_what_is_damaged_or_was_interrupted(tmp_path):
    study = tiny(tmp_path)
    corpus, base = named(study, "corpus train"), named(study, "ae base layernorm")
    fill(study, [named(study, "tunes chorales"), corpus])
    study.ledger.begin(base, Reason.NEW, "killed")
    (tmp_path / "ledger/corpus" / corpus.signature / "status.json").write_text("{")
    result = call("explain", base.signature, "--ledger", str(tmp_path / "ledger"))
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert "[no result]" in lines[0]
    assert "new -> interrupted" in lines[1]
    assert any("corpus train  [status damaged]" in line for line in lines)


def test_explain_refuses_what_it_does_not_know(tmp_path):
    for prefix, word in (("0123456789", "no cell of the ledger"), ("ab", "at least 4 characters")):
        result = call("explain", prefix, "--ledger", str(tmp_path / "ledger"))
        assert (result.exit_code, result.stdout) == (2, "")
        assert word in result.stderr


def test_ledger_of_the_environment_is_everywhere_the_default(tmp_path, monkeypatch):
    study = tiny(tmp_path)
    cell = next(cell for cell in study.graph if cell.stage == "flow")
    fill(study, [cell])
    monkeypatch.setenv("ORCHESTRATOR_LEDGER", str(tmp_path / "ledger"))
    assert call("explain", cell.signature[:12]).exit_code == 0
    assert str(tmp_path / "ledger/mlflow.db") in call("ui").stderr
    assert f"the ledger has {cell.signature[:12]}" in call("surprisal", DEMO, "--model", "no such").stderr
    assert str(tmp_path / "ledger") in call("plan", DEMO, *SMALL).stdout
