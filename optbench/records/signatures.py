"""Signatures of a store by a key file, made and checked by OpenSSH's ``ssh-keygen`` (8.1 or later).

A digest can be computed anew by whoever edits a record; a signature cannot without the private key. It lies
beside the store (``store.sqlite.sig``), in OpenSSH's own format, over one text: the suite's name, how many
records there are, and a digest over records, plan and facts. It says who vouches for the numbers, not that
they were trained.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from optbench.errors import UserError, explain
from optbench.records.declarations import LOOKS
from optbench.records.digests import RECORDS, chain
from optbench.records.integrity import NAMED
from optbench.records.store import Store
from optbench.records.whole import whole
from optbench.suite.validation import one_line

SUFFIX = ".sig"
#: What a signature of this key must have been made for, so that none made for mail or git counts.
NAMESPACE = "optbench-store"
#: A report adds to it, which takes nothing from what was signed.
_UNSIGNED = f"meta {LOOKS}"
_PROGRAM = "ssh-keygen"
#: Bytes of a file that is read as a signature, and seconds that a check may take.
_MOST, _SECONDS = 64 * 1024, 60


class SignatureError(UserError):
    """A store that cannot be signed; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Signature:
    """What the signature beside a store says.

    Attributes
    ----------
    path : Path
        Its file.
    key : str or None
        Kind and fingerprint of the key that made it, such as ``ED25519 SHA256:...``; None where it does not
        fit, or could not be checked.
    signer : str or None
        Who the file of known keys says that is; None if it was not asked, or does not know the key.
    problem : str
        Why there is no key; empty if there is one.
    checked : bool
        Whether it could be checked.
    """

    path: Path
    key: str | None = None
    signer: str | None = None
    problem: str = ""
    checked: bool = True

    @property
    def sentence(self) -> str:
        """Say whether the store is signed, and by whom."""
        if self.key is None:
            return f"{self.path.name}: {self.problem}."
        if self.signer is not None:
            return f"Signed by {self.signer} ({self.key})."
        return f"Signed by {self.key}; whose key that is `optbench doctor STORE --signers FILE` looks up."


def sign(path: Path, key: Path) -> Signature:
    """Sign a store as it is; a signature that is there is replaced.

    Parameters
    ----------
    path : Path
        The store, or its folder.
    key : Path
        A private key of OpenSSH's (``ssh-keygen -t ed25519`` makes one), or the public one of a key that an
        agent holds.

    Raises
    ------
    SignatureError
        If something in the store is not as it was written or carries no digest, or the key cannot sign.
    StoreError
        If there is no store.
    """
    with Store(path) as store:
        found = store.verify()
        if found.misfits:
            words = "; ".join(str(misfit) for misfit in found.misfits[:NAMED])
            raise SignatureError(f"{store.path}: not as it was written, so nothing was signed: {words}")
        if found.bare or not store.seals():
            raise SignatureError(
                f"{store.path}: nothing was signed, as a signature is over digests: {found.without_digest}"
                if found.bare
                else f"{store.path}: it carries no digests to sign; `optbench run SUITE` writes them"
            )
        text, target = _text(store.meta(), store.seals()), _beside(store.path)
    if not key.is_file():
        raise SignatureError(f"--key: no file {key}; `ssh-keygen -t ed25519 -f {key}` makes a key")
    try:
        done = _call("-Y", "sign", "-q", "-n", NAMESPACE, "-f", str(key.absolute()), text=text)
    except (OSError, subprocess.SubprocessError) as error:
        raise SignatureError(f"nothing was signed: {_lacking(error)}") from None
    if done.returncode or not done.stdout.startswith(b"-----BEGIN SSH SIGNATURE-----"):
        raise SignatureError(f"--key: {key} cannot sign: {_words(done.stderr) or 'ssh-keygen says nothing'}")
    try:
        with whole(target) as place:
            place.write_bytes(done.stdout)
    except OSError as error:
        raise SignatureError(f"the signature cannot be written: {explain(error)}") from None
    return Signature(path=target, key=_check(target, text))


def signature(store: Store, signers: Path | None = None) -> Signature | None:
    """Check the signature beside an open store; None where there is none.

    It holds for the digests; whether the records fit them says :func:`optbench.records.integrity.verify`.

    Parameters
    ----------
    store : Store
    signers : Path, optional
        Keys and whose they are, as OpenSSH's ``allowed_signers`` lists them.
    """
    path = _beside(store.path)
    try:
        if path.stat().st_size > _MOST:
            return Signature(path=path, problem="is no signature of OpenSSH's, it is too large")
    except FileNotFoundError:
        return None
    except OSError as error:
        return Signature(path=path, problem=f"cannot be read ({explain(error)})", checked=False)
    try:
        text = _text(store.meta(), store.seals())
        key = _check(path, text)
        if key is None:
            return Signature(
                path=path,
                problem="the signature does not fit: the store was changed after it was signed, or the "
                "signature is of another one",
            )
        return Signature(path=path, key=key, signer=_signer(path, text, signers) if signers else None)
    except (OSError, subprocess.SubprocessError) as error:
        return Signature(path=path, problem=f"was not checked: {_lacking(error)}", checked=False)


def _beside(store: Path) -> Path:
    return store.with_name(store.name + SUFFIX)


def _text(meta: Mapping[str, str], seals: Mapping[str, str]) -> bytes:
    """What is signed; for ever: another text needs another first line."""
    parts = {part: digest for part, digest in seals.items() if part != _UNSIGNED}
    facts = {"suite": meta.get("suite", ""), "records": seals.get(RECORDS, ""), "digest": chain(parts)}
    return f"optbench store 1\n{json.dumps(facts, sort_keys=True)}\n".encode()


def _check(path: Path, text: bytes) -> str | None:
    """Kind and fingerprint of the key that signed a text; None if none did."""
    done = _call("-Y", "check-novalidate", "-n", NAMESPACE, "-s", str(path.absolute()), text=text)
    words = done.stdout.decode("utf-8", "replace").split()
    if done.returncode or "SHA256:" not in (words or [""])[-1]:
        return None
    return f"{words[-3]} {words[-1]}"  # Good "optbench-store" signature with ED25519 key SHA256:..


def _signer(path: Path, text: bytes, signers: Path) -> str | None:
    """Whose key it is by a file of known ones; None for a stranger's."""
    known = ("-f", str(signers.absolute()), "-s", str(path.absolute()))
    found = _call("-Y", "find-principals", *known)
    for name in found.stdout.decode("utf-8", "replace").splitlines() if not found.returncode else ():
        done = _call("-Y", "verify", "-n", NAMESPACE, "-I", name, *known, text=text)
        if not done.returncode:
            return one_line(ValueError(name))
    return None


def _call(*words: str, text: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    program = shutil.which(_PROGRAM)
    if program is None:
        raise FileNotFoundError(_PROGRAM)
    with tempfile.TemporaryFile() as given:  # a pipe would break where the program ends without reading it
        given.write(text)
        given.seek(0)
        return subprocess.run(
            [program, *words], stdin=given, capture_output=True, timeout=_SECONDS, check=False
        )


def _lacking(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{_PROGRAM} is not here; OpenSSH 8.1 or later brings it"
    return f"{_PROGRAM}: {one_line(error)}"


def _words(raw: bytes) -> str:
    return "; ".join(raw.decode("utf-8", "replace").split("\n")).strip("; \r")
