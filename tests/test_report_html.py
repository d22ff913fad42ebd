"""The report as a document: well-formed, complete, escaped, without references, the same bytes each time."""

import base64
import hashlib
import itertools
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_rows import FAST, study_rows, with_unusable

import landscape
from landscape.errors import ConfigurationError
from landscape.report import html, html_report, report_tables
from landscape.report.encoding import Encoding, encoding_of
from landscape.report.html_scatter import WIDTH
from landscape.report.scatter import log_limits
from landscape.study.columns import Row
from landscape.study.correlate import correlate

VOID = {"meta", "input", "br", "path", "circle"}
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>&amp;</title></svg></script><!--"


class Document(HTMLParser):
    """What a page holds; refuses elements that are not closed, or closed in another order."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs), f"an attribute of {tag} is given twice"
        if tag not in VOID or (tag == "path" and not self.get_starttag_text().endswith("/>")):  # type: ignore[union-attr]
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open and self._open.pop() == tag, f"{tag} is closed here"

    def handle_data(self, data: str) -> None:
        place = self._open[-1] if self._open else ""
        self.texts.setdefault(place, []).append(data)
        self.words += [] if place in ("script", "style") else [data]

    def spoken(self) -> str:
        """All text in its order."""
        return " ".join("".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def by_id(self, name: str) -> tuple[str, dict[str, str | None]]:
        (found,) = [(tag, attributes) for tag, attributes in self.elements if attributes.get("id") == name]
        return found

    def points(self) -> Any:
        data = [text for text in self.texts["script"] if text.startswith("{")]
        return json.loads(data[0])


def page_of(rows: list[Row], **settings: Any) -> str:
    return html_report(rows, correlate(rows, FAST), settings=settings, provenance={"python": "3.11"})


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return with_unusable(study_rows())


@pytest.fixture(scope="module")
def page(rows: list[Row]) -> str:
    return page_of(rows, levels=(0.5, math.log(2)), eps=(0.3,), x_samples=40)


@pytest.fixture(scope="module")
def document(page: str) -> Document:
    return Document(page)


def test_page_holds_every_part(page: str, document: Document, rows: list[Row]) -> None:
    names = [
        "question",
        "answer",
        "plots",
        "correlations",
        "granulated",
        "masking",
        "evidence",
        "left_out",
        "unused",
        "failures",
    ]
    names += ["method", "provenance"]
    sections = [attributes["id"] for attributes in document.all("section") if "id" in attributes]
    assert sections == names
    assert [link["href"] for link in document.all("a")] == [f"#{name}" for name in names]
    verdict = correlate(rows, FAST).verdict
    assert verdict.replace("ln2", "ln 2").replace("_", "") in document.spoken()
    assert "segment 3 is cut off" in page
    assert "0.5 ln2" in document.texts["dd"] and "40" in document.texts["dd"]


def test_every_used_run_is_a_mark_in_every_panel(document: Document) -> None:
    groups = [attributes for attributes in document.all("g") if "data-runs" in attributes]
    panels = document.all("figure")
    runs = [int(run) for group in groups for run in str(group["data-runs"]).split()]
    assert len([p for p in panels if p["class"] == "panel"]) == 22
    assert sorted(runs) == sorted(list(range(36)) * 11)
    assert len(document.texts["title"]) == 1 + 36 * 11
    assert document.points()["names"] == [row["run"] for row in study_rows()]


def test_marks_lie_where_the_values_are(rows: list[Row]) -> None:
    page = page_of(rows)
    panel = re.search(r'data-x="d_theta\[ln2\]" data-y="d_x_median\[ln2\]".*?</svg>', page, re.DOTALL)
    assert panel is not None
    used = study_rows()
    low, high = log_limits([float(row["d_theta[ln2]"] or 0) for row in used])
    checked = 0
    for runs, marks in re.findall(r'data-runs="([\d ]+)">(.*?)</g>', panel[0], re.DOTALL):
        starts = re.findall(r'd="M([\d.]+) ([\d.]+)m', marks)
        for run, (x, _) in zip(runs.split(), starts, strict=True):
            value = float(used[int(run)]["d_theta[ln2]"] or 0)
            share = math.log(value / low) / math.log(high / low)
            assert float(x) == pytest.approx(50 + share * (WIDTH - 10 - 50), abs=0.06)
            checked += 1
    assert checked == 18  # those of adam


def test_titles_tell_run_settings_and_evidence(document: Document) -> None:
    said = next(text for text in document.texts["title"] if text.startswith("sgd_lr0.01_b128_seed1\n"))
    for fact in ("optimizer: sgd", "learning rate: 0.01", "batch size: 128", "seed: 1", "evidence of d_θ"):
        assert fact in said
    assert "(c = ln 2): fair" in said and "0.2" in said


def test_nothing_is_loaded_and_nothing_but_its_own_script_may_run(page: str, document: Document) -> None:
    for tag, attributes in document.elements:
        assert tag not in {
            "link",
            "img",
            "iframe",
            "object",
            "embed",
            "base",
            "form",
            "image",
            "use",
            "foreignobject",
        }
        assert not {"src", "srcset", "style", "action", "data", "xlink:href"} & set(attributes)
        assert not any(name.startswith("on") for name in attributes)
        assert str(attributes.get("href", "#")).startswith("#")
    assert "@import" not in page and "url(" not in page
    assert set(re.findall(r"https?://[^\s\"'<]+", page)) == {"http://www.w3.org/2000/svg"}  # a name, not a place
    policy = str(document.all("meta")[1]["content"])
    assert document.all("meta")[1]["http-equiv"] == "Content-Security-Policy"
    for tag in ("style", "script"):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy and "unsafe" not in policy


def test_what_comes_from_files_is_text(rows: list[Row]) -> None:
    changes: Row = {"run": HOSTILE, "optimizer": f"sgd{HOSTILE}", "masking[0.3]": HOSTILE, "method": HOSTILE}
    changes |= {
        "masking_reasons[0.3]": HOSTILE,
        "at": HOSTILE,
        "model": HOSTILE,
        "error": HOSTILE,
        "path": HOSTILE,
    }
    hostile: list[Row] = [{**row, **(changes if i in (0, 1, 2, 5) else {})} for i, row in enumerate(rows)]
    data = re.findall(r'<script type="application/json" id="points">(.*?)</script>', page_of(hostile), re.DOTALL)
    assert len(data) == 1 and not set("<>&") & set(data[0]) and data[0].isascii()
    kept, other = (Document(page_of(r)) for r in (hostile, [r | {k: "x" for k in changes} for r in rows]))
    assert {tag for tag, _ in kept.elements} == {tag for tag, _ in other.elements}
    assert len(kept.all("script")) == 2 and not kept.all("img")
    assert HOSTILE in kept.points()["names"]
    assert any(HOSTILE in text for text in kept.texts["title"])
    assert HOSTILE in "".join(kept.texts["th"]) + "".join(kept.texts["td"])


@settings(max_examples=15, deadline=None)
@given(st.text(st.characters(), min_size=1, max_size=40))
def test_any_name_is_told_as_it_is(name: str) -> None:
    """In the data exactly; in the text but for controls and what UTF-8 lacks."""
    rows = [row | {"run": name, "optimizer": name} for row in study_rows(seeds=1)[:2]]
    page = page_of([rows[0], rows[1] | {"run": "b", "status": "failed", "error": name}])
    document = Document(page.encode().decode())
    assert document.points()["names"] == [name]
    assert {tag for tag, _ in document.elements} <= {
        *("html", "head", "meta", "title", "style", "body", "header", "h1", "h2", "h3", "p", "nav", "a", "main"),
        *(
            "section",
            "div",
            "noscript",
            "span",
            "svg",
            "path",
            "figure",
            "figcaption",
            "b",
            "i",
            "sub",
            "g",
            "text",
        ),
        *(
            "tspan",
            "table",
            "thead",
            "tbody",
            "tr",
            "th",
            "td",
            "br",
            "small",
            "dl",
            "dt",
            "dd",
            "script",
            "button",
        ),
        *("fieldset", "legend", "label", "input", "circle"),
    }


def test_same_input_same_bytes(rows: list[Row], page: str) -> None:
    assert page_of(rows, levels=(0.5, math.log(2)), eps=(0.3,), x_samples=40) == page


def test_identifiers_are_unique_and_tables_are_tables(document: Document) -> None:
    names = [attributes["id"] for _, attributes in document.elements if "id" in attributes]
    assert len(names) == len(set(names))
    for region in document.all("div"):
        if "aria-labelledby" in region:
            assert region["aria-labelledby"] in names
    assert all(attributes.get("scope") in ("row", "col") for attributes in document.all("th"))


def test_tables_of_the_page_are_those_of_python(rows: list[Row], document: Document) -> None:
    tables = report_tables(rows, correlate(rows, FAST))
    assert len(document.all("table")) == len(tables) == 7
    assert len(document.all("tr")) == sum(1 + len(table.rows) for table in tables)


def test_no_setting_is_told_by_colour_alone() -> None:
    rows = study_rows()
    encoding = encoding_of(rows, 18)
    marks = {
        (rate, batch): encoding.shape(batch, encoding.radius(rate))
        for rate, batch in itertools.product((1e-3, 0.01, 0.1), (16, 128))
    }
    assert len(set(marks.values())) == 6
    assert [encoding.radius(r) for r in (1e-3, 0.01, 0.1)] == sorted(
        {encoding.radius(r) for r in (1e-3, 0.01, 0.1)}
    )
    light = [_luminance(encoding.colour(r)) for r in (1e-3, 0.01, 0.1)]
    assert light == sorted(light) and light[2] - light[0] > 0.5  # and in grey


def test_marks_of_methods_have_a_hole() -> None:
    rows = [row | {"method": "sam" if row["seed"] == 1 else "plain"} for row in study_rows()]
    correlations = correlate(rows, FAST)
    page = html_report(rows, correlations)
    groups = re.findall(r'<g [^>]*data-runs="([^"]*)">(.*?)</g>', page, re.DOTALL)
    for runs, marks in groups:
        holes = {path.count("M") == 2 for path in re.findall(r' d="([^"]*)"', marks)}
        assert holes == {rows[correlations.used[int(run)]]["method"] == "sam" for run in runs.split()}
    assert len(groups) > 30 and "With a hole: trained by a method" in page
    plain = html_report(study_rows(), correlate(study_rows(), FAST))
    assert "With a hole" not in plain


def _luminance(colour: str) -> float:
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_ten_shapes_are_different_and_as_large_as_each_other() -> None:
    encoding = Encoding(tuple(map(float, range(10))), (0.1,), (4.0, 4.0))
    shapes = [encoding.shape(size, 4.0) for size in encoding.batch_sizes]
    assert len(set(shapes)) == 10
    for shape in shapes[1:]:
        start, steps = shape.removeprefix("m").removesuffix("z").split("l")
        moves = [
            tuple(map(float, re.findall(r"-?\d*\.?\d+", move))) for move in [start, *re.findall(r"\S+ \S+", steps)]
        ]
        x = list(itertools.accumulate(move[0] for move in moves))
        y = list(itertools.accumulate(move[1] for move in moves))
        turned = zip(x, y, x[1:] + x[:1], y[1:] + y[:1], strict=True)
        area = abs(sum(a * d - c * b for a, b, c, d in turned)) / 2
        assert 0.7 * math.pi * 16 < area < 1.1 * math.pi * 16


def test_values_that_a_log_axis_cannot_show_are_counted(rows: list[Row]) -> None:
    changed = [row | {"lambda_1": -1.0} if i in (4, 5) else row for i, row in enumerate(rows)]
    page = page_of(changed)
    panels = re.findall(r'<figure class="panel".*?</figure>', page, re.DOTALL)
    said = [panel for panel in panels if "2 not shown, value ≤ 0" in panel]
    assert len(said) == 3 and all('data-x="lambda_1"' in panel for panel in said)


def test_marks_of_many_runs_leave_their_titles_to_the_script(
    rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(html, "MAX_TITLES", 36 * 11 - 1)
    document = Document(page_of(rows))
    assert len(document.texts["title"]) == 1
    assert "points tell nothing" in "".join(document.texts["noscript"])
    assert len(document.points()["facts"]) == 36


def test_filters_offer_what_differs(document: Document) -> None:
    legends = document.texts["legend"]
    assert "Optimizer" in legends and "Batch size" in legends and "Method" not in legends
    boxes = document.all("input")
    assert len(boxes) == 2 + 2 + 3 + 3
    many = [row | {"learning_rate": 0.001 * (1 + i)} for i, row in enumerate(study_rows(seeds=6))]
    assert "Learning rate" not in Document(page_of(many)).texts["legend"]


def test_panels_and_their_filter_agree_on_optimizers_without_a_name() -> None:
    rows = [row | ({"optimizer": None} if row["optimizer"] == "sgd" else {}) for row in study_rows()]
    document = Document(page_of(rows))
    (first, *_), keys = document.all("figure")[1:], document.points()["keys"]
    assert first["data-optimizer"] == "0"
    values = [t for t in document.texts["label"] if t in ("adam", "unknown")]
    for row, key in zip(rows, keys, strict=True):
        assert values[key[0]] == (row["optimizer"] or "unknown")
    heads = re.findall(r'data-optimizer="(\d)"><figcaption><b>(\w+)</b>', page_of(rows))
    assert {(values[int(number)], name) for number, name in heads} == {("adam", "adam"), ("unknown", "unknown")}


@pytest.mark.parametrize(
    "few",
    [
        [],
        [{"status": "failed", "run": "a", "error": "no"}],
        [{"status": "ok", "optimizer": "adam"}],
        study_rows(seeds=1)[:1],
        [{k: v for k, v in row.items() if "[0.3]" not in k} for row in study_rows(seeds=2)],
        [row | {"learning_rate": None, "batch_size": "many", "optimizer": None} for row in study_rows(seeds=2)],
        [row | {"learning_rate": 0.1} for row in study_rows(seeds=2)],
    ],
    ids=["none", "failed", "empty", "one row", "no attacks", "no settings", "one learning rate"],
)
def test_small_and_incomplete_tables_make_a_page(few: list[Row]) -> None:
    page = html_report(few, correlate(few, FAST))
    document = Document(page)
    assert len(document.points()["names"]) == sum(row.get("status") == "ok" for row in few)
    assert not re.search(r"\bnan\b", document.spoken())


def test_rows_of_other_correlations_are_refused(rows: list[Row]) -> None:
    with pytest.raises(ConfigurationError, match="correlate it again"):
        html_report(rows[1:], correlate(rows, FAST))


def test_report_is_public_and_its_files_ship() -> None:
    assert landscape.html_report is html_report
    folder = Path(html.__file__).parent
    assert (folder / "report.css").is_file() and (folder / "report.js").is_file()
