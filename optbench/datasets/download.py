"""Download a file over HTTP: resumed after a cut, checked, then renamed into place.

The standard library's urllib is enough for that and honours the usual proxy variables.
"""

from __future__ import annotations

import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from optbench.datasets.base import DataError

#: Called while bytes arrive: file name, bytes so far, bytes in all (None where the server does not say).
Progress = Callable[[str, int, "int | None"], None]

TIMEOUT_SECONDS = 30
_CHUNK = 2**18


class DownloadError(Exception):
    """A download that did not succeed; the message says why."""


def download(
    url: str,
    path: Path,
    *,
    check: Callable[[Path], None],
    limit: int,
    progress: Progress | None = None,
    attempts: int = 5,
    pause: float = 1.0,
) -> None:
    """Download ``url`` to ``path``.

    What has arrived stays beside it as ``part-<name>``, and is continued by the next attempt, or by the next
    call after all attempts failed.

    Parameters
    ----------
    url : str
        http or https.
    path : Path
        Where the file goes once it is whole and checked; the folder exists.
    check : callable
        Raises DataError if the file is not the one wanted. A file that was put together from several
        attempts and fails is fetched once more from the beginning.
    limit : int
        Bytes; a longer file is refused.
    progress : callable, optional
        Told about the bytes that have arrived.
    attempts : int
        Connections to try.
    pause : float
        Seconds before the second attempt; doubled each time.

    Raises
    ------
    DownloadError
        If the address cannot be reached, refuses, or sends something else.
    """
    part = path.with_name(f"part-{path.name}")
    for attempt in range(1, attempts + 1):
        resumed = part.exists()
        try:
            _transfer(url, part, limit, progress)
            check(part)
            os.replace(part, path)
            return
        except DataError as error:
            part.unlink(missing_ok=True)
            if not resumed or attempt == attempts:
                raise DownloadError(str(error).replace(part.name, path.name)) from None
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416:  # nothing lies beyond what we have: it is not the same file
                part.unlink(missing_ok=True)
            elif error.code < 500:
                raise DownloadError(f"the server answered {error.code} {error.reason}") from None
            if attempt == attempts:
                raise DownloadError(f"the server answered {error.code} {error.reason}") from None
        except (OSError, http.client.HTTPException) as error:
            # An unreachable server is tried once more, after a cut connection as often as needed.
            unreached = isinstance(error, urllib.error.URLError)
            if attempt == attempts or (unreached and attempt == 2):
                reason = getattr(error, "reason", None) or error
                raise DownloadError(f"{reason}, after {attempt} attempts") from None
        time.sleep(pause * 2 ** (attempt - 1))


def copy_limited(source: IO[bytes], target: IO[bytes], *, limit: int, name: str) -> int:
    """Copy a stream, refusing to write more than ``limit`` bytes; returns the bytes copied."""
    copied = 0
    while chunk := source.read(_CHUNK):
        copied += len(chunk)
        if copied > limit:
            raise DataError(f"{name}: holds more than {limit:,} bytes, which it never does; not unpacked")
        target.write(chunk)
    return copied


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from https to anything less, nor away from the web."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        allowed = ("https://",) if req.full_url.startswith("https://") else ("https://", "http://")
        if not newurl.startswith(allowed):
            raise DownloadError(f"the server redirects to {newurl}, which is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _transfer(url: str, part: Path, limit: int, progress: Progress | None) -> None:
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "optbench"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    opener = urllib.request.build_opener(_Redirects)
    with opener.open(request, timeout=TIMEOUT_SECONDS) as response:
        continued = response.status == 206 and response.headers.get("Content-Range", "").startswith(
            f"bytes {have}-"
        )
        have = have if continued else 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length is not None else None
        if total is not None and total > limit:
            raise DownloadError(f"the server offers {total:,} bytes, more than this file ever has")
        with part.open("ab" if continued else "wb") as stream:
            while chunk := response.read(_CHUNK):
                stream.write(chunk)
                have += len(chunk)
                if have > limit:
                    raise DownloadError(f"the server sends more than {limit:,} bytes")
                if progress is not None:
                    progress(part.name.removeprefix("part-"), have, total)
            stream.flush()
            os.fsync(stream.fileno())
    if total is not None and have < total:
        raise ConnectionError(f"the connection was cut after {have:,} of {total:,} bytes")
