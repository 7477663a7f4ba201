"""Find the files of a dataset on this machine, or bring them here.

Looked for in this order: the folder that the user names (``--data-dir`` or ``OPTBENCH_DATA``, ``data_dir`` in
this module), the user's cache, and the place of Debian's dataset packages. What is nowhere is downloaded from
the official address.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import platformdirs

from optbench.datasets.base import DataError
from optbench.datasets.download import DownloadError, Progress, copy_limited, download
from optbench.datasets.formats import MAX_BYTES, read_bytes
from optbench.environment import DATA_VARIABLE
from optbench.suite.validation import one_line

DEBIAN = Path("/usr/share/datasets")


class MissingDataError(DataError):
    """Files that are not on this machine and could not be brought.

    Attributes
    ----------
    address : str
        Where to get them.
    files : tuple of str
        Expected file names.
    folder : Path
        Where to put them.
    """

    def __init__(self, message: str, *, address: str, files: Sequence[str], folder: Path) -> None:
        super().__init__(message)
        self.address = address
        self.files = tuple(files)
        self.folder = folder


@dataclass(frozen=True, kw_only=True)
class DataFile:
    """One file, plain or with .gz behind its name; ``sha256`` is that of the decompressed bytes, if known."""

    name: str
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A zip or tar file that holds the files: members by path inside it, to the name they get here."""

    url: str
    md5: str
    members: Mapping[str, str]
    limit: int = MAX_BYTES

    @property
    def name(self) -> str:
        """File name of the archive."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a dataset's files come from.

    Attributes
    ----------
    folders : tuple of str
        Folders to look in, below each data folder; the first is where a download goes.
    files : tuple of DataFile
        What is needed.
    others : tuple of tuple of DataFile
        Other sets of files that serve as well.
    mirrors : tuple of str
        Addresses that hold the files one by one, gzipped.
    archive : Archive, optional
        Address of all in one.
    page : str
        Where a person gets them, if nothing else is given: a page that wants a login.
    """

    folders: tuple[str, ...]
    files: tuple[DataFile, ...]
    others: tuple[tuple[DataFile, ...], ...] = ()
    mirrors: tuple[str, ...] = ()
    archive: Archive | None = None
    page: str = ""

    @property
    def address(self) -> str:
        """The official address."""
        return self.archive.url if self.archive else self.mirrors[0] if self.mirrors else self.page


@dataclass(frozen=True, kw_only=True)
class Located:
    """The files of a dataset on this machine, by name without .gz."""

    files: Mapping[str, Path]

    @property
    def folder(self) -> Path:
        """The folder that they lie in."""
        return next(iter(self.files.values())).parent


@dataclass(frozen=True, kw_only=True)
class Check:
    """A file looked at: its decompressed size and SHA-256, and whether that is the published one.

    ``ok`` is None where no checksum is published; the file was then read and found sound.
    """

    path: Path
    bytes: int
    sha256: str
    ok: bool | None


def data_folders(data_dir: str | Path | None = None) -> tuple[Path, ...]:
    """List the folders that are searched, the one that downloads go to first."""
    cache = Path(platformdirs.user_cache_dir("optbench")) / "data"
    return (*((Path(data_dir),) if data_dir else ()), cache, DEBIAN)


def find(source: Source, data_dir: str | Path | None = None) -> Located | None:
    """Look for a source's files in every data folder; None where no complete set is found."""
    for root in data_folders(data_dir):
        for folder in source.folders:
            for names in (source.files, *source.others):
                found = {file.name: path for file in names if (path := _present(root / folder, file.name))}
                if len(found) == len(names) and (folder not in (".", "raw") or _published(names, found)):
                    return Located(files=found)
    return None


def _published(names: Sequence[DataFile], paths: Mapping[str, Path]) -> bool:
    """Whether files of a flat folder are those of this dataset: others have the same names."""
    smallest = min(
        (file for file in names if file.sha256), key=lambda f: paths[f.name].stat().st_size, default=None
    )
    if smallest is None:
        return True
    try:
        return hashlib.sha256(read_bytes(paths[smallest.name])).hexdigest() == smallest.sha256
    except DataError:
        return False


def obtain(
    name: str,
    source: Source,
    *,
    data_dir: str | Path | None = None,
    progress: Progress | None = None,
    pause: float = 1.0,
) -> Located:
    """Find a dataset's files, or download them.

    Parameters
    ----------
    name : str
        Of the dataset, for messages.
    source : Source
        Its files and addresses.
    data_dir : path, optional
        See :func:`data_folders`.
    progress : callable, optional
        Told about the bytes that have arrived.
    pause : float
        Seconds before the second attempt to connect.

    Raises
    ------
    MissingDataError
        If they are not here and cannot be brought; it says how to bring them by hand.
    """
    found = find(source, data_dir)
    if found is not None:
        return found
    folder = data_folders(data_dir)[0] / source.folders[0]
    reason = "its files need a login"
    if source.archive is not None or source.mirrors:
        import filelock  # here, as data that lie here need no lock

        try:
            folder.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(folder / ".lock"):
                if find(source, data_dir) is None:
                    _bring(source, folder, progress, pause)
        except (DownloadError, DataError, OSError) as error:
            reason = str(error)
        else:
            if (found := find(source, data_dir)) is not None:
                return found
            reason = "the files did not arrive"
    names = [file.name for file in source.files]
    raise MissingDataError(
        f"dataset {name} is not on this machine, and was not downloaded: {reason}.\n"
        f"  address: {source.address}\n"
        f"  files:   {', '.join(names)} (plain or .gz)"
        + (f", or {source.archive.name} as it is" if source.archive else "")
        + f"\n  folder:  {folder}\n"
        f"Put them there, or name a folder that holds {source.folders[0]}/ by --data-dir or {DATA_VARIABLE}. "
        f"Searched: {', '.join(map(str, data_folders(data_dir)))}",
        address=source.address,
        files=names,
        folder=folder,
    )


def check_files(source: Source, located: Located) -> tuple[Check, ...]:
    """Hash every file of a dataset and compare it with what is published."""
    known = {file.name: file.sha256 for files in (source.files, *source.others) for file in files}
    checks = []
    for name, path in located.files.items():
        raw = read_bytes(path)
        digest = hashlib.sha256(raw).hexdigest()
        ok = None if known[name] is None else digest == known[name]
        checks.append(Check(path=path, bytes=len(raw), sha256=digest, ok=ok))
    return tuple(checks)


@contextmanager
def progress_bar() -> Iterator[Progress | None]:
    """Show downloads as progress bars on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), DownloadColumn(), TransferSpeedColumn())
    with Bars(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bars:
        tasks = {}

        def show(name: str, done: int, total: int | None) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name)
            bars.update(tasks[name], completed=done, total=total)

        yield show


def _present(folder: Path, name: str) -> Path | None:
    # Copies of MNIST have a point where the publisher has a hyphen: train-images.idx3-ubyte.
    names = dict.fromkeys((name, re.sub(r"-(idx\d-ubyte)$", r".\1", name)))
    # In some archives each file lies in a folder of its own name.
    places = (
        place / f"{n}{suffix}" for n in names for place in (folder, folder / n) for suffix in ("", ".gz")
    )
    return next((path for path in places if path.is_file()), None)


def _bring(source: Source, folder: Path, progress: Progress | None, pause: float) -> None:
    if source.archive is not None:
        archive = source.archive
        path = folder / archive.name
        here = path.is_file()
        if not here:
            download(
                archive.url,
                path,
                check=lambda part: _check_md5(part, archive.md5),
                limit=archive.limit,
                progress=progress,
                pause=pause,
            )
        unpack(path, archive.members, folder)
        if not here:
            path.unlink()
        return
    for file in source.files:
        if _present(folder, file.name) is None:
            _from_mirrors(source.mirrors, file, folder, progress, pause)


def _from_mirrors(
    mirrors: Sequence[str], file: DataFile, folder: Path, progress: Progress | None, pause: float
) -> None:
    problems = []
    for mirror in mirrors:
        name = f"{file.name}.gz"
        try:
            download(
                mirror + name,
                folder / name,
                check=lambda part: _check_sha256(part, file.sha256),
                limit=MAX_BYTES,
                progress=progress,
                pause=pause,
            )
            return
        except DownloadError as error:
            problems.append(f"{mirror + name}: {error}")
    raise DownloadError("; ".join(problems))


def unpack(path: Path, members: Mapping[str, str], folder: Path, *, limit: int = MAX_BYTES) -> None:
    """Take named members out of a zip or tar file.

    Only the members asked for are read, and they are written under the names given here, so that no path
    inside the archive decides where anything goes.

    Raises
    ------
    DataError
        If the archive is damaged, lacks a member, holds something other than a file under its name, or a
        member is larger than ``limit`` bytes.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for member, name in members.items():
                    with archive.open(member) as stream:
                        _place(stream, folder / name, limit, f"{path}: {member}")
        else:
            _unpack_tar(path, members, folder, limit)
    except KeyError as error:
        raise DataError(f"{path}: lacks a file that belongs in it ({error.args[0]}); delete it") from None
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError, RuntimeError) as error:
        raise DataError(
            f"{path}: a damaged archive ({one_line(error)}); delete it and fetch it again"
        ) from None


def _unpack_tar(path: Path, members: Mapping[str, str], folder: Path, limit: int) -> None:
    wanted = dict(members)
    passed = 0
    with tarfile.open(path, "r|*") as archive:
        for entry in archive:
            passed += entry.size
            if passed > 2 * limit:
                raise DataError(f"{path}: unpacks to more than {2 * limit:,} bytes; not unpacked")
            name = wanted.pop(entry.name, None)
            if name is None:
                continue
            stream = archive.extractfile(entry) if entry.isreg() else None
            if stream is None:
                raise DataError(f"{path}: {entry.name} is not a plain file; not unpacked")
            _place(stream, folder / name, limit, f"{path}: {entry.name}")
    if wanted:
        raise KeyError(", ".join(wanted))


def _place(stream: IO[bytes], path: Path, limit: int, name: str) -> None:
    part = path.with_name(f"part-{path.name}")
    try:
        with part.open("wb") as target:
            copy_limited(stream, target, limit=limit, name=name)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _check_sha256(part: Path, sha256: str | None) -> None:
    read_bytes(part, sha256=sha256)


def _check_md5(part: Path, md5: str) -> None:
    # MD5 is what the publishers print; it guards against damage here, not against forgery.
    digest = hashlib.md5(usedforsecurity=False)
    with part.open("rb") as stream:
        while chunk := stream.read(2**20):
            digest.update(chunk)
    if digest.hexdigest() != md5:
        raise DataError(f"{part}: not the published file: its MD5 is {digest.hexdigest()}, expected {md5}")
