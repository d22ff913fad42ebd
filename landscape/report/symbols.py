"""Labels with mathematical symbols, as HTML, as SVG and as plain text."""

from __future__ import annotations

import html
import re
from typing import Literal, NamedTuple

from landscape.study.columns import LOG, axis_label, find_column, split_name

Place = Literal["upright", "italic", "sub", "super"]
_COMMANDS = {
    "theta": "θ",
    "lambda": "λ",
    "varphi": "φ",
    "varepsilon": "ε",
    "rho": "ρ",
    "nabla": "∇",
    "ell": "ℓ",
    "infty": "∞",
    "min": "min",
    "max": "max",
    "ln": "ln",
    "|": "‖",
}
_TOKEN = re.compile(r"\\(?P<command>[A-Za-z]+|\|)|(?P<script>[_^])|(?P<other>.)", re.DOTALL)
# What verdicts and captions write in plain text.
_WRITTEN = re.compile(r"\b(?P<symbol>[dwDW])_(?P<index>[θXx])(?!\w)|φ\*|\bln(?P<number>\d+)\b")
_SPACES = "\n\N{NO-BREAK SPACE}"
_HTML = {"upright": "{}", "italic": "<i>{}</i>", "sub": "<sub>{}</sub>", "super": "<sup>{}</sup>"}
_SVG = {
    "upright": "{}",
    "italic": '<tspan font-style="italic">{}</tspan>',
    "sub": '<tspan dy="3" font-size="8">{}</tspan><tspan dy="-3">&#8203;</tspan>',
    "super": '<tspan dy="-4" font-size="8">{}</tspan><tspan dy="4">&#8203;</tspan>',
}


class Piece(NamedTuple):
    """Some text, and how it is set."""

    text: str
    place: Place


def escape(value: object) -> str:
    """Text that may come from anywhere, as HTML: no markup, no control characters, nothing UTF-8 lacks."""
    shown = str(value).encode("utf-8", "backslashreplace").decode()
    return html.escape(
        "".join(c if c.isprintable() or c in _SPACES else "\N{REPLACEMENT CHARACTER}" for c in shown)
    )


def pieces(label: str) -> list[Piece]:
    """Text with mathematics between dollar signs, as pieces; what is no mathematics stays as it is.

    Knows what ``landscape.study.columns`` writes: Greek letters, norms, indices and exponents.
    """
    parts = label.split("$")
    if len(parts) % 2 == 0:
        return [Piece(label, "upright")]
    found = []
    for number, part in enumerate(parts):
        found += _mathematics(part) if number % 2 else [Piece(part, "upright")]
    return [piece for piece in found if piece.text]


def to_html(label: str) -> str:
    """A label as HTML."""
    return "".join(_HTML[piece.place].format(escape(piece.text)) for piece in pieces(label))


def to_svg(label: str) -> str:
    """A label as the content of an SVG ``text``."""
    return "".join(_SVG[piece.place].format(escape(piece.text)) for piece in pieces(label))


def to_plain(label: str) -> str:
    r"""A label without markup: ``$d_\theta$`` becomes ``d_θ``."""
    marks = {"sub": "_", "super": "^"}
    said = "".join(marks.get(piece.place, "") + piece.text for piece in pieces(label))
    return said.replace("_1", "₁").replace("^*", "*")


def set_symbols(escaped: str) -> str:
    """Escaped text in which d_θ, w_X and the like get their indices, and ln2 its space."""
    return _WRITTEN.sub(_set, escaped)


def column_label(name: str) -> str:
    """Label of a column in a table: the quantity, its level or radius behind it; mathematics in dollar signs."""
    column, argument = find_column(name), split_name(name)[1]
    if column is None or column.argument == "":
        return axis_label(name)
    symbol = "c" if column.argument == "level" else r"\varepsilon"
    return f"{column.label} (${symbol}={argument.replace('ln', LOG)}$)"


def _set(match: re.Match[str]) -> str:
    if match["number"]:
        return f"ln\N{NO-BREAK SPACE}{match['number']}"
    if match["symbol"] is None:
        return "<i>φ</i>*"
    return f"<i>{match['symbol']}</i><sub>{match['index']}</sub>"


def _mathematics(source: str) -> list[Piece]:
    """Pieces of what stands between two dollar signs; an index or exponent is one token or a group in braces."""
    found: list[Piece] = []
    rest = source
    while rest:
        token = _TOKEN.match(rest)
        if token is None:  # the pattern matches any character
            break
        rest = rest[token.end() :]
        if token["script"]:
            inner, rest = _group(rest)
            place: Place = "sub" if token["script"] == "_" else "super"
            found.append(Piece("".join(piece.text for piece in _mathematics(inner)), place))
        elif token["command"]:
            found.append(Piece(_COMMANDS.get(token["command"], token["command"]), "upright"))
        else:
            found.append(_symbol(token["other"]))
    return _joined(found)


def _symbol(character: str) -> Piece:
    spaced = {"=": " = ", "{": "", "}": ""}.get(character, character)
    return Piece(spaced, "italic" if character.isalpha() else "upright")


def _group(rest: str) -> tuple[str, str]:
    """The next token or group, and what follows it."""
    if rest.startswith("{"):
        inner, _, behind = rest[1:].partition("}")
        return inner, behind
    token = _TOKEN.match(rest)
    end = token.end() if token else 0
    return rest[:end], rest[end:]


def _joined(found: list[Piece]) -> list[Piece]:
    """Neighbours that are set alike, as one."""
    joined: list[Piece] = []
    for piece in found:
        if joined and joined[-1].place == piece.place and piece.place != "italic":
            joined[-1] = Piece(joined[-1].text + piece.text, piece.place)
        else:
            joined.append(piece)
    return joined
