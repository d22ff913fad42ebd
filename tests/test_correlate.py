"""Verdicts on tables whose truth is known, what is left out of them, and the table on disk and in the terminal."""

import csv
import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from landscape.errors import ConfigurationError
from landscape.statistics.association import associate
from landscape.study.associations import CorrelateConfig, Correlations, columns_of, to_json
from landscape.study.columns import (
    COLUMNS,
    LEVELS,
    Row,
    axis_label,
    distance_column,
    fgsm_column,
    flag_column,
    level_label,
    ordered_columns,
    parse_level,
    width_column,
)
from landscape.study.correlate import correlate
from landscape.study.selection import exclusion_reasons
from landscape.study.table import read_rows_csv, write_rows_csv
from landscape.study.terminal import format_table
from landscape.study.verdict import outcome, verdict

FAST = CorrelateConfig(permutations=499, bootstrap=300)
PAIR = ("d_theta[ln2]", "d_x_median[ln2]")


def make_rows(
    link: float, *, seeds: int = 5, seed: int = 0, settings: float = 1.0, fgsm_link: float = 0.0
) -> list[Row]:
    """A table of 2 x 3 x 2 cells; ``link`` ties d_θ to d_X within cells, ``settings`` between them."""
    rng = np.random.default_rng(seed)
    rows: list[Row] = []
    for optimizer, rates in (("adam", (2e-4, 1e-3, 5e-3)), ("sgd", (0.01, 0.05, 0.2))):
        for i, rate in enumerate(rates):
            for batch in (16, 128):
                for s in range(seeds):
                    latent, cell = rng.normal(), (i - 1) + 0.8 * (batch == 16)
                    d_theta = 0.25 * math.exp(0.5 * cell + 0.2 * rng.normal() + 0.2 * abs(link) * latent)
                    d_x = 1.3 * math.exp(0.3 * settings * cell + 0.1 * rng.normal() + 0.1 * link * latent)
                    published = 0.3 * math.exp(0.2 * cell + 0.1 * rng.normal() + 0.1 * fgsm_link * latent)
                    loss, name = 0.01 * math.exp(rng.normal()), f"{optimizer}-{rate:g}-{batch}-{s}"
                    rows.append({
                        "run": name, "run_id": f"id-{name}", "theta_sha256": f"sha-{name}", "model": "cnn",
                        "optimizer": optimizer, "learning_rate": rate, "batch_size": batch, "seed": s, "step": 900,
                        "status": "ok", "train_loss": loss, "lambda_1": 20 * math.exp(-cell + 0.5 * rng.normal()),
                        "d_theta[ln2]": d_theta, "w_theta[ln2]": d_theta / (LEVELS["ln2"] - loss),
                        "d_theta_flag[ln2]": "ok", "d_x_median[ln2]": d_x,
                        "w_x_median[ln2]": d_x / (LEVELS["ln2"] - loss),
                        "fgsm_published[0.3]": published, "fgsm_exact[0.3]": published * rng.uniform(0.3, 0.6),
                        "worst_case[0.3]": published * rng.uniform(0.1, 0.2), "masking[0.3]": "sound",
                    })  # fmt: skip
    return rows


# --- columns ------------------------------------------------------------------------------------------------


def test_levels_and_labels_are_inverse() -> None:
    for label, value in LEVELS.items():
        assert parse_level(label) == value and level_label(value) == label
    for value in (0.7, 2.0, 0.1 + 0.2, 1e-5):
        assert parse_level(level_label(value)) == value
    assert level_label(2.0) == "2"


@pytest.mark.parametrize("text", ["", "ln", "lnx", "nan", "inf", "-1", "0", "two"])
def test_other_levels_are_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="not a positive number"):
        parse_level(text)


def test_column_names() -> None:
    assert (distance_column("theta", "ln2"), distance_column("x", "ln2")) == PAIR
    assert width_column("theta", "1.0") == "w_theta[1]" and width_column("x", "ln10") == "w_x_median[ln10]"
    assert flag_column(str(math.log(2))) == "d_theta_flag[ln2]"
    assert fgsm_column("published", 0.3) == "fgsm_published[0.3]"
    assert axis_label("d_theta[ln2]") == r"distance $d_\theta$ at $c=\ln 2$"
    assert axis_label("something else") == "something else"


def test_columns_have_a_fixed_order() -> None:
    names = ordered_columns(
        [{"zz": 1, "d_theta[2]": 1.0, "w_theta[ln2]": 1.0}, {"d_theta[0.5]": 1.0, "d_theta[ln2]": 1}]
    )
    per_level = [name for name in names if "[" in name]
    assert per_level == ["d_theta[0.5]", "d_theta[ln2]", "d_theta[2]", "w_theta[ln2]"]
    assert names[0] == "run" and names[-1] == "zz"
    assert [n for n in names if n in {c.name for c in COLUMNS}] == [c.name for c in COLUMNS if not c.argument]


# --- verdicts -----------------------------------------------------------------------------------------------


def kind(correlations: Correlations) -> str:
    return outcome(correlations.primary, correlations.config.alpha)


def test_planted_link_is_supported() -> None:
    c = correlate(make_rows(2.0), FAST)
    assert kind(c) == "supported" and not c.simpson
    assert c.verdict.startswith("60 of 60 rows are used. Supported within cells:")
    assert f"ρ = {c.primary.within_rho:.2f} (95 % interval {c.primary.within_low:.2f}" in c.verdict
    assert "does not show that the one causes the other" in c.verdict
    assert "confounded by the settings" in c.verdict
    assert f"By optimizer, within cells: adam ρ = {c.panels[(*PAIR, 'adam')].within_rho:.2f} (95 %" in c.verdict


def test_no_link_is_not_supported_although_the_total_is_strong() -> None:
    c = correlate(make_rows(0.0, seed=1), FAST)
    assert kind(c) == "not supported" and c.primary.total_low > 0.3
    assert "Not supported:" in c.verdict and "interval includes 0" in c.verdict
    assert "47 degrees of freedom this design finds |ρ| ≥ 0.39 with about 80 % power" in c.verdict
    assert "description only" in c.verdict


def test_opposite_sign_contradicts_and_is_simpsons_paradox() -> None:
    c = correlate(make_rows(-2.0, settings=4.0), FAST)
    assert kind(c) == "opposite" and c.primary.within_high < 0 < c.primary.total_low
    assert c.simpson and "Simpson's paradox" in c.verdict
    assert "contradicts the claim" in c.verdict and "Supported within" not in c.verdict


def test_without_replicates_nothing_is_claimed() -> None:
    c = correlate(make_rows(2.0, seeds=1), FAST)
    assert kind(c) == "not testable" and not c.simpson
    assert "Not testable: no replicates" in c.verdict and "several seeds per cell" in c.verdict
    assert "cannot be tested" in c.verdict


def test_one_comparison_within_cells_is_none() -> None:
    """Two runs of equal settings beside one of others; nothing is said of an interval that there is not."""
    rows = make_rows(2.0)
    cell = [row for row in rows if all(row[k] == rows[0][k] for k in ("optimizer", "learning_rate", "batch_size"))]
    other = next(row for row in rows if row["learning_rate"] != rows[0]["learning_rate"])
    c = correlate([*cell[:2], other], FAST)
    assert c.primary.degrees_of_freedom == 0 and kind(c) == "not testable"
    assert "too few runs share their settings" in c.verdict or "Not testable" in c.verdict
    assert "interval includes 0" not in c.verdict and "n/a" not in c.verdict


def test_all_rows_failed() -> None:
    rows = [{**row, "status": "failed", "error": "killed"} for row in make_rows(2.0)]
    c = correlate(rows, FAST)
    assert (c.num_rows, c.num_failed, c.used) == (60, 60, ())
    assert c.verdict.startswith("0 of 60 rows are used (excluded: 60 failed). Not testable:")
    assert "was not measured" in c.verdict and "nan" not in c.verdict


def test_empty_table() -> None:
    c = correlate([], FAST)
    assert c.num_rows == 0 and "Not testable" in c.verdict and c.panels == {}


@pytest.mark.parametrize("columns", [("d_x_median[ln2]",), ("fgsm_exact[0.3]",), ("lambda_1", "w_theta[ln2]")])
@pytest.mark.parametrize("missing", [math.nan, None])
def test_missing_columns_are_said_and_break_nothing(columns: tuple[str, ...], missing: float | None) -> None:
    rows: list[Row] = [{**row, **dict.fromkeys(columns, missing)} for row in make_rows(2.0)]
    c = correlate(rows, FAST)
    assert c.pair("d_theta[ln2]", columns[0]).dropped == 60
    assert kind(c) == ("not testable" if "d_x_median[ln2]" in columns else "supported")
    assert "nan" not in c.verdict


def test_test_and_interval_that_disagree_are_unsettled() -> None:
    c = correlate(make_rows(2.0), FAST)
    for change in ({"within_low": -0.1}, {"p_within": 0.2}):
        primary = dataclasses.replace(c.primary, **change)  # type: ignore[arg-type]
        said = verdict(dataclasses.replace(c, primary=primary))
        assert outcome(primary, 0.05) == "unsettled" and "counts as not supported" in said


def test_one_cell_is_judged_by_its_p_value() -> None:
    x = np.arange(12.0)
    assert outcome(associate(x, x, [0] * 12, permutations=99), 0.05) == "supported"
    assert outcome(associate(x, -x, [0] * 12, permutations=99), 0.05) == "opposite"


def test_verdict_is_a_function_of_the_numbers() -> None:
    c = correlate(make_rows(1.0), FAST)
    assert verdict(dataclasses.replace(c, verdict="something else")) == c.verdict


def test_width_and_accuracy_for_all_readings() -> None:
    every = correlate(make_rows(2.0, fgsm_link=4.0), FAST)
    assert "holds under FGSM as published and under FGSM with exact gradients and in the worst" in every.verdict
    neither = correlate(make_rows(2.0, fgsm_link=0.0, seed=1), FAST)
    assert "is not found as claimed for any reading" in neither.verdict
    rng = np.random.default_rng(0)
    masked: list[Row] = [
        {**r, "fgsm_exact[0.3]": float(rng.random()), "worst_case[0.3]": float(rng.random())}
        for r in make_rows(2.0, fgsm_link=4.0)
    ]
    assert "holds only under FGSM as published, so it depends on what" in correlate(masked, FAST).verdict
    fallen: list[Row] = [{**r, "worst_case[0.3]": 0.0} for r in make_rows(2.0, fgsm_link=4.0)]
    assert "In the worst case it cannot be tested: y constant." in correlate(fallen, FAST).verdict
    assert "0.0% are left." in correlate(fallen, FAST).verdict
    opposite = correlate(make_rows(2.0, fgsm_link=-4.0), FAST)
    assert "has the opposite sign under FGSM as published and under FGSM with exact" in opposite.verdict


def test_masking_is_counted_at_the_radius_of_the_tests() -> None:
    rows: list[Row] = [{**r, "masking[0.1]": "gradient masking"} for r in make_rows(0.0)]
    rows[3]["masking[0.3]"], rows[4]["masking[0.3]"] = "arithmetic masking", None
    c = correlate(rows, FAST)
    assert c.masking == {"sound": 58, "arithmetic masking": 1}
    assert "at ε = 0.3 calls the runs: 58 sound, 1 arithmetic masking." in c.verdict
    assert "masking audit" not in correlate([{**r, "masking[0.3]": None} for r in rows], FAST).verdict


def test_fgsm_gap() -> None:
    rows: list[Row] = [{**r, "fgsm_published[0.3]": 0.4, "fgsm_exact[0.3]": 0.1} for r in make_rows(0.0)]
    rows[0]["fgsm_published[0.3]"], rows[1]["fgsm_exact[0.3]"] = 0.9, math.nan
    c = correlate(rows, FAST)
    gap = c.fgsm_gap
    assert gap.n == 59 and gap.max == pytest.approx(0.8)
    assert gap.mean == pytest.approx((58 * 0.3 + 0.8) / 59)
    assert gap.vanishing_share == pytest.approx(gap.mean / gap.mean_published)
    assert f"{gap.mean_exact:.1%} instead of {gap.mean_published:.1%} as published: " in c.verdict


# --- rows that are left out ---------------------------------------------------------------------------------


def test_reasons_for_exclusion() -> None:
    rows = make_rows(1.0)
    rows[0]["status"] = "failed"
    rows[1]["train_loss"] = math.nan
    rows[2]["train_loss"] = 2.4
    rows[3]["d_theta_flag[ln2]"] = "not_reached"
    rows[4]["d_theta_flag[ln2]"] = "below_minimum"
    rows[5]["theta_sha256"] = rows[6]["theta_sha256"]  # the same weights under another name
    rows.append({**rows[7], "step": 100, "theta_sha256": "earlier"})  # an earlier snapshot of a run
    rows.append({**rows[8], "status": "failed"})  # a failed repetition does not push out the good one
    reasons = exclusion_reasons(rows, "ln2")
    expected = ["failed", "diverged", "diverged", "not_reached", "below_minimum", "repeated", "", "", ""]
    assert reasons[:9] == expected and reasons[-2:] == ["repeated", "failed"]
    c = correlate(rows, FAST)
    assert c.num_excluded == {"failed": 2, "repeated": 2, "diverged": 2, "not_reached": 1, "below_minimum": 1}
    assert c.primary.n == len(c.used) == 62 - 8
    assert "may be the widest ones" in c.verdict


def test_hand_made_tables_need_neither_status_nor_identifiers() -> None:
    wanted = {"optimizer", "learning_rate", "batch_size", *PAIR}
    rows: list[Row] = [{k: v for k, v in row.items() if k in wanted} for row in make_rows(2.0)]
    c = correlate(rows, FAST)
    assert c.primary == correlate(make_rows(2.0), FAST).primary


def test_runs_of_other_methods_are_in_other_cells() -> None:
    """A table from before there were methods holds plain runs."""
    rows = make_rows(1.0)
    rows[0] |= {"method": "plain", "method_args": None}
    rows[1] |= {"method": "plain", "method_args": ""}
    assert correlate(rows, FAST).primary.num_cells == 12
    rows[0] |= {"method": "sam", "method_args": "rho=0.05"}
    assert correlate(rows, FAST).primary.num_cells == 13
    rows[1] |= {"method": "sam", "method_args": "rho=0.1"}
    assert correlate(rows, FAST).primary.num_cells == 14


def test_cells_are_model_optimizer_rate_and_batch() -> None:
    rows = make_rows(1.0)
    assert correlate(rows, FAST).primary.num_cells == 12
    rows[0]["batch_size"] = 16.0  # as CSV may have it
    assert correlate(rows, FAST).primary.num_cells == 12
    rows[0]["model"] = "mlp"
    assert correlate(rows, FAST).primary.num_cells == 13


# --- structure ----------------------------------------------------------------------------------------------


def test_pairs_panels_and_matrix_agree() -> None:
    c = correlate(make_rows(1.0), FAST)
    assert len(c.names) == 8 and len(c.pairs) == 28 and len(c.panels) == 11 * 2
    assert c.primary is c.pair(*PAIR) and c.primary is c.pair(*reversed(PAIR))
    for i, x in enumerate(c.names):
        for j, y in enumerate(c.names):
            want = 1.0 if i == j else c.pair(x, y).within_rho if i < j else c.pair(x, y).total_rho
            assert c.matrix[i][j] == want
    assert all(a.n == 30 and a.num_cells == 6 for a in c.panels.values())
    adam = correlate([row for row in make_rows(1.0) if row["optimizer"] == "adam"], FAST)
    assert adam.primary == c.panels[(*PAIR, "adam")]


def test_logarithms_change_nothing() -> None:
    rows = make_rows(1.0)
    logs: list[Row] = [{**row, **{name: math.log(float(row[name] or 0)) for name in PAIR}} for row in rows]
    assert correlate(logs, FAST).primary == correlate(rows, FAST).primary


def test_holm_covers_the_three_links_of_the_claim() -> None:
    c = correlate(make_rows(2.0), FAST)
    names = columns_of(FAST)
    assert set(c.p_holm) == {(names.d_theta, names.d_x), (names.d_x, names.exact), (names.d_theta, names.exact)}
    assert all(p >= c.pair(*pair).p_within for pair, p in c.p_holm.items())


@pytest.mark.parametrize(
    "change", [{"level": "-1"}, {"alpha": 0.0}, {"eps": 0.0}, {"permutations": 0}, {"bootstrap": 0}]
)
def test_configuration_is_checked(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        CorrelateConfig(**change)


def test_unknown_pair_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no association"):
        correlate([], FAST).pair("d_theta[ln2]", "seed")


@pytest.mark.parametrize("seeds", [1, 3])
def test_json_is_strict(seeds: int) -> None:
    c = correlate(make_rows(1.0, seeds=seeds), FAST)
    plain: Any = json.loads(json.dumps(to_json(c), allow_nan=False))
    assert plain["verdict"] == c.verdict and plain["config"]["level"] == "ln2"
    assert (plain["primary"]["within_rho"] is None) == (seeds == 1)
    assert plain["panels"]["d_theta[ln2]|d_x_median[ln2]|sgd"]["n"] == 6 * seeds
    assert correlate([], FAST) and json.dumps(to_json(correlate([], FAST)), allow_nan=False)


# --- table --------------------------------------------------------------------------------------------------


def test_csv_round_trip(tmp_path: Path) -> None:
    rows = make_rows(1.0, seeds=2)
    rows[0].update(
        {"error": 'a "quoted",\ntext', "lambda_min": 0.1 + 0.2, "epoch": None, "margin_median": math.nan}
    )
    rows[1].update({"lambda_min": -math.inf, "samples_seen": 10**12, "lambda_1": float(np.float32(0.1))})
    rows[2].update({"seed": np.int64(3), "lambda_1": np.float64(1e-300), "extra": "unknown column"})  # type: ignore[dict-item]
    path = tmp_path / "new" / "table.csv"
    write_rows_csv(rows, path)
    back = read_rows_csv(path)
    missing = (None, "")
    for row, read in zip(rows, back, strict=True):
        for name, value in read.items():
            want = row.get(name)
            assert value == want or (value is None and (want in missing or math.isnan(float(want or 0))))
    assert [p.name for p in path.parent.iterdir()] == ["table.csv"]  # no temporary file stays behind
    with path.open(newline="") as file:
        assert next(csv.reader(file)) == ordered_columns(rows)
    again = tmp_path / "again.csv"
    write_rows_csv(back, again)
    assert again.read_bytes() == path.read_bytes()


def test_csv_gives_the_same_answer(tmp_path: Path) -> None:
    rows = make_rows(1.0)
    rows[0]["train_loss"] = math.nan
    write_rows_csv(rows, tmp_path / "t.csv")
    assert to_json(correlate(read_rows_csv(tmp_path / "t.csv"), FAST)) == to_json(correlate(rows, FAST))


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "table.csv"
    write_rows_csv(make_rows(1.0, seeds=1), path)
    old = path.read_bytes()

    def refuse(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(OSError, match="disk full"):
        write_rows_csv(make_rows(1.0, seeds=2), path)
    assert path.read_bytes() == old and [p.name for p in tmp_path.iterdir()] == ["table.csv"]


def test_empty_table_has_a_header(tmp_path: Path) -> None:
    write_rows_csv([], tmp_path / "t.csv")
    assert read_rows_csv(tmp_path / "t.csv") == []
    assert (
        (tmp_path / "t.csv").read_text().startswith("run,run_id,theta_sha256,path,at,model,model_args,optimizer,")
    )


@pytest.mark.parametrize("seeds", [0, 1, 5])
def test_terminal_table_is_aligned_and_starts_with_the_primary_pair(seeds: int) -> None:
    c = correlate(make_rows(2.0, seeds=seeds), FAST)
    lines = format_table(c).splitlines()
    header = next(i for i, line in enumerate(lines) if line.startswith("x "))
    body = lines[header + 2 : lines.index("", header) if "" in lines[header:] else None]
    assert len(body) == 28 and body[0].split()[:2] == list(PAIR)
    starts = [match.start() for match in re.finditer(r"-+", lines[header + 1])]
    assert all(line[start - 1 : start] in (" ", "") for line in body for start in starts[1:])
    assert "nan" not in "\n".join(lines)
