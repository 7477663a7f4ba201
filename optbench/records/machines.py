"""Machines as records describe them: names, hashes, and whether two descriptions can be of one machine.

A fact that a record lacks, or holds as None, was not measured: a trial that crashed before its framework
started knows no device and no threads. It agrees with every value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from optbench.trial import content_hash

#: Environment facts that make a machine; times of different machines are never pooled.
MACHINE = ("processor", "machine", "cores", "memory_gb", "device", "device_name", "threads")
#: Beside the machine, what a step's time depends on.
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
    seen: dict[str, Any] = {}
    for facts in environments:
        for name in MACHINE:
            value = facts.get(name)
            if value is not None and str(seen.setdefault(name, value)) != str(value):
                return False
    return True


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
