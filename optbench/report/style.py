"""How plots look: one fixed colour, dash and marker an optimizer, readable by everyone and in grey."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from optbench.optimizers import FAMILIES

# Okabe and Ito's palette, told apart with every common colour vision; black and yellow are left out.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_DASHES = ("-", "--", "-.", ":")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")

#: Verdict: colour and sign of its cell.
VERDICTS = {
    "better": ("#0072B2", "+"),
    "worse": ("#D55E00", "−"),
    "equivalent": ("#009E73", "="),
    "mixed": ("#CC79A7", "±"),
    "inconclusive": ("#BBBBBB", "?"),
    "crashed": ("#FFFFFF", "×"),
}


@dataclass(frozen=True, kw_only=True)
class LineStyle:
    """Colour, dash pattern and marker of an optimizer."""

    colour: str
    dash: str
    marker: str = "o"


def line_styles(optimizers: Iterable[str]) -> dict[str, LineStyle]:
    """Give every optimizer its style: known families have a fixed one, others the next that is free."""
    labels = list(dict.fromkeys(optimizers))
    combinations = [
        LineStyle(
            colour=colour,
            dash=_DASHES[(number + shift) % len(_DASHES)],
            marker=_MARKERS[(number + shift) % len(_MARKERS)],
        )
        for shift in range(len(_DASHES))
        for number, colour in enumerate(_COLOURS)
    ]
    declared = sorted((f.style, f.name) for f in FAMILIES.values() if f.style is not None)
    styles = {name: combinations[number] for number, name in declared if name in labels}
    free = [style for style in combinations if style not in styles.values()]
    for number, label in enumerate(name for name in labels if name not in styles):
        styles[label] = free[number % len(free)]
    return styles


def shorten(name: str, longest: int = 28) -> str:
    """A name as a plot can show it: not too long, without characters that fonts lack."""
    text = "".join(c if c.isprintable() and ord(c) <= 0xFFFF else "\ufffd" for c in name)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def short_labels(names: Iterable[str], *, longest: int = 28) -> dict[str, str]:
    """Shorten names so that they stay different from each other."""
    shown: dict[str, str] = {}
    for name in names:
        text = shorten(name, longest)
        text = f" {text}" if text.startswith("_") else text  # matplotlib hides labels that begin with "_"
        while text in shown.values() and name not in shown:
            text = f"{text[: longest - 4]} #{len(shown) + 1}"
        shown[name] = text
    return shown
