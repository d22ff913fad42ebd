"""``landscape report`` as a user meets it: files, JSON, CSV, exit codes, and that nothing is measured twice."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from landscape.snapshots import find_runs
from landscape.study.table import read_rows_csv

FEW = ["--theta-samples", "50", "--x-samples", "2", "--attack-samples", "50", "--level", "ln2", "--workers", "1"]
RUN = "embedded:runs/sgd_lr0.2_b16_seed0"
DRAWS = ["--permutations", "99", "--bootstrap", "50"]

Invoke = Callable[..., Result]

pytestmark = pytest.mark.usefixtures("in_this_process")


@pytest.fixture(scope="module")
def invoke() -> Invoke:
    (script,) = entry_points(group="console_scripts", name="landscape")
    command = script.load()
    return lambda *arguments: CliRunner().invoke(command, [str(a) for a in arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound run, and one that is damaged."""
    folder = tmp_path_factory.mktemp("study") / "runs"
    sound = find_runs(["embedded:runs"])[0]
    shutil.copytree(sound, folder / sound.name)
    shutil.copytree(sound, folder / "damaged")
    segment = next((folder / "damaged" / "segments").iterdir())
    segment.write_bytes(segment.read_bytes()[:10_000])
    return folder


def test_report_lists_failures_and_gives_its_tables_as_json_and_rows_as_csv(
    invoke: Invoke, runs: Path, tmp_path: Path
) -> None:
    page, table = tmp_path / "out" / "report.html", tmp_path / "rows.csv"
    result = invoke("report", runs, *FEW, *DRAWS, "--output", page, "--csv", table, "--json")
    assert result.exit_code == 3 and "the report lists them" in result.stderr
    document = json.loads(result.stdout)
    assert set(document) == {"schema", "command", "inputs", "results", "provenance"}
    results = document["results"]
    assert results["files"] == [str(page), str(table)]
    assert results["verdict"].startswith("1 of 2 rows are used")
    assert [record["run"] for record in results["tables"]["failures"]] == ["damaged"]
    assert results["tables"]["correlations"][0]["p_within"] is None  # one run is too few: NaN is null
    rows = read_rows_csv(table)
    assert sorted(row["status"] or "" for row in rows) == ["failed", "ok"]
    text = page.read_text(encoding="utf-8")
    error = next(str(row["error"]) for row in rows if row["status"] == "failed")
    assert "Not testable" in text and error.split(":")[-1][:20] in text
    assert "training samples in the loss over θ</dt><dd>50</dd>" in text
    assert "draws of the permutation test</dt><dd>99</dd>" in text
    again = invoke("report", runs, *FEW, *DRAWS, "--output", page)
    assert again.stdout == f"{page}\n" and "1 snapshots known, 0 to measure" in again.stderr
    assert page.read_text(encoding="utf-8") == text  # the same bytes, since the command line is pytest's


@pytest.mark.parametrize(
    ("arguments", "code", "what"),
    [
        (("report", "embedded:runs", "--level", "1"), 2, "--test-level"),
        (("report", "embedded:runs", "--test-eps", "0.2"), 2, "--test-eps"),
        (("report", "nowhere"), 1, "nowhere"),
        (("report",), 2, "RUNS"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_wrong_use_writes_nothing(
    invoke: Invoke,
    arguments: tuple[str, ...],
    code: int,
    what: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke(*arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert what in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.thorough
def test_repeats_are_measured_on_other_data_and_compared(invoke: Invoke, tmp_path: Path) -> None:
    out, page = tmp_path / "out", tmp_path / "report.html"
    options = (RUN, *FEW, *DRAWS, "--ledger", tmp_path / "ledger.sqlite", "--repeat", "1")
    result = invoke("correlate", *options, "--output", out, "--json")
    assert result.exit_code == 0 and result.stderr.count("0 snapshots known, 1 to measure") == 2
    assert result.stderr.count("as long again for each repeat that follows (1)") == 1
    found = json.loads(result.stdout)["results"]
    reliability = found["correlations"]["reliability"]
    assert (reliability["measurements"], reliability["unmatched"]) == (2, 0)
    names = ("rows.csv", "rows_repeat1.csv")
    tables = [read_rows_csv(out / name) for name in names]
    assert [table[0]["repeat"] for table in tables] == [0, 1]
    assert len({table[0]["d_theta[ln2]"] for table in tables}) == 2
    assert {str(out / name) for name in names} <= set(found["files"])
    again = invoke("correlate", *options, "--output", out, "--json")
    assert again.stderr.count("1 snapshots known, 0 to measure") == 2
    assert json.loads(again.stdout)["results"]["correlations"] == found["correlations"]
    reported = invoke("report", *options, "--output", page)
    assert reported.exit_code == 0 and reported.stderr.count("1 snapshots known, 0 to measure") == 2
    assert "further measurements, on disjoint data</dt><dd>1</dd>" in page.read_text(encoding="utf-8")


def test_more_repeats_than_there_is_data_are_refused_beforehand(invoke: Invoke, tmp_path: Path) -> None:
    options = (RUN, *FEW, *DRAWS, "--attack-samples", "6000", "--ladder-samples", "20")  # the last one counts
    ledger = ("--ledger", tmp_path / "ledger.sqlite")
    result = invoke("report", *options, *ledger, "--repeat", "1", "--output", tmp_path / "report.html")
    assert result.exit_code == 1 and "no 2 disjoint parts of 6000" in result.stderr
    assert list(tmp_path.iterdir()) == []
