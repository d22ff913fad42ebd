"""The report: one HTML file that holds everything, loads nothing, and can be read without its script."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import resources

from landscape.errors import ConfigurationError
from landscape.report.contents import report_tables
from landscape.report.encoding import encoding_of
from landscape.report.figures import measured_readings, scatters
from landscape.report.html_forest import forest_html
from landscape.report.html_scatter import Drawing, figure_html, legend_html, num_marks
from landscape.report.html_tables import table_html
from landscape.report.points import Points, points_of
from landscape.report.symbols import escape, set_symbols
from landscape.report.tables import number_of
from landscape.report.words import FIGURES, METHOD, OUTCOMES, PLOTS, QUESTION, SETTINGS, TITLE, say
from landscape.study.associations import Correlations
from landscape.study.columns import Rows, level_label, methods_of, text_values
from landscape.study.verdict import outcome

# Marks that tell their run without the script take ten times the room of those that do not.
MAX_TITLES = 20_000
NO_BREAK = "\N{NO-BREAK SPACE}"


def html_report(
    rows: Rows,
    correlations: Correlations,
    *,
    settings: Mapping[str, object] | None = None,
    provenance: Mapping[str, object] | None = None,
) -> str:
    """The report on ``rows`` and their ``correlations`` as one HTML document.

    It holds the question, the verdict, a scatter plot for each pair with a mark for every used run, the tables of
    ``report_tables``, ``settings`` (how rows were measured) and ``provenance``. Nothing is loaded from elsewhere,
    and the same input gives the same text.

    Raises:
        ConfigurationError: If ``correlations`` are not those of ``rows``.
    """
    if len(rows) != correlations.num_rows:
        raise ConfigurationError(
            f"the table has {len(rows)} rows, its correlations {correlations.num_rows}: correlate it again"
        )
    points = points_of(rows, correlations)
    tables = report_tables(rows, correlations)
    sections = [
        _section("question", "The question", f"<p>{_prose(say(QUESTION))}</p>"),
        _answer(correlations),
        _plots(rows, correlations, points),
        *(table_html(table) for table in tables),
        _measured(correlations, settings),
        _provenance(provenance),
    ]
    names = {"question": "Question", "answer": "Answer", "plots": "Plots"}
    names |= {table.name: table.title for table in tables}
    names |= {"method": "Method", "provenance": "Provenance"}
    body = _header(rows, correlations, names) + f"<main>{''.join(filter(None, sections))}</main>"
    return _page(body, points)


def _page(body: str, points: Points) -> str:
    style, script = _asset("report.css"), _asset("report.js")
    # The two digests let just this style and this script in: markup that slipped through could not run anything.
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><meta name="generator" content="landscape-torch">'
        f"<title>{escape(TITLE)}</title><style>{style}</style></head>\n<body>{body}\n"
        '<div id="tip" aria-hidden="true" hidden></div>'
        f'<script type="application/json" id="points">{_json(points.as_json())}</script>'
        f"<script>{script}</script></body></html>\n"
    )


def _asset(name: str) -> str:
    return resources.files("landscape.report").joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _json(value: object) -> str:
    """JSON that may stand inside a script element: pure ASCII, without anything that could end it."""
    plain = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return plain.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")


def _header(rows: Rows, c: Correlations, names: Mapping[str, str]) -> str:
    used = [rows[i] for i in c.used]
    optimizers = ", ".join(text_values(used, "optimizer"))
    facts = [
        f"{len(c.used):,} of {number_of(len(rows), 'run')}",
        *([optimizers] if used else []),
        f"level c = {c.config.level}".replace(" ", NO_BREAK),
        f"ε = {c.config.eps:g}".replace(" ", NO_BREAK),
    ]
    links = "".join(f'<a href="#{escape(name)}">{_prose(title)}</a>' for name, title in names.items())
    return (
        f'<header><h1>{_prose(TITLE)}</h1><p class="facts">{escape(" · ".join(facts))}</p>'
        f'<nav aria-label="Contents">{links}</nav></header>'
    )


def _answer(c: Correlations) -> str:
    headline = OUTCOMES[outcome(c.primary, c.config.alpha)]
    return _section(
        "answer",
        "The answer",
        f'<p class="outcome">{escape(headline)}</p><div class="answer"><p class="verdict">{_prose(c.verdict)}</p>'
        f"{forest_html(c)}</div>",
    )


def _plots(rows: Rows, c: Correlations, points: Points) -> str:
    used = [rows[i] for i in c.used]
    if not used:
        return _section("plots", "The plots", "<p>There is no run that could be drawn.</p>")
    found = {name: measured_readings(s, used) for name, s in scatters(c.columns, c.config.eps).items()}
    fullest = max(points.filters[0].of.count(i) for i in range(len(points.filters[0].values)))
    encoding = encoding_of(used, fullest)
    titles = num_marks(used, list(found.values())) <= MAX_TITLES
    drawing = Drawing(used, points, encoding, c.panels, titles)
    figures = "".join(
        f'<section class="figure"><h3>{_prose(title)}</h3>{figure_html(drawing, found[name])}</section>'
        for name, title in FIGURES.items()
    )
    how = escape(say(PLOTS, runs=number_of(len(used), "run")))
    without = "Without scripts there are no filters" + ("" if titles else ", and points tell nothing") + "."
    return _section(
        "plots",
        "The plots",
        f'<p class="caption">{how}<noscript> {without}</noscript></p>{_filters(points)}'
        f"{legend_html(encoding, methods_of(used))}{figures}",
    )


def _filters(points: Points) -> str:
    """Boxes to tick; the script shows them."""
    groups = "".join(
        f"<fieldset><legend>{_prose(chosen.label)}</legend>"
        + "".join(
            f'<label><input type="checkbox" checked data-filter="{number}" value="{i}">{escape(value)}</label>'
            for i, value in enumerate(chosen.values)
        )
        + "</fieldset>"
        for number, chosen in enumerate(points.filters)
        if len(chosen.values) > 1
    )
    return (
        f'<div id="filters" hidden>{groups}<button type="button" id="all">Show all</button></div>'
        '<p id="shown" role="status"></p>'
    )


def _measured(c: Correlations, settings: Mapping[str, object] | None) -> str:
    tests = {name: value for name, value in asdict(c.config).items() if name != "eps"}
    measuring = {
        name: value for name, value in (settings or {}).items() if value is not None and name not in tests
    }
    said = [(SETTINGS.get(n, n.replace("_", " ")), _show_setting(n, v)) for n, v in (measuring | tests).items()]
    if "eps" not in measuring:
        said.append((SETTINGS["eps"], f"{c.config.eps:g}"))
    return _section("method", "How it was measured", f"<p>{_prose(say(METHOD))}</p>{_list(said)}")


def _provenance(provenance: Mapping[str, object] | None) -> str:
    if not provenance:
        return ""
    known = [(name.replace("_", " "), _show(value)) for name, value in provenance.items() if value]
    return _section("provenance", "Provenance", _list(known))


def _show(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_show(inner)}" for name, inner in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(map(_show, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _show_setting(name: str, value: object) -> str:
    if name == "levels" and isinstance(value, Sequence):
        return " ".join(level_label(c) for c in value)
    return _show(value)


def _list(entries: Sequence[tuple[str, str]]) -> str:
    said = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in entries)
    return f"<dl>{said}</dl>"


def _section(name: str, title: str, inner: str) -> str:
    return f'<section id="{name}"><h2>{_prose(title)}</h2>{inner}</section>'


def _prose(words: str) -> str:
    return set_symbols(escape(words))
