"""What SQLite's errors mean for a store: no room, a limit, a lock, no permission, or damage."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

from optbench.suite.validation import one_line

#: Bytes that a transaction may need; less free room than this explains a write that failed.
_LITTLE = 1024 * 1024
#: Disks of other machines, as Linux names them: a write-ahead log needs memory that machines share.
NETWORK_DISKS = frozenset(
    (
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "sshfs", "lustre", "gpfs", "beegfs", "ceph"),
        *(
            "cephfs",
            "glusterfs",
            "afs",
            "9p",
            "orangefs",
            "pvfs2",
            "wekafs",
            "s3fs",
            "gcsfuse",
            "rclone",
            "davfs",
            "ncpfs",
            "juicefs",
        ),
    )
)
_KEPT = "then run the same command again: records are kept"
#: Beginnings of SQLite's messages that mean a damaged file, or one that is no store.
_DAMAGE = ("database disk image is malformed", "malformed database schema", "file is not a database")


def remedy(error: Exception, path: Path) -> str | None:
    """Say why a store could not be read or written though it is sound, and what helps.

    Parameters
    ----------
    error : Exception
        What SQLite raised.
    path : Path
        The store's file.

    Returns
    -------
    str or None
        None for an error of another kind, which may be damage.
    """
    message = str(error)
    if message.startswith(_DAMAGE) or not isinstance(error, sqlite3.Error):
        return None
    if message.startswith("database or disk is full"):
        return f"{message}; {_room(path) or 'make room on its disk'}, {_KEPT}"
    if message.startswith(("database is locked", "database table is locked")):
        return f"{message}; end the program that has it open, {_KEPT}"
    if message.startswith("locking protocol"):
        return f"{message}: its disk cannot lock files, as some network disks; move it to another, {_KEPT}"
    if "readonly database" in message or message.startswith("access permission denied"):
        return f"{message}; make the file and its folder writable, {_KEPT}"
    if message.startswith("unable to open database file"):
        return f"{message}; {_access(path)}, {_KEPT}"
    if message.startswith(("disk I/O error", "large file support is disabled")):
        why = _room(path) or (
            "a quota, a limit on the size of files (`ulimit -f`), or a disk that fails: make room, or lift "
            "the limit"
        )
        return f"{one_line(error)}; {why}, {_KEPT}"
    if message.startswith("out of memory"):
        return f"{message}; close other programs, {_KEPT}"
    return None


def network_disk(folder: Path, mounts: Path = Path("/proc/self/mounts")) -> str | None:
    """Name the kind of network disk that a folder lies on; None for a local or unknown one.

    Parameters
    ----------
    folder : Path
    mounts : Path
        The system's list of disks (Linux).
    """
    try:
        lines = mounts.read_text("utf-8", errors="replace").splitlines()
        place = str(folder.resolve())
    except OSError:
        return None
    best, kind = "", ""
    for line in lines:
        parts = line.split()
        if len(parts) < 3:
            continue
        where = parts[1].encode().decode("unicode_escape")  # a space is written as \\040
        inside = place == where or place.startswith(where.rstrip("/") + "/")
        if inside and len(where) >= len(best):
            best, kind = where, parts[2]
    return kind if kind.removeprefix("fuse.") in NETWORK_DISKS else None


def _room(path: Path) -> str | None:
    """Say what keeps a file from growing, where that can be seen."""
    try:
        limit = _size_limit()
        sizes = [p.stat().st_size for p in path.parent.glob(f"{path.name}*")]
        if limit is not None and max(sizes, default=0) + _LITTLE > limit:
            return f"files may have {limit:,} bytes (`ulimit -f`): lift that limit"
        free = shutil.disk_usage(path.parent).free
    except OSError:
        return None
    return f"its disk has {free:,} bytes left: make room on its disk" if free < _LITTLE else None


def _size_limit() -> int | None:
    """Bytes that a file of this process may have; None without a limit, and on Windows."""
    try:
        import resource
    except ImportError:
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return None if limit == resource.RLIM_INFINITY else limit


def _access(path: Path) -> str:
    if not path.parent.is_dir():
        return f"there is no folder {path.parent}; make it"
    if path.exists() and not os.access(path, os.R_OK):
        return "permission is missing; make the file readable"
    if not os.access(path.parent, os.W_OK):
        return "permission is missing; make its folder writable"
    return "too many files may be open (`ulimit -n`); raise that limit"
