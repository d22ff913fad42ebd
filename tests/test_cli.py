"""The command line as a user meets it: streams, exit codes, JSON, wrong arguments, damaged files."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from click.testing import CliRunner, Result

import landscape
from landscape.problem import datasets
from landscape.snapshots import find_runs, open_run, resolve
from landscape.study.problems import load_problem, theta_objective

RUN = "embedded:runs/sgd_lr0.05_b16_seed0"
FEW = ["--theta-samples", "100", "--x-samples", "4", "--attack-samples", "100", "--level", "ln2", "--workers", "1"]

Invoke = Callable[..., Result]

pytestmark = pytest.mark.usefixtures("in_this_process")


@pytest.fixture(scope="session")
def command() -> click.Group:
    """The console script, found as an installer would."""
    (script,) = entry_points(group="console_scripts", name="landscape")
    group: click.Group = script.load()
    return group


@pytest.fixture
def invoke(command: click.Group) -> Iterator[Invoke]:
    threads = torch.get_num_threads()
    yield lambda *arguments: CliRunner().invoke(command, [str(a) for a in arguments], catch_exceptions=False)
    torch.set_num_threads(threads)


@pytest.fixture
def run_copy(tmp_path: Path) -> Path:
    """A folder with a copy of one embedded run."""
    source = resolve(RUN)
    shutil.copytree(source, tmp_path / "runs" / source.name)
    return tmp_path / "runs" / source.name


def leaves(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    context = click.Context(group)
    found = []
    for name in group.list_commands(context):
        child = group.get_command(context, name)
        found += leaves(child, (*path, name)) if isinstance(child, click.Group) else [(*path, name)]
    return found


def test_every_command_has_help_with_its_options(command: click.Group, invoke: Invoke) -> None:
    for path in leaves(command):
        result = invoke(*path, "--help")
        assert result.exit_code == 0
        assert "Usage:" in result.stdout
        assert len(result.stdout.splitlines()) > 5


def test_help_loads_nothing_heavy() -> None:
    script = (
        "import sys; from importlib.metadata import entry_points\n"
        "main = list(entry_points(group='console_scripts', name='landscape'))[0].load()\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "print(sorted({'torch', 'numpy', 'h5py', 'matplotlib', 'scipy', 'torchvision'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[]"


def test_hessian_agrees_with_an_independent_float64_product(invoke: Invoke) -> None:
    result = invoke("hessian", "--snapshot", RUN, "--top-k", "5", "--samples", "200", "--json")
    document = json.loads(result.stdout)
    assert result.exit_code == 0
    eigenvalues = document["results"]["eigenvalues"][0]
    assert max(document["results"]["residuals"][0]) <= 1e-3
    problem = load_problem(landscape.load_snapshot(RUN), "cpu").double()
    phi = theta_objective(problem, 200, 0)
    exact = landscape.top_eigenpairs(phi, 5, tol=1e-8)
    assert eigenvalues == pytest.approx(exact.eigenvalues[0].tolist(), rel=1e-4)
    # The product of plain double backward shares no code with the library's.
    theta = phi.origin[0].clone().requires_grad_()
    parameters, offset = {}, 0
    for name, p in problem.model.named_parameters():
        parameters[name] = theta[offset : offset + p.numel()].view_as(p)
        offset += p.numel()
    logits = torch.func.functional_call(problem.model, parameters, (phi.x,))
    (gradient,) = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, phi.y), theta, create_graph=True)
    for value, vector in zip(exact.eigenvalues[0], exact.eigenvectors[0], strict=True):
        (image,) = torch.autograd.grad(gradient, theta, vector, retain_graph=True)
        assert torch.linalg.vector_norm(image - value * vector) <= 1e-3 * value.abs()


def test_hessian_per_image_and_both_ends(invoke: Invoke) -> None:
    result = invoke(
        "hessian", "--snapshot", RUN, "--space", "x", "--samples", "3", "--top-k", "2", "--which", "LM"
    )
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 1 + 3 * 2


def test_unconverged_pairs_are_marked_with_exit_code_3(invoke: Invoke) -> None:
    result = invoke("hessian", "--snapshot", RUN, "--samples", "50", "--top-k", "3", "--max-steps", "4")
    assert result.exit_code == 3
    assert "NO" in result.stdout


def test_width_json_holds_distances_evidence_and_flags(invoke: Invoke) -> None:
    arguments = ("--samples", "100", "--x-samples", "3", "--level", "1e-9", "--level", "ln2", "--json")
    result = invoke("width", "--snapshot", RUN, *arguments)
    theta = json.loads(result.stdout)["results"]["theta"]
    assert result.exit_code == 0
    assert theta[0]["grade"] == "below_minimum"
    assert theta[0]["d"] is None
    assert theta[1]["grade"] in ("strong", "fair", "weak")
    assert theta[1]["w"] == pytest.approx(theta[1]["d"] / (0.6931471805599453 - _minimum(result)))
    assert theta[1]["level_error"] <= 1e-4


@pytest.mark.thorough
def test_width_in_every_geometry(invoke: Invoke) -> None:
    few = ("--samples", "100", "--x-samples", "2", "--level", "ln2", "--json")
    geometry = ("--x-norm", "inf", "--box", "--metric", "filter", "--no-biases", "--theta-norm", "inf")
    result = invoke("width", "--snapshot", RUN, *few, *geometry, "--joint", "--per-sample", "2", "--certify", "1")
    results = json.loads(result.stdout)["results"]
    assert result.exit_code == 0
    assert set(results) == {"minimum", "theta", "x", "joint", "per_sample", "certified", "cost"}
    assert 0 < results["certified"]["distance"][0][0] <= results["x"]["distance"][0][0]
    assert results["joint"]["distance"][0][0] > 0
    assert len(results["per_sample"]["distance"]) == 2
    table = invoke("width", "--snapshot", RUN, *few[:-1], *geometry).stdout
    assert "no lower bound in θ is known" in table
    assert "∞-norm in [0, 1]" in table


def test_width_refuses_geometry_with_curves_and_too_many_images(invoke: Invoke) -> None:
    curve = invoke("width", "--snapshot", RUN, "--curve", "--x-norm", "inf")
    assert (curve.exit_code, "not with --curve" in curve.stderr) == (2, True)
    many = invoke("width", "--snapshot", RUN, "--x-samples", "2", "--certify", "3")
    assert (many.exit_code, "measure more images" in many.stderr) == (1, True)


def _minimum(result: Result) -> float:
    return float(json.loads(result.stdout)["results"]["minimum"]["loss"])


def test_attack_table_starts_with_clean_accuracy(invoke: Invoke) -> None:
    result = invoke("attack", "--snapshot", RUN, "--eps", "0.3", "--samples", "200", "--json")
    rows = json.loads(result.stdout)["results"]
    assert rows[0]["published"] == rows[0]["exact"] > 0.9
    assert rows[1]["exact"] < 0.5


def test_json_document_has_the_agreed_keys(invoke: Invoke) -> None:
    for arguments in (("snapshots", "list", RUN), ("snapshots", "info", RUN), ("snapshots", "verify", RUN)):
        document = json.loads(invoke(*arguments, "--json").stdout)
        assert set(document) == {"schema", "command", "inputs", "results", "provenance"}


def test_measure_computes_nothing_twice(invoke: Invoke, run_copy: Path) -> None:
    first = invoke("measure", run_copy.parent, *FEW, "--json")
    second = invoke("measure", run_copy.parent, *FEW, "--json")
    assert first.exit_code == second.exit_code == 0
    assert "1 to measure" in first.stderr
    assert "0 to measure" in second.stderr
    assert json.loads(first.stdout)["results"] == json.loads(second.stdout)["results"]
    assert (run_copy.parent / "ledger.sqlite").exists()


@pytest.mark.thorough
def test_correlate_writes_figures_table_and_verdict(invoke: Invoke, run_copy: Path, tmp_path: Path) -> None:
    others = [path for path in find_runs(["embedded:runs"]) if path.name.startswith("sgd_lr0.05_b16")][1:3]
    for other in others:
        shutil.copytree(other, run_copy.parent / other.name)
    damaged = run_copy.parent / "damaged"
    shutil.copytree(others[0], damaged)
    segment = next((damaged / "segments").iterdir())
    segment.write_bytes(segment.read_bytes()[:10_000])
    result = invoke("correlate", run_copy.parent, *FEW, "--output", tmp_path / "out")
    assert result.exit_code == 3  # finished, one run failed
    assert "damaged" in result.stderr
    assert "3 of 4 rows are used" in " ".join(result.stdout.split())
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"rows.csv", "correlations.json", "w_theta-w_x.png", "d_theta-d_x.pdf", "lambda_1-fgsm.svg"} <= names
    assert sum(name.endswith(".png") for name in names) == 5
    document = json.loads((tmp_path / "out" / "correlations.json").read_text())
    assert document["correlations"]["verdict"]


WRONG_USAGE = (
    ("hessian", "--snapshot", RUN, "--top-k", "0"),
    ("attack", "--snapshot", RUN, "--eps", "-0.3"),
    ("attack", "--snapshot", RUN, "--eps", "nan"),
    ("width", "--snapshot", RUN, "--level", "zero"),
    ("width", "--snapshot", RUN, "--level", "-1"),
    ("train", "--lr", "0", "--output", "r"),
    ("train", "--optimizer", "adagrad", "--output", "r"),
    ("train", "--model-args", "{", "--output", "r"),
    ("correlate", RUN, "--level", "1", "--test-level", "ln2"),
    ("hessian",),
    ("hessian", "--snapshot", RUN, "--seed", "18446744073709551616"),
    ("hessian", "--snapshot", RUN, "--threads", "2147483648"),
    ("frobnicate",),
)


@pytest.mark.parametrize("arguments", WRONG_USAGE, ids=" ".join)
def test_wrong_usage_is_exit_code_2_and_writes_nothing(
    invoke: Invoke, arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert "Usage:" in result.stderr
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


ERRORS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("hessian", "--snapshot", "nowhere"), "nowhere"),
    (("hessian", "--snapshot", RUN, "--at", "epoch=99"), "epoch"),
    (("hessian", "--snapshot", RUN, "--at", "sometimes"), "sometimes"),
    (("hessian", "--snapshot", RUN, "--top-k", "99999"), "18224"),
    (("hessian", "--snapshot", RUN, "--device", "tpu"), "tpu"),
    (("attack", "--snapshot", RUN, "--dataset", "imagenet"), "imagenet"),
    (("train", "--model", "resnet", "--output", "r"), "resnet"),
    (("train", "--model-args", '{"width": 3}', "--output", "r"), "width"),
    (("train", "--dataset", "imagenet", "--output", "r"), "imagenet"),
    (("train", "--loss", "hinge", "--output", "r"), "hinge"),
    (("measure", "empty"), "holds no runs"),
    (("measure", ""), "empty path"),
    (("train", "--model-args", '{"hidden": 1000000000000}', "--output", "r"), "hidden"),
    (("correlate", "empty"), "holds no runs"),
)


@pytest.mark.parametrize(("arguments", "what"), ERRORS, ids=lambda x: " ".join(x) if isinstance(x, tuple) else x)
def test_errors_are_one_line_and_write_nothing(
    invoke: Invoke, arguments: tuple[str, ...], what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    result = invoke(*arguments)
    assert result.exit_code == 1
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1
    assert what in errors[0]
    assert result.stdout == ""
    assert [path.name for path in tmp_path.rglob("*")] == ["empty"]


def test_description_that_was_tampered_with(invoke: Invoke, run_copy: Path) -> None:
    run_file = run_copy / "run.json"
    text = run_file.read_text()
    assert text.count('"model":"cnn"') == 1
    run_file.write_text(text.replace('"model":"cnn"', '"model":"mlp"'))
    result = invoke("hessian", "--snapshot", run_copy)
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1


def test_unfinished_run_says_so(invoke: Invoke, run_copy: Path) -> None:
    shutil.rmtree(run_copy / "segments")
    result = invoke("width", "--snapshot", run_copy)
    assert result.exit_code == 1
    assert "segment" in result.stderr


def test_one_segment_and_a_packed_file_are_snapshots_too(invoke: Invoke, run_copy: Path, tmp_path: Path) -> None:
    assert invoke("snapshots", "pack", run_copy, "--output", tmp_path / "packed.h5").exit_code == 0
    segment = next((run_copy / "segments").iterdir())
    digests = [landscape.load_snapshot(p).theta_sha256 for p in (run_copy, segment, tmp_path / "packed.h5")]
    assert digests[0] == digests[1] == digests[2]


def test_ledger_is_never_written_inside_a_run(invoke: Invoke, run_copy: Path) -> None:
    segment = next((run_copy / "segments").iterdir())
    assert invoke("measure", segment, *FEW).exit_code == 0
    assert (run_copy.parent / "ledger.sqlite").exists()
    assert invoke("snapshots", "verify", run_copy).exit_code == 0


def test_correlate_without_a_single_distance_still_answers(invoke: Invoke, run_copy: Path, tmp_path: Path) -> None:
    low = ["--level", "1e-9", "--test-level", "1e-9"]
    few = [option for option in FEW if option not in ("--level", "ln2")]
    result = invoke("correlate", run_copy, *few, *low, "--output", tmp_path / "out")
    assert result.exit_code == 0
    assert "no figures" in result.stderr
    assert "Not testable" in result.stdout
    assert (tmp_path / "out" / "rows.csv").exists()


def test_runs_that_lost_files_are_damaged_not_shorter(invoke: Invoke, run_copy: Path) -> None:
    (run_copy / "run.json").unlink()
    listed = invoke("snapshots", "list", run_copy.parent)
    assert listed.exit_code == 3
    assert "run.json" in listed.stderr
    assert listed.stdout == ""


def test_thinning_again_goes_on_where_it_stopped(invoke: Invoke, run_copy: Path, tmp_path: Path) -> None:
    for _ in range(2):
        result = invoke("snapshots", "thin", run_copy.parent, "--output", tmp_path / "thin", "--keep", "last")
        assert result.exit_code == 0
    assert "there already" in result.stderr


def test_verify_finds_damage(invoke: Invoke, run_copy: Path) -> None:
    segment = next((run_copy / "segments").iterdir())
    content = bytearray(segment.read_bytes())
    content[len(content) // 2] ^= 1
    segment.write_bytes(content)
    result = invoke("snapshots", "verify", run_copy)
    assert result.exit_code == 1
    assert segment.name in result.stderr


@pytest.fixture
def tiny_mnist(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """MNIST cut down to 640 training and 128 test images, under its own name."""
    full = {split: datasets.load_dataset("mnist", split) for split in ("train", "test")}

    def cut(split: str) -> Any:
        data, count = full[split], {"train": 640, "test": 128}[split]
        return (data.images[:count, 0] * 255).round().byte().numpy(), data.labels[:count].numpy()

    monkeypatch.setitem(datasets.DATASETS, "tiny", cut)
    yield
    datasets._load.cache_clear()


@pytest.mark.usefixtures("tiny_mnist")
def test_train_stores_a_run_and_thin_keeps_what_was_asked(invoke: Invoke, tmp_path: Path) -> None:
    arguments = ("--dataset", "tiny", "--epochs", "3", "--batch-size", "32", "--snapshot-every", "128")
    result = invoke("train", *arguments, "--output", tmp_path / "run")
    assert result.exit_code == 0
    assert result.stdout == f"{tmp_path / 'run'}\n"
    assert "saved epoch 3" in result.stderr
    again = invoke("train", *arguments, "--output", tmp_path / "run")
    assert again.exit_code == 0
    other = invoke("train", *arguments, "--lr", "0.2", "--output", tmp_path / "run")
    assert other.exit_code == 1
    assert "learning_rate" in other.stderr
    thinned = invoke(
        "snapshots", "thin", tmp_path / "run", "--output", tmp_path / "thin", "--keep", "epoch=1", "--keep", "last"
    )
    assert thinned.exit_code == 0
    assert len(open_run(tmp_path / "thin" / "run")) == 2


@pytest.mark.usefixtures("tiny_mnist")
def test_completed_run_that_lost_its_end_is_not_called_complete(invoke: Invoke, tmp_path: Path) -> None:
    arguments = ("train", "--dataset", "tiny", "--epochs", "2", "--batch-size", "64", "--output", tmp_path / "run")
    assert invoke(*arguments).exit_code == 0
    sorted((tmp_path / "run" / "segments").iterdir())[-1].unlink()
    for again in (arguments, ("snapshots", "info", tmp_path / "run")):
        result = invoke(*again)
        assert result.exit_code == 1
        assert "segments are missing at the end" in " ".join(result.stderr.split())


def alive(group: int) -> list[str]:
    """Processes of a group that still run, by what the kernel says of them."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, process_group = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:  # it ended meanwhile
            continue
        if int(process_group) == group and state != "Z":
            found.append(stat.parent.name)
    return found


def a_worker_starts(process: int, _: Path) -> bool:
    """Beside the command itself and the standard library's resource tracker."""
    return len(alive(process)) > 2


def a_run_is_stored(_: int, runs: Path) -> bool:
    return any(runs.glob("*/segments/*.h5"))


@pytest.mark.parametrize(
    ("begun", "send"),
    [
        (a_worker_starts, os.killpg),
        pytest.param(a_run_is_stored, os.killpg, marks=pytest.mark.slow),
        pytest.param(a_run_is_stored, os.kill, marks=pytest.mark.thorough),
    ],
)
def test_interrupted_sweep_leaves_quietly(
    tmp_path: Path, begun: Callable[[int, Path], bool], send: Callable[[int, int], None]
) -> None:
    """Ctrl-C to the process group, or to the parent alone: no traceback, and no worker goes on."""
    script = (
        "import signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # else ignored in jobs of the background
        "from importlib.metadata import entry_points\n"
        "list(entry_points(group='console_scripts', name='landscape'))[0].load()()"
    )
    file = tmp_path / "grid.toml"
    file.write_text("[grid]\nseed = [0, 1]\n[fixed]\nbatch_size = 128\nepochs = 50", encoding="utf-8")
    run = subprocess.Popen(
        [sys.executable, "-c", script, "sweep", file, "--output", tmp_path / "runs", "--workers", "2"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        while run.poll() is None and not begun(run.pid, tmp_path / "runs"):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        send(run.pid, signal.SIGINT)
        _, errors = run.communicate(timeout=60)
        assert run.returncode != 0
        assert "Traceback" not in errors
        for _ in range(200):
            if not alive(run.pid):
                break
            time.sleep(0.05)
        assert alive(run.pid) == []
    finally:
        if alive(run.pid):
            os.killpg(run.pid, signal.SIGKILL)
            run.communicate()


@pytest.mark.usefixtures("tiny_mnist")
def test_forecast_and_status_of_a_sweep(invoke: Invoke, tmp_path: Path) -> None:
    """Both before and after one of the runs was trained; neither writes anything."""
    file, runs = tmp_path / "grid.toml", tmp_path / "runs"
    file.write_text('[grid]\nseed = [0, 1, 2]\n[fixed]\ndataset = "tiny"\nepochs = 2\nbatch_size = 64')
    sweep = ("sweep", file, "--output", runs, "--workers", "1")
    before = json.loads(invoke(*sweep, "--dry-run", "--json").stdout)["results"]
    assert not runs.exists()
    trained = ("--dataset", "tiny", "--epochs", "2", "--batch-size", "64", "--seed", "1")
    assert invoke("train", *trained, "--output", runs / "sgd_lr0.1_b64_tiny_seed1").exit_code == 0
    after = json.loads(invoke(*sweep, "--dry-run", "--json").stdout)["results"]
    size = sum(f.stat().st_size for f in (runs / "sgd_lr0.1_b64_tiny_seed1" / "segments").iterdir())
    assert [run["bytes"] for run in before["runs"]] == pytest.approx([size] * 3, rel=0.02)
    assert before["forecast"]["bytes"] == after["forecast"]["bytes"] == sum(r["bytes"] for r in before["runs"])
    assert before["forecast"]["seconds"] > 0 and after["forecast"]["seconds"] > 0
    status = json.loads(invoke(*sweep, "--status", "--json").stdout)["results"]["runs"]
    assert [run["state"] for run in status] == ["absent", "completed", "absent"]
    assert [(run["epochs"], run["of"]) for run in status] == [(0, 2), (2, 2), (0, 2)]
    printed = invoke(*sweep, "--status")
    assert len(printed.stdout.splitlines()) == 4 and "2 absent, 1 completed" in printed.stderr
    told = invoke(*sweep, "--dry-run", "--stack", "2")
    assert "3 runs" in told.stderr and [line.split()[2] for line in told.stdout.splitlines()[1:]] == [
        "2",
        "1",
        "2",
    ]


def test_a_sweep_that_is_not_there(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke("sweep", tmp_path / "absent.toml", "--output", tmp_path / "x", "--dry-run")
    assert result.exit_code == 1 and "paper-small" in result.stderr and not (tmp_path / "x").exists()


def test_dry_run_of_the_shipped_sweep(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke("sweep", resolve("embedded:runs.toml"), "--output", tmp_path / "x", "--dry-run")
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 61
    assert not (tmp_path / "x").exists()


def test_embedded_runs_are_complete_and_sound(invoke: Invoke) -> None:
    result = invoke("snapshots", "verify", "embedded:runs", "--json")
    listed = json.loads(result.stdout)["results"]
    assert result.exit_code == 0
    assert len(listed) == 60
