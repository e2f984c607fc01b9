"""What others wrote is data, never code: no file of the ledger or of a user is executed, and none leads elsewhere."""

from __future__ import annotations

import ast
import io
import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
import pytest
import scipy.io
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError
from typer.testing import CliRunner

from orchestrator.checkpoints import LedgerCheckpoints
from orchestrator.cli import app
from orchestrator.experiment import Experiment
from orchestrator.ledger import Ledger
from orchestrator.paths import UnsafePath, check_name
from orchestrator.reading import UsageError, load_experiment
from orchestrator.storage import Storage
from tasks.audio.config import SourceFile
from tasks.audio.sources import identifiers
from tasks.contract import TaskError
from tasks.eeg.matlab import read_mat

ROOT = Path(__file__).parents[2]
DEMO = str(ROOT / "experiments/demo.yaml")
CODE = sorted(
    file for folder in ("orchestrator", "tasks", "benchmarks", "docs") for file in (ROOT / folder).rglob("*.py")
)
FORBIDDEN_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "os.system", "os.popen", "torch.save", "np.save", "pd.read_pickle"}
SAFE_LOADERS = {"SafeLoader", "CSafeLoader", "_Loader"}
"""The last is a SafeLoader that is stricter about keys (orchestrator/reading.py)."""


def faults(source: str) -> Iterator[str]:
    """What in this source could execute what it reads."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] in FORBIDDEN_MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in FORBIDDEN_MODULES:
            yield node.module
        elif isinstance(node, ast.Call) and (fault := _fault(ast.unparse(node.func), node)):
            yield f"{ast.unparse(node)}: {fault}"


def _fault(name: str, call: ast.Call) -> str:
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    constants = {key: value.value for key, value in given.items() if isinstance(value, ast.Constant)}
    if name in FORBIDDEN_CALLS:
        return "it executes, or writes pickles"
    if name in ("np.load", "numpy.load") and constants.get("allow_pickle", True) is not False:
        return "np.load needs allow_pickle=False"
    if name == "torch.load" and constants.get("weights_only") is not True:
        return "torch.load needs weights_only=True"
    if constants.get("shell") not in (None, False) or ("shell" in given and "shell" not in constants):
        return "no shell: pass a list of words"
    if name.startswith("yaml.") and name.endswith(("load", "load_all")) and not name.startswith("yaml.safe_"):
        loader = given.get("Loader")
        return (
            "" if loader is not None and ast.unparse(loader).split(".")[-1] in SAFE_LOADERS else "YAML is loaded safely"
        )
    return ""


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_that_is_read_can_be_executed(path: Path) -> None:
    assert not list(faults(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "np.load(f)",
        "np.load(f, allow_pickle=True)",
        "np.load(f, allow_pickle=wanted)",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "yaml.load(f)",
        "yaml.load(f, Loader=yaml.Loader)",
        "yaml.unsafe_load(f)",
        "eval(text)",
        "subprocess.run(text, shell=True)",
        "subprocess.run(text, shell=wanted)",
        "os.system(text)",
    ],
)
def test_the_search_finds_what_it_looks_for(source: str) -> None:
    assert list(faults(source))


def test_yaml_of_an_experiment_makes_no_objects(tmp_path: Path) -> None:
    file = tmp_path / "evil.yaml"
    file.write_text(f"name: !!python/object/apply:os.mkdir ['{tmp_path / 'made'}']\n")
    with pytest.raises(UsageError, match="cannot be read as YAML"):
        load_experiment(str(file))
    with pytest.raises(UsageError, match="not valid YAML"):
        load_experiment(DEMO, [f"seed=!!python/object/apply:os.mkdir ['{tmp_path / 'made'}']"])
    assert not (tmp_path / "made").exists()


# MATLAB files of users


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.mkdir, (self.folder,)


def opener(content: bytes) -> Any:
    def open_file(path: str) -> BinaryIO:
        return io.BytesIO(content)

    return open_file


def test_a_pickle_called_mat_is_no_matlab_file(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="not a MATLAB file"):
        read_mat("evil.mat", opener(pickle.dumps(Bomb(tmp_path / "made"))), "eeg")
    assert not (tmp_path / "made").exists()


def matlab73(fill: Callable[[h5py.Group], None]) -> bytes:
    """A file as MATLAB 7.3 saves it, its struct `eeg` filled by `fill`."""
    stream = io.BytesIO()
    with h5py.File(stream, "w", userblock_size=512) as file:
        fill(file.create_group("eeg"))
    head = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"
    return head.ljust(512, b"\x00") + stream.getvalue()[512:]


def test_pickles_inside_a_matlab_file_stay_bytes(tmp_path: Path) -> None:
    bomb = np.frombuffer(pickle.dumps(Bomb(tmp_path / "made")), np.uint8)
    old = io.BytesIO()
    scipy.io.savemat(old, {"eeg": {"data": bomb}})
    for content in (old.getvalue(), matlab73(lambda eeg: eeg.update({"data": bomb}))):
        found = read_mat("a.mat", opener(content), "eeg")
        assert bytes(np.asarray(found["data"]).astype(np.uint8).ravel()) == bomb.tobytes()
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("kind", ["link", "link below", "data"])
def test_a_matlab_file_cannot_show_other_files_of_this_machine(kind: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["x"] = np.arange(8.0)

    def fill(eeg: h5py.Group) -> None:
        if kind == "data":
            eeg.create_dataset("data", (64,), "u1", external=[(str(secret), 0, 64)])
        else:
            (eeg.create_group("deeper") if kind == "link below" else eeg)["data"] = h5py.ExternalLink(str(secret), "x")

    with pytest.raises(TaskError, match="other files"):
        read_mat("a.mat", opener(matlab73(fill)), "eeg")


# Names

HOSTILE = ["..", "../x", "/etc/passwd", "a/b", ".hidden", "a\\b", "a\x00", "~", "name\n", "", "a*", "C:\\x"]
names = st.one_of(st.text(max_size=80), st.sampled_from(HOSTILE))


def inside(folder: Path, path: Path) -> bool:
    """Whether a path stays in a folder, as the file system would read it."""
    return Path(*path.parts).resolve().is_relative_to(folder.resolve()) and ".." not in path.parts


@given(names)
@example("..")
@example("a\n")
def test_a_name_of_a_study_is_a_folder_of_its_own(name: str) -> None:
    raw = {**load_experiment(DEMO).experiment.model_dump(mode="json"), "name": name}
    try:
        experiment = Experiment.model_validate(raw)
    except ValidationError:
        return
    assert check_name(experiment.name) == name
    assert Path("reports", experiment.name).parent == Path("reports")


@given(names)
def test_a_swept_value_never_becomes_a_path(value: str) -> None:
    """Variants have names that people read; in the ledger a cell lies under its signature."""
    raw = load_experiment(DEMO).experiment.model_dump(mode="json")
    raw["sweep"] = [{"autoencoder.bottleneck": [value]}]
    with pytest.raises((ValidationError, ValueError)):
        Experiment.model_validate(raw)


@given(st.lists(names.map(lambda name: f"folder/{name}.wav"), min_size=1, max_size=5, unique=True))
def test_a_file_name_of_a_user_becomes_a_plain_name(paths: list[str]) -> None:
    named = identifiers([SourceFile(path=path, size=1, version="v") for path in paths])
    assert len({name.casefold() for name in named.values()}) == len(named)
    for name in named.values():
        assert check_name(name) == name


@given(names)
def test_a_signature_given_to_explain_reads_nothing_outside(prefix: str) -> None:
    result = CliRunner().invoke(app, ["explain", "--ledger", "memory://explained", "--", prefix])
    assert result.exit_code == 2
    assert "Traceback" not in result.output


@given(names, names)
def test_no_name_leads_out_of_the_ledger(stage: str, signature: str) -> None:
    ledger = Ledger(Storage("memory://names"))
    try:
        assert ledger.status(stage, signature) is None
    except UnsafePath:
        return
    assert inside(Path("/ledger"), Path("/ledger", stage, signature, "status.json"))


def test_what_a_ledger_lists_is_not_followed_out_of_the_scratch_folder(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "ledger"))
    base = "autoencoder/abc/checkpoints"
    checkpoints = LedgerCheckpoints(storage, base, tmp_path / "scratch")
    record = {"size": 0, "sha256": ""}
    for name in ("../../../made/x", str(tmp_path / "made/x")):
        storage.write(f"{base}/{1:012d}/complete.json", json.dumps({name: record}).encode())
        assert checkpoints.latest() is None
    assert not (tmp_path / "made").exists()
