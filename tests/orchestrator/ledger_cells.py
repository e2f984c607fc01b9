"""Cells with small results, and what the ledger says of them."""

from __future__ import annotations

import math

from orchestrator.graph import CellSpec
from orchestrator.ledger import Ledger, Status
from orchestrator.reasons import Reason, State
from orchestrator.signature import sign
from orchestrator.stages import STAGES


def cell(subject: str = "S01", stage: str = "trf") -> CellSpec:
    config = {"subject": subject, "snr": math.inf, "level": 0.5}
    inputs = {"eeg": "e" * 32, "surprisal": ("a" * 32, "b" * 32)}
    signature = sign(stage, STAGES[stage].version, config, inputs)
    return CellSpec(stage, f"{stage} {subject}", config, inputs, signature, {"subject": subject})


def publish(ledger: Ledger, spec: CellSpec, reason: Reason = Reason.NEW, data: bytes = b"result") -> Status:
    attempt = ledger.begin(spec, reason, "driver")
    (attempt.out_dir / "deep").mkdir()
    (attempt.out_dir / "r.bin").write_bytes(data)
    (attempt.out_dir / "deep" / "table.csv").write_bytes(b"a,b\n1,2\n")
    return ledger.publish(attempt, attempt.out_dir, {"delta_r": 0.5}, 1.25)


def state(ledger: Ledger, spec: CellSpec, full: bool = False) -> tuple[State, Reason]:
    return ledger.survey([spec], full)[spec.signature][:2]


def out(status: Status, name: str = "r.bin") -> str:
    return f"{status.stage}/{status.signature}/attempts/{status.attempt}/out/{name}"


def outcomes(ledger: Ledger, spec: CellSpec) -> list[tuple[Reason, str]]:
    return [(record.reason, record.outcome) for record in ledger.history(spec.stage, spec.signature)]
