"""The proof that trials are paired: equal fingerprints of what they were trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

#: Fingerprint of an imported trial: its user declared that it matches others, and nothing proves it.
DECLARED = "declared"


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A trial that shares a block with others but not what they were trained on, and is not paired.

    ``unfit`` says that its record is not as it was written: it is in no table.
    """

    block_id: str
    trial_id: str
    optimizer: str
    reason: str
    unfit: bool = False


def prove_blocks(
    rows: Sequence[dict[str, Any]], orders: Mapping[str, tuple[int, ...]]
) -> tuple[list[str], list[Refusal]]:
    """Give every trial the key under which it may be paired.

    Two trials of a block get the same key only if the fingerprints of split, initial weights and first
    epoch's order are equal and, over the epochs that both trained, every epoch's order digest is too. A
    trial without fingerprints (a crash) gets a key of its own.

    Parameters
    ----------
    rows : sequence of dict
        With ``trial_id``, ``block_id``, ``optimizer``, ``split``, ``init``, ``order``.
    orders : mapping
        Order digests by epoch, by trial id.

    Returns
    -------
    keys : list of str
        Parallel to the rows.
    refusals : list of Refusal
        One for each trial that disagrees with the largest agreeing group of its block.
    """
    by_block: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_block.setdefault(row["block_id"], []).append(row)
    keys: dict[str, str] = {}
    refusals: list[Refusal] = []
    for block, members in by_block.items():
        groups: list[list[dict[str, Any]]] = []
        for row in members:
            if row["split"] is None:
                keys[row["trial_id"]] = f"{block}/{row['trial_id']}"
                continue
            for group in groups:
                if _agrees(row, group, orders):
                    group.append(row)
                    break
            else:
                groups.append([row])
        groups.sort(key=len, reverse=True)
        for number, group in enumerate(groups):
            for row in group:
                keys[row["trial_id"]] = f"{block}/{number}" if number else block
                if number:
                    refusals.append(
                        Refusal(
                            block_id=block,
                            trial_id=row["trial_id"],
                            optimizer=row["optimizer"],
                            reason=_disagreement(row, groups[0][0], orders) or "disagrees with its block",
                        )
                    )
    return [keys[row["trial_id"]] for row in rows], refusals


def refuse_unfit(
    unfit: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]], orders: Mapping[str, tuple[int, ...]]
) -> list[Refusal]:
    """Refuse records that are not as they were written, and say where they disagree with their block too.

    Parameters
    ----------
    unfit : sequence of dict
        As the rows of :func:`prove_blocks`, and ``reason``.
    rows, orders
        See there.
    """
    others: dict[str, dict[str, Any]] = {}
    for row in rows if unfit else ():
        if row["split"] is not None:
            others.setdefault(row["block_id"], row)
    found = []
    for row in unfit:
        other = others.get(row["block_id"])
        disagreement = None
        if other is not None and row["split"] is not None:
            disagreement = _disagreement(row, other, orders)
        reason = "; ".join(words for words in (row["reason"], disagreement) if words)
        found.append(
            Refusal(
                block_id=row["block_id"],
                trial_id=row["trial_id"],
                optimizer=row["optimizer"],
                reason=reason,
                unfit=True,
            )
        )
    return found


def counted_block(trials: pd.DataFrame) -> pd.Series:
    """Block in which each trial counts: the proved one; a crash proved nothing and is missing from its own.

    Parameters
    ----------
    trials : DataFrame
        ``Results.trials``, or some of its rows.
    """
    return trials["block"].where(trials["status"] != "crashed", trials["block_id"])


def _agrees(
    row: dict[str, Any], group: Sequence[dict[str, Any]], orders: Mapping[str, tuple[int, ...]]
) -> bool:
    if all(
        row["split"] == other["split"]
        and row["init"] == other["init"]
        and row["order"] == other["order"]
        and orders[row["trial_id"]] == orders[other["trial_id"]]
        for other in group
    ):
        return True
    return all(_disagreement(row, other, orders) is None for other in group)


def _disagreement(a: dict[str, Any], b: dict[str, Any], orders: Mapping[str, tuple[int, ...]]) -> str | None:
    for name, words in (("split", "data or split"), ("init", "initial weights"), ("order", "batch order")):
        if a[name] != b[name]:
            return f"the fingerprints of the {words} differ"
    pairs = zip(orders[a["trial_id"]], orders[b["trial_id"]], strict=False)
    for epoch, (left, right) in enumerate(pairs, start=1):
        if left != right:
            return f"the batch orders differ in epoch {epoch}"
    return None
