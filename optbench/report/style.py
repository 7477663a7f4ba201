"""How plots look: one fixed colour and line style an optimizer, readable by everyone and in grey."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

# Okabe and Ito's palette, told apart with every common colour vision; black and yellow are left out.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_DASHES = ("-", "--", "-.", ":")
_FAMILIES = ("wame", "adam", "rmsprop", "sgd", "nadam", "adamw")


@dataclass(frozen=True, kw_only=True)
class LineStyle:
    """Colour and dash pattern of an optimizer."""

    colour: str
    dash: str


def line_styles(optimizers: Iterable[str]) -> dict[str, LineStyle]:
    """Give every optimizer its style: families have theirs always, others take what is free in order."""
    labels = list(dict.fromkeys(optimizers))
    combinations = [
        LineStyle(colour=colour, dash=_DASHES[(number + shift) % len(_DASHES)])
        for shift in range(len(_DASHES))
        for number, colour in enumerate(_COLOURS)
    ]
    styles = {name: combinations[number] for number, name in enumerate(_FAMILIES) if name in labels}
    free = [style for style in combinations if style not in styles.values()]
    for number, label in enumerate(name for name in labels if name not in styles):
        styles[label] = free[number % len(free)]
    return styles
