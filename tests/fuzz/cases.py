"""The kinds of bad input: each writes one damaged input into a sandbox and runs a command on it."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import random
import shutil
import struct
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np

from optbench.datasets import formats, registry
from optbench.execution import estimate
from optbench.records.store import Store
from tests.conftest import TINY
from tests.fuzz.material import TUNED, Material, numbers_of
from tests.fuzz.mutate import ODD, damage_store, damaged_bytes, damaged_data, damaged_yaml
from tests.fuzz.sandbox import Outcome, Sandbox

OWN = """
suite: own
workloads:
  - dataset: %s
    model: {name: mlp, hidden: [4]}
    batch_size: 32
    epochs: 1
optimizers: {adam: {lr: 0.01}}
seeds: 1
device: cpu
"""

Case = Callable[[random.Random, Sandbox, "Material"], Outcome]


def suite_files(rng: random.Random, sandbox: Sandbox, material: Material) -> Outcome:
    """A damaged suite, read and planned."""
    path = sandbox.work / "suite.yaml"
    path.write_bytes(damaged_yaml(rng.choice(material.suites), rng))
    return sandbox.run(
        *rng.choice(
            (*(("run", path, "--plan"),) * 3, *(("run", path, "--plan", "--smoke"),) * 2, ("plan", path))
        ),
        names=(path.name,),
    )


def smoke_runs(rng: random.Random, sandbox: Sandbox, material: Material) -> Outcome:
    """A damaged small suite, trained on synthetic data."""
    path = sandbox.work / "suite.yaml"
    path.write_bytes(damaged_yaml(rng.choice((TINY, TINY, TUNED)), rng))
    return sandbox.run("run", path, "--smoke", names=(path.name, "store.sqlite"))


def stores(rng: random.Random, sandbox: Sandbox, material: Material) -> Outcome:
    """A damaged store, reported, shown and listed."""
    whole = rng.choice(material.stores)
    with Store(whole) as store:
        trial = rng.choice(sorted(store.statuses()))
    path = _damaged_copy(whole, sandbox, rng)
    commands = (
        *(
            ("report", path, "--format", f)
            for f in ("terminal", "terminal", "markdown", "csv", "latex", "json")
        ),
        ("report", path.parent, path.parent, "--format", "terminal"),
        ("show", trial),
        ("show", ""),
        ("list", "results"),
    )
    return sandbox.run(*rng.choice(commands), names=(path.name, trial, "trial"))


def _damaged_copy(whole: Path, sandbox: Sandbox, rng: random.Random) -> Path:
    path = sandbox.results / "damaged" / "store.sqlite"
    path.parent.mkdir()
    shutil.copy(whole, path)
    damage_store(path, rng)
    return path


def carried(rng: random.Random, sandbox: Sandbox, material: Material) -> Outcome:
    """A damaged store, merged with the sound one, exported, shown in pictures, one of its trials rerun."""
    whole = rng.choice(material.stores)
    with Store(whole) as store:
        trial = rng.choice(sorted(store.statuses()))
    path = _damaged_copy(whole, sandbox, rng)
    out = sandbox.results / "out"
    command = rng.choice(
        (
            ("merge", path, whole, "-o", out),
            ("merge", whole, path, "-o", out),
            ("export", path, "--to", "csv", "-o", out),
            ("export", path, "--to", "json", "-o", out),
            ("show", trial, "--store", path),
            ("rerun", trial, "--store", path),
        )
    )
    outcome = sandbox.run(*command, names=(path.name, trial, "trial"))
    # That a trial is another one today is an answer, and its exit code is 1.
    answered = command[0] == "rerun" and outcome.code == 1 and f"{trial}: different" in outcome.stdout
    return replace(outcome, code=0) if answered else outcome


def imports(rng: random.Random, sandbox: Sandbox, material: Material) -> Outcome:
    """Damaged tables, Keras's logs and TensorBoard's event files, taken over as a store."""
    kind = rng.choice(("table", "keras", "keras", *(("events",) * 2 if material.events else ())))
    options: tuple[object, ...] = (
        "--dataset",
        "d",
        "--optimizer",
        "adam",
        "--seed",
        rng.choice(("0", "0", "x", "-1")),
    )
    if kind == "events":
        path = sandbox.work / "events.out.tfevents.1.machine"
        path.write_bytes(damaged_bytes(material.events, rng) if rng.random() < 0.9 else material.events)
    else:
        path = sandbox.work / "d" / "adam-0.csv"
        path.parent.mkdir()
        path.write_bytes(damaged_table(_keras_log(rng) if kind == "keras" else _table("long", rng), rng))
        if rng.random() < 0.3:
            pattern = rng.choice(
                ("{dataset}/{optimizer}-{seed}.csv", "{optimizer}-{seed}.csv", "{x}", "*", "(")
            )
            options = ("--pattern", pattern, "--dataset", "d")
        options += rng.choice(
            ((), ("--map", "accuracy=test_accuracy"), ("--map", "accuracy=val_accuracy"),
             ("--percent",), ("--map", "="), ("--first-epoch", "0"), ("--as", "keras"), ("--as", "table"),
             ("--baseline", "adam"))
        )  # fmt: skip
    source = rng.choice((path, path, path.parent)) if kind != "events" else rng.choice((path, sandbox.work))
    # A run of TensorBoard's is a folder.
    run = str(sandbox.work) if kind == "events" else path.name
    names = (path.name, run, source.name, "import:", "--pattern", "--map", "--baseline")
    return sandbox.run("import", source, "-o", sandbox.results / "theirs", *options, names=names)


def _keras_log(rng: random.Random) -> list[list[str]]:
    names = [
        "epoch",
        *rng.sample(["accuracy", "loss", "val_accuracy", "val_loss", "learning_rate", "val_auc"], 4),
    ]
    return [names, *([str(k), *(f"{rng.random():.4f}" for _ in names[1:])] for k in range(rng.randint(1, 8)))]


def checkpoints(rng: random.Random, sandbox: Sandbox, material: Material) -> Outcome:
    """A damaged checkpoint: the trial starts again, and comes to the same numbers."""
    suite = sandbox.work / "tiny.yaml"
    suite.write_text(TINY)
    path = sandbox.results / "tiny-smoke" / "checkpoints" / rng.choice(material.checkpoints).name
    path.parent.mkdir(parents=True)
    sound = next(p for p in material.checkpoints if p.name == path.name)
    bytewise = rng.random() < 0.5
    if bytewise:
        path.write_bytes(damaged_bytes(sound.read_bytes(), rng))
    else:
        with np.load(sound) as file:
            arrays = {name: file[name] for name in file.files}
        if rng.random() < 0.5:
            meta = damaged_data(json.loads(arrays["meta"].tobytes()), rng)
            with contextlib.suppress(ValueError, TypeError):
                arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
        path.write_bytes(damaged_npz(arrays, rng))
    outcome = sandbox.run("run", suite, "--smoke", names=(suite.name, path.name))
    if bytewise and not outcome.error and numbers_of(sandbox.results / "tiny-smoke") != material.numbers:
        return replace(outcome, error="a damaged checkpoint changed the numbers")
    return outcome


def resumed(rng: random.Random, sandbox: Sandbox, material: Material) -> Outcome:
    """A damaged store, opened to write by the run that made it."""
    path = sandbox.results / "tuned-smoke" / "store.sqlite"
    path.parent.mkdir()
    shutil.copy(material.stores[1], path)
    damage_store(path, rng)
    suite = sandbox.work / "tuned.yaml"
    suite.write_text(TUNED.replace("seeds: [0, 1]", "seeds: [0, 1, 2]"))
    return sandbox.run("run", suite, "--smoke", names=(suite.name, path.name))


def published_files(rng: random.Random, sandbox: Sandbox, material: Material) -> Outcome:
    """Damaged idx, CIFAR, MATLAB and CSV files in the place of published ones."""
    folder = sandbox.work / "data"
    name = rng.choice([n for n, entry in registry.ENTRIES.items() if hasattr(entry, "source")])
    source = registry.ENTRIES[name].source
    for file in rng.choice((source.files, *source.others)):
        path = folder / source.folders[0] / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(damaged_bytes(_file_like(file.name, rng), rng))
    return sandbox.run(
        "data", rng.choice(("verify", "verify", "path")), name, "--data-dir", folder, names=(name,)
    )


def decoders(rng: random.Random, sandbox: Sandbox, material: Material) -> Outcome:
    """Damaged content of published files behind the checksum that would have refused it."""
    path = sandbox.work / rng.choice(("images-idx3-ubyte.gz", "labels-idx1-ubyte", "e.mat", "k.csv", "c.bin"))
    path.write_bytes(damaged_bytes(_file_like(path.name, rng), rng))

    def decode() -> object:
        if path.suffix == ".mat":
            return formats.emnist_mat(path)
        raw = formats.read_bytes(path)
        if path.suffix == ".csv":
            return formats.pixel_csv(raw, path, side=28)
        if path.suffix == ".bin":
            return formats.cifar(raw, path, label_bytes=1)
        return formats.idx(raw, path, ndim=3 if "idx3" in path.name else 1)

    return sandbox.call(decode, names=(path.name,))


def own_files(rng: random.Random, sandbox: Sandbox, material: Material) -> Outcome:
    """Damaged npz and CSV files that a suite declares as its data."""
    kind = rng.choice(("npz", "npz", "csv", "csv", "images"))
    numbers = np.random.default_rng(rng.randrange(2**32))
    count = rng.choice((1, 2, 5, 40, 40, 40))
    y = numbers.integers(0, rng.choice((1, 2, 3)), count)
    if kind == "csv":
        rows = [["a", "b", "answer"], *([*(f"{v:.3f}" for v in numbers.normal(size=2)), f"c{k}"] for k in y)]
        raw, declaration = damaged_table(rows, rng), "{csv: own.csv, label: answer}"
        if rng.random() < 0.3:
            shape = rng.choice(([2], [1, 2], [2, 1, 1], [3], [0], [-1]))
            declaration = f"{{csv: own.csv, label: answer, shape: {shape}}}"
    else:
        shape = (count, 4) if kind == "npz" else (count, 4, 4)
        x = numbers.normal(size=shape) if kind == "npz" else numbers.integers(0, 256, shape).astype(np.uint8)
        raw, declaration = damaged_npz({"x": x, "y": y}, rng), "{npz: own.npz}"
    (sandbox.work / f"own.{'csv' if kind == 'csv' else 'npz'}").write_bytes(raw)
    path = sandbox.work / "own.yaml"
    path.write_text(OWN % declaration)
    return sandbox.run("run", path, "--plan" if rng.random() < 0.7 else "--smoke", names=(path.name,))


def tables(rng: random.Random, sandbox: Sandbox, material: Material) -> Outcome:
    """A damaged table of results, compared."""
    form = rng.choice(("long", "long", "wide", "time", "predictions"))
    path = sandbox.work / "table.csv"
    path.write_bytes(damaged_table(_table(form, rng), rng))
    options = rng.choice(
        ((), (), ("--baseline", "adam"), ("--json",), ("--margin", rng.choice(ODD)),
         ("--alpha", rng.choice(ODD)), ("--minimise",),
         ("--correction", rng.choice(("shaffer", "bh", "none", "bergmann-hommel"))))
    )  # fmt: skip
    if form == "predictions":
        options = (
            ("--predictions", *options[:2]) if options and options[0] == "--baseline" else ("--predictions",)
        )
    elif form == "long":
        options = ("--metric", "accuracy", *options)
    return sandbox.run("compare", path, *(str(o).replace("\0", "") for o in options), names=(path.name,))


def _table(form: str, rng: random.Random) -> list[list[str]]:
    if form == "wide":
        methods = ["adam", "sgd", "wame"][: rng.randint(2, 3)]
        return [
            ["dataset", *methods],
            *([f"d{k}", *(f"{rng.random():.3f}" for _ in methods)] for k in range(rng.randint(1, 9))),
        ]
    if form == "predictions":
        return [["truth", "adam", "sgd"], *([str(rng.randrange(3)) for _ in range(3)] for _ in range(30))]
    extra = ["reached", "time", "budget"] if form == "time" else ["accuracy", "loss"]
    rows = [["dataset", "optimizer", "seed", *extra]]
    for dataset in range(rng.randint(1, 3)):
        for optimizer in ("adam", "sgd", "wame")[: rng.randint(1, 3)]:
            for seed in range(rng.randint(1, 7)):
                cells = (
                    [rng.choice(("true", "false")), f"{rng.random():.2f}", "1"]
                    if form == "time"
                    else [f"{rng.random():.3f}", f"{rng.random():.3f}"]
                )
                rows.append([f"d{dataset}", optimizer, str(seed), *cells])
    return rows


def damaged_table(rows: list[list[str]], rng: random.Random) -> bytes:
    """Change cells, rows and bytes of a table."""
    rows = damaged_data(rows, rng, at_most=4) if rng.random() < 0.4 else [list(row) for row in rows]
    rows = [row if isinstance(row, list) else [row] for row in rows] if isinstance(rows, list) else [[rows]]
    for _ in range(rng.randint(0, 4)):
        if rows and (row := rng.choice(rows)):
            row[rng.randrange(len(row))] = rng.choice((*ODD, "diverged", "NA", "crashed", "inf", "1e400"))
    text = io.StringIO()
    # A stand-in for the zero byte, which Python 3.10 writes into no table.
    rows = [[c.replace("\0", "\ue000") if isinstance(c, str) else c for c in row] for row in rows]
    csv.writer(text, delimiter=rng.choice((",", ",", ";", "\t"))).writerows(rows)
    raw = text.getvalue().replace("\ue000", "\0").encode("utf-8", "surrogatepass")
    return damaged_bytes(raw, rng) if rng.random() < 0.4 else raw


def damaged_npz(arrays: Mapping[str, np.ndarray], rng: random.Random) -> bytes:
    """Change arrays, their types and shapes, or the file's bytes; sometimes with pickled objects in it."""
    changed = dict(arrays)
    for _ in range(rng.randint(0, 2)):
        name = rng.choice(sorted(changed))
        array = changed[name]
        match rng.randrange(9):
            case 0:
                changed[name] = np.zeros(
                    array.shape, rng.choice(("f2", "f8", "i1", "u8", "c16", "U4", "S4", "?", "M8[s]", ">i2"))
                )
            case 1:
                changed[name] = array[: rng.randint(0, len(array))] if array.ndim else array
            case 2:
                changed[name] = np.array([{"a": 1}, None] * 4, dtype=object)
            case 3:
                changed[name] = array.reshape(array.shape + (1,) * rng.randint(1, 4))
            case 4 if array.dtype.kind == "f" and array.size:
                array = array.copy()
                array.flat[rng.randrange(array.size)] = rng.choice((np.nan, np.inf, 1e308, 1e-320))
                changed[name] = array
            case 5:
                changed[rng.choice(("x", "y", "x_train", "z", "../x", ""))] = array
            case 6:
                changed[name] = np.array(rng.choice((0, "x", 1.5)))
            case 7:
                changed[name] = np.zeros((len(array) if array.ndim else 1, 0), array.dtype)
    packed = io.BytesIO()
    np.savez(packed, **changed) if rng.random() < 0.5 else np.savez_compressed(packed, **changed)
    raw = packed.getvalue()
    if rng.random() < 0.1:
        declared = np.lib.format.magic(1, 0)
        header = (
            f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({10 ** rng.randint(9, 18)}, 2), }}".ljust(
                117
            )
        )
        raw = declared + struct.pack("<H", 118) + header.encode() + b"\n"
    return damaged_bytes(raw, rng) if rng.random() < 0.5 else raw


def _file_like(name: str, rng: random.Random) -> bytes:
    """A small file of the published kind that a name says."""
    if ".mat" in name:
        from scipy.io import savemat

        packed = io.BytesIO()
        part = {"images": np.zeros((4, 784), np.uint8), "labels": np.ones((4, 1), np.uint8)}
        odd = {**part, "labels": np.array([{"a": 1}, "x", "y", 2], dtype=object)}
        chosen = rng.choice((part, part, odd, {"images": part["images"]}, 3))
        savemat(packed, {"dataset": {"train": chosen, "test": part}}, do_compression=rng.random() < 0.5)
        return packed.getvalue()
    if ".csv" in name:
        header = ",".join(["label", *(f"pixel{k}" for k in range(784))])
        return "\n".join([header, *(",".join([str(k)] + ["0"] * 784) for k in range(3))]).encode()
    if ".bin" in name or "cifar" in name:
        return bytes(3073 * 2)
    if "labels" in name or "idx1" in name:
        raw = struct.pack(">HBBI", 0, rng.choice((8, 8, 8, 9, 14)), 1, 4) + bytes(4)
    else:
        raw = struct.pack(">HBBIII", 0, 8, 3, rng.choice((4, 4, 2**31, 2**32 - 1)), 28, 28) + bytes(4 * 784)
    return gzip.compress(raw) if name.endswith(".gz") else raw


#: Share of each kind in ten thousand cases.
KINDS: Mapping[str, tuple[Case, int]] = {
    "suites": (suite_files, 3500),
    "smoke runs": (smoke_runs, 300),
    "stores": (stores, 1800),
    "carried stores": (carried, 700),
    "resumed stores": (resumed, 200),
    "checkpoints": (checkpoints, 200),
    "imports": (imports, 700),
    "published data": (published_files, 400),
    "decoders": (decoders, 500),
    "own data": (own_files, 800),
    "tables": (tables, 900),
}


def run_case(kind: str, number: int, folder: Path, material: Material) -> Outcome:
    """Make and run one case; the same kind and number make the same case."""
    for cached in (registry.load, registry.synthetic):
        cached.cache_clear()
    # Plans time a step or two, so that ten thousand cases take minutes.
    with patch.multiple(estimate, CALIBRATION_SECONDS=0.0, CALIBRATION_WORK=10**6):
        return KINDS[kind][0](random.Random(f"{kind} {number}"), Sandbox(folder), material)
