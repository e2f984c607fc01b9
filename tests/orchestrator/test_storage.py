"""Files in a folder, in memory and on S3 behave alike."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from orchestrator.node_cache import NodeCache
from orchestrator.outside import list_files, open_outside
from orchestrator.storage import Storage, UnsafePath

ESCAPES = ["../outside", "a/../../b", "/etc/passwd", "a//b", "a/", ".hidden", "a/.b", "a\\b", "a/*", "a\x00b", "a/[b]"]


@pytest.fixture
def storage(root: str) -> Storage:
    return Storage(root)


def test_write_read_size_exists_delete(storage: Storage) -> None:
    assert storage.size("a/b.json") is None
    assert not storage.exists("a/b.json")
    with pytest.raises(FileNotFoundError):
        storage.read("a/b.json")
    storage.write("a/b.json", b"one")
    storage.write("a/b.json", b"second")
    assert storage.read("a/b.json") == b"second"
    assert storage.size("a/b.json") == 6
    assert storage.size("a") is None
    assert storage.exists("a/b.json")
    with storage.open("a/b.json") as stream:
        assert stream.read() == b"second"
    storage.delete("a/b.json")
    storage.delete("a/b.json")
    assert not storage.exists("a/b.json")


def test_names_find_and_recursive_delete(storage: Storage) -> None:
    for path in ("s/x/status.json", "s/x/out/deep/f.bin", "s/y/status.json", "sx/z"):
        storage.write(path, b"123")
    assert storage.names("s") == ["x", "y"]
    assert storage.names("") == ["s", "sx"]
    assert storage.names("nothing") == []
    assert storage.find("s") == {"s/x/status.json": 3, "s/x/out/deep/f.bin": 3, "s/y/status.json": 3}
    assert storage.find("nothing") == {}
    storage.delete("s/x", recursive=True)
    storage.delete("s/x", recursive=True)
    assert storage.find("") == {"s/y/status.json": 3, "sx/z": 3}


def test_empty_files_and_many_reads(storage: Storage) -> None:
    storage.write("index/a.done", b"")
    storage.write("b", b"b")
    assert storage.size("index/a.done") == 0
    assert storage.read_many(["b", "missing", "index/a.done"]) == {"b": b"b", "index/a.done": b""}


def test_files_in_and_out(storage: Storage, tmp_path: Path) -> None:
    source = tmp_path / "source.bin"
    source.write_bytes(b"x" * 100_000)
    storage.put_file(source, "kept/copy.bin")
    assert source.exists()
    storage.adopt(source, "kept/moved.bin")
    assert not source.exists()
    assert storage.find("kept") == {"kept/copy.bin": 100_000, "kept/moved.bin": 100_000}
    storage.get_file("kept/moved.bin", tmp_path / "back.bin")
    assert (tmp_path / "back.bin").read_bytes() == b"x" * 100_000


def test_others_writes_are_seen_at_once(root: str) -> None:
    mine, theirs = Storage(root), Storage(root)
    theirs.write("s/a", b"1")
    assert mine.names("s") == ["a"]
    theirs.write("s/b", b"1")
    theirs.write("s/a", b"22")
    assert mine.names("s") == ["a", "b"]
    assert mine.size("s/a") == 2


def test_a_pickled_storage_finds_the_same_files(storage: Storage) -> None:
    storage.write("a", b"1")
    assert pickle.loads(pickle.dumps(storage)).read("a") == b"1"


@pytest.mark.parametrize("path", ESCAPES)
def test_paths_cannot_leave_the_root(path: str, tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "ledger"))
    for use in (storage.read, storage.exists, storage.size, storage.find, storage.names, storage.open, storage.delete):
        with pytest.raises(UnsafePath):
            use(path)
    with pytest.raises(UnsafePath):
        storage.write(path, b"")
    assert list(tmp_path.iterdir()) == []


def test_the_root_itself_is_not_deleted(storage: Storage) -> None:
    storage.write("a", b"1")
    with pytest.raises(UnsafePath, match="root"):
        storage.delete("", recursive=True)
    assert storage.exists("a")


def test_repr_hides_secrets() -> None:
    storage = Storage("s3://user:hunter2@bucket/x", {"key": "AKIA", "secret": "hunter2"})
    assert "hunter2" not in repr(storage)
    assert "AKIA" not in repr(storage)
    assert "bucket/x" in repr(storage)


def test_a_relative_root_means_the_same_folder_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    storage = Storage("./results")
    monkeypatch.chdir("/")
    storage.write("a", b"1")
    assert (tmp_path / "results" / "a").read_bytes() == b"1"
    assert Storage(f"file://{tmp_path}/results").read("a") == b"1"


def test_local_readers_never_see_half_a_file(tmp_path: Path) -> None:
    storage, stop, seen = Storage(str(tmp_path)), threading.Event(), set()
    texts = [bytes([65 + k]) * 300_000 for k in range(3)]
    storage.write("a/f", texts[0])

    def read() -> None:
        while not stop.is_set():
            seen.add(storage.read("a/f"))

    reader = threading.Thread(target=read)
    reader.start()
    for k in range(60):
        storage.write("a/f", texts[k % 3])
    stop.set()
    reader.join()
    assert seen <= set(texts)
    assert storage.names("a") == ["f"]
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["f"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(str(tmp_path))
    storage.write("f", b"old")

    def full(part: Path, target: Path) -> None:
        raise OSError(f"no space to rename {part} to {target}")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="no space"):
        storage.write("f", b"new")
    assert storage.read("f") == b"old"
    assert storage.find("") == {"f": 3}


def test_a_local_storage_needs_no_fsspec(tmp_path: Path) -> None:
    code = (
        "import sys; from orchestrator.ledger import Ledger; from orchestrator.storage import Storage\n"
        f"s = Storage({str(tmp_path)!r}); s.write('a', b'1'); s.find(''); Ledger(s).status('trf', 'ab')\n"
        "print([m for m in ('fsspec', 's3fs', 'boto3', 'torch', 'ray', 'mlflow', 'mne') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_store_tells_its_time(storage: Storage) -> None:
    storage.write("a", b"")
    first = storage.modified("a")
    assert first > 1_600_000_000


def test_list_files_by_suffix_with_versions(root: str) -> None:
    storage = Storage(root)
    for path, data in {"d/b.WAV": b"12", "d/sub/a.wav": b"123", "d/notes.txt": b"1"}.items():
        storage.write(path, data)
    found = list_files(f"{root}/d", (".wav", ".flac"))
    assert [(file.path, file.size) for file in found] == [(f"{root}/d/b.WAV", 2), (f"{root}/d/sub/a.wav", 3)]
    assert all(file.version not in ("", "unknown") for file in found)
    assert list_files(f"{root}/d", (".wav", ".flac")) == found
    with open_outside(found[1].path) as stream:
        assert stream.read() == b"123"
    with pytest.raises(FileNotFoundError):
        list_files(f"{root}/missing", (".wav",))


def test_list_files_passes_over_hidden_files_and_follows_links(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.wav").write_bytes(b"1")
    (tmp_path / "real" / "._a.wav").write_bytes(b"1")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "linked").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "loop").symlink_to(tmp_path / "data")
    assert [file.path for file in list_files(str(tmp_path / "data"), (".wav",))] == [f"{tmp_path}/data/linked/a.wav"]


def test_remote_files_are_fetched_once_and_again_when_they_change(s3_root: str, tmp_path: Path) -> None:
    storage, cache = Storage(s3_root), NodeCache(tmp_path / "cache")
    storage.write("a.wav", b"first")
    for _ in range(2):
        with open_outside(f"{s3_root}/a.wav", cache) as stream:
            assert stream.read() == b"first"
    assert len([file for file in (tmp_path / "cache").iterdir() if not file.name.startswith(".")]) == 1
    storage.write("a.wav", b"other")
    with open_outside(f"{s3_root}/a.wav", cache) as stream:
        assert stream.read() == b"other"
    with open_outside(f"{s3_root}/a.wav", NodeCache(tmp_path / "tiny", limit_bytes=2)) as stream:
        assert stream.read() == b"other"
    assert not (tmp_path / "tiny").exists()


def test_the_node_cache_stays_below_its_limit(tmp_path: Path) -> None:
    cache = NodeCache(tmp_path, limit_bytes=250)
    for key in ("a", "b", "c", "d"):
        cache.open(key, lambda part: part.write_bytes(b"x" * 100) and None).close()
    kept = [file for file in tmp_path.iterdir() if not file.name.startswith(".")]
    assert sum(file.stat().st_size for file in kept) <= 250
    fetched: list[str] = []
    cache.open("d", lambda part: fetched.append(part.name)).close()
    assert fetched == []


def test_a_failed_fetch_leaves_nothing(tmp_path: Path) -> None:
    cache = NodeCache(tmp_path)

    def broken(part: Path) -> None:
        part.write_bytes(b"half")
        raise ConnectionError("lost")

    with pytest.raises(ConnectionError):
        cache.open("a", broken)
    with cache.open("a", lambda part: part.write_bytes(b"whole") and None) as stream:
        assert stream.read() == b"whole"
