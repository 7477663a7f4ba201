"""Machines as records describe them: names, hashes, and whether two descriptions can be of one machine.

A fact that a record lacks, or holds as None, was not measured: a trial that crashed before its framework
started knows no device and no threads. It agrees with every value.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optbench.environment import SAME_BITS
from optbench.trial import content_hash

#: Environment facts that make a machine; times of different machines are never pooled.
MACHINE = ("processor", "machine", "cores", "memory_gb", "device", "device_name", "threads")
#: What changes the bits of a training beside its spec. How an optimizer takes its steps is its own.
SETTINGS = (
    *("threads", "processor", "machine", "device_name", "framework", "cuda", "platform", "deterministic"),
    "optbench",
)
#: Packages by backend whose version changes bits; the framework's own is a fact of its own.
PACKAGES: Mapping[str, tuple[str, ...]] = {
    "torch": ("numpy",),
    "tensorflow": ("numpy", "keras"),
    "jax": ("numpy", "jaxlib", "optax"),
}
#: What a step's time depends on, besides the machine.
_SOFTWARE = ("framework", "cuda", "platform")


def machine_id(facts: Mapping[str, Any]) -> str:
    """Hash what makes a machine."""
    return content_hash({name: str(facts.get(name)) for name in (*MACHINE, *_SOFTWARE)})


def machine_words(facts: Mapping[str, Any]) -> str:
    """Name a machine in a few words."""
    words = [str(facts.get("framework", "")), str(facts.get("device_name", facts.get("processor", "")))]
    threads = facts.get("threads")
    words.append(f"{threads} thread{'s' if threads != 1 else ''}" if threads else "")
    return ", ".join(word for word in words if word)


def one_machine(environments: Iterable[Mapping[str, Any]]) -> bool:
    """Tell whether environments can all be of one machine: no fact of it was measured with two values."""
    return not different_facts(environments)


def different_facts(environments: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Facts of a machine that were measured with several values, and the values."""
    seen: dict[str, dict[str, None]] = {}
    for facts in environments:
        for name in MACHINE:
            if facts.get(name) is not None:
                seen.setdefault(name, {})[str(facts[name])] = None
    return {name: sorted(values) for name, values in seen.items() if len(values) > 1}


def machine_names(environments: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name every machine once, in order; an environment that only lacks facts of another gives no name."""
    known = [_known(facts) for facts in environments]
    names = [
        machine_words(facts)
        for facts, mine in zip(environments, known, strict=True)
        if not any(mine.items() < other.items() for other in known)
    ]
    return [name for name in dict.fromkeys(names) if name]


def _known(facts: Mapping[str, Any]) -> dict[str, str]:
    """Facts that were measured, of those that name a machine."""
    names = ("framework", "device", "device_name", "processor", "threads")
    return {name: str(facts[name]) for name in names if facts.get(name) is not None}


@dataclass(frozen=True, kw_only=True)
class Mixed:
    """Blocks whose trials ran under different settings.

    Attributes
    ----------
    blocks : int
        Blocks with two trials or more that were looked at.
    mixed : int
        Those of them in which a setting has two values.
    values : mapping
        Of each such setting, its values in mixed blocks, and the optimizers that ran with each.
    """

    blocks: int
    mixed: int
    values: Mapping[str, Mapping[str, frozenset[str]]]

    @property
    def confounded(self) -> tuple[str, ...]:
        """Settings that differ wherever the optimizer does: no optimizer ran with two of their values."""
        return tuple(
            name
            for name, values in self.values.items()
            if self.mixed == self.blocks and sum(map(len, values.values())) == len(_union(values.values()))
        )

    @property
    def words(self) -> str:
        """Name the settings, their values, and who ran with them."""
        return "; ".join(
            f"{name} "
            + " and ".join(f"{value} ({', '.join(sorted(who))})" for value, who in sorted(values.items()))
            for name, values in self.values.items()
        )


def settings_of(facts: Mapping[str, Any], backend: str) -> dict[str, str]:
    """Facts of an environment that change the bits of a training, those that were recorded."""
    found = {name: facts[name] for name in SETTINGS if facts.get(name) is not None}
    packages = facts.get("packages")
    if isinstance(packages, Mapping):
        found |= {
            name: packages[name] for name in PACKAGES.get(backend, ()) if packages.get(name) is not None
        }
    return {name: str(value) for name, value in found.items()}


def mixed_settings(blocks: Iterable[Iterable[tuple[str, Mapping[str, str]]]]) -> Mixed:
    """Find the blocks whose trials ran under different settings.

    Parameters
    ----------
    blocks : iterable
        Of each block, its trials: optimizer and :func:`settings_of` its environment. A setting that one
        trial did not record agrees with every value.
    """
    seen, mixed = 0, 0
    values: dict[str, dict[str, set[str]]] = {}
    for block in blocks:
        trials = list(block)
        if len(trials) < 2:
            continue
        seen += 1
        names = dict.fromkeys(name for _, settings in trials for name in settings)
        found = {name: {s[name] for _, s in trials if name in s} for name in names}
        differ = [name for name in names if len(found[name]) > 1]
        mixed += bool(differ)
        for name in differ:
            for optimizer, settings in trials:
                if name in settings:
                    values.setdefault(name, {}).setdefault(settings[name], set()).add(optimizer)
    frozen = {name: {v: frozenset(who) for v, who in by.items()} for name, by in values.items()}
    return Mixed(blocks=seen, mixed=mixed, values=frozen)


#: Facts of how an optimizer took its steps that say where its arithmetic rounds.
ROUNDING = ("step", "optimizer", "kernel")


def mixed_rounding(trials: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, dict[str, int]]:
    """Find the optimizers whose own trials were not all trained by the same arithmetic.

    Parameters
    ----------
    trials : iterable
        Of each trial its optimizer and the facts of its environment. Ways of the same bits are one, and a
        fact that a trial lacks agrees with every value.

    Returns
    -------
    dict
        Of each such optimizer, its ways in words with the number of its trials, the most frequent first.
    """
    by_optimizer: dict[str, list[Mapping[str, Any]]] = {}
    for optimizer, facts in trials:
        by_optimizer.setdefault(optimizer, []).append(facts)
    found = {}
    for optimizer, own in by_optimizer.items():
        values = {name: {_rounds(facts, name) for facts in own} - {None} for name in ROUNDING}
        differ = [name for name in ROUNDING if len(values[name]) > 1]
        if differ:
            words = Counter(
                ", ".join(str(facts[name]) for name in differ if facts.get(name) is not None) for facts in own
            )
            found[optimizer] = dict(words.most_common())
    return found


def _rounds(facts: Mapping[str, Any], name: str) -> str | None:
    value = facts.get(name)
    if value is None:
        return None
    return "alone" if name == "step" and value in SAME_BITS else str(value)


def _union(parts: Iterable[frozenset[str]]) -> frozenset[str]:
    return frozenset().union(*parts)
