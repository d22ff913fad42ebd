"""Tables of the report as HTML."""

from __future__ import annotations

from collections.abc import Sequence

from landscape.report.symbols import column_label, escape, set_symbols, to_html
from landscape.report.tables import Field, Table, TableCell, show

_TEXT = ("text", "column", "pair")


def table_html(table: Table) -> str:
    """A table with its caption; wide ones scroll inside their own box, which the keyboard can reach.

    Columns in which nothing can be are left out. Each cell knows its column: on narrow screens rows become cards.
    """
    kept = [i for i in range(len(table.fields)) if any(row[i] is not None for row in table.rows)]
    fields = [table.fields[i] for i in kept]
    head = "".join(f'<th role="columnheader" scope="col"{_class(f)}>{_prose(f.label)}</th>' for f in fields)
    body = "".join(_row(fields, [row[i] for i in kept]) for row in table.rows)
    name = escape(table.name)
    return (
        f'<section id="{name}"><h2>{_prose(table.title)}</h2><p class="caption" id="{name}-caption">'
        f"{_prose(table.caption)}</p>"
        f'<div class="scroll" tabindex="0" role="region" aria-labelledby="{name}-caption"><table role="table">'
        f'<thead role="rowgroup"><tr role="row">{head}</tr></thead><tbody role="rowgroup">{body}</tbody></table>'
        "</div></section>"
    )


def _row(fields: Sequence[Field], row: Sequence[TableCell]) -> str:
    first, *others = (_cell(field, value) for field, value in zip(fields, row, strict=True))
    cells = "".join(
        f'<td role="cell"{_class(field)} data-label="{escape(field.label)}">{cell}</td>'
        for field, cell in zip(fields[1:], others, strict=True)
    )
    return f'<tr role="row"><th role="rowheader" scope="row"{_class(fields[0])}>{first}</th>{cells}</tr>'


def _cell(field: Field, value: TableCell) -> str:
    if field.kind == "column" and isinstance(value, str):
        return _column(value)
    if isinstance(value, tuple) and len(value) == 2:
        return "<br>".join(_column(name) for name in value)
    shown = escape(show(value, field.kind))
    rho, _, interval = shown.partition(" [")
    return f'{rho} <span class="interval">[{interval}</span>' if isinstance(value, tuple) and interval else shown


def _column(name: str) -> str:
    label, opening, argument = to_html(column_label(name)).partition(" (")
    return f"{label} <small>({argument}</small>" if opening else label


def _class(field: Field) -> str:
    return f' class="{field.kind if field.kind in _TEXT else "number"}"'


def _prose(words: str) -> str:
    return set_symbols(escape(words))
