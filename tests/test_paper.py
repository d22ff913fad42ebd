"""The paper's tables and figures over runs that are really trained, on a part of MNIST."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
import statistics
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from matplotlib.figure import Figure
from small_runs import SMALL, interrupt, small_config, small_mnist

from landscape.errors import ConfigurationError, CorruptSnapshotError
from landscape.problem.datasets import DATASETS
from landscape.problem.losses import loss_by_name
from landscape.report import paper_figures as drawing
from landscape.report.paper_tables import rows_of, to_csv, to_latex, to_markdown
from landscape.report.style import style
from landscape.robustness.accuracy import accuracy_curve, robust_accuracy
from landscape.robustness.fgsm import READINGS as LOSSES
from landscape.snapshots import BestRule, open_run, run_history, thin_run
from landscape.study import paper_figures as study
from landscape.study.paper import READINGS, Best, Printed, Statistic, Table, TableCell, emphasis
from landscape.study.paper_reference import paper_reference
from landscape.study.paper_runs import TrainedRun, main_protocol, nearest_run, read_trained_run
from landscape.study.paper_tables import best_of_run, layer_widths, table_of
from landscape.training.grid import run_name
from landscape.training.loop import train, train_together

EPOCHS = 3
FORMATS = ("pdf", "svg", "png")


@pytest.fixture(scope="module", autouse=True)
def small_dataset() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DATASETS, SMALL, small_mnist)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight runs of one protocol, four with other widths, one that diverged at once."""
    place = tmp_path_factory.mktemp("paper") / "runs"
    for optimizer, rates in (("adam", (0.001, 0.01)), ("sgd", (0.1, 0.3))):
        configs = [
            small_config(model="cnn", optimizer=optimizer, learning_rate=rate, seed=seed)
            for rate in rates
            for seed in (0, 1)
        ]
        train_together([(config, place / run_name(config)) for config in configs])
    for hidden in (5, 20):
        configs = [small_config(model="cnn", model_args={"hidden": hidden}, seed=seed) for seed in (0, 1)]
        train_together([(config, place / run_name(config)) for config in configs])
    config = small_config(model="cnn", learning_rate=1e30, seed=0)
    assert train(config, place / run_name(config)).outcome == "diverged"
    return place


@pytest.fixture(scope="module")
def trained(folder: Path) -> list[TrainedRun]:
    return [read_trained_run(path) for path in sorted(folder.iterdir())]


@pytest.fixture(scope="module")
def tables(trained: list[TrainedRun]) -> list[Table]:
    chosen, _ = main_protocol(trained)
    made = [table_of(chosen, name, BestRule(reading)) for name in ("adam", "sgd") for reading in READINGS]
    return [table for table in made if table is not None]


def test_protocol_that_most_runs_share(trained: list[TrainedRun]) -> None:
    chosen, others = main_protocol(trained)
    assert (len(chosen), len(others)) == (9, 4)
    assert {run.arguments["hidden"] for run in chosen} == {100}
    assert {run.arguments["hidden"] for run in others} == {5, 20}
    assert main_protocol([]) == ([], [])


def test_a_width_that_is_the_default_is_the_same_protocol(trained: list[TrainedRun]) -> None:
    run = trained[0]
    spelled = TrainedRun(run.path, run.model, {"hidden": 100, "channels": [4, 10]}, run.settings, "", {})
    assert spelled.protocol() == run.protocol()


@pytest.mark.parametrize("reading", READINGS)
def test_means_over_seeds(folder: Path, trained: list[TrainedRun], reading: str) -> None:
    """Against the metrics as they are stored, the rule of the best epoch written out once more."""
    table = table_of(main_protocol(trained)[0], "adam", BestRule(reading, 0.02))
    assert table is not None and table.number == 1
    best = []
    for seed in (0, 1):
        config = small_config(model="cnn", optimizer="adam", learning_rate=0.01, seed=seed)
        metrics = open_run(folder / run_name(config)).metrics
        near = [e for e in range(EPOCHS) if metrics["clean_accuracy"][e] >= metrics["clean_accuracy"].max() - 0.02]
        robust = metrics[f"fgsm_accuracy_{reading}"]
        epoch = max(near, key=lambda e: (robust[e], -e))
        best.append((epoch + 1, metrics["clean_accuracy"][epoch], robust[epoch]))
    cell = table.find(16, 0.01)
    assert cell is not None and (cell.num_runs, cell.num_diverged, cell.num_unmeasured) == (2, 0, 0)
    for found, values in zip((cell.epoch, cell.acc, cell.adv_acc), zip(*best, strict=True), strict=True):
        assert found.mean == pytest.approx(statistics.mean(values))
        assert found.std == pytest.approx(statistics.stdev(values))


def test_runs_that_diverged_at_once_are_counted_and_in_no_mean(tables: list[Table]) -> None:
    cell = tables[2].find(16, 1e30)
    assert cell is not None and (cell.num_runs, cell.num_diverged, cell.num_unmeasured) == (1, 1, 1)
    assert math.isnan(cell.acc.mean) and math.isnan(cell.adv_acc.std)
    text = to_markdown(tables, paper_reference(), 0.3, "Some runs.")
    assert "– (1 of 1 diverged)" in text and "1 run diverged before the end of" in text


def test_history_of_a_run_without_a_snapshot(folder: Path) -> None:
    description, outcome, metrics = run_history(folder / "sgd_lr1e+30_b16_small_seed0")
    assert description.config["learning_rate"] == 1e30
    assert outcome is not None and outcome["outcome"] == "diverged" and metrics == {}


def test_the_same_run_twice_is_refused(trained: list[TrainedRun]) -> None:
    with pytest.raises(ConfigurationError, match="count 2 times"):
        table_of([trained[0], *trained], trained[0].optimizer, BestRule())


def test_a_single_run_has_no_standard_deviation(trained: list[TrainedRun]) -> None:
    table = table_of(trained[:1], trained[0].optimizer, BestRule())
    assert table is not None and math.isnan(table.cells[0].acc.std) and table.cells[0].acc.mean > 0


def test_runs_without_the_metrics_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = next(path for path in folder.iterdir() if path.name.startswith("adam"))
    history = run_history(run)
    stored = {name: values for name, values in history.metrics.items() if name != "fgsm_accuracy_exact"}
    monkeypatch.setattr("landscape.study.paper_runs.run_history", lambda path: history._replace(metrics=stored))
    with pytest.raises(CorruptSnapshotError, match="fgsm_accuracy_exact"):
        read_trained_run(run)


def test_what_the_paper_prints() -> None:
    reference = paper_reference()
    assert reference["adam", 128, 0.01, "adv_acc"] == Printed(0.8987, 0.039, "bold", False)
    assert reference["sgd", 2, 0.006, "adv_acc"].mean == 0.8948
    assert reference["sgd", 16, 0.1, "acc"] == Printed(0.9777, 0.0025, "underlined", True)
    assert ("sgd", 128, 0.1, "epoch") not in reference
    assert max(p.mean for (*_, quantity), p in reference.items() if quantity == "adv_acc") < 0.9
    assert len({key[1:3] for key in reference if key[0] == "adam"}) == 72


def test_the_rule_of_emphasis_is_that_of_the_legible_cells() -> None:
    for (optimizer, batch, rate, quantity), printed in paper_reference().items():
        if quantity == "adv_acc":
            assert emphasis(math.nan, printed.mean, quantity) == printed.emphasis
        if quantity == "acc":
            assert (emphasis(printed.mean, math.nan, quantity) == "bold") == (printed.emphasis == "bold")
            robust = paper_reference().get((optimizer, batch, rate, "adv_acc"))
            if robust:
                assert emphasis(printed.mean, robust.mean, quantity) == printed.emphasis


@pytest.mark.parametrize(
    ("acc", "adv_acc", "marks"),
    [(0.98, 0.85, ("bold", "bold")), (0.97, 0.8, ("underlined", "underlined")),
     (0.97, 0.9, ("underlined", "bold")), (0.97, 0.7, ("", "")), (0.99, 0.1, ("bold", "")),
     (math.nan, math.nan, ("", ""))],
)  # fmt: skip
def test_emphasis(acc: float, adv_acc: float, marks: tuple[str, str]) -> None:
    assert (emphasis(acc, adv_acc, "acc"), emphasis(acc, adv_acc, "adv_acc")) == marks
    assert emphasis(acc, adv_acc, "epoch") == ""


def made_table(reading: str = "published") -> Table:
    """A table whose numbers are easy to find again; it lacks one cell of four."""
    cells = [
        TableCell(b, r, 5, 1, 0, Statistic(7.4, 1.2), Statistic(acc, 0.001), Statistic(adv, 0.02))
        for b, r, acc, adv in ((16, 0.1, 0.975, 0.9), (128, 0.1, 0.985, 0.3), (128, 0.3, 0.99, 0.82))
    ]
    return Table(2, "sgd", reading, 0.005, tuple(cells))


def test_markdown() -> None:
    text = to_markdown([made_table(), made_table("exact")], paper_reference(), 0.3, "Some runs.")
    assert "| 16 | epoch | 7 ± 1 (1 of 5 diverged) |  |" in text
    assert "|  | acc | <u>97.50</u> ± 0.10 |  |" in text
    assert "|  | adv_acc | **90.00** ± 2.00 |  |" in text
    assert "|  | *paper: acc* | <u>97.77</u> ± 0.25 † | 94.98 ± 1.16 † |" in text
    assert "|  | adv_acc | 30.00 ± 2.00 | <u>82.00</u> ± 2.00 |" in text
    exact = text[text.index("exact gradients") :]
    assert "paper: acc" not in exact
    widths = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert widths == {5}


def test_latex() -> None:
    lines = to_latex(made_table()).splitlines()
    body = [line for line in lines if "&" in line]
    assert all(line.count("&") == 5 and line.endswith(r"\\") for line in body if "multicolumn" not in line)
    assert r"\multirow{3}{*}{16} & epoch & 7 & 1 &  &  \\" in lines
    assert r" & adv\_acc & \textbf{90.00} & 2.00 &  &  \\" in lines
    assert r" & acc & \underline{97.50} & 0.10 &  &  \\" in lines
    assert lines[1] == r"\begin{tabular}{rlrrrr}" and lines[-1] == r"\end{tabular}"


def test_csv_holds_all_digits(tables: list[Table]) -> None:
    reference = paper_reference()
    read = list(csv.DictReader(io.StringIO(to_csv(tables, reference))))
    rows = rows_of(tables, reference)
    assert len(read) == len(rows) == sum(len(table.cells) for table in tables)
    for text, row in zip(read, rows, strict=True):
        assert {name: "" if value is None else str(value) for name, value in row.items()} == text
    given = next(
        r for r in rows if (r["reading"], r["optimizer"], r["learning_rate"]) == ("published", "sgd", 0.1)
    )
    assert given["paper_acc_avg"] == pytest.approx(0.9777)


def test_nearest_run(trained: list[TrainedRun]) -> None:
    chosen, _ = main_protocol(trained)
    for wanted, rate in ((0.09, 0.1), (0.2, 0.3), (1e30, 0.3)):
        run = nearest_run(chosen, "sgd", wanted, 2)
        assert run is not None and (run.learning_rate, run.seed, run.outcome) == (rate, 0, "completed")
    assert nearest_run([], "sgd", 0.1, 16) is None


def test_learning_curve(folder: Path, trained: list[TrainedRun]) -> None:
    curve = study.learning_curve(2, main_protocol(trained)[0])
    assert curve is not None and curve.subject.learning_rate == 0.1
    run = open_run(folder / curve.subject.run)
    # Four pairs in an epoch of 512 samples, one each 128.
    np.testing.assert_allclose(curve.positions, np.arange(1, 4 * EPOCHS + 1) / 4)
    pairs = [(row - 1, row) for row in range(1, len(run)) if run.step[row] == run.step[row - 1] + 1 and row % 2]
    norms = [np.linalg.norm(run.read(after).astype(float) - run.read(before)) for before, after in pairs]
    np.testing.assert_allclose(curve.step_norm, norms)
    np.testing.assert_array_equal(curve.batch_loss, run.batch_loss[[after for _, after in pairs]])


def test_layer_widths(trained: list[TrainedRun]) -> None:
    widths = layer_widths(trained, 0.005)
    assert widths is not None and (widths.subject.optimizer, widths.epochs) == ("sgd", EPOCHS)
    assert [point.hidden for point in widths.points] == [5, 20, 100]
    for point in widths.points:
        runs = [run for run in trained if run.arguments["hidden"] == point.hidden and run.learning_rate == 0.1]
        for reading in READINGS:
            expected = [best_of_run(run, BestRule(reading)) for run in runs if run.optimizer == "sgd"]
            assert list(point.best[reading]) == expected and len(expected) == 2
    assert layer_widths([run for run in trained if run.arguments["hidden"] == 100], 0.005) is None


def test_accuracy_over_radius_is_fgsm_at_each(trained: list[TrainedRun]) -> None:
    (model,) = study.find_models([run for run in trained if run.optimizer == "adam"])
    problem = model.load("cpu")
    x, y = problem.test.images, problem.test.labels
    for loss in LOSSES.values():
        found = accuracy_curve(problem.model, x, y, (0.0, 0.1, 0.3), loss, batch=100)
        expected = [robust_accuracy(problem.model, x, y, e, loss, batch=100).accuracy for e in (0.0, 0.1, 0.3)]
        assert found == expected
    assert found[0] > found[-1]
    assert loss_by_name(LOSSES["exact"]) is not None


def test_networks_of_the_figures_are_distinct(trained: list[TrainedRun]) -> None:
    """With three epochs, early and late are the same snapshot, which is shown once."""
    models = study.find_models(main_protocol(trained)[0])
    assert [(m.role, m.run.optimizer, m.epoch) for m in models] == [("late", "sgd", 3), ("early", "adam", 3)]
    attacked = study.attack_model(models[0], samples=100, device="cpu")
    assert attacked.num_samples == 100 and len(attacked.accuracy["exact"]) == len(attacked.radii) == 21


def test_examples_are_seen_rightly_by_all(trained: list[TrainedRun]) -> None:
    models = study.find_models(main_protocol(trained)[0])
    examples = study.adversarial_examples(models, 0.3, 4, "cpu")
    originals = torch.from_numpy(examples.originals)[:, None]
    assert 0 < len(examples.labels) <= 4 and len(set(examples.labels.tolist())) == len(examples.labels)
    for model in models:
        decisions = model.load("cpu").model(originals).argmax(1)
        assert decisions.tolist() == examples.labels.tolist()
    assert [(a.reading, a.subject.optimizer) for a in examples.attacked] == [
        ("published", "sgd"), ("exact", "sgd"), ("published", "adam"), ("exact", "adam")]  # fmt: skip
    for attacked in examples.attacked:
        change = np.abs(attacked.images - examples.originals)
        assert change.max() == pytest.approx(0.3, abs=1e-6) and attacked.images.max() <= 1


def lines_of(figure: Figure) -> list[list[float]]:
    return [
        np.asarray(line.get_ydata(), dtype=float).tolist() for axes in figure.axes for line in axes.get_lines()
    ]


def test_figures_show_the_numbers(trained: list[TrainedRun]) -> None:
    chosen, _ = main_protocol(trained)
    curve, widths = study.learning_curve(1, chosen), layer_widths(trained, 0.005)
    attacked = [study.attack_model(model, 64, "cpu") for model in study.find_models(chosen)]
    assert curve is not None and widths is not None
    with style():
        drawn = lines_of(drawing.draw_learning_curve(curve))
        for shares in (curve.metrics["clean_accuracy"], curve.metrics["fgsm_accuracy_exact"]):
            assert list(100 * shares) in drawn
        assert list(curve.step_norm) in drawn and list(curve.batch_loss) in drawn
        means = [float(np.mean([100 * b.robust for b in p.best["exact"]])) for p in widths.points]
        assert means in lines_of(drawing.draw_layer_widths(widths))
        drawn = lines_of(drawing.draw_accuracy_over_radius(attacked))
        for model in attacked:
            for reading in READINGS:
                assert [100 * share for share in model.accuracy[reading]] in drawn


def test_wrong_decisions_are_red(trained: list[TrainedRun]) -> None:
    models = study.find_models(main_protocol(trained)[0])
    examples = study.adversarial_examples(models, 0.3, 3, "cpu")
    with style():
        figure = drawing.draw_examples(examples)
    count = len(examples.labels)
    for row, attacked in enumerate(examples.attacked, start=1):
        for column, decision in enumerate(attacked.decisions):
            title = figure.axes[row * count + column].title
            assert title.get_text() == str(decision)
            assert (title.get_color() == drawing.RED) == (decision != examples.labels[column])


def paper(*arguments: object) -> Result:
    (script,) = entry_points(group="console_scripts", name="landscape")
    return CliRunner().invoke(script.load(), ["paper", "--threads", "1", *map(str, arguments)])


@pytest.fixture(scope="module")
def written(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    output = tmp_path_factory.mktemp("output") / "out"
    return output, paper(folder, "--output", output, "--samples", "64", "--examples", "3")


def test_command_writes_tables_and_figures(written: tuple[Path, Result]) -> None:
    output, result = written
    assert result.exit_code == 0, result.output
    figures = {f"figure-{number}.{suffix}" for number in range(1, 6) for suffix in FORMATS}
    tables = {f"table-{number}-{reading}.tex" for number in (1, 2) for reading in READINGS}
    assert {file.name for file in output.iterdir()} == figures | tables | {
        "tables.md",
        "tables.csv",
        "tables.json",
    }
    assert "in no table: 2 runs of cnn" in result.stderr and "exact" in result.stdout
    document = json.loads((output / "tables.json").read_text())
    assert len(document["runs"]) == 9 and document["tables"][0]["acc_avg"] > 0.2


@pytest.mark.thorough
def test_the_same_runs_give_the_same_bytes(written: tuple[Path, Result], folder: Path, tmp_path: Path) -> None:
    assert paper(folder, "--output", tmp_path, "--samples", "64", "--examples", "3").exit_code == 0
    for file in written[0].iterdir():
        if file.name != "tables.json":  # which holds the time
            assert (tmp_path / file.name).read_bytes() == file.read_bytes(), file.name


@pytest.mark.thorough
def test_damaged_and_unfinished_runs_are_left_out(folder: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(folder / "adam_lr0.001_b16_small_seed0", runs / "good")
    shutil.copytree(folder / "adam_lr0.001_b16_small_seed1", runs / "damaged")
    segment = sorted((runs / "damaged" / "segments").iterdir())[0]
    segment.write_bytes(segment.read_bytes()[:-100])
    interrupt(small_config(model="cnn", optimizer="adam", seed=2), runs / "unfinished", 600)
    result = paper(runs, "--output", tmp_path / "out", "--samples", "16", "--examples", "1")
    assert result.exit_code == 3
    assert "left out, not finished: 1 run" in result.stderr and "damaged" in result.stderr
    assert "no figure-2: it needs" in result.stderr and not (tmp_path / "out" / "figure-2.png").exists()
    assert (tmp_path / "out" / "figure-1.png").exists()


def test_thinned_runs_will_do_and_json(folder: Path, tmp_path: Path) -> None:
    thin_run(folder / "sgd_lr0.1_b16_small_seed0", tmp_path / "runs" / "thin", ["last"])
    output = tmp_path / "out"
    result = paper(tmp_path / "runs", "--output", output, "--samples", "16", "--examples", "1", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["command"] == "paper" and len(document["results"]["tables"]) == 2
    assert {Path(file) for file in document["results"]["files"]} == set(output.iterdir())


def test_nothing_to_show_writes_nothing(tmp_path: Path) -> None:
    interrupt(small_config(), tmp_path / "runs" / "unfinished", 600)
    result = paper(tmp_path / "runs", "--output", tmp_path / "out")
    assert result.exit_code == 1 and "none of the runs has ended" in result.stderr
    assert not (tmp_path / "out").exists()
    assert paper(tmp_path / "nowhere", "--output", tmp_path / "out").exit_code == 1
    assert paper(tmp_path / "runs", "--tolerance", "2").exit_code == 2


def test_best_of_a_run_that_never_ended_an_epoch() -> None:
    run = TrainedRun("a", "cnn", {}, {}, "diverged", {})
    assert best_of_run(run, BestRule()) is None
    nothing = {name: np.array([math.nan]) for name in ("clean_accuracy", "fgsm_accuracy_published")}
    run = TrainedRun("a", "cnn", {}, {}, "diverged", nothing | {"epoch": np.array([1.0])})
    assert best_of_run(run, BestRule()) is None
    values = {name: np.array([0.5]) for name in nothing}
    run = TrainedRun("a", "cnn", {}, {}, "diverged", values | {"epoch": np.array([1.0])})
    assert best_of_run(run, BestRule()) == Best(1, 0.5, 0.5)
