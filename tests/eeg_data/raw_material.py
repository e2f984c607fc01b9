"""Recordings of made-up EEG in the formats of several makers, written byte by byte where no writer is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mne
import numpy as np
import scipy.io

from tasks.eeg.montage import biosemi_64
from tasks.seeds import numpy_stream

FS = 128
NAMES = ("Fz", "Cz", "Pz", "Oz", "C3", "C4", "F3", "F4", "P3", "P4")
ONSETS_S = {"audio1": 3.0, "audio2": 18.5, "audio10": 31.0}
"""audio1 lasts 12 s, audio2 10 s, audio10 11.03 s."""

TABLE = [("S1.fif", "audio1.flac", 3.0), ("S1.fif", "audio2", 18.5), ("S1.fif", "audio10.wav", 31.0)]


def microvolts(seed: str, seconds: float = 45.0, n: int = len(NAMES)) -> np.ndarray:
    """Whole numbers (formats hold integers): a 4 Hz wave that starts anew with every stimulus, largest in the last."""
    t = np.arange(round(seconds * FS)) / FS
    begun = np.zeros(t.size)
    for onset_s in ONSETS_S.values():
        begun[t >= onset_s] = onset_s
    wave = np.outer(np.linspace(40, 100, n), np.sin(2 * np.pi * 4 * (t - begun)))
    return np.asarray(np.round(wave + 5 * numpy_stream("raw", seed).normal(size=wave.shape)))


def raw_of(data: np.ndarray, names: tuple[str, ...] = NAMES, rate: float = FS, placed: bool = True) -> Any:
    info = mne.create_info(list(names), rate, "eeg", verbose="ERROR")
    raw = mne.io.RawArray(data * 1e-6, info, first_samp=1000, verbose="ERROR")
    if placed:
        raw.set_montage("biosemi64", verbose="ERROR")
    return raw


def write_fif(path: Path, raw: Any) -> str:
    raw.save(path, overwrite=True, verbose="ERROR")
    return str(path)


def write_brainvision(path: Path, data: np.ndarray, rate: int = FS) -> str:
    """Header, markers and multiplexed 16-bit samples in microvolts."""
    stem = path.stem
    channels = "\n".join(f"Ch{k}={name},,1,µV" for k, name in enumerate(NAMES, 1))
    path.write_text(
        "Brain Vision Data Exchange Header File Version 1.0\n\n[Common Infos]\nCodepage=UTF-8\n"
        f"DataFile={stem}.eeg\nMarkerFile={stem}.vmrk\nDataFormat=BINARY\nDataOrientation=MULTIPLEXED\n"
        f"NumberOfChannels={len(NAMES)}\nSamplingInterval={1e6 / rate:g}\n\n[Binary Infos]\nBinaryFormat=INT_16\n\n"
        f"[Channel Infos]\n{channels}\n",
        encoding="utf-8",
    )
    path.with_suffix(".vmrk").write_text(
        "Brain Vision Data Exchange Marker File, Version 1.0\n\n[Common Infos]\nCodepage=UTF-8\n"
        f"DataFile={stem}.eeg\n\n[Marker Infos]\nMk1=New Segment,,1,1,0,20260101120000000000\n",
        encoding="utf-8",
    )
    path.with_suffix(".eeg").write_bytes(data.T.astype("<i2").tobytes())
    return str(path)


def write_edf(path: Path, data: np.ndarray, names: tuple[str, ...] = NAMES) -> str:
    """EDF (16 bit) or BDF (24 bit, by the suffix): records of one second, a physical unit per digital one."""
    bdf = path.suffix == ".bdf"
    low, high = (-(2**23), 2**23 - 1) if bdf else (-32768, 32767)
    n, n_records = len(names), data.shape[1] // FS

    def column(values: list[Any], width: int) -> bytes:
        return b"".join(str(value).ljust(width).encode("ascii") for value in values)

    version = b"\xffBIOSEMI" if bdf else b"0".ljust(8)
    fixed = version + b"X".ljust(80) + b"X".ljust(80) + b"01.01.2612.00.00"
    fixed += column([256 * (n + 1)], 8) + (b"24BIT" if bdf else b"").ljust(44) + column([n_records, 1], 8) + b"%-4d" % n
    header = fixed + column(list(names), 16) + column(["active"] * n, 80) + column(["uV"] * n, 8)
    header += column([low] * n, 8) + column([high] * n, 8) + column([low] * n, 8) + column([high] * n, 8)
    header += column([""] * n, 80) + column([FS] * n, 8) + column([""] * n, 32)
    records = data[:, : n_records * FS].reshape(n, n_records, FS).transpose(1, 0, 2).astype("<i4")
    size = 3 if bdf else 2
    content = records.reshape(-1, 1).view(np.uint8).reshape(-1, 4)[:, :size].tobytes()
    path.write_bytes(header + content)
    return str(path)


def write_eeglab(path: Path, data: np.ndarray) -> str:
    """A .set that names its .fdt, with EEGLAB's coordinates (X to the nose, Y to the left)."""
    cap = biosemi_64()
    assert cap.positions is not None
    places = [cap.positions[cap.names.index(name)] * 1000 for name in NAMES]
    located = np.array(
        [(name, y, -x, z, "EEG") for name, (x, y, z) in zip(NAMES, places, strict=True)],
        dtype=[(key, object) for key in ("labels", "X", "Y", "Z", "type")],
    )
    eeg = {"setname": path.stem, "nbchan": len(NAMES), "trials": 1, "pnts": data.shape[1], "srate": float(FS)}
    eeg |= {"xmin": 0.0, "xmax": data.shape[1] / FS, "data": f"{path.stem}.fdt", "datfile": f"{path.stem}.fdt"}
    eeg |= {"chanlocs": located, "event": np.zeros((0, 0)), "epoch": np.zeros((0, 0)), "ref": "common"}
    scipy.io.savemat(path, {"EEG": eeg}, appendmat=False)
    path.with_suffix(".fdt").write_bytes(data.T.astype("<f4").tobytes())
    return str(path)


def raw_config(folder: Path, rows: list[tuple[Any, ...]], **more: Any) -> dict[str, Any]:
    """The cell's config as the planner writes it; a row is (file, recording, onset_s[, duration_s[, repetition]])."""
    keys = ("file", "recording", "onset_s", "duration_s", "repetition")
    files = []
    for name in dict.fromkeys(row[0] for row in rows):
        beside = {".vhdr": (".eeg", ".vmrk"), ".set": (".fdt",)}.get(Path(name).suffix, ())
        others = [{"path": str((folder / name).with_suffix(suffix))} for suffix in beside]
        files.append({"name": name, "path": str(folder / name), "companions": others})
    presentations = [dict(zip(keys, row, strict=False)) for row in rows]
    return {
        "subject": "S1",
        "raw": {"presentations": presentations, "files": files, **more},
        "preprocessing": {"saturated_share": 0.01},
    }
