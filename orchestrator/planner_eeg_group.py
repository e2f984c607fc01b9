"""The group's part of the graph: one aggregate per model, and what is left of it when inputs failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.experiment import Science
from orchestrator.graph import CellSpec
from orchestrator.planner_eeg import Fit, models_of
from orchestrator.signature import canonical, sign
from orchestrator.stages import STAGES
from tasks.eeg.config import EegConfig
from tasks.eeg.lacking import listed
from tasks.eeg.participants import NotCompared, of_subjects, two_values

if TYPE_CHECKING:
    from orchestrator.planner import Builder


def plan_group(builder: Builder, variants: Mapping[str, Science]) -> None:
    """One aggregate per model: the family of its correction is all levels and variants of one figure."""
    cells = list(builder.cells.values())
    science = next((science for science in variants.values() if science.eeg is not None), None)
    if science is None or science.eeg is None:
        builder.note("eeg, features, trf, permutations, group, canaries: left out (the study has no eeg section)")
        return
    participants, missing = _participants(builder, science.eeg, cells)
    for model in models_of(builder, science):
        name = model.name
        fits = [cell for cell in cells if cell.stage == "trf" and cell.labels["model"] == name]
        fits = [cell for cell in fits if not cell.labels["subject"].startswith("canary-")]
        blocks: dict[tuple[str, ...], list[str]] = {}
        for cell in cells:
            if cell.stage == "permutations":
                blocks.setdefault(_condition(cell), []).append(cell.signature)
        entries = [
            Fit(
                cell.labels["subject"],
                cell.labels["variant"],
                float(cell.labels["noise_level"]),
                name,
                str(cell.inputs["eeg"]),
                cell.signature,
                tuple(blocks.get(_condition(cell), ())),
            )
            for cell in fits
        ]
        config, inputs = _group_cell(model.signed(), science.eeg.alpha, entries, (), _arms(variants), participants)
        labels = {"model": name, "tested": str(model.tested).lower()}
        builder.add("group", f"group {name}", config, inputs, labels, missing)


def _participants(
    builder: Builder, eeg: EegConfig, cells: Sequence[CellSpec]
) -> tuple[Mapping[str, Any] | None, str | None]:
    """The column by which subjects are compared with its values for the study's own, or why it can't be had.

    Another subject's row, or another column, changes nothing of it.
    """
    asked = eeg.participants
    if asked is None:
        return None, None
    subjects = dict.fromkeys(cell.labels["subject"] for cell in cells if cell.stage == "eeg")
    listeners = [name for name in subjects if not name.startswith("canary-")]
    missing = builder.manifest.missing.get(asked.path)
    values = of_subjects(listeners, builder.manifest.participants.get((asked.path, asked.column), {}))
    if missing is None:
        try:
            two_values(asked.column, values)
        except NotCompared as error:
            raise ValueError(f"eeg.participants: {asked.path}: {error}") from None
        without = [name for name in listeners if name not in values]
        if without:
            builder.note(f"eeg.participants: {asked.path}: no {asked.column} for {listed(without)}")
    return {"column": asked.column, "values": values}, missing


def _arms(variants: Mapping[str, Science]) -> list[dict[str, Any]]:
    """The arm of every variant whose name says its seed: variants of one arm differ in that alone."""
    found = []
    for name, science in variants.items():
        seed = f"seed={science.seed}"
        arm = " ".join(part for part in name.split(" ") if part != seed)
        if arm != name:
            found.append({"variant": name, "arm": arm, "seed": science.seed})
    return found


def _condition(cell: CellSpec) -> tuple[str, ...]:
    return tuple(cell.labels[key] for key in ("subject", "variant", "noise_level", "model"))


def _group_cell(
    model: Mapping[str, Any],
    alpha: float,
    fits: Sequence[Fit],
    missing: Sequence[Mapping[str, str]] = (),
    arms: Sequence[Mapping[str, Any]] = (),
    participants: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], dict[str, tuple[str, ...]]]:
    trf = tuple(fit.trf for fit in fits)
    permutations = tuple(dict.fromkeys(block for fit in fits for block in fit.permutations))
    index = {signature: position for position, signature in enumerate(permutations)}
    eeg = tuple(dict.fromkeys(fit.eeg for fit in fits))
    conditions: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for position, fit in enumerate(fits):
        entry = {
            "subject": fit.subject,
            "trf": position,
            "permutations": [index[block] for block in fit.permutations],
            "eeg": eeg.index(fit.eeg),
        }
        conditions.setdefault((fit.variant, fit.noise_level), []).append(entry)
    listed = [
        {"variant": variant, "noise_level": level, "subjects": subjects}
        for (variant, level), subjects in conditions.items()
    ]
    config = {"model": dict(model), "alpha": alpha, "conditions": listed, "missing": [dict(item) for item in missing]}
    if arms:
        config["arms"] = [dict(item) for item in arms]
    if participants is not None:
        config["participants"] = dict(participants)
    return config, {"trf": trf, "permutations": permutations, "eeg": eeg}


def reduce(cell: CellSpec, failed: Mapping[str, str]) -> CellSpec | None:
    """The aggregate without the inputs that failed, naming who is missing; None when nothing is left of it."""
    if cell.stage != "group":
        return None
    trf, permutations, eeg = (tuple(cell.inputs[role]) for role in ("trf", "permutations", "eeg"))
    fits: list[Fit] = []
    missing: dict[str, str] = {}
    for condition in cell.config["conditions"]:
        for entry in condition["subjects"]:
            blocks = tuple(permutations[position] for position in entry["permutations"])
            fit = Fit(
                entry["subject"],
                condition["variant"],
                float(condition["noise_level"]),
                "",
                eeg[entry["eeg"]],
                trf[entry["trf"]],
                blocks,
            )
            gone = [failed[signature] for signature in (fit.eeg, fit.trf, *blocks) if signature in failed]
            if gone:
                missing.setdefault(f"{fit.subject} ({fit.variant} s={fit.noise_level!r})", gone[0])
            else:
                fits.append(fit)
    if not fits:
        return None
    named = [{"subject": subject, "reason": reason} for subject, reason in missing.items()]
    alpha, arms = float(cell.config["alpha"]), cell.config.get("arms", ())
    participants = cell.config.get("participants")
    config, inputs = _group_cell(cell.config["model"], alpha, fits, _by_subject(named, fits), arms, participants)
    signature = sign(cell.stage, STAGES[cell.stage].version, config, inputs)
    return CellSpec(cell.stage, cell.name, canonical(config), inputs, signature, cell.labels)


def _by_subject(named: Sequence[Mapping[str, str]], fits: Sequence[Fit]) -> list[dict[str, str]]:
    """One line for a subject that is missing everywhere, one for each condition otherwise."""
    present = {fit.subject for fit in fits}
    lines: dict[str, str] = {}
    for item in named:
        subject = item["subject"].split(" (", 1)[0]
        lines.setdefault(item["subject"] if subject in present else subject, item["reason"])
    return [{"subject": subject, "reason": reason} for subject, reason in lines.items()]
