"""The report in headless Chromium: pointer, keyboard, filters, phone, print, dark, hostile names."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import find_browser, running_browser, wait_for_frames
from playwright.sync_api import Browser, Page
from report_rows import FAST, study_rows, with_unusable
from test_report_html import HOSTILE

from landscape.provenance import provenance
from landscape.report import html, html_report
from landscape.study.columns import Row
from landscape.study.correlate import correlate

DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 360, "height": 740}
PRIMARY = '.panel:has(svg[data-x="d_theta[ln2]"][data-y="d_x_median[ln2]"])'

Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = find_browser()
    if path is None:
        pytest.skip("no browser found: install Chromium, or say where one is by CHROMIUM")
    with running_browser(path) as running:
        yield running


def write(rows: list[Row], path: Path) -> Path:
    page = html_report(rows, correlate(rows, FAST), settings={"x_samples": 40}, provenance=provenance())
    path.write_text(page, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return with_unusable(study_rows())


@pytest.fixture(scope="module")
def file(rows: list[Row], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(rows, tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture
def open_page(browser: Browser, file: Path) -> Iterator[Open]:
    """Opens the report; in the end nothing but that file was asked for, and nothing was complained of."""
    asked: list[str] = []
    said: list[str] = []
    pages: list[Page] = []

    def open_(path: Path = file, size: dict[str, int] = DESKTOP, **options: Any) -> Page:
        page = browser.new_page(viewport=size, **options)  # type: ignore[arg-type]
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(path.as_uri())
        pages.append(page)
        return page

    yield open_
    for page in pages:
        page.close()
    assert len(asked) == len(pages) and all(url.startswith("file:") for url in asked)
    assert said == []


def marks(page: Page, panel: str) -> list[dict[str, Any]]:
    """Centres on the screen and numbers of the marks that are shown, once the page knows that it was scrolled."""
    return page.locator(f"{panel} svg.plot").evaluate(  # type: ignore[no-any-return]
        """async svg => {
            svg.scrollIntoView({block: 'center'});
            for (let i = 0; i < 2; i++) await new Promise(requestAnimationFrame);
            return [...svg.querySelectorAll('g[data-runs]:not([display])')].flatMap(group =>
                group.dataset.runs.split(' ').map((run, i) => {
                    const box = group.children[i].getBoundingClientRect();
                    return {run: Number(run), x: box.x + box.width / 2, y: box.y + box.height / 2};
                }));
        }"""
    )


def nearest_is_alone(point: dict[str, Any], others: list[dict[str, Any]]) -> bool:
    """Whether no other mark is so near that a finger could mean it."""
    return all(math.dist((point["x"], point["y"]), (o["x"], o["y"])) > 6 for o in others if o is not point)


def adam(name: str = PRIMARY) -> str:
    return f'{name}[data-optimizer="0"]'


def test_pointer_tells_run_settings_and_evidence(open_page: Open) -> None:
    page = open_page()
    tip = page.locator("#tip")
    assert not tip.is_visible()
    shown = marks(page, adam())
    assert len(shown) == 18
    point = next(p for p in shown if nearest_is_alone(p, shown))
    page.mouse.move(point["x"] + 2, point["y"] - 2)
    row = study_rows()[point["run"]]
    tip.wait_for()  # what is not shown yet has a text without lines
    told = tip.inner_text()
    grade = ("strong", "fair", "weak")[int(row["seed"] or 0) % 3]
    assert told.startswith(str(row["run"]))
    for fact in (
        f"learning rate {row['learning_rate']:g}",
        f"batch size {row['batch_size']}",
        f"seed {row['seed']}",
    ):
        assert fact in told
    lines = [line.strip() for line in told.splitlines() if line.strip()]
    assert grade in lines and str(row["masking[0.3]"]) in lines and str(row["masking_reasons[0.3]"]) in lines
    bold = page.locator("#tip dd.here").all_inner_texts()
    assert bold == [f"{float(row[name] or 0):.4g}" for name in ("d_theta[ln2]", "d_x_median[ln2]")]
    # The same run is ringed in each panel of its optimizer, and nowhere else.
    assert page.locator(".ring").count() == 11
    assert page.locator('.panel[data-optimizer="1"] .ring').count() == 0
    page.mouse.move(5, 5)
    assert not tip.is_visible() and page.locator(".ring").count() == 0


def test_long_facts_have_lines_of_their_own(open_page: Open, tmp_path: Path) -> None:
    rows = study_rows()
    for row in rows:
        row["masking_reasons[0.3]"] = "a reason in many words; " * 12
    page = open_page(write(rows, tmp_path / "report.html"))
    shown = marks(page, adam())
    point = next(p for p in shown if nearest_is_alone(p, shown))
    page.mouse.move(point["x"] + 2, point["y"] - 2)
    whole = page.locator("#tip dl").bounding_box()
    reason = page.locator("#tip dd.long").bounding_box()
    label = page.locator("#tip dt:not(.long)").first.bounding_box()
    assert whole and reason and label
    assert reason["width"] == pytest.approx(whole["width"], abs=1)
    assert label["height"] < 20, "labels of short facts keep their room"


def test_keyboard_goes_through_all_points_of_a_panel(open_page: Open) -> None:
    page = open_page()
    rows = study_rows()
    first = page.locator(f"{adam()} svg.plot path[tabindex='0']")
    assert first.count() == 1
    page.locator("#all").focus()
    page.keyboard.press("Tab")
    by_x = sorted(range(18), key=lambda i: float(rows[i]["d_theta[ln2]"] or 0))
    visited = []
    for _ in range(20):  # the last ones stay where they are
        visited.append(page.locator("#tip b").inner_text())
        page.keyboard.press("ArrowRight")
    assert visited == [str(rows[i]["run"]) for i in [*by_x, by_x[-1], by_x[-1]]]
    page.keyboard.press("Home")
    assert page.locator("#tip b").inner_text() == visited[0]
    page.keyboard.press("ArrowUp")
    heights = {i: float(rows[i]["d_x_median[ln2]"] or 0) for i in range(18)}
    above = min((i for i in heights if heights[i] > heights[by_x[0]]), key=heights.__getitem__, default=by_x[0])
    assert page.locator("#tip b").inner_text() == rows[above]["run"]
    page.keyboard.press("End")
    assert page.locator(":focus").get_attribute("aria-label").startswith(f"{visited[-1]}, ")  # type: ignore[union-attr]
    assert page.locator(":focus").get_attribute("role") == "img"
    assert page.locator(".ring.focused").count() == 1
    page.keyboard.press("Tab")  # to the next panel
    assert str(page.locator("#tip b").inner_text()).startswith("sgd")
    page.keyboard.press("Shift+Tab")
    assert page.locator("#tip b").inner_text() == visited[-1]  # where it was left
    page.keyboard.press("Escape")
    assert not page.locator("#tip").is_visible()


def test_filters_hide_points_and_say_how_many(open_page: Open) -> None:
    page = open_page()
    status = page.locator("#shown")

    def toggle(legend: str, value: str) -> None:
        page.locator("fieldset", has_text=legend).get_by_label(value, exact=True).click()

    assert status.inner_text() == ""
    toggle("Batch size", "128")
    assert status.inner_text() == "18 of 36 runs are shown."
    rows = study_rows()
    assert {rows[p["run"]]["batch_size"] for p in marks(page, adam())} == {16}
    toggle("Evidence of", "weak")
    assert status.inner_text() == "12 of 36 runs are shown."
    assert {int(rows[p["run"]]["seed"] or 0) for p in marks(page, adam())} == {0, 1}
    toggle("Optimizer", "adam")
    assert status.inner_text() == "6 of 36 runs are shown."
    assert page.locator(".panel:visible").count() == 11
    # Neither keyboard nor pointer reaches what is hidden.
    assert page.locator(".panel:visible path[tabindex='0']").count() == 11
    assert page.locator("g[display] path[tabindex]").count() == 0
    page.locator("#all").focus()
    page.keyboard.press("Tab")
    assert page.locator("#tip b").inner_text().startswith("sgd")
    head = page.locator(".panel:visible figcaption").first.inner_text()
    assert "n = 18" in head  # numbers stay those of all runs
    page.locator("#all").click()
    assert status.inner_text() == "" and len(marks(page, adam())) == 18


def test_a_filter_that_leaves_nothing_is_no_error(open_page: Open) -> None:
    page = open_page()
    point = marks(page, adam())[0]
    top = page.locator(f"{adam()} svg.plot").bounding_box()
    for box in page.locator("fieldset", has_text="Batch size").locator("input").all():
        box.click()
    assert page.locator("#shown").inner_text() == "0 of 36 runs are shown."
    marks(page, adam())  # scrolls there again
    again = page.locator(f"{adam()} svg.plot").bounding_box()
    assert top is not None and again is not None
    page.mouse.move(point["x"], point["y"] + again["y"] - top["y"])
    assert not page.locator("#tip").is_visible()


def test_without_scripts_everything_can_be_read(open_page: Open) -> None:
    page = open_page(java_script_enabled=False)
    assert not page.locator("#filters").is_visible()
    assert page.locator("noscript").is_visible()
    assert page.locator("noscript").inner_text().strip() == "Without scripts there are no filters."
    assert page.locator("svg.plot path[role=img] title").count() == 36 * 11
    assert all(table.is_visible() for table in page.locator("table").all())


def test_phone(open_page: Open) -> None:
    page = open_page(size=PHONE, has_touch=True, is_mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    small = page.evaluate(
        """() => Math.min(...[...document.querySelectorAll('main *')]
            .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()))
            .filter(e => e.checkVisibility() && !e.closest('sub, sup, tspan, noscript'))
            .map(e => parseFloat(getComputedStyle(e).fontSize) * (e.ownerSVGElement?.getScreenCTM().a || 1)))"""
    )
    assert small > 9
    for region in page.locator(".scroll").all():  # rows are cards: nothing is hidden to the right
        assert region.evaluate("e => e.scrollWidth <= e.clientWidth")
    shown = marks(page, adam())
    point = next(p for p in shown if nearest_is_alone(p, shown))
    page.touchscreen.tap(point["x"], point["y"])
    tip = page.locator("#tip").bounding_box()
    assert page.locator("#tip b").inner_text() == study_rows()[point["run"]]["run"]
    assert tip is not None and tip["x"] >= 0 and tip["x"] + tip["width"] <= PHONE["width"]
    assert not tip["y"] <= point["y"] <= tip["y"] + tip["height"]  # it does not lie over its point
    boxes = page.locator("#filters label").evaluate_all("all => all.map(e => e.getBoundingClientRect().height)")
    assert min(boxes) >= 32


def test_print(open_page: Open, tmp_path: Path) -> None:
    page = open_page()
    page.emulate_media(media="print")
    for hidden in ("nav", "#filters", "#tip"):
        assert not page.locator(hidden).is_visible()
    widths = page.locator("svg.plot").evaluate_all("all => all.map(e => e.getBoundingClientRect().width)")
    assert {round(width) for width in widths} == {287}  # 7.6 cm
    page.pdf(path=tmp_path / "report.pdf", format="A4")
    data = (tmp_path / "report.pdf").read_bytes()
    assert data.startswith(b"%PDF") and b"/URI" not in data
    assert 4 <= data.count(b"/Type /Page\n") + data.count(b"/Type /Page/") <= 14


CONTRAST = """() => {
    const linear = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const parse = c => c.match(/[\\d.]+/g).slice(0, 3).map(v => linear(v / 255));
    const light = c => parse(c).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const paper = light(getComputedStyle(document.body).backgroundColor);
    return ['p', '.caption', '.facts', 'nav a', '.outcome', 'figcaption', 'thead th', '.interval', 'dt']
        .map(name => ratio(light(getComputedStyle(document.querySelector(name)).color), paper));
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_told_from_the_paper(open_page: Open, scheme: str) -> None:
    page = open_page(color_scheme=scheme)
    assert min(page.evaluate(CONTRAST)) >= 4.5
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, paper.removeprefix("rgb(").removesuffix(")").split(","))) < 150) == (scheme == "dark")


def test_hostile_names_run_nothing(open_page: Open, rows: list[Row], tmp_path: Path) -> None:
    attack = HOSTILE.replace("alert(1)", "window.broken=1")
    changes: Row = {
        "run": attack,
        "optimizer": attack,
        "masking_reasons[0.3]": attack,
        "error": attack,
        "at": attack,
    }
    page = open_page(write([row | changes for row in rows], tmp_path / "report.html"))
    shown = marks(page, PRIMARY)
    page.mouse.move(shown[0]["x"], shown[0]["y"])
    assert attack in page.locator("#tip").inner_text()
    assert page.locator("#failures").get_by_text(attack).first.is_visible()
    wait_for_frames(page)
    assert page.evaluate("window.broken") is None
    assert page.locator("img").count() == 0 and page.locator("script").count() == 2


def test_policy_stops_what_would_slip_through(browser: Browser, file: Path) -> None:
    page = browser.new_page()
    page.goto(file.as_uri())
    stopped = page.evaluate(
        """async () => {
            const stopped = [];
            document.addEventListener('securitypolicyviolation', event => stopped.push(event.effectiveDirective));
            const script = document.createElement('script');
            script.textContent = 'window.broken = 1';
            document.body.append(script);
            document.body.insertAdjacentHTML('beforeend', '<p style="color: red"><img src="http://127.0.0.1:9/x.png">');
            await fetch('http://127.0.0.1:9/').catch(() => 0);
            await new Promise(done => setTimeout(done, 300));
            return stopped;
        }"""
    )
    assert page.evaluate("window.broken") is None
    assert {"script-src-elem", "style-src-attr", "img-src", "connect-src"} <= set(stopped)
    page.close()


def test_marks_without_titles_are_told_by_the_script(
    open_page: Open, rows: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a report on thousands of runs."""
    monkeypatch.setattr(html, "MAX_TITLES", 0)
    page = open_page(write(rows, tmp_path / "report.html"))
    page.locator("#all").focus()
    page.keyboard.press("Tab")
    assert page.locator(":focus").get_attribute("aria-label").startswith("adam_lr")  # type: ignore[union-attr]
    assert page.locator("#tip b").inner_text().startswith("adam_lr")
