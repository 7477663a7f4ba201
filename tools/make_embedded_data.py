"""Draw the embedded image subsets and pack the UCI letters: ``python tools/make_embedded_data.py SOURCE``.

SOURCE is a folder with ``mnist/`` and ``fashion-mnist/`` (the original idx files, gzip) and
``uci-letter/letter-recognition.csv.gz``. The subsets are stratified and their indices fixed: class by class,
the first 500 training and 100 test images of a permutation drawn from a fixed seed.
"""

import argparse
import csv
import gzip
import hashlib
from pathlib import Path

import numpy as np

OUT = Path(__file__).resolve().parent.parent / "optbench" / "datasets" / "embedded"
SEED = 20170427
PER_CLASS = {"train": 500, "t10k": 100}


def read_idx(path: Path) -> np.ndarray:
    raw = gzip.decompress(path.read_bytes())
    shape = [int.from_bytes(raw[4 + 4 * k : 8 + 4 * k], "big") for k in range(raw[3])]
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape)


def subset(labels: np.ndarray, per_class: int) -> np.ndarray:
    order = np.random.Generator(np.random.PCG64(SEED)).permutation(len(labels))
    picked = [order[labels[order] == c][:per_class] for c in range(10)]
    return np.sort(np.concatenate(picked))


def images(source: Path, out: Path) -> None:
    arrays = {}
    for part, name in (("train", "train"), ("t10k", "test")):
        x = read_idx(source / f"{part}-images-idx3-ubyte.gz")
        y = read_idx(source / f"{part}-labels-idx1-ubyte.gz")
        rows = subset(y, PER_CLASS[part])
        arrays |= {f"x_{name}": x[rows][..., None], f"y_{name}": y[rows], f"rows_{name}": rows.astype("<u2")}
    np.savez_compressed(out, **arrays)


def letters(source: Path, out: Path) -> None:
    with gzip.open(source, "rt", newline="") as stream:
        rows = list(csv.reader(stream))[1:]
    y = np.array([ord(row[0]) - ord("A") for row in rows], dtype=np.uint8)
    x = np.array([[int(float(value)) for value in row[1:]] for row in rows], dtype=np.uint8)
    np.savez_compressed(out, x=x, y=y)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    source = parser.parse_args().source
    OUT.mkdir(exist_ok=True)
    images(source / "mnist", OUT / "mnist_mini.npz")
    images(source / "fashion-mnist", OUT / "fashion_mini.npz")
    letters(source / "uci-letter" / "letter-recognition.csv.gz", OUT / "uci_letter.npz")
    for path in sorted(OUT.glob("*.npz")):
        print(
            f"{path.name}  {path.stat().st_size:>9,} bytes  {hashlib.sha256(path.read_bytes()).hexdigest()}"
        )


if __name__ == "__main__":
    main()
