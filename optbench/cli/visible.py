"""What is printed of a store or a file commands no terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook
from rich.segment import Segment

from optbench.suite.validation import visible


class _Visible:
    """Shows what it holds, with control characters as escapes."""

    def __init__(self, held: ConsoleRenderable) -> None:
        self._held = held

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for segment in console.render(self._held, options):
            if segment.control:  # the console's own
                yield segment
            else:
                yield Segment(visible(segment.text, lines=True), segment.style)


class VisibleText(RenderHook):
    """Makes whatever a console prints visible."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """See :class:`rich.console.RenderHook`."""
        return [_Visible(held) for held in renderables]
