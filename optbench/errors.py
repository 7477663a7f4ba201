"""The base class of all errors that a user can fix: shown as a message, without a traceback."""

from __future__ import annotations

import errno

#: What an operating system's refusal means, and what helps.
_REMEDIES = {
    errno.ENOSPC: "there is no room left on its disk: make room",
    getattr(errno, "EDQUOT", errno.ENOSPC): "a quota of this disk is used up: make room, or have it raised",
    errno.EFBIG: "a file would exceed the limit on its size: lift it (`ulimit -f unlimited`)",
    errno.EACCES: "permission is missing: make the file and its folder readable and writable",
    errno.EPERM: "permission is missing: make the file and its folder readable and writable",
    errno.EROFS: "this disk can only be read: give a folder on another",
    errno.ENAMETOOLONG: "the name is too long for this disk: give a shorter one",
    errno.ENOENT: "there is no such file or folder",
    errno.ENOTDIR: "a part of this path is a file, not a folder: give another",
    errno.EISDIR: "this is a folder, not a file: give another",
    errno.EMFILE: "too many files are open: raise the limit (`ulimit -n 4096`)",
    errno.ENFILE: "too many files are open on this machine: close programs",
    errno.EIO: "the disk failed to read or write: look at its health",
}


class UserError(Exception):
    """Something that the user can fix; ``exit_code`` is the command line's."""

    exit_code = 2


def explain(error: OSError) -> str:
    """Say what the operating system refused, at which path, and what helps."""
    paths = [str(name) for name in (error.filename, error.filename2) if name is not None]
    words = _REMEDIES.get(error.errno or 0, error.strerror or str(error))
    place = " and ".join(name if len(name) <= 120 else f"{name[:117]}..." for name in paths)
    return f"{place}: {words}" if place else words
