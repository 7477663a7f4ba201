"""What all plots share: figures, axes, hover texts, and how they are written."""

from __future__ import annotations

import functools
import html
import io
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import matplotlib as mpl
import matplotlib.style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator

from optbench.records.whole import whole
from optbench.report.style import LineStyle

P = ParamSpec("P")
F = TypeVar("F", Figure, Figure | None)

ENDINGS = ("png", "svg", "pdf")
#: Colours that the page replaces by its own, so that its plots follow light and dark.
_INK, _GRID, _PAPER = "#1a1a1b", "#e2e2e3", "#fffffe"
_SETTINGS: dict[str, Any] = {
    "text.parse_math": False,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "figure.facecolor": _PAPER,
    "axes.facecolor": "none",
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "optbench",
    "pdf.fonttype": 42,
}


def plot(function: Callable[P, F]) -> Callable[P, F]:
    """Make a plotting function draw with this package's settings, whatever the user's are."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> F:
        with mpl.style.context(["default", _SETTINGS]):
            return function(*args, **kwargs)

    return wrapped


def new_figure(width: float = 9.0, height: float = 3.6) -> Figure:
    """An empty figure; sizes are in inches."""
    return Figure(figsize=(width, height), layout="constrained")


def tidy(axes: Axes, *, grid: str = "both") -> None:
    """Draw a light grid and hide the frame's upper and right edge."""
    axes.grid(visible=True, which="major", axis=grid, color=_GRID, linewidth=0.6)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def log_scale(axes: Axes, axis: str) -> None:
    """A logarithmic axis with plain numbers at 1, 2 and 5."""
    getattr(axes, f"set_{axis}scale")("log")
    which = getattr(axes, f"{axis}axis")
    low, high = sorted(getattr(axes, f"get_{axis}lim")())
    subs = (1.0, 2.0, 5.0) if high / max(low, 1e-300) < 1e3 else (1.0,)
    which.set_major_locator(LogLocator(subs=subs))
    which.set_major_formatter(FormatStrFormatter("%g"))
    which.set_minor_locator(NullLocator())


def legend(figure: Figure, labels: Mapping[str, str], styles: Mapping[str, LineStyle]) -> None:
    """Name the optimizers below the plot, each with its line and marker."""
    handles = [Line2D([], [], color=styles[name].colour, marker=styles[name].marker) for name in labels]
    for name, handle in zip(labels, handles, strict=True):
        handle.set(linestyle=styles[name].dash, linewidth=2, markersize=5)
    longest = max((len(text) for text in labels.values()), default=1)
    columns = max(1, min(len(labels), 6, int(110 / (longest + 6))))
    rows = -(-len(labels) // columns)
    figure.set_figheight(figure.get_figheight() + 0.19 * max(0, rows - 2))  # the plot keeps its height
    figure.legend(
        handles,
        list(labels.values()),
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        handlelength=3,
    )


def hover(artist: Artist, text: str) -> None:
    """Give a part of the plot a text that the page shows when the pointer is on it."""
    artist.set_gid(f"hover:{text}")


def settle(figure: Figure) -> None:
    """Lay a figure out once, instead of each time that it is written."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
    figure.set_layout_engine("none")


def save(figure: Figure, stem: Path, endings: Sequence[str] = ENDINGS) -> list[Path]:
    """Write a figure in several formats beside each other; a name's dots are kept."""
    paths = [stem.with_name(f"{stem.name}.{ending}") for ending in endings]
    stem.parent.mkdir(exist_ok=True)
    for path in paths:
        with whole(path) as place:
            if path.suffix == ".svg":
                place.write_text(svg_text(figure), encoding="utf-8")
            else:
                dates = {"CreationDate": None} if path.suffix == ".pdf" else None
                figure.savefig(place, dpi=150, metadata=dates)
    return paths


def svg_text(figure: Figure) -> str:
    """Write a figure as SVG, its hover texts as titles."""
    stream = io.StringIO()
    with mpl.style.context(_SETTINGS):
        # `savefig` would draw twice, to lay out what is laid out.
        FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None})  # type: ignore[no-untyped-call]
    # The id was escaped as an attribute; as text it must be once more.
    return re.sub(
        r'<g id="hover:([^"]*)">',
        lambda match: f"<g><title>{html.escape(html.unescape(match.group(1)), quote=False)}</title>",
        stream.getvalue(),
    )


def svg_for_page(svg: str, *, number: int) -> str:
    """Make an SVG fit to stand in a page: no prolog, ids of its own, colours of the page."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="([^"]+)"', rf'id="f{number}-\1"', body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#f{number}-\1)", body)
    body = re.sub(r'xlink:href="#([^"]+)"', rf'href="#f{number}-\1"', body)
    body = re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', r'<svg \1 aria-hidden="true">', body, count=1)
    for colour, ours in ((_INK, "currentColor"), (_GRID, "var(--grid)"), (_PAPER, "none")):
        body = body.replace(colour, ours)
    return body
