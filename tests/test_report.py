"""The five figures: files, bytes, what they say, and what they leave of matplotlib's settings."""

import itertools
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.collections import PathCollection

from landscape.errors import ConfigurationError
from landscape.report import FIGURES, FORMATS, draw_figures
from landscape.report.figures import READINGS, scatters
from landscape.report.scatter import describe, draw_scatter, log_limits
from landscape.report.style import PNG_DPI, log_ticks, style
from landscape.statistics.association import associate
from landscape.study.associations import CorrelateConfig, Correlations, columns_of
from landscape.study.columns import Row
from landscape.study.correlate import correlate

FAST = CorrelateConfig(permutations=99, bootstrap=50)


def make_rows(optimizers: tuple[str, ...] = ("adam", "sgd"), seeds: int = 5) -> list[Row]:
    rng = np.random.default_rng(0)
    rows: list[Row] = []
    for optimizer, rate, batch, _ in itertools.product(optimizers, (1e-3, 1e-2, 0.1), (16, 128), range(seeds)):
        latent = rng.normal()
        rows.append({
            "optimizer": optimizer, "learning_rate": rate, "batch_size": batch, "status": "ok", "train_loss": 0.01,
            "d_theta[ln2]": math.exp(latent - 1.5), "w_theta[ln2]": 1.5 * math.exp(latent - 1.5),
            "d_x_median[ln2]": 1.5 * math.exp(0.3 * rng.normal()),
            "w_x_median[ln2]": 2.0 * math.exp(0.3 * rng.normal()),
            "lambda_1": 20 * math.exp(-latent), "fgsm_published[0.3]": rng.uniform(0.02, 0.6),
            "fgsm_exact[0.3]": rng.uniform(0.0, 0.3), "worst_case[0.3]": rng.uniform(0.0, 0.1),
        })  # fmt: skip
    return rows


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return make_rows()


@pytest.fixture(scope="module")
def correlations(rows: list[Row]) -> Correlations:
    return correlate(rows, FAST)


@pytest.fixture(scope="module")
def drawn(rows: list[Row], correlations: Correlations, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("figures")
    draw_figures(rows, correlations, directory)
    return directory


def svg_text(path: Path) -> str:
    return " ".join(re.findall(r"<text[^>]*>(.*?)</text>", path.read_text(), re.DOTALL))


def panels(rows: list[Row], correlations: Correlations, name: str) -> list[Any]:
    """Axes of one figure that hold points, in reading order."""
    with style():
        scatter = scatters(correlations.columns, correlations.config.eps)[name]
        figure = draw_scatter([rows[i] for i in correlations.used], scatter, correlations.panels)
    return [axes for axes in figure.axes if any(isinstance(c, PathCollection) for c in axes.collections)]


def num_points(axes: Any) -> int:
    return sum(np.asarray(c.get_offsets()).shape[0] for c in axes.collections if isinstance(c, PathCollection))


def test_five_figures_in_three_formats_and_nothing_else(drawn: Path) -> None:
    assert {p.name for p in drawn.iterdir()} == {f"{name}.{suffix}" for name in FIGURES for suffix in FORMATS}
    starts = {"pdf": b"%PDF", "svg": b"<?xml", "png": b"\x89PNG"}
    for path in drawn.iterdir():
        assert path.read_bytes().startswith(starts[path.suffix[1:]])


def test_png_has_the_width_of_a_page_at_200_dpi(drawn: Path) -> None:
    for path in drawn.glob("*.png"):
        width, height = np.frombuffer(path.read_bytes()[16:24], ">u4")  # the IHDR chunk
        assert 5.5 * PNG_DPI <= width <= 7.0 * PNG_DPI and 2 * PNG_DPI <= height <= 9 * PNG_DPI


@pytest.mark.thorough
def test_second_call_gives_the_same_bytes(
    rows: list[Row], correlations: Correlations, drawn: Path, tmp_path: Path
) -> None:
    paths = draw_figures(rows, correlations, tmp_path)
    assert len(paths) == 15
    for path in paths:
        assert path.read_bytes() == (drawn / path.name).read_bytes(), path.name


def test_files_name_their_creator_and_no_date(drawn: Path) -> None:
    pdf, svg, png = ((drawn / f"d_theta-d_x.{suffix}").read_bytes() for suffix in FORMATS)
    assert all(b"landscape-torch" in data for data in (pdf, svg, png))
    assert b"CreationDate" not in pdf and b"<dc:date>" not in svg


def test_pdf_embeds_truetype_fonts(drawn: Path) -> None:
    data = (drawn / "d_theta-d_x.pdf").read_bytes()
    assert b"/Type3" not in data and b"/FontFile2" in data


@pytest.mark.parametrize("name", ["w_theta-fgsm", "w_x-fgsm", "lambda_1-fgsm"])
def test_all_readings_are_drawn(drawn: Path, rows: list[Row], correlations: Correlations, name: str) -> None:
    said = svg_text(drawn / f"{name}.svg")
    assert all(said.count(reading) == 2 for reading in READINGS)  # once per optimizer
    axes = panels(rows, correlations, name)
    assert [num_points(a) for a in axes] == [30] * 6
    assert all(a.get_ylim() == (0.0, 1.0) and a.get_xscale() == "log" for a in axes)
    heights = [np.concatenate([np.asarray(c.get_offsets())[:, 1] for c in a.collections]) for a in axes]
    assert sorted(heights[0]) == sorted(float(r["fgsm_published[0.3]"] or 0) for r in rows[:30])
    assert sorted(heights[2]) == sorted(float(r["fgsm_exact[0.3]"] or 0) for r in rows[:30])
    assert sorted(heights[4]) == sorted(float(r["worst_case[0.3]"] or 0) for r in rows[:30])


def test_readings_that_no_row_has_are_not_drawn(tmp_path: Path, rows: list[Row]) -> None:
    older: list[Row] = [{k: v for k, v in row.items() if k != "worst_case[0.3]"} for row in rows]
    draw_figures(older, correlate(older, FAST), tmp_path, ["svg"])
    said = svg_text(tmp_path / "w_theta-fgsm.svg")
    assert [said.count(reading) for reading in READINGS] == [2, 2, 0]


def test_panels_show_the_numbers_of_the_study(rows: list[Row], correlations: Correlations) -> None:
    axes = panels(rows, correlations, "d_theta-d_x")
    names = columns_of(FAST)
    for panel, optimizer in zip(axes, ("adam", "sgd"), strict=True):
        head = panel.get_title(loc="left").split("\n")
        a = correlations.panels[(names.d_theta, names.d_x, optimizer)]
        assert head == [optimizer, *describe(a)]
        assert head[1].startswith(f"n = 30, total ρ = {a.total_rho:.2f} [".replace("-", "−"))
        assert f"p = {a.p_within:.2g}" in head[2]


def test_keys_name_every_setting(drawn: Path) -> None:
    said = svg_text(drawn / "w_theta-w_x.svg")
    assert all(word in said for word in ("learning rate", "0.001", "0.01", "0.1", "batch size", "16", "128"))


def test_text_is_at_least_7_pt_and_stays_on_the_page(rows: list[Row], correlations: Correlations) -> None:
    for name in FIGURES:
        figure = panels(rows, correlations, name)[0].figure
        figure.canvas.draw()
        texts = [t for t in figure.findobj(matplotlib.text.Text) if t.get_text().strip() and t.get_visible()]
        assert min(t.get_fontsize() for t in texts) >= 7
        titles = [a.get_title(loc="left") for a in figure.axes]
        boxes = [t.get_window_extent() for t in texts if t.get_text() in titles]
        assert len(boxes) in (2, 6)
        assert all(b.x0 >= 0 and b.x1 <= figure.bbox.x1 and b.y1 <= figure.bbox.y1 for b in boxes)
        assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


def test_values_that_a_log_axis_cannot_show_are_counted(rows: list[Row]) -> None:
    changed: list[Row] = [{**row, "lambda_1": -1.0} if i in (0, 1) else row for i, row in enumerate(rows)]
    changed[2] = {**changed[2], "lambda_1": math.nan}  # not measured: missing in n, not hidden
    first, second, *_ = panels(changed, correlate(changed, FAST), "lambda_1-fgsm")
    assert (num_points(first), num_points(second)) == (27, 30)
    assert "n = 29," in first.get_title(loc="left") and "2 not shown" in first.get_title(loc="left")
    assert "not shown" not in second.get_title(loc="left")


def test_settings_of_matplotlib_do_not_leak_in_or_out(
    rows: list[Row], correlations: Correlations, drawn: Path, tmp_path: Path
) -> None:
    with matplotlib.rc_context({"font.size": 30.0, "axes.facecolor": "red", "svg.fonttype": "path"}):
        before = dict(matplotlib.rcParams)
        (path,) = {p for p in draw_figures(rows, correlations, tmp_path, ("svg",)) if p.stem == "d_theta-d_x"}
        assert dict(matplotlib.rcParams) == before
    assert path.read_bytes() == (drawn / path.name).read_bytes()


def test_only_the_rows_that_were_used_are_drawn(rows: list[Row]) -> None:
    changed: list[Row] = [{**row, "status": "failed"} if i < 4 else row for i, row in enumerate(rows)]
    assert [num_points(a) for a in panels(changed, correlate(changed, FAST), "w_theta-w_x")] == [26, 30]


@pytest.mark.parametrize("empty", [[], [{"status": "failed", "optimizer": "adam"}]])
def test_nothing_to_draw_is_an_error(empty: list[Row], tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="can be drawn"):
        draw_figures(empty, correlate(empty, FAST), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_wrong_table_and_format_are_errors(rows: list[Row], correlations: Correlations, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="correlate it again"):
        draw_figures(rows[1:], correlations, tmp_path)
    with pytest.raises(ConfigurationError, match="'gif' is unknown"):
        draw_figures(rows, correlations, tmp_path, ("gif",))


@pytest.mark.parametrize(
    "few",
    [
        make_rows(("sgd",), seeds=1)[:1],
        [{"status": "ok", "optimizer": "adam"}],
        [{**row, "d_theta[ln2]": math.nan, "learning_rate": None} for row in make_rows(("adam",), seeds=1)],
        make_rows(("adam", "momentum", "sgd"), seeds=1),
    ],
    ids=["one row", "no measurement", "a column of NaN", "three optimizers"],
)
def test_small_and_incomplete_tables_are_drawn_with_na(few: list[Row], tmp_path: Path) -> None:
    paths = draw_figures(few, correlate(few, FAST), tmp_path, ("svg",))
    assert len(paths) == 5 and "n/a" in svg_text(tmp_path / "d_theta-d_x.svg")


def test_association_in_words() -> None:
    assert describe(None) == ["n/a"]
    assert describe(associate([1], [1], [0])) == ["n = 1, total ρ = n/a", "within cells ρ = n/a"]
    x = np.arange(12.0)
    said = describe(associate(x, -x, np.repeat([0, 1, 2], 4), permutations=9999))
    assert said == [
        "n = 12, total ρ = −1.00 [−1.00, −1.00]",
        f"within cells ρ = −1.00 [−1.00, −1.00], {said[1][-10:]}",
    ]


@pytest.mark.parametrize(("low", "high"), [(0.05, 1.0), (0.5, 3.0), (1.0, 500.0), (0.9, 1.1), (1e-8, 1e8)])
def test_log_ticks(low: float, high: float) -> None:
    ticks = log_ticks(*log_limits([low, high]))
    assert len(ticks) >= 3 and ticks == sorted(ticks)
    assert all(tick == float(f"{tick:.2g}") for tick in ticks)
    assert len(ticks) <= 17


@pytest.mark.parametrize("low", np.geomspace(1, 10, 41))
def test_any_octave_has_three_ticks_and_not_too_many(low: float) -> None:
    assert 3 <= len(log_ticks(low, 2 * low)) <= 6


def test_report_loads_neither_torch_nor_pyplot() -> None:
    code = "import sys, landscape.report; print(*{'torch', 'matplotlib.pyplot'} & set(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == []
