"""How a run ended, in the words of trackers and schedulers: states, flags, exit codes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from optbench.datasets.cells import words
from optbench.records.readers.names import bare

FINISHED = frozenset(
    words(
        """completed complete finished finish success succeeded successful successfully done ok passed pass
        trialstate.complete ended cd converged"""
    )
)
FAILED = frozenset(
    words(
        """crashed crash failed fail failure error errored exception killed kill cancelled canceled cancel
        aborted abort interrupted timeout timed_out time_out timedout out_of_memory oom out_of_me node_fail
        nodefail boot_fail deadline revoked preempted preempting evicted trialstate.fail lost dead invalid
        missing f to nf ca pr"""
    )
)
UNFINISHED = frozenset(
    words(
        """running pending queued waiting scheduled pruned paused suspended requeued requeue configuring
        completing resizing starting initializing created submitted not_started unfinished incomplete
        in_progress active signaling special_exit stage_out trialstate.pruned trialstate.running
        trialstate.waiting r pd cg cf s"""
    )
)
DIVERGED = frozenset(words("diverged diverge divergence nan exploded unstable"))
#: squeue's codes, which are words of other languages too: only where a whole column consists of them.
_CODES = frozenset(words("cd f to nf oom ca pr r pd cg cf s"))


def state(word: str, failed: frozenset[str] | None = None) -> str | None:
    """Status that another tool's word means: completed, diverged, crashed; None if it is not known.

    ``failed`` are the words that the user calls failures: then any other unknown one is a success.

    Examples
    --------
    >>> state("FINISHED"), state("CANCELLED by 1000"), state("odd"), state("odd", frozenset())
    ('completed', 'crashed', None, 'completed')
    """
    text = re.sub(r"[\s\-]+", "_", word.strip().lower())
    if failed is not None and (text in failed or word.strip() in failed):
        return "crashed"
    if not text or text in GAPLESS:
        return "completed"
    shorter = (text.partition(mark)[0].removesuffix("_") for mark in ("_by_", ":", "("))
    for candidate in (text, text.removesuffix("+"), *shorter):
        if candidate in FINISHED:
            return "completed"
        if candidate in DIVERGED:
            return "diverged"
        if candidate in FAILED or candidate in UNFINISHED:
            return "crashed"
    return "completed" if failed is not None else None


#: A state that says nothing.
GAPLESS = frozenset(("na", "none", "null", "_"))


#: What a column of yes and no says of a run, by its name: the status where it holds, and where it does not.
_FLAGS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        **dict.fromkeys(("crashed", "failed", "sys_failed"), ("crashed", "completed")),
        "diverged": ("diverged", "completed"),
        **dict.fromkeys(("finished", "completed", "succeeded"), ("completed", "crashed")),
    }
)
_EXIT_CODES = frozenset(words("exit_code exitcode exit_status return_code returncode"))
_YES, _NO = frozenset(words("true 1 1.0 yes")), frozenset(words("false 0 0.0 no"))


def is_flag(name: str, found: Iterable[str]) -> bool | None:
    """Whether a column that is called as a flag or an exit code holds such; None if it is called otherwise.

    Examples
    --------
    >>> is_flag("crashed", ["True", "False"]), is_flag("crashed", ["a", "b"]), is_flag("state", ["1"])
    (True, False, None)
    """
    text = bare(name)[0]
    said = [word.strip().lower() for word in found if word.strip()]
    if text in _FLAGS:
        return bool(said) and all(word in _YES | _NO for word in said)
    if text in _EXIT_CODES:
        return bool(said) and all(re.fullmatch(r"-?\d+(\.0)?(:\d+)?", word) for word in said)
    return None


def flag(name: str, word: str) -> str | None:
    """Status that a flag or an exit code means; None where the column is neither.

    Examples
    --------
    >>> flag("crashed", "True"), flag("finished", "0"), flag("ExitCode", "1:0"), flag("exit_code", "0")
    ('crashed', 'crashed', 'crashed', 'completed')
    """
    text, word = bare(name)[0], word.strip().lower()
    if text in _FLAGS:
        return _FLAGS[text][0 if word in _YES else 1] if word else "completed"
    if text in _EXIT_CODES:
        return "completed" if not word or all(float(part) == 0 for part in word.split(":")) else "crashed"
    return None


def only_codes(found: Iterable[str]) -> bool:
    """Whether all words are codes of squeue."""
    return all(word.strip().lower() in _CODES for word in found if word.strip())


def is_code(word: str) -> bool:
    """Whether a word is a code of squeue and no state by itself."""
    return word.strip().lower() in _CODES - {"oom"}
