"""Targets that are tokens of a text: the windows it is read in, how they are checked and made up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
#: Tokens of made-up text an example that is asked for: windows of any usual context fit.
TOKENS_AN_EXAMPLE = 200


class TokenFacts(Protocol):
    """What is asked of a dataset's facts here."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The tokens by number."""


def outputs(facts: TokenFacts) -> int:
    """Count the outputs that a model needs at each place: one a token."""
    return len(facts.classes)


def stratified(tokens: NDArray[Any], count: int, generator: np.random.Generator) -> Indices:
    """A text is cut in two, never sampled; a task refuses this split before."""
    raise ValueError("split.how: a text is cut at its end; use tail")


def problem(tokens: NDArray[Any], facts: TokenFacts) -> str | None:
    """Say what is wrong with tokens; None if nothing is."""
    most = len(facts.classes)
    if not len(tokens) or int(tokens.max()) < most:
        return None
    return f"found token {tokens.max()} where 0 to {most - 1} are allowed"


def synthetic(
    facts: TokenFacts, counts: Sequence[int], generator: np.random.Generator
) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Make up texts of several parts: each token is mostly the successor of the one before."""
    most = len(facts.classes)

    def draw(count: int) -> NDArray[Any]:
        n = count * TOKENS_AN_EXAMPLE
        steps = np.where(generator.random(n) < 0.8, 1, generator.integers(0, most, n))
        tokens: NDArray[Any] = (np.cumsum(steps) % most).astype(np.uint8 if most <= 256 else np.uint16)
        return tokens

    return [(tokens, tokens) for tokens in map(draw, counts)]


def windows(tokens: NDArray[Any], context: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Views of all windows of a text and of the tokens after each of their places, both [starts, context]."""
    view = np.lib.stride_tricks.sliding_window_view
    return view(tokens[:-1], context), view(tokens[1:], context)


def starts(low: int, high: int, context: int, *, every: int = 1) -> Indices:
    """Places in the tokens low..high-1 at which a window begins whose last target is still among them."""
    return np.arange(low, max(low, high - context), every, dtype=np.int64)
