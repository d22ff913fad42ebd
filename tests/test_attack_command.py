"""``landscape attack`` as a user meets it: the ladder, the audit, figures, resume, and what is refused."""

from __future__ import annotations

import json
import math
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from small_runs import SMALL, small_config, small_mnist

from landscape.problem.datasets import DATASETS, load_dataset
from landscape.report.attacks import accuracy_figure, examples_figure
from landscape.report.style import style
from landscape.robustness.accuracy import predict
from landscape.robustness.ladder import run_ladder
from landscape.robustness.rungs import QUICK
from landscape.snapshots import load_snapshot
from landscape.study.attack import AttackConfig, measure_ladder
from landscape.study.examples import accuracy_curves, adversarial_examples
from landscape.study.ledger import Ledger
from landscape.study.problems import Problem, load_problem
from landscape.training.loop import train

LATE = "embedded:masking/adam_lr0.006_b128_60epochs"
DEFENDED = "embedded:masking/adam_pgd-training_epsilon0.1"
FEW = ("--samples", "40", "--effort", "quick")
CHEAP = ("--rung", "clean", "--rung", "fgsm_published", "--rung", "fgsm_exact", "--rung", "nearest_boundary")


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def problem() -> Problem:
    return load_problem(load_snapshot(LATE), "cpu")


def attack(folder: Path, *arguments: str, run: str = LATE) -> Result:
    (script,) = entry_points(group="console_scripts", name="landscape")
    places = ("--ledger", str(folder / "ledger.sqlite"), "--output", str(folder / "figures"), "--threads", "1")
    return CliRunner().invoke(
        script.load(), ["attack", "--snapshot", run, *places, *arguments], catch_exceptions=False
    )


def results(found: Result) -> dict[str, Any]:
    assert found.exit_code == 0, found.stderr
    document: dict[str, Any] = json.loads(found.stdout)["results"]
    return document


@pytest.mark.thorough
def test_ladder_audit_and_figures_of_a_masked_run(tmp_path: Path) -> None:
    found = attack(
        tmp_path, "--ladder", "--audit", "--curve", "--examples", "3", "--eps", "0.3", "--samples", "200", *CHEAP
    )
    assert found.exit_code == 0, found.stderr
    lines = found.stdout.splitlines()
    assert lines[0].startswith("accuracy in %") and "200 samples" in lines[0]
    assert lines[1].split() == ["rung", "eps", "0.3", "gradients", "queries"]
    names = [line.split()[0] for line in lines[2:7]]
    assert names == ["clean", "fgsm_published", "fgsm_exact", "nearest_boundary", "worst"]
    assert "audit at eps 0.3: arithmetic masking" in found.stdout and "because: FGSM as published" in found.stdout
    stems = {"curve-adam_lr0.006_b128_60epochs-epoch60", "examples-adam_lr0.006_b128_60epochs-epoch60"}
    drawn = {path.name for path in (tmp_path / "figures").iterdir()}
    assert drawn == {f"{stem}.{suffix}" for stem in stems for suffix in ("pdf", "svg", "png")}


@pytest.mark.thorough
def test_a_defended_network_keeps_most_of_its_accuracy(tmp_path: Path) -> None:
    """Adversarial training is what robustness looks like: PGD leaves most of what FGSM leaves."""
    found = results(
        attack(tmp_path, "--ladder", "--audit", "--eps", "0.1", "--json", *FEW, "--samples", "200", run=DEFENDED)
    )
    accuracy = {rung["name"]: rung["accuracy"][0] for rung in found["ladder"]["rungs"]}
    assert accuracy["clean"] > 0.95 and accuracy["pgd_margin"] > 0.85 * accuracy["fgsm_exact"] > 0.7
    assert accuracy["fgsm_published"] == pytest.approx(accuracy["fgsm_exact"], abs=0.005)
    assert found["ladder"]["worst_accuracy"][0] <= min(accuracy.values())
    (audit,) = found["audit"]
    assert audit["verdict"] == "sound" and audit["evidence"]["cosine_median"] > 0.999


def test_the_command_prints_what_the_library_finds(tmp_path: Path, problem: Problem) -> None:
    found = results(attack(tmp_path, "--ladder", "--json", *FEW, *CHEAP, "--eps", "0.2", "--eps", "0.1"))
    config = AttackConfig((0.1, 0.2), samples=40, effort=QUICK, only=CHEAP[1::2])
    data = problem.test.subset(40, 0)
    ladder = run_ladder(problem.model, data.images, data.labels, config.eps, rungs=config.rungs())
    assert found["ladder"]["eps"] == [0.1, 0.2]
    assert [rung["name"] for rung in found["ladder"]["rungs"]] == list(ladder.names)
    for rung, accuracy in zip(found["ladder"]["rungs"], ladder.accuracy.tolist(), strict=True):
        assert rung["accuracy"] == pytest.approx(accuracy)
    assert found["ladder"]["worst_accuracy"] == pytest.approx(ladder.worst_accuracy.tolist())


def test_what_the_ledger_holds_is_not_attacked_again(
    tmp_path: Path, problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot, config = load_snapshot(LATE), AttackConfig((0.1,), samples=25, effort=QUICK, only=("clean", "mim"))
    config = AttackConfig(**{**vars(config), "batch": 10})
    heard: list[int] = []
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        first = measure_ladder(snapshot, problem, config, ledger, heard.append)
        assert heard == [10, 10, 5] * 2
        monkeypatch.setattr("landscape.study.attack.decide", None)  # would fail when called
        again = measure_ladder(snapshot, problem, config, ledger)
        more = AttackConfig(**{**vars(config), "samples": 20})
        assert torch.equal(measure_ladder(snapshot, problem, more, ledger).correct, first.correct[:, :, :20])
        for changed in ({"eps": (0.2,)}, {"seed": 1}, {"samples": 30}):
            with pytest.raises(TypeError):
                measure_ladder(snapshot, problem, AttackConfig(**{**vars(config), **changed}), ledger)
    for name in ("correct", "distance", "num_gradients", "num_queries"):
        assert torch.equal(getattr(first, name), getattr(again, name)), name


@pytest.mark.thorough
def test_an_interrupted_ladder_goes_on(tmp_path: Path) -> None:
    """Killed for real after its first rungs, it attacks only with the others, and ends in the same decisions."""
    what = ("--ladder", "--eps", "0.1", "--samples", "30", "--json")
    rungs = ("--rung", "clean", "--rung", "mim", "--rung", "apgd_targeted")
    command = [
        *(sys.executable, "-c", "from landscape_cli.main import main; main()", "attack", "--snapshot", LATE),
        *(*what, *rungs, "--threads", "1", "--ledger", str(tmp_path / "ledger.sqlite")),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while _stored(tmp_path / "ledger.sqlite") < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    before = _stored(tmp_path / "ledger.sqlite")
    assert before >= 2
    done = subprocess.run(command, capture_output=True, check=True, timeout=300)
    assert _stored(tmp_path / "ledger.sqlite") == 3
    whole = results(attack(tmp_path / "other", *what, *rungs))
    resumed = json.loads(done.stdout)["results"]["ladder"]
    assert [r["accuracy"] for r in resumed["rungs"]] == [r["accuracy"] for r in whole["ladder"]["rungs"]]


def _stored(path: Path) -> int:
    if not path.exists():
        return 0

    try:
        with sqlite3.connect(path) as database:
            (count,) = database.execute("SELECT count(*) FROM measurements").fetchone()
    except sqlite3.OperationalError:  # not yet made
        return 0
    return int(count)


def test_two_runs_are_compared_on_the_same_samples(tmp_path: Path) -> None:
    found = results(attack(tmp_path, "--ladder", "--against", DEFENDED, "--eps", "0.1", "--json", *FEW, *CHEAP))
    by_rung = {row["rung"]: row for row in found["against"]}
    boundary = by_rung["nearest_boundary"]
    assert boundary["other"] > boundary["accuracy"] and boundary["p_value"] < 1e-4
    assert boundary["only_other"] - boundary["only_this"] == pytest.approx(
        40 * (boundary["other"] - boundary["accuracy"])
    )
    assert by_rung["clean"]["p_value"] > 0.05


def test_runs_on_other_data_are_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS, SMALL, small_mnist)
    train(small_config(model="cnn", epochs=1), tmp_path / "other")
    (script,) = entry_points(group="console_scripts", name="landscape")
    for arguments in (("--ladder", "--against"), ("--audit", "--sibling")):
        command = ["attack", "--snapshot", LATE, "--ledger", str(tmp_path / "ledger.sqlite"), *arguments]
        found = CliRunner().invoke(script.load(), [*command, str(tmp_path / "other")])
        assert found.exit_code == 1 and "they share no images" in found.stderr
    assert not (tmp_path / "ledger.sqlite").exists()


def test_a_ledger_that_lost_its_arrays_is_attacked_again(tmp_path: Path) -> None:
    arguments = ("--ladder", "--eps", "0.1", "--json", *FEW, "--rung", "clean", "--rung", "fgsm_exact")
    first = results(attack(tmp_path, *arguments))
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as database, database:
        database.execute("DELETE FROM arrays")
    assert results(attack(tmp_path, *arguments))["ladder"] == first["ladder"]
    (tmp_path / "ledger.sqlite").write_bytes(b"no database" * 1000)
    assert results(attack(tmp_path, *arguments))["ladder"] == first["ladder"]
    assert (tmp_path / "ledger.sqlite.damaged-1").read_bytes() == b"no database" * 1000


def test_arrays_and_sibling(tmp_path: Path, problem: Problem) -> None:
    file = tmp_path / "new" / "decisions.npz"
    found = results(
        attack(
            tmp_path,
            "--ladder",
            "--audit",
            "--sibling",
            DEFENDED,
            "--arrays",
            str(file),
            "--eps",
            "0.3",
            "--json",
            *FEW,
            *CHEAP,
        )
    )
    assert [c["name"] for c in found["audit"][0]["comparisons"]][-1] == "white_transfer"
    with np.load(file, allow_pickle=False) as arrays:
        assert arrays["rungs"].tolist() == list(CHEAP[1::2]) and arrays["correct"].shape == (4, 1, 40)
        data = problem.test.subset(40, 0)
        clean = (predict(problem.model, data.images) == data.labels).numpy()
        np.testing.assert_array_equal(arrays["correct"][0, 0], clean)
        np.testing.assert_array_equal(arrays["distance"][0] > 0, clean)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--norm", "2"), 2, "add --ladder"),
        (("--effort", "quick"), 2, "belongs to --ladder"),
        (("--rung", "mim"), 2, "belongs to --ladder"),
        (("--curve", "--against", DEFENDED), 2, "belongs to --ladder"),
        (("--sibling", DEFENDED), 2, "belongs to --audit"),
        (("--ladder", "--sibling", DEFENDED), 2, "belongs to --audit"),
        (("--audit", "--against", DEFENDED), 2, "belongs to --ladder"),
        (("--ladder", "--norm", "1"), 2, "norm"),
        (("--ladder", "--rung", "nonsense"), 1, "no rung 'nonsense'"),
        (("--ladder", "--rung", "carlini_wagner"), 1, "no rung 'carlini_wagner' in this norm"),
        (("--audit", "--sibling", "nowhere"), 1, "nowhere"),
        (("--examples", "0"), 2, "examples"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_written(
    tmp_path: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    (script,) = entry_points(group="console_scripts", name="landscape")
    where = ("--ledger", str(tmp_path / "ledger.sqlite"), "--output", str(tmp_path / "figures"))
    found = CliRunner().invoke(script.load(), ["attack", "--snapshot", LATE, *where, *arguments])
    assert found.exit_code == code and words in found.stderr
    assert not list(tmp_path.iterdir())


def test_figures_show_what_was_measured(problem: Problem) -> None:
    data = problem.test.subset(30, 0)
    config = AttackConfig((0.05, 0.0, 0.1), effort=QUICK, only=("clean", "fgsm_exact", "mim", "nearest_boundary"))
    ladder = run_ladder(problem.model, data.images, data.labels, config.eps, rungs=config.rungs())
    curves = accuracy_curves(ladder)
    with style():
        axes = accuracy_figure(curves, "a run").axes[0]
    lines = {str(line.get_label()): line for line in axes.lines}
    assert list(lines) == [*ladder.names, "worst case"]
    np.testing.assert_allclose(np.asarray(lines["mim"].get_xdata()), [0.0, 0.05, 0.1])
    np.testing.assert_allclose(np.asarray(lines["mim"].get_ydata()), ladder.of("mim").double().mean(1)[[1, 0, 2]])
    np.testing.assert_allclose(np.asarray(lines["worst case"].get_ydata()), ladder.worst_accuracy[[1, 0, 2]])
    assert len(np.asarray(lines["nearest_boundary"].get_xdata())) > 100
    styles = {(line.get_color(), str(line.get_linestyle()), line.get_linewidth()) for line in axes.lines}
    assert len(styles) == len(axes.lines), "no two lines look alike"


def test_examples_are_of_different_classes_and_predictions_are_those_of_the_network(problem: Problem) -> None:
    shown = adversarial_examples(problem, 12, 0.3, math.inf, 0)
    assert sorted(shown.labels[:10]) == list(range(10)) and len(shown.labels) == 12
    for name, images in shown.attacked.items():
        assert abs(images - shown.images).max() <= 0.3 + 1e-6
        assert shown.predictions[name] == tuple(predict(problem.model, torch.from_numpy(images)[:, None]).tolist())
    assert sum(p != y for p, y in zip(shown.predictions["PGD"], shown.labels, strict=True)) > 9
    with style():
        figure = examples_figure(shown, "a run")
    titles = [axes.get_title() for axes in figure.axes]
    wrong = sum(p != y for found in shown.predictions.values() for p, y in zip(found, shown.labels, strict=True))
    assert sum(title.endswith("✗") for title in titles) == wrong
    vanished = abs(shown.attacked["FGSM as published"] - shown.images).max((1, 2)) == 0
    assert titles.count("none") == vanished.sum()


def test_the_late_snapshot_is_masked_and_the_early_one_is_not() -> None:
    late = load_problem(load_snapshot(LATE), "cpu")
    early = load_problem(load_snapshot(LATE, "epoch=2"), "cpu")
    test = load_dataset("mnist", "test")
    x, y = test.images[:300], test.labels[:300]
    rungs = AttackConfig(only=("fgsm_published", "fgsm_exact", "pgd_margin"), effort=QUICK).rungs()
    published, exact, pgd = run_ladder(late.model, x, y, [0.3], rungs=rungs).accuracy[:, 0]
    assert published > exact + 0.15 > pgd + 0.25
    published, exact, pgd = run_ladder(early.model, x, y, [0.3], rungs=rungs).accuracy[:, 0]
    assert abs(published - exact) < 0.02 and pgd < 0.02
