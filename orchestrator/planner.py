"""An experiment and its manifest become a graph of cells. Pure: no file is read here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from orchestrator.experiment import Experiment, Science
from orchestrator.graph import CellSpec, Graph
from orchestrator.manifest import Manifest
from orchestrator.planner_audit import plan_audit, plan_solver_audit
from orchestrator.planner_canaries import plan_canaries
from orchestrator.planner_eeg import plan_eeg
from orchestrator.planner_eeg_group import plan_group
from orchestrator.roles import MELODIES, ROLES
from orchestrator.signature import canonical, sign
from orchestrator.stages import STAGES
from orchestrator.variant_names import trained_name
from tasks.audio.config import DataSet

Inputs = Mapping[str, str | tuple[str, ...]]


class Builder:
    """Collects cells; a cell that several variants need is there once."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.cells: dict[str, CellSpec] = {}
        self.notes: dict[str, None] = dict.fromkeys(manifest.notes)

    def add(
        self,
        stage: str,
        name: str,
        config: Mapping[str, Any],
        inputs: Inputs | None = None,
        labels: Mapping[str, str] | None = None,
        missing: str | None = None,
        places: Mapping[str, str] | None = None,
    ) -> str:
        """Plan one cell; returns its signature."""
        inputs = inputs or {}
        signature = sign(stage, STAGES[stage].version, config, inputs)
        if signature not in self.cells:
            there = dict(places or {})
            cell = CellSpec(stage, name, canonical(config), dict(inputs), signature, dict(labels or {}), missing, there)
            waits = [self.cells[parent].missing for parent in cell.parents if self.cells[parent].missing]
            if missing is None and waits:
                cell = replace(cell, missing=waits[0])
            self.cells[signature] = cell
        return signature

    def tell_bands(self) -> None:
        """Give subjects whose EEG is filtered in several bands names that say which."""
        names = Counter(cell.name for cell in self.cells.values() if cell.stage == "eeg")
        for signature, cell in self.cells.items():
            if cell.stage == "eeg" and names[cell.name] > 1:
                low, high = cell.config["preprocessing"]["band_hz"]
                self.cells[signature] = replace(cell, name=f"{cell.name} {low:g}-{high:g} Hz")

    def note(self, sentence: str) -> None:
        """Say once what the study leaves out, and why."""
        self.notes[sentence] = None


def build(experiment: Experiment, manifest: Manifest) -> Graph:
    """All cells of the study, parents before children."""
    return build_variants(experiment.variants(), manifest)


def build_variants(variants: Mapping[str, Science], manifest: Manifest) -> Graph:
    """All cells of some variants, parents before children."""
    builder = Builder(manifest)
    trained = {name: trained_name(name, science) for name, science in variants.items()}
    planned = {name: _plan_variant(builder, trained[name], science) for name, science in variants.items()}
    for name, science in variants.items():
        if science.eeg is not None:
            plan_eeg(builder, name, science, planned[name])
    plan_canaries(builder, variants, planned)
    plan_group(builder, variants)
    builder.tell_bands()
    return Graph(builder.cells, tuple(builder.notes))


def _plan_variant(builder: Builder, variant: str, science: Science) -> dict[str, str]:
    """Everything of one variant but its EEG; returns the signatures that the EEG stages build on, by role."""
    data = _plan_data(builder, science)
    codec = _plan_autoencoder(builder, variant, science, data)
    made: dict[str, str] = {**data, "autoencoder": codec}
    roles = [role for role in ("train", "validation", *MELODIES, "stimuli") if f"corpus {role}" in data]
    if not _wants_pitch(builder, science):
        roles = [role for role in roles if role not in MELODIES]
    for role in roles:
        made[f"latents {role}"] = builder.add(
            "latents",
            f"latents {variant} {role}",
            {"role": role},
            {"autoencoder": codec, "corpus": data[f"corpus {role}"]},
            {"variant": variant, "role": role},
        )
    made["flow"] = builder.add(
        "flow",
        f"flow {variant}",
        {"seed": science.seed, "flow": science.flow.signed()},
        {"train": made["latents train"], "validation": made["latents validation"]},
        {"variant": variant},
    )
    for role in roles[2:]:
        _plan_surprisal(builder, variant, science, role, made)
    audited = [role for role in roles[2:] if role != "melodies_dev"]
    plan_audit(builder, variant, science, audited, made)
    plan_solver_audit(builder, variant, science, audited, made)
    for role in MELODIES:
        if f"latents {role}" in made:
            _plan_pitch(builder, variant, science, role, made)
    _plan_reconstruction(builder, variant, science, data, codec)
    return made


def _plan_data(builder: Builder, science: Science) -> dict[str, str]:
    made: dict[str, str] = {}
    for role in ROLES:
        dataset = science.data.of(role)
        if dataset is None:
            continue
        inputs = {"tunes": _plan_tunes(builder, science, dataset)} if dataset.source != "audio" else {}
        if role != "train":
            inputs["train"] = made["corpus train"]
        if role == "melodies_dev":
            inputs["melodies"] = made["corpus melodies"]
        config: dict[str, Any] = {
            "role": role,
            "dataset": dataset.model_dump(mode="json"),
            "seed": science.data.seed,
            "split": science.data.split.model_dump(mode="json"),
            "allow_overlap": science.data.allow_overlap,
        }
        missing = None
        if dataset.source == "audio":
            assert dataset.path is not None
            config["files"] = list(builder.manifest.files["audio", dataset.path])
            missing = builder.manifest.missing.get(dataset.path)
        name = f"corpus {role}"
        made[name] = builder.add("corpus", name, config, inputs, {"role": role}, missing)
    needs_notes = [role for role in (*MELODIES, "stimuli") if _has_notes(science, role)]
    for role in needs_notes:
        made[f"pitch_surprisal {role}"] = _plan_pitch_surprisal(builder, science, role, made[f"corpus {role}"])
    return made


def _has_notes(science: Science, role: str) -> bool:
    dataset = science.data.of(role)
    return science.pitch is not None and dataset is not None and dataset.source != "audio"


def _wants_pitch(builder: Builder, science: Science) -> bool:
    melodies = science.data.melodies
    if science.pitch is None or melodies is None:
        builder.note("pitch: left out (the study has no data.melodies, or pitch: null)")
        return False
    if melodies.source == "audio":
        builder.note("pitch: left out (data.melodies is audio without notes; chorales or midi have them)")
        return False
    if science.data.melodies_dev is None:
        builder.note(
            "pitch: without data.melodies_dev no noise level can be chosen, so nothing is claimed about which is best"
        )
    return True


def _plan_tunes(builder: Builder, science: Science, dataset: DataSet) -> str:
    split = science.data.split.model_dump(mode="json", exclude={"held_out_share", "gap_s"})
    config: dict[str, Any] = {"source": dataset.source, "split": split, "seed": science.data.seed}
    missing = None
    if dataset.source == "midi":
        assert dataset.path is not None
        config["files"] = list(builder.manifest.files["midi", dataset.path])
        missing = builder.manifest.missing.get(dataset.path)
    name = f"tunes {dataset.source}" + (f" {dataset.path}" if dataset.path else "")
    return builder.add("tunes", name, config, labels={"source": dataset.source}, missing=missing)


def _plan_pitch_surprisal(builder: Builder, science: Science, role: str, corpus: str) -> str:
    """The symbolic model learns the training tunes where they have notes, else the chorales."""
    assert science.pitch is not None
    symbolic = science.data.train.source != "audio"
    trained_on = science.data.train if symbolic else DataSet(source="chorales", split="train")
    settings = {key: value for key, value in science.pitch.signed().items() if key != "ic_frames"}
    config = {**settings, "train_split": trained_on.split}
    tunes = _plan_tunes(builder, science, trained_on)
    return builder.add(
        "pitch_surprisal", f"pitch surprisal {role}", config, {"tunes": tunes, "corpus": corpus}, {"role": role}
    )


def _plan_autoencoder(builder: Builder, variant: str, science: Science, data: Mapping[str, str]) -> str:
    settings = science.autoencoder
    corpora = {"train": data["corpus train"], "validation": data["corpus validation"]}
    shared = {"seed": science.seed, "size": settings.size, "bottleneck": settings.bottleneck}
    base = builder.add(
        "autoencoder_base",
        f"ae base {settings.bottleneck}" + (f" seed={science.seed}" if science.seed else ""),
        {**shared, "training": settings.base_training.model_dump(mode="json")},
        corpora,
        {"bottleneck": settings.bottleneck},
    )
    noise = settings.latent_noise
    latent_noise = {"applied_to": "none"} if noise.applied_to == "none" else noise.model_dump(mode="json")
    return builder.add(
        "autoencoder",
        f"ae {variant}",
        {**shared, "latent_noise": latent_noise, "training": settings.arm_training.model_dump(mode="json")},
        {"base": base, **corpora},
        {"variant": variant, "bottleneck": settings.bottleneck},
    )


def _plan_surprisal(builder: Builder, variant: str, science: Science, role: str, made: dict[str, str]) -> None:
    settings = science.surprisal
    for level in settings.noise_levels:
        made[f"surprisal {role} {level!r}"] = builder.add(
            "surprisal",
            f"IC {variant} {role} s={level!r}",
            settings.cell(level),
            {"flow": made["flow"], "latents": made[f"latents {role}"]},
            {"variant": variant, "role": role, "noise_level": repr(level)},
            places=settings.places,
        )


def _plan_pitch(builder: Builder, variant: str, science: Science, role: str, made: Mapping[str, str]) -> None:
    assert science.pitch is not None
    where = " dev" if role == "melodies_dev" else ""
    for level in science.surprisal.noise_levels:
        builder.add(
            "pitch",
            f"pitch {variant}{where} s={level!r}",
            {"ic_frames": science.pitch.ic_frames},
            {
                "surprisal": made[f"surprisal {role} {level!r}"],
                "pitch_surprisal": made[f"pitch_surprisal {role}"],
                "corpus": made[f"corpus {role}"],
            },
            {"variant": variant, "role": role, "noise_level": repr(level)},
        )


def _plan_reconstruction(builder: Builder, variant: str, science: Science, data: Mapping[str, str], codec: str) -> None:
    settings = science.reconstruction
    if settings is None or "corpus reconstruction" not in data:
        builder.note("reconstruction: left out (the study has no data.reconstruction, or reconstruction: null)")
        return
    for snr in settings.snr:
        config = {
            "seed": science.data.seed,
            "snr": snr,
            "metrics": list(settings.metrics),
            "excerpt_s": settings.excerpt_s,
            "n_excerpts": settings.n_excerpts,
            "n_draws": settings.n_draws,
        }
        builder.add(
            "reconstruction",
            f"reconstruction {variant} SNR={snr:g}",
            config,
            {"autoencoder": codec, "corpus": data["corpus reconstruction"]},
            {"variant": variant, "snr": f"{snr:g}"},
        )
