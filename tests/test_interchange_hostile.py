"""Files to import that are damaged or made to do harm: our errors only, and no file opened but the one given."""

from __future__ import annotations

import io
import json
import os
import pickle
import signal
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import h5py
import numpy as np
import pytest
import safetensors.torch
import torch
from hostile_hdf5 import HOSTILE, Make
from mutations import mutant
from small_runs import run_driver
from sound_files import TRUE, equal, image_of, read
from watching import watching

from landscape.errors import (
    CorruptSnapshotError,
    LandscapeError,
    MissingSnapshotError,
    SnapshotError,
    UnsafeFileError,
    UnsupportedFormatError,
)
from landscape.interchange import ImportOptions, import_run, reading
from landscape.interchange.frames import read_header, read_state, write_frame, write_state
from landscape.interchange.inspecting import describe
from landscape.interchange.state import State
from landscape.snapshots import open_run, verify_run


class HangError(Exception):
    """More than a second of processor time went by."""


def stop(number: int, frame: FrameType | None) -> None:
    raise HangError


@pytest.fixture
def one_second() -> Iterator[Callable[[], None]]:
    """Restarts a clock of processor time that interrupts after a second; a busy machine does not move it."""
    before = signal.signal(signal.SIGPROF, stop)

    def restart() -> None:
        signal.setitimer(signal.ITIMER_PROF, 1.0)

    yield restart
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.signal(signal.SIGPROF, before)


def try_mutants(kind: str, count: int, folder: Path, restart: Callable[[], None]) -> tuple[int, int, int]:
    """How many mutants were refused, read the same, and read as something else."""
    image = image_of(kind)
    file = folder / f"x.{kind}"
    file.write_bytes(image)
    found = read(file)
    assert kind == "npy" or equal(found)
    refused = same = other = 0
    for number in range(count):
        file.write_bytes(mutant(image, number))
        restart()
        try:
            states = read(file)
        except SnapshotError as error:
            assert str(file) in str(error)
            refused += 1
            continue
        if equal(states):
            same += 1
        else:
            other += 1
    return refused, same, other


# Formats with a checksum of all their contents; the others cannot tell one number from another.
CHECKED = ("pt", "npz", "h5")


@pytest.mark.parametrize("kind", ["pt", "pth", "safetensors", "h5", "npz", "npy"])
def test_mutants(tmp_path: Path, one_second: Callable[[], None], kind: str) -> None:
    refused, same, other = try_mutants(kind, 100, tmp_path, one_second)
    assert refused + same + other == 100 and refused > 30
    assert kind not in CHECKED or other == 0


class Payload:
    """Would make a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("old", [False, True])
def test_a_pickle_that_would_run_code(tmp_path: Path, old: bool) -> None:
    proof = tmp_path / "proof"
    torch.save(
        {"state_dict": TRUE, "x": Payload(proof)}, tmp_path / "x.pt", _use_new_zipfile_serialization=not old
    )
    (tmp_path / "y.pt").write_bytes(pickle.dumps(Payload(proof)))
    for name in ("x.pt", "y.pt"):
        with pytest.raises(SnapshotError, match=r"more than tensors|pickle is broken|cannot be read"):
            read(tmp_path / name)
    with pytest.raises(UnsafeFileError, match=r"holds more than tensors: posix\.mkdir"):
        read(tmp_path / "x.pt")
    assert not proof.exists()


def expanded() -> Any:
    return {"a": torch.zeros(1).expand(2**40)}


def aliased() -> Any:
    tensor = torch.zeros(1000)
    return {f"w{number}": tensor for number in range(100)}


def overlapping() -> Any:
    return {"a": torch.zeros(179).as_strided((90, 90), (1, 1))}


def sparse() -> Any:
    return {"a": torch.eye(3).to_sparse()}


def unusual() -> Any:
    return {"a": torch.zeros(3, dtype=torch.complex64)}


def unnamed() -> Any:
    return {"": torch.zeros(3)}


def no_dictionary() -> Any:
    return [torch.zeros(3)]


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (expanded, UnsafeFileError, "4398046511104 bytes"),
        (aliased, UnsafeFileError, "400000 bytes of tensors in a file"),
        (overlapping, UnsafeFileError, "more than is stored"),
        (sparse, UnsupportedFormatError, "sparse"),
        (unusual, UnsupportedFormatError, "complex64"),
        (unnamed, CorruptSnapshotError, "no name of a parameter"),
        (no_dictionary, UnsupportedFormatError, "holds a list"),
    ],
)
def test_tensors_that_are_not_plain(tmp_path: Path, make: Any, error: type[Exception], text: str) -> None:
    torch.save(make(), tmp_path / "x.pt")
    with pytest.raises(error, match=text):
        read(tmp_path / "x.pt")


def test_an_array_of_numpy_is_no_tensor(tmp_path: Path) -> None:
    torch.save({"a": np.zeros(3)}, tmp_path / "x.pt")
    with pytest.raises(UnsafeFileError, match="holds more than tensors: numpy"):
        read(tmp_path / "x.pt")


def test_a_storage_that_is_smaller_than_its_tensor(tmp_path: Path) -> None:
    """Its size stands in the pickle and in the archive: torch, which maps the file, believes the wrong one."""
    buffer = io.BytesIO()
    torch.save({"a": torch.arange(100.0)}, buffer)
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(tmp_path / "x.pt", "w") as target:
        for name in source.namelist():
            data = source.read(name)
            target.writestr(name, data[:16] if name.endswith("data/0") else data)
    assert torch.load(tmp_path / "x.pt", weights_only=True, mmap=True)["a"].shape == (100,)
    for look in (read, describe):
        with pytest.raises(UnsafeFileError, match=r"x\.pt: 'a' lies in 400 bytes, which no record"):
            look(tmp_path / "x.pt")


@pytest.mark.parametrize("kind", ["pt", "pth", "safetensors", "npz", "npy", "h5", "empty"])
def test_a_foreign_file_is_no_run(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"x.{kind}"
    path.write_bytes(b"" if kind == "empty" else image_of(kind))
    known = kind not in ("h5", "empty")  # by how it begins
    with pytest.raises(UnsupportedFormatError if known else CorruptSnapshotError, match=f"x.{kind}"):
        open_run(path)
    assert not verify_run(path).ok


def test_a_flipped_bit_of_a_weight_is_seen(tmp_path: Path) -> None:
    """torch itself loads it as another number."""
    image = bytearray(image_of("pt"))
    place = image.index(TRUE["b"].numpy().tobytes())
    image[place + 2] ^= 1
    (tmp_path / "x.pt").write_bytes(image)
    assert not torch.equal(torch.load(tmp_path / "x.pt", weights_only=True)["state_dict"]["b"], TRUE["b"])
    with pytest.raises(CorruptSnapshotError, match="does not match its checksum"):
        read(tmp_path / "x.pt")


def test_a_compressed_archive_of_torch(tmp_path: Path) -> None:
    with (
        zipfile.ZipFile(io.BytesIO(image_of("pt"))) as source,
        zipfile.ZipFile(tmp_path / "x.pt", "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name) + bytes(10**6))
    with pytest.raises(UnsafeFileError, match="is compressed"):
        read(tmp_path / "x.pt")


def header(entries: dict[str, Any] | str, data: bytes = bytes(24)) -> bytes:
    text = (entries if isinstance(entries, str) else json.dumps(entries)).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(start: int, end: int, shape: Any = (3,), dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


SAFETENSORS = {
    "overlap": header({"a": entry(0, 12), "b": entry(6, 18), "c": entry(12, 24)}),
    "hole": header({"a": entry(0, 12), "b": entry(16, 28)}, bytes(28)),
    "beyond": header({"a": entry(0, 12), "b": entry(12, 24)}, bytes(20)),
    "trailing": header({"a": entry(0, 12)}),
    "shape": header({"a": entry(0, 24)}),
    "large shape": header({"a": entry(0, 24, (2**40, 2**40))}),
    "empty but large": header({"a": entry(0, 24, (6,)), "b": entry(24, 24, (0, 2**62, 2**62))}),
    "negative": header({"a": entry(-12, 12, (6,))}),
    "type": header({"a": entry(0, 24, (3,), "F65")}),
    "twice": header('{"a":{"dtype":"F32","shape":[6],"data_offsets":[0,24]},' * 2 + '"b":1}').replace(b",{", b","),
    "same twice": header(
        '{"a":{"dtype":"F32","shape":[6],"data_offsets":[0,24]},"a":{"dtype":"F32","shape":[6],"data_offsets":[0,24]}}'
    ),
    "no json": header("{x", bytes(8)),
    "list": header("[1]"),
    "nested": header("{" + '"a":{' * 20_000),
    "long header": struct.pack("<Q", 2**63) + b"{}",
    "short": b"\x02",
    "empty": b"",
}


@pytest.mark.parametrize("name", SAFETENSORS)
def test_safetensors_that_are_not_sound(tmp_path: Path, name: str) -> None:
    (tmp_path / "x.safetensors").write_bytes(SAFETENSORS[name])
    with pytest.raises(SnapshotError, match=r"x\.safetensors"):
        read(tmp_path / "x.safetensors")


def test_names_never_become_paths(tmp_path: Path) -> None:
    names = {"../../escape": torch.ones(2), "/etc/passwd": torch.ones(3)}
    safetensors.torch.save_file(names, tmp_path / "x.safetensors")
    import_run([tmp_path / "x.safetensors"], tmp_path / "deep" / "er" / "run")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "x.safetensors"]


@pytest.mark.parametrize("make", HOSTILE)
def test_hdf5_files_that_are_not_plain(tmp_path: Path, one_second: Callable[[], None], make: Make) -> None:
    target, path = tmp_path / "secret.h5", tmp_path / "x.h5"
    for file in (target, path):
        file.write_bytes(image_of("h5"))
    with h5py.File(path, "r+") as opened:
        make(opened, "a/w", target)
    with watching(target) as watch:
        one_second()
        with pytest.raises(HOSTILE[make][0], match=r"x\.h5"):
            read(path)
        assert not watch.opened()


def test_a_group_that_holds_itself_is_walked_once(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    path.write_bytes(image_of("h5"))
    with h5py.File(path, "r+") as opened:
        opened["a/again"] = opened["a"]
        opened["a/root"] = opened["/"]
    assert equal(read(path))


def npy(text: str, data: bytes = bytes(48)) -> bytes:
    padded = text.encode() + b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded + data


NPY = {
    "larger than its file": npy("{'descr':'<f4','fortran_order':False,'shape':(1099511627776,3)}"),
    "negative": npy("{'descr':'<f4','fortran_order':False,'shape':(-3,-4)}"),
    "longer than its file": npy("{'descr':'<f4','fortran_order':False,'shape':(3,5)}"),
    "shorter than its file": npy("{'descr':'<f4','fortran_order':False,'shape':(3,3)}"),
    "objects": npy("{'descr':'|O','fortran_order':False,'shape':(6,)}"),
    "text": npy("{'descr':'<U2','fortran_order':False,'shape':(6,)}"),
    "integers": npy("{'descr':'<i4','fortran_order':False,'shape':(3,4)}"),
    "code": npy("__import__('os').mkdir('proof')"),
    "three axes": npy("{'descr':'<f4','fortran_order':False,'shape':(3,2,2)}"),
    "no axis": npy("{'descr':'<f4','fortran_order':False,'shape':()}", bytes(4)),
    "nested": npy("(" * 9000),
}


@pytest.mark.parametrize("name", NPY)
def test_arrays_that_are_not_plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.npy").write_bytes(NPY[name])
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("theta.npy", NPY[name])
    for suffix in ("npy", "npz"):
        with pytest.raises(SnapshotError, match=rf"x\.{suffix}"):
            read(tmp_path / f"x.{suffix}")
    assert not (tmp_path / "proof").exists()


def test_archives_that_are_not_plain(tmp_path: Path, one_second: Callable[[], None]) -> None:
    zeros = np.lib.format.header_data_from_array_1_0(np.zeros((1, 1)))
    text = npy(str(zeros | {"shape": (2**25,)}), bytes(2**28))
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("theta.npy", text)
    with zipfile.ZipFile(tmp_path / "lzma.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("theta.npy", text[:100])
    with zipfile.ZipFile(tmp_path / "none.npz", "w") as archive:
        archive.writestr("notes.txt", "x")
    with zipfile.ZipFile(tmp_path / "empty.npz", "w"):
        pass
    for name in ("bomb.npz", "lzma.npz", "none.npz", "empty.npz"):
        one_second()
        with pytest.raises(SnapshotError, match=name):
            read(tmp_path / name)


def test_an_archive_that_lost_entries(tmp_path: Path) -> None:
    """A changed length makes the last entry a comment: zipfile shows a shorter list, and no error."""
    image = bytearray(image_of("npz"))
    end = image.rindex(b"PK\x05\x06")
    last = image.rindex(b"PK\x01\x02", 0, end)
    before = image.rindex(b"PK\x01\x02", 0, last)
    image[before + 32 : before + 34] = struct.pack("<H", end - last)
    (tmp_path / "x.npz").write_bytes(image)
    with zipfile.ZipFile(tmp_path / "x.npz") as archive:
        assert len(archive.namelist()) < len(TRUE)
    with pytest.raises(CorruptSnapshotError, match="declares 3 arrays, 2 are listed"):
        read(tmp_path / "x.npz")


def test_what_is_no_plain_file(tmp_path: Path) -> None:
    (tmp_path / "true.pt").write_bytes(image_of("pt"))
    (tmp_path / "link.pt").symlink_to(tmp_path / "true.pt")
    os.mkfifo(tmp_path / "pipe.pt")
    (tmp_path / "folder.pt").mkdir()
    for name, text in (("link", "symbolic link"), ("pipe", "pipe"), ("folder", "directory")):
        with pytest.raises(UnsafeFileError, match=text):
            read(tmp_path / f"{name}.pt")
    with pytest.raises(MissingSnapshotError):
        read(tmp_path / "none.pt")
    for content in (b"", b"hello", b"%PDF-1.4", b"PK\x03\x04", b"\x80\x02}q\x00."):
        (tmp_path / "x.pt").write_bytes(content)
        with pytest.raises(SnapshotError, match=r"x\.pt"):
            read(tmp_path / "x.pt")


AUDIT = """
import sys
from pathlib import Path
from landscape.errors import LandscapeError
from landscape.interchange.formats import read_file

given, seen = sys.argv[1:], []
def hook(event, arguments):
    if event.startswith(("os.mkdir", "os.remove", "os.rename", "os.system", "os.exec", "subprocess", "socket")):
        seen.append((event, str(arguments[:1])))
    elif event == "open" and str(arguments[0]) != current:
        seen.append((event, str(arguments[0])))

def read(path):
    try:
        list(read_file(Path(path)))
    except LandscapeError:
        pass

for current in given:
    read(current)  # what the readers themselves import is imported now
sys.addaudithook(hook)
for current in given:
    read(current)
print(seen)
"""


def test_no_file_is_opened_but_the_one_given(tmp_path: Path) -> None:
    for kind in ("pt", "pth", "safetensors", "h5", "npz", "npy"):
        (tmp_path / f"good.{kind}").write_bytes(image_of(kind))
        (tmp_path / f"bad.{kind}").write_bytes(image_of(kind)[:-30])
    torch.save({"x": Payload(tmp_path / "proof"), "state_dict": TRUE}, tmp_path / "code.pt")
    files = sorted(tmp_path.iterdir())
    assert run_driver(AUDIT, *files).strip() == "[]"
    assert not (tmp_path / "proof").exists()


def test_the_real_process_reads_as_this_one(tmp_path: Path) -> None:
    """Several formats in one go; the error of a file that is refused comes back as it was raised."""
    files = []
    for kind in ("pt", "safetensors", "h5", "npz"):
        files.append(tmp_path / f"x.{kind}")
        files[-1].write_bytes(image_of(kind))
    states = list(reading.read_states(files))
    assert [number for number, _ in states] == [0, 1, 2, 3]
    assert all(equal([state]) for _, state in states)
    assert [state.position for _, state in states] == [{"epoch": 3}, {"step": 4}, {"epoch": 3}, {}]
    torch.save({"x": Payload(tmp_path / "proof")}, tmp_path / "bad.pt")
    found = reading.read_states([*files, tmp_path / "bad.pt"])
    with pytest.raises(UnsafeFileError, match=r"bad\.pt holds more than tensors"):
        list(found)


def endless() -> bytes:
    """A pickle that hashes a tuple of tuples of ..., 2^60 of them: it would take years."""
    body = b"\x80\x02)q\x01" + b"h\x01h\x01\x86q\x01" * 60 + b"}q\x02h\x01K\x01s."
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in (("data.pkl", body), ("version", b"3\n"), ("byteorder", b"little")):
            archive.writestr(f"x/{name}", data)
    return buffer.getvalue()


CHILD = (
    "import landscape.interchange.child as child; child._SECONDS = 3; child._EXTRA_BYTES = 2**28; {}; child.main()"
)


def with_child(monkeypatch: pytest.MonkeyPatch, statement: str = "pass") -> None:
    monkeypatch.setattr(reading, "_COMMAND", (sys.executable, "-P", "-c", CHILD.format(statement)))


def test_a_file_that_takes_too_long_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.pt").write_bytes(endless())
    with_child(monkeypatch)
    with pytest.raises(UnsafeFileError, match=r"x\.pt stopped the process that read it \(SIG(XCPU|KILL)\)"):
        list(reading.read_states([tmp_path / "x.pt"]))


@pytest.mark.parametrize(
    ("statement", "error", "text"),
    [
        ("child.read_file = lambda *a: [bytearray(2**40)]", UnsafeFileError, "more memory than its size"),
        ("import os; child.read_file = lambda *a: os.abort()", UnsafeFileError, "SIGABRT"),
        ("import os; child.read_file = lambda *a: os._exit(3)", SnapshotError, "exit code 3"),
        ("child.read_file = lambda *a: 1 / 0", SnapshotError, "ZeroDivisionError"),
        ("child.write_state = lambda out, *a: out.write(bytes(7))", SnapshotError, "broke off"),
        ("child.write_end = lambda out: None", SnapshotError, "broke off"),
        ("child.write_state = lambda out, *a: out.write(b'\\xff' * 99)", SnapshotError, "broke off"),
    ],
)
@pytest.mark.thorough
def test_a_process_that_breaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statement: str, error: type[Exception], text: str
) -> None:
    (tmp_path / "x.pt").write_bytes(image_of("pt"))
    with_child(monkeypatch, statement)
    with pytest.raises(error, match=text) as caught:
        list(reading.read_states([tmp_path / "x.pt"]))
    assert isinstance(caught.value, LandscapeError)


def test_what_the_process_says_is_not_trusted() -> None:
    good = {"file": 0, "tensors": [], "position": {}, "notes": []}
    wrong: list[dict[str, Any]] = [
        {}, {"file": 1}, {"file": "x"}, {"tensors": 3}, {"tensors": [["a", "float99", [2]]]}, {"position": 3},
        {"tensors": [["a", "float32", [-2]]]}, {"tensors": [["a", "float32", [2**50]]]},
        {"tensors": [["a", "float32", [9]]]},
    ]  # fmt: skip
    for changes in wrong:
        stream = io.BytesIO()
        write_frame(stream, good | changes if changes else {})
        stream.seek(0)
        begun = read_header(stream)
        with pytest.raises(SnapshotError, match="The process that reads the files"):
            read_state(stream, begun, 1)


def test_frames_keep_every_type() -> None:
    dtypes = (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool)
    tensors = {str(dtype): torch.tensor([[1, 0, 3]]).to(dtype) for dtype in dtypes}
    tensors |= {
        "scalar": torch.tensor(2.5),
        "none": torch.empty(0, 3),
        "turned": torch.arange(6.0).reshape(2, 3).T,
    }
    stream = io.BytesIO()
    write_state(stream, 0, State(tensors, {"step": 2}, ("a",)))
    stream.seek(0)
    begun = read_header(stream)
    _, state = read_state(stream, begun, 1)
    assert list(state.tensors) == list(tensors) and state.position == {"step": 2} and state.notes == ("a",)
    for name, tensor in tensors.items():
        assert state.tensors[name].dtype == tensor.dtype and torch.equal(state.tensors[name], tensor)
    with pytest.raises(SnapshotError, match="broke off"):
        read_header(stream)


def test_nothing_is_left_when_the_second_file_is_bad(tmp_path: Path) -> None:
    (tmp_path / "a_1.pt").write_bytes(image_of("pt"))
    (tmp_path / "a_2.pt").write_bytes(image_of("pt")[:-40])
    with pytest.raises(CorruptSnapshotError, match=r"a_2\.pt"):
        import_run([tmp_path / "a_1.pt", tmp_path / "a_2.pt"], tmp_path / "run", ImportOptions())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a_1.pt", "a_2.pt"]
