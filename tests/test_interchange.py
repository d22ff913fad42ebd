"""Weights from other programs become runs, and go back bit by bit."""

from __future__ import annotations

import argparse
import json
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import safetensors.torch
import small_runs
import torch
from click.testing import CliRunner
from small_runs import SMALL
from torch import Tensor, nn

from landscape.errors import (
    ConfigurationError,
    LandscapeError,
    ModelError,
    NotFiniteError,
    RunConflictError,
    UnsafeFileError,
    UnsupportedFormatError,
)
from landscape.interchange import ImportOptions, collecting, export_snapshot, import_run, parse_mapping
from landscape.interchange.formats import read_file
from landscape.interchange.naming import renamed
from landscape.interchange.ordering import order_of
from landscape.interchange.state import State
from landscape.problem import datasets
from landscape.problem.models import build_model, initialise
from landscape.snapshots import load_snapshot, open_run, verify_run
from landscape.study.ledger import Ledger
from landscape.study.measure_config import MeasureConfig
from landscape.study.selection import cells_of
from landscape.study.survey import execute, make_plan

ARGUMENTS = {"image_size": 4, "hidden": [3], "num_classes": 2}
MODEL = ImportOptions(model="mlp", model_args=ARGUMENTS)


def weights(seed: int = 0) -> dict[str, Tensor]:
    model = build_model("mlp", ARGUMENTS)
    initialise(model, torch.Generator().manual_seed(seed))
    return {name: value.clone() for name, value in model.state_dict().items()}


def read_here(files: Sequence[Path], key: str | None, mapped: Sequence[str]) -> Iterator[tuple[int, State]]:
    """Without a process of its own, which takes seconds to start."""
    for number, file in enumerate(files):
        for state in read_file(file, key, mapped):
            yield number, state


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "read_states", read_here)
    monkeypatch.setitem(datasets.DATASETS, SMALL, small_runs.small_mnist)


def equal(found: dict[str, Tensor], true: dict[str, Tensor]) -> bool:
    return list(found) == list(true) and all(torch.equal(found[name], true[name]) for name in true)


def imported(tmp_path: Path, *files: Path, **changes: Any) -> dict[str, Tensor]:
    import_run(files, tmp_path / "run", ImportOptions(**(vars(MODEL) | changes)))
    assert verify_run(tmp_path / "run").ok
    return load_snapshot(tmp_path / "run").parameters


def prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


class Metric:
    """Something that only the program that wrote it knows."""


CHECKPOINTS: dict[str, tuple[Any, str]] = {
    "bare": (weights(), ""),
    "ordered": (OrderedDict(weights()), ""),
    "state_dict": ({"state_dict": weights(), "epoch": 3}, "took the weights under 'state_dict'"),
    "model": ({"model": weights(), "optimizer": {"state": {}}}, "ignored the optimizer's state: optimizer"),
    "model_state_dict": (
        {"model_state_dict": weights(), "optimizer_state_dict": {"lr": 1.0}},
        "optimizer_state_dict",
    ),
    "data parallel": (prefixed("module.", weights()), "stripped the prefix 'module.'"),
    "compiled": ({"model": prefixed("module._orig_mod.", weights())}, "stripped the prefix 'module._orig_mod.'"),
    "lightning": (
        {
            "state_dict": prefixed("model.", weights()),
            "epoch": 1,
            "global_step": 40,
            "optimizer_states": [{"state": {}}],
            "lr_schedulers": [],
            "loops": {},
            "callbacks": {"ModelCheckpoint{}": {"best_model_score": torch.tensor(0.5)}},
            "hyper_parameters": {"lr": 0.1},
        },
        "stripped the prefix 'model.'",
    ),
    "timm": (
        {
            "arch": "mlp",
            "args": argparse.Namespace(lr=0.1),
            "state_dict": weights(),
            "state_dict_ema": weights(1),
            "epoch": 2,
        },
        "--key state_dict_ema",
    ),
    "parameters": (nn.ParameterDict(dict(zip("abcd", weights().values(), strict=True))).state_dict(), ""),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_torch_checkpoints(tmp_path: Path, name: str) -> None:
    value, text = CHECKPOINTS[name]
    torch.save(value, tmp_path / "x.pt")
    model = {} if name != "parameters" else {"model": None}
    result = import_run([tmp_path / "x.pt"], tmp_path / "run", ImportOptions(**(vars(MODEL) | model)))
    found = load_snapshot(tmp_path / "run").parameters
    assert all(torch.equal(a, b) for a, b in zip(found.values(), weights().values(), strict=True))
    assert name == "parameters" or list(found) == list(weights())
    assert text in " ".join(result.notes)


def test_the_old_format_of_torch(tmp_path: Path) -> None:
    torch.save(weights(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert equal(imported(tmp_path, tmp_path / "old.pth"), weights())


def test_a_chosen_entry(tmp_path: Path) -> None:
    torch.save({"a": weights(1), "b": weights(2)}, tmp_path / "x.pt")
    with pytest.raises(UnsupportedFormatError, match=r"has a, b\. Name the entry with --key"):
        imported(tmp_path, tmp_path / "x.pt")
    assert equal(imported(tmp_path, tmp_path / "x.pt", key="b"), weights(2))


def test_code_is_never_run(tmp_path: Path) -> None:
    for number, value in enumerate(({"state_dict": weights(), "metric": Metric()}, nn.Linear(2, 2))):
        torch.save(value, tmp_path / f"{number}.pt")
        with pytest.raises(
            UnsafeFileError, match=r"holds more than tensors: .*(Metric|Linear).*torch\.save\(model"
        ):
            imported(tmp_path, tmp_path / f"{number}.pt")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".npy", ".h5", ".npz"])
def test_round_trips_are_exact(tmp_path: Path, suffix: str) -> None:
    """Out and in again: the same bits, the same digest, the same run_id; also of odd numbers."""
    odd = weights()
    odd["1.bias"][:] = torch.tensor([-0.0, 1e-45, 3.4e38])
    torch.save({"model": odd, "epoch": 4, "step": 70}, tmp_path / "x.pt")
    imported(tmp_path, tmp_path / "x.pt")
    first = load_snapshot(tmp_path / "run")
    export_snapshot(first, tmp_path / f"y{suffix}")
    import_run([tmp_path / f"y{suffix}"], tmp_path / "again", MODEL)
    second = load_snapshot(tmp_path / "again")
    assert (first.theta_sha256, first.run_id) == (second.theta_sha256, second.run_id)
    assert [t.numpy().tobytes() for t in second.parameters.values()] == [t.numpy().tobytes() for t in odd.values()]
    if suffix in (".safetensors", ".h5"):
        assert (second.position.step, second.position.epoch) == (70, 4)
    with pytest.raises(RunConflictError, match="already exists"):
        export_snapshot(first, tmp_path / f"y{suffix}")


def test_others_read_what_is_exported(tmp_path: Path) -> None:
    torch.save(weights(), tmp_path / "x.pt")
    imported(tmp_path, tmp_path / "x.pt")
    snapshot = load_snapshot(tmp_path / "run")
    for suffix in (".pt", ".safetensors", ".npy", ".h5"):
        export_snapshot(snapshot, tmp_path / f"y{suffix}")
    assert equal(torch.load(tmp_path / "y.pt", weights_only=True), weights())
    build_model("mlp", ARGUMENTS).load_state_dict(safetensors.torch.load_file(tmp_path / "y.safetensors"))
    with h5py.File(tmp_path / "y.h5") as file:
        assert equal({name: torch.from_numpy(file[name][()]) for name in weights()}, weights())
    flat = np.concatenate([value.numpy().ravel() for value in weights().values()])
    assert np.array_equal(np.load(tmp_path / "y.npy", allow_pickle=False), flat)
    with pytest.raises(ConfigurationError, match=r"must end in one of \.safetensors, \.pt, \.npy, \.h5"):
        export_snapshot(snapshot, tmp_path / "y.onnx")


def test_safetensors_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    safetensors.torch.save_file(weights(), tmp_path / "x.safetensors")
    monkeypatch.setitem(__import__("sys").modules, "safetensors.torch", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'landscape-torch\[import\]'"):
        list(read_file(tmp_path / "x.safetensors"))


def test_bare_hdf5_with_groups(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for name, value in weights().items():
            file.create_dataset(name.replace(".", "/"), data=value.numpy().astype(">f4"), compression="gzip")
        file.attrs["epoch"] = 7
    assert equal(imported(tmp_path, tmp_path / "x.h5"), weights())
    assert open_run(tmp_path / "run").epoch.tolist() == [7]


def test_keras_files_need_a_mapping(tmp_path: Path) -> None:
    """Kernels (in, out) and (height, width, in, out) come transposed, and only what is mapped comes at all."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, (4, 5)), nn.Flatten(), nn.Linear(3, 2))
    true = {name: torch.randn(value.shape, generator=generator) for name, value in model.state_dict().items()}
    with h5py.File(tmp_path / "x.weights.h5", "w") as file:
        file["layers/conv2d/vars/0"] = true["0.weight"].permute(2, 3, 1, 0).numpy()
        file["layers/conv2d/vars/1"] = true["0.bias"].numpy()
        file["layers/dense/vars/0"] = true["2.weight"].T.numpy()
        file["layers/dense/vars/1"] = true["2.bias"].numpy()
        file["optimizer/vars/0"] = np.array(5)
    with pytest.raises(UnsupportedFormatError, match=r"Keras file.*--map.*layers/conv2d/vars/0 \(4, 5, 2, 3\)"):
        imported(tmp_path, tmp_path / "x.weights.h5", model=None)
    texts = {
        "layers/conv2d/vars/0": "0.weight@3,2,0,1",
        "layers/conv2d/vars/1": "0.bias",
        "layers/dense/vars/0": "2.weight@1,0",
        "layers/dense/vars/1": "2.bias",
    }
    mappings = tuple(parse_mapping(f"{old}={new}") for old, new in texts.items())
    found = imported(tmp_path, tmp_path / "x.weights.h5", model=None, model_args={}, mappings=mappings)
    assert equal(found, true)


def test_matrices_hold_one_snapshot_a_row(tmp_path: Path) -> None:
    rows = np.stack([torch.cat([v.reshape(-1) for v in weights(seed).values()]).numpy() for seed in range(3)])
    np.save(tmp_path / "x.npy", np.asfortranarray(rows))
    np.savez_compressed(tmp_path / "y.npz", theta=rows[::-1], step=[30, 20, 10], epoch=[3, 2, 1])
    np.savez(tmp_path / "z.npz", **{name: value.numpy() for name, value in weights(2).items()})  # type: ignore[arg-type]
    for name, steps in (("x.npy", [0, 1, 2]), ("y.npz", [10, 20, 30])):
        import_run([tmp_path / name], tmp_path / name[0], MODEL)
        run = open_run(tmp_path / name[0])
        assert run.step.tolist() == steps
        assert all(np.array_equal(run.read(i), rows[i]) for i in range(3))
    assert equal(imported(tmp_path, tmp_path / "z.npz"), weights(2))
    with pytest.raises(UnsupportedFormatError, match=r"x\.npy.*Give --model"):
        import_run([tmp_path / "x.npy"], tmp_path / "no")
    other = ImportOptions("mlp", ARGUMENTS | {"hidden": [1]})
    with pytest.raises(UnsupportedFormatError, match=r"a row has 59 numbers, the model 21"):
        import_run([tmp_path / "x.npy"], tmp_path / "no", other)


def zoo(folder: Path, count: int = 3) -> Path:
    for epoch in range(count):
        place = folder / f"checkpoint_{epoch:06d}"
        place.mkdir(parents=True)
        torch.save(weights(epoch), place / "checkpoints")
        torch.save({"state": {}}, place / "optimizer")
    facts = {
        "optim::optimizer": "adam",
        "optim::lr": 0.01,
        "training::batchsize": 32,
        "seed": 4,
        "model::nlin": "tanh",
    }
    (folder / "params.json").write_text(json.dumps(facts))
    return folder


def test_a_model_zoo_folder(tmp_path: Path) -> None:
    result = import_run([zoo(tmp_path / "NN_tune_1")], tmp_path / "run", MODEL)
    run = open_run(tmp_path / "run")
    assert run.epoch.tolist() == [0, 1, 2] and "optimizer" in " ".join(result.notes)
    known = {"optimizer": "adam", "learning_rate": 0.01, "batch_size": 32, "seed": 4}
    assert known.items() <= run.description.config.items()
    assert equal(load_snapshot(tmp_path / "run", "epoch=1").parameters, weights(1))


def test_a_folder_of_checkpoints(tmp_path: Path) -> None:
    for epoch in (2, 10, 1):
        torch.save(weights(epoch), tmp_path / f"resnet18_{epoch}.pt")
    (tmp_path / "notes.txt").write_text("x")
    import_run([tmp_path], tmp_path / "run", MODEL)
    run = open_run(tmp_path / "run")
    assert run.step.tolist() == [1, 2, 10]
    assert torch.equal(load_snapshot(tmp_path / "run").parameters["1.bias"], weights(10)["1.bias"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UnsupportedFormatError, match="holds no checkpoint"):
        import_run([tmp_path / "empty"], tmp_path / "no", MODEL)


S, E = "step", "epoch"
ORDERS: list[tuple[list[str], list[dict[str, int]], list[int] | str]] = [
    (["b.pt", "a.pt"], [{S: 10}, {S: 5}], [10, 5]),
    (["b.pt", "a.pt"], [{E: 0, S: 10}, {E: 0, S: 5}], [10, 5]),
    (["b.pt", "a.pt"], [{E: 2}, {E: 1}], [2, 1]),
    (["epoch=3-step=400.ckpt", "epoch=12-step=1300.ckpt"], [{}, {}], [400, 1300]),
    (["net_epoch_7.pt", "net_epoch_10.pt"], [{}, {}], [7, 10]),
    (["step512/model.safetensors", "step64/model.safetensors"], [{}, {}], [512, 64]),
    (["model_300.t7", "model_20.t7"], [{}, {}], [300, 20]),
    (["model_300.t7", "model_20.t7"], [{E: 0}, {E: 0}], [300, 20]),
    (["x.pt"], [{}], [0]),
    (["x.pt"], [{S: 9}], [9]),
    (["x.npy", "x.npy"], [{}, {}], [0, 1]),
    (["a.pt", "b.pt"], [{S: 5}, {S: 5}], "tell their order"),
    (["a.pt", "b.pt", "c.pt"], [{S: 5}, {S: 5}, {S: 6}], "have the same step 5"),
    (["a1_b1.pt", "a2_b2.pt"], [{}, {}], "differ in several numbers"),
    (["lr1_ep1.pt", "lr2_ep2.pt"], [{}, {}], "differ in 'lr', as files of several runs do"),
    (["net_lr0.2_ep3.pt", "net_lr0.05_ep4.pt"], [{E: 3}, {E: 4}], "differ in 'lr', as files of several runs do"),
    (["final_seed0.pt", "final_seed1.pt"], [{}, {}], "differ in 'seed', as files of several runs do"),
    (["net_s0.pt", "net_s1.pt"], [{}, {}], "Import each run by itself"),
    (["net_0.2.pt", "net_0.05.pt"], [{}, {}], "tell their order"),
    (["acc0.91_9.pt", "acc0.93_10.pt"], [{}, {}], [9, 10]),
    (["net_lr0.05_s0_ep1.pt", "net_lr0.05_s0_ep3.pt", "net_lr0.05_s0_ep2.pt"], [{}, {}, {E: 2}], [1, 3, 2]),
    (["e10.pth", "e9.pth"], [{}, {}], [10, 9]),
    (["ckpt_1.pt", "ckpt_2.pt", "ckpt_3.pt"], [{}, {E: 2}, {}], [1, 2, 3]),
    (["a.pt", "b.pt"], [{}, {}], "tell their order"),
    (["a1.pt", "b01.pt"], [{}, {}], "tell their order"),
    (["a.pt", "b.pt"], [{S: 5, E: 2}, {S: 6, E: 1}], "in another by what they say"),
]


@pytest.mark.parametrize(("names", "positions", "expected"), ORDERS)
def test_the_order_of_snapshots(
    names: list[str], positions: list[dict[str, int]], expected: list[int] | str
) -> None:
    if isinstance(expected, list):
        assert [place.number for place in order_of(names, positions).places] == expected
        return
    with pytest.raises(UnsupportedFormatError, match=expected):
        order_of(names, positions)


def test_a_given_order_keeps_what_the_files_say() -> None:
    order = order_of(["b.pt", "a.pt", "c.pt"], [{E: 1}, {}, {E: 2, S: 90}], given=True)
    assert [(p.step, p.epoch, p.ends_epoch) for p in order.places] == [(0, 1, True), (1, 1, False), (90, 2, True)]
    with pytest.raises(UnsupportedFormatError, match="in another by what they say"):
        order_of(["b.pt", "a.pt"], [{E: 2}, {E: 1}], given=True)


def test_silent_files_lie_in_the_last_epoch_that_is_known() -> None:
    order = order_of(["c_1.pt", "c_2.pt", "c_3.pt"], [{}, {E: 2}, {}])
    assert [(p.step, p.epoch, p.ends_epoch) for p in order.places] == [(1, 0, False), (2, 2, True), (3, 2, False)]


def test_names_are_renamed_once_and_only_where_it_is_needed() -> None:
    one, two = torch.zeros(1), torch.ones(2)
    assert renamed({"module.a": one}, [], [], None) == ({"a": one}, ["stripped the prefix 'module.'"])
    assert renamed({"model.a": one}, [], [], frozenset({"model.a"})) == ({"model.a": one}, [])
    assert renamed({"model.model.a": one}, [], [], frozenset({"model.a"}))[0] == {"model.a": one}
    assert renamed({"model.a": one, "b": two}, [], [], None)[0] == {"model.a": one, "b": two}
    assert renamed({"x.a": one, "b": two}, [], ["x."], None)[0] == {"a": one, "b": two}
    assert renamed({"module.kernel:0": one}, [parse_mapping("kernel:0=w")], [], None)[0] == {"w": one}
    swapped = renamed({"a": one, "b": two}, [parse_mapping("a=b"), parse_mapping("b=a")], [], None)[0]
    assert swapped == {"b": one, "a": two}


@pytest.mark.parametrize(
    ("mappings", "strip", "text"),
    [
        (["a=b"], [], "twice"),
        (["c=b"], [], "mapped names c are not there"),
        (["a=x", "a=y"], [], "twice"),
        ([], ["x."], "No name begins with"),
        ([], ["a"], "one is empty"),
        (["a=x@1,0"], [], "has 1 axes, its mapping 2"),
    ],
)
def test_mappings_that_cannot_be(mappings: list[str], strip: list[str], text: str) -> None:
    with pytest.raises(LandscapeError, match=text):
        renamed({"a": torch.zeros(1), "b": torch.ones(2)}, [parse_mapping(m) for m in mappings], strip, None)


@pytest.mark.parametrize("text", ["a", "=b", "a=", "a=b@", "a=b@1", "a=b@0,0", "a=b@x"])
def test_mappings_that_cannot_be_read(text: str) -> None:
    with pytest.raises(ConfigurationError, match="write old=new"):
        parse_mapping(text)


def test_what_does_not_fit_says_how(tmp_path: Path) -> None:
    wrong = weights()
    wrong["1.weight"] = torch.zeros(3, 9)
    wrong["head.weight"] = wrong.pop("3.weight")
    torch.save(wrong, tmp_path / "x.pt")
    text = r"x\.pt.*missing 3\.weight \(2, 3\); unexpected head\.weight \(2, 3\); 1\.weight has shape"
    with pytest.raises(ModelError, match=text):
        imported(tmp_path, tmp_path / "x.pt")
    torch.save(weights(), tmp_path / "a_1.pt")
    torch.save({**weights(), "more": torch.zeros(2)}, tmp_path / "a_2.pt")
    with pytest.raises(UnsupportedFormatError, match=r"a_2\.pt.*first snapshot: unexpected more \(2,\)"):
        imported(tmp_path, tmp_path / "a_1.pt", tmp_path / "a_2.pt", model=None, model_args={})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a_1.pt", "a_2.pt", "x.pt"]


def test_types_are_told_and_kept_where_float32_can(tmp_path: Path) -> None:
    for dtype, text in (
        (torch.bfloat16, "bfloat16 is stored as float32, exactly"),
        (torch.float16, "float16 is stored as float32, exactly"),
        (torch.float64, "float64 is stored as float32, rounded in {} of 59 weights"),
    ):
        changed = {name: (value.double() / 3).to(dtype) for name, value in weights().items()}
        torch.save(changed, tmp_path / "x.pt")
        run = tmp_path / str(dtype)
        notes = import_run([tmp_path / "x.pt"], run, MODEL).notes
        rounded = sum(int((value.float().to(dtype) != value).sum()) for value in changed.values())
        assert rounded == 0 or rounded > 40
        assert any(text.format(rounded) in note for note in notes)
        assert equal(load_snapshot(run).parameters, {name: value.float() for name, value in changed.items()})


def test_weights_that_are_no_numbers(tmp_path: Path) -> None:
    for value, text in (
        (torch.nan, r"1\.weight \(1\)"),
        (torch.tensor(1e300, dtype=torch.float64), "beyond float32"),
    ):
        broken = {name: tensor.double() for name, tensor in weights().items()}
        broken["1.weight"][0, 0] = value
        torch.save(broken, tmp_path / "x.pt")
        with pytest.raises(NotFiniteError, match=text):
            imported(tmp_path, tmp_path / "x.pt")
    torch.save({"a": torch.arange(3)}, tmp_path / "x.pt")
    with pytest.raises(UnsupportedFormatError, match="holds no parameters"):
        imported(tmp_path, tmp_path / "x.pt", model=None, model_args={})


def small_import(tmp_path: Path, **changes: Any) -> Path:
    model = build_model("logistic")
    for epoch in range(2):
        initialise(model, torch.Generator().manual_seed(epoch))
        torch.save({"state_dict": model.state_dict(), "epoch": epoch}, tmp_path / f"{epoch}.pt")
    options = ImportOptions(**({"model": "logistic", "dataset": SMALL} | changes))
    return import_run([tmp_path / "0.pt", tmp_path / "1.pt"], tmp_path / "run", options).path


def rows_of(path: Path, ledger: Path) -> list[dict[str, Any]]:
    from concurrent.futures import ThreadPoolExecutor

    config = MeasureConfig(
        levels=(1.7,), theta_samples=20, x_samples=2, attack_samples=40, ladder_samples=10, eigen_tol=0.1, tol=0.1
    )
    with Ledger(ledger) as opened:
        plan = make_plan([path], "last", config, opened, "cpu")
        return [*plan.unreadable, *execute(plan, opened, lambda: ThreadPoolExecutor(1), workers=1)]


def test_an_imported_run_is_measured(tmp_path: Path) -> None:
    """Its settings may be unknown; samples seen come from the epoch and the data."""
    path = small_import(tmp_path)
    (row,) = rows_of(path, tmp_path / "ledger.sqlite")
    assert row["status"] == "ok" and row["learning_rate"] is None and row["optimizer"] is None
    assert row["epoch"] == 1 and row["samples_seen"] == small_runs.COUNTS["train"]


def test_settings_that_are_known_are_kept(tmp_path: Path) -> None:
    known = {"optimizer": "sgd", "learning_rate": 0.1, "batch_size": 8, "seed": 1}
    config = open_run(small_import(tmp_path, settings=known)).description.config
    assert {name: config[name] for name in known} == known
    for wrong in ({"betas": [0.9]}, {"seed": "1"}, {"batch_size": True}, {"dropout": float("nan")}):
        with pytest.raises(ConfigurationError, match=r"settings .* of a wrong kind"):
            import_run([tmp_path / "0.pt"], tmp_path / "no", ImportOptions(settings=wrong))
    for low in ({"learning_rate": 0}, {"learning_rate": -0.1}, {"batch_size": 0}, {"momentum": 1}):
        with pytest.raises(ConfigurationError, match="cannot be"):
            import_run([tmp_path / "0.pt"], tmp_path / "no", ImportOptions(settings=low))


def test_further_settings_tell_cells_apart(tmp_path: Path) -> None:
    """By momentum, or by anything else that a user names, runs are no replicates of each other."""
    told: tuple[dict[str, Any], ...]
    told = ({"weight_decay": 0.1}, {"weight_decay": 0.01}, {"momentum": 0.9}, {"augmentation": "crops"}, {}, {})
    rows = []
    for number, settings in enumerate(told):
        folder = tmp_path / str(number)
        folder.mkdir()
        rows += rows_of(small_import(folder, settings=settings), folder / "ledger.sqlite")
    others = [set(row["other_settings"].split(",")) - {f"dataset={SMALL}"} for row in rows]
    assert others == [
        {"weight_decay=0.1"},
        {"weight_decay=0.01"},
        {"momentum=0.9"},
        {"augmentation=crops"},
        set(),
        set(),
    ]
    *distinct, first, second = cells_of(rows)
    assert len({*distinct, first}) == 5 and first == second


def test_without_a_dataset_it_says_so(tmp_path: Path) -> None:
    (row,) = rows_of(small_import(tmp_path, dataset=None), tmp_path / "ledger.sqlite")
    assert row["status"] == "failed" and "imported without its dataset" in row["error"]


def test_runs_of_other_weights_are_other_runs(tmp_path: Path) -> None:
    torch.save(weights(1), tmp_path / "x.pt")
    torch.save(weights(2), tmp_path / "y.pt")
    names = [import_run([tmp_path / f"{n}.pt"], tmp_path / n, MODEL).run_id for n in "xy"]
    names.append(import_run([tmp_path / "x.pt"], tmp_path / "z", MODEL).run_id)
    assert names[0] != names[1] and names[0] == names[2]


def test_an_existing_run_is_never_touched(tmp_path: Path) -> None:
    torch.save(weights(), tmp_path / "x.pt")
    (tmp_path / "run").mkdir()
    with pytest.raises(RunConflictError, match="already exists"):
        imported(tmp_path, tmp_path / "x.pt")


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": weights(), "optimizer": {}}, "x.pt")
    arguments = ["x.pt", "--model", "mlp", "--model-args", json.dumps(ARGUMENTS), "--output", "run", "--json"]
    runner = CliRunner()
    (script,) = entry_points(group="console_scripts", name="landscape")
    main = script.load()
    done = runner.invoke(main, ["snapshots", "import", *arguments])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["results"]["snapshots"] == 1
    assert "ignored the optimizer's state: optimizer" in done.stderr
    done = runner.invoke(main, ["snapshots", "export", "run", "--to", "y.safetensors"])
    assert (done.exit_code, done.stdout) == (0, "y.safetensors\n")
    found = safetensors.torch.load_file("y.safetensors")  # in the order of the alphabet
    assert equal({name: found[name] for name in weights()}, weights())
    for wrong in ("--model-args=[1]", "--settings=x", "--order=random"):
        assert runner.invoke(main, ["snapshots", "import", "x.pt", "--output", "z", wrong]).exit_code == 2


@pytest.mark.parametrize("suffix", [".pt", ".npy", ".npz", ".safetensors"])
def test_weights_that_were_not_imported_are_told_from_damaged_runs(tmp_path: Path, suffix: str) -> None:
    exported = export_snapshot(load_snapshot("embedded:runs/sgd_lr0.2_b16_seed0"), tmp_path / f"x{suffix}")
    with pytest.raises(UnsupportedFormatError, match=rf"Import it first: .*{exported.name}"):
        open_run(exported)
