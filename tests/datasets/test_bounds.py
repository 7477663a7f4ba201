"""Sizes are judged before anything is read: what is too large is refused at once, and in little memory."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest
from typer.testing import CliRunner

from optbench.cli import app
from optbench.datasets import own
from optbench.datasets.base import DataError
from optbench.datasets.bounds import npz_headers

#: Reads a declaration in a process whose memory is limited, and prints what is said.
READ = """
import resource, sys
from pathlib import Path
from optbench.datasets import own
from optbench.datasets.base import DataError
kind, name, mb = sys.argv[1], sys.argv[2], int(sys.argv[3])
entry = {kind: name} | ({"label": "c0"} if kind == "csv" else {})
with open("/proc/self/statm") as file:
    now = int(file.read().split()[5]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_DATA, (now + mb * 2**20, resource.RLIM_INFINITY))
try:
    own.declare(entry, Path.cwd())
except DataError as error:
    print("REFUSED", error)
"""


def zeros(path, shapes, kind="<f4"):
    """An .npz file of zeros, written without holding them."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, shape in shapes.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                header = {"descr": kind, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                left = int(np.prod(shape)) * np.dtype(kind).itemsize
                while left:
                    part = min(left, 2**20)
                    file.write(bytes(part))
                    left -= part
    return path


def read_in_little_memory(folder, kind, name, mb=150, **environment):
    clock = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", READ, kind, name, str(mb)],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    return done.stdout + done.stderr, time.monotonic() - clock


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_arrays_that_are_too_large_are_refused_by_their_headers(tmp_path):
    zeros(tmp_path / "big.npz", {"x": (400_000, 200), "y": (400_000,)})
    said, _ = read_in_little_memory(tmp_path, "npz", "big.npz", OPTBENCH_DATA_LIMIT="0.2")
    assert "REFUSED" in said, said
    assert "0.3 GB of arrays, and 0.2 GB are allowed" in said
    assert "OPTBENCH_DATA_LIMIT=1" in said
    assert (tmp_path / "big.npz").stat().st_size < 3_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_a_table_of_very_many_columns_is_refused_by_its_first_line(tmp_path):
    names = ",".join(f"c{k}" for k in range(300_000))
    (tmp_path / "wide.csv").write_text(f"{names}\n" + ",".join(["1"] * 300_000) + "\n")
    said, _ = read_in_little_memory(tmp_path, "csv", "wide.csv")
    assert "300,000 columns, and 20,000 are read" in said
    assert "OPTBENCH_MOST_COLUMNS=300000" in said


def test_a_limit_can_be_raised_and_must_be_a_number(tmp_path, monkeypatch):
    np.savez(tmp_path / "d.npz", x=np.eye(40), y=np.arange(40) % 2)
    assert own.declare({"npz": "d.npz"}, tmp_path).digest
    monkeypatch.setenv("OPTBENCH_DATA_LIMIT", "0.000001")
    with pytest.raises(DataError, match="GB are allowed"):
        own.declare({"npz": "d.npz"}, tmp_path)
    monkeypatch.setenv("OPTBENCH_DATA_LIMIT", "much")
    with pytest.raises(Exception, match="give a positive number"):
        own.declare({"npz": "d.npz"}, tmp_path)


def test_headers_are_read_and_an_array_that_is_cut_short_is_refused(tmp_path):
    np.savez(tmp_path / "d.npz", x=np.zeros((3, 2), np.float32), y=np.arange(3))
    assert npz_headers(tmp_path / "d.npz") == {
        "x": ((3, 2), np.dtype("float32")),
        "y": ((3,), np.dtype("int64")),
    }
    with zipfile.ZipFile(tmp_path / "cut.npz", "w") as archive, archive.open("x.npy", "w") as file:
        header = {"descr": "<f8", "fortran_order": False, "shape": (10**9,)}
        np.lib.format.write_array_header_1_0(file, header)
        file.write(bytes(100))
    with pytest.raises(DataError, match="cut off or altered"):
        npz_headers(tmp_path / "cut.npz")
    (tmp_path / "none.npz").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(DataError, match="not a plain"):
        own.declare({"npz": "none.npz"}, tmp_path)


def test_a_table_of_results_with_very_many_columns_has_an_answer_at_once(tmp_path):
    path = tmp_path / "wide.csv"
    names = ",".join(f"method{k}" for k in range(200_000))
    path.write_text("\n".join([f"dataset,{names}", *(f"d{r}" + ",0.5" * 200_000 for r in range(3))]))
    clock = time.monotonic()
    done = CliRunner().invoke(app, ["compare", str(path)])
    assert done.exit_code == 2
    assert "200,001 columns, and 20,000 are read" in done.output + done.stderr
    assert time.monotonic() - clock < 30


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_archive_whose_compressed_bytes_are_damaged_is_said(tmp_path, method):
    path = tmp_path / "own.npz"
    with zipfile.ZipFile(path, "w", method) as archive, archive.open("x.npy", "w") as file:
        np.lib.format.write_array(file, np.random.default_rng(0).normal(size=(50, 4)))
    sound = path.read_bytes()
    for place in range(36, 60):
        for other in (0x00, 0xFF):
            path.write_bytes(sound[:place] + bytes([sound[place] ^ other or 0x55]) + sound[place + 1 :])
            with contextlib.suppress(DataError):  # what is no damage to the headers is found when it is read
                npz_headers(path)
