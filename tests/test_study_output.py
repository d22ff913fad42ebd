"""How far a study has come, and its table as CSV and Parquet."""

from __future__ import annotations

import importlib
import json
import math
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from small_runs import TINY, small_config

from landscape.errors import ConfigurationError
from landscape.study.columns import FAILED, OK, Row
from landscape.study.ledger import Ledger
from landscape.study.parquet import check_parquet, write_rows_parquet
from landscape.study.status import study_progress
from landscape.study.survey import execute, make_plan
from landscape.study.table import read_rows_csv, write_rows_csv
from landscape.training.loop import train

ROWS: list[Row] = [
    {"run": "a", "seed": 1, "status": OK, "train_loss": 0.1 + 0.2, "d_theta[ln2]": math.nan, "extra": 3},
    {"run": "b", "status": FAILED, "error": "a, \"b\"\nθ", "train_loss": 5e-324, "d_theta[ln2]": 1, "extra": 0.5},
]  # fmt: skip


@pytest.fixture
def invoke() -> Callable[..., Result]:
    (script,) = entry_points(group="console_scripts", name="landscape")
    command = script.load()
    return lambda *arguments: CliRunner().invoke(command, [str(a) for a in arguments], catch_exceptions=False)


def test_parquet_holds_what_csv_holds(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    write_rows_csv(ROWS, tmp_path / "rows.csv")
    write_rows_parquet(ROWS, tmp_path / "rows.parquet")
    table = parquet.read_table(tmp_path / "rows.parquet")
    assert table.to_pylist() == read_rows_csv(tmp_path / "rows.csv")
    types = {name: str(table.schema.field(name).type) for name in ("run", "seed", "train_loss", "extra")}
    assert types == {"run": "string", "seed": "int64", "train_loss": "double", "extra": "double"}
    write_rows_parquet([], tmp_path / "none.parquet")
    assert parquet.read_table(tmp_path / "none.parquet").num_rows == 0


def test_without_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'landscape-torch\[parquet\]'"):
        check_parquet()


@pytest.mark.usefixtures("small_data")
def test_progress_of_a_study(tmp_path: Path) -> None:
    for seed, epochs in enumerate((1, 2)):
        train(small_config(epochs=epochs, seed=seed), tmp_path / "runs" / f"run{seed}")
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        plan = make_plan([tmp_path / "runs"], "epochs:1,2", TINY, ledger, "cpu")
        assert math.isnan(plan.forecast)
        rows = execute(plan, ledger, lambda: ThreadPoolExecutor(1), workers=1)
        assert next(rows)["run"] == "run0"
        rows.close()  # type: ignore[attr-defined]
        left = make_plan([tmp_path / "runs"], "epochs:1,2", TINY, ledger, "cpu").tasks
        guilty = left[-1]
        ledger.write(guilty.key, guilty.subject, {"status": FAILED, "error": "no memory"}, 0.0)
    with Ledger(tmp_path / "ledger.sqlite", read_only=True) as ledger:
        plan = make_plan([tmp_path / "runs"], "epochs:1,2", TINY, ledger, "cpu")
        first, second = study_progress(plan, ledger)
        assert (first.known, first.missing, first.failed) == (1, 0, 1)
        assert "no snapshot of epoch 2" in first.reasons[0]
        assert second.known + second.missing == 1 and second.failed == 1 and second.reasons == ("no memory",)
        assert plan.forecast == pytest.approx(len(plan.tasks) * next(iter(ledger.seconds().values())))


@pytest.mark.usefixtures("small_data")
def test_status_creates_nothing(invoke: Callable[..., Result], tmp_path: Path) -> None:
    train(small_config(epochs=1), tmp_path / "runs" / "a")
    before = sorted(tmp_path.rglob("*"))
    shown = invoke("measure", tmp_path / "runs", "--status", "--workers", 2)
    assert shown.exit_code == 0 and shown.stdout.splitlines()[1].split()[1:] == ["0", "1", "0"]
    assert "0 known, 1 missing, 0 failed" in shown.stderr
    assert "time unknown until the first row, on 1 worker" in shown.stderr
    document = json.loads(invoke("measure", tmp_path / "runs", "--status", "--json").stdout)
    (run,) = document["results"]["runs"]
    assert (run["known"], run["missing"], run["failed"], run["reasons"]) == (0, 1, 0, [])
    assert document["results"]["forecast"]["seconds"] is None
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--engine", "dask"), "go together"),
        (("--scheduler", "tcp://h:1"), "go together"),
        (("--select", "every:0"), "every:0"),
        (("--select", "middle"), "position"),
        (("--select", "last", "--at", "first"), "only once"),
    ],
)
@pytest.mark.usefixtures("small_data")
def test_wrong_usage(
    invoke: Callable[..., Result], tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    train(small_config(epochs=1), tmp_path / "runs" / "a")
    before = sorted(tmp_path.rglob("*"))
    shown = invoke("measure", tmp_path / "runs", *arguments)
    assert shown.exit_code == 2 and message in shown.stderr and sorted(tmp_path.rglob("*")) == before


def test_progress_without_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A line now and then, with what is left."""
    output: Any = importlib.import_module("landscape_cli.output")
    now = [0.0]
    monkeypatch.setattr("landscape_cli.output.time.monotonic", lambda: now[0])
    with output.progress(iter(range(4)), "measuring", 4) as bar:
        for _ in bar:
            now[0] += 20
    with output.counter("attacking", 10) as count:
        for _ in range(10):
            now[0] += 40
            count.update(1)
    said = capsys.readouterr().err.splitlines()
    assert said[:2] == ["measuring", "measuring: 2 of 4, about 40 s left"]
    assert said[2:4] == ["attacking", "attacking: 1 of 10, about 6 min left"] and len(said) == 12
