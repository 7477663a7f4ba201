"""Make the table of docs/optimizers.md: each name in each backend, its class and version, whether it trains.

    python tools/optimizer_table.py [--backend torch --backend jax ...]

Each trains for 20 steps on a small model; it trained if the last loss is finite and below the double of the
first. Cells of backends that are not installed, or were not asked for, are kept as they stand on the page.
"""

from __future__ import annotations

import argparse
import math
import re
from pathlib import Path

import numpy as np

from optbench import backends, matching
from optbench.datasets import registry
from optbench.datasets.base import network, trial_data
from optbench.environment import Context
from optbench.errors import UserError
from optbench.execution.tryout import BATCH, small_model
from optbench.optimizers import FAMILIES, Library, on_backend
from optbench.optimizers.library import LIBRARY
from optbench.trial import Seeds, TrialSpec, Workload

PAGE = Path(__file__).resolve().parent.parent / "docs" / "optimizers.md"
START, END = "<!-- made by tools/optimizer_table.py -->", "<!-- end of what is made -->"
BACKENDS = ("torch", "tensorflow", "jax")
STEPS = 20


def trained(name: str, backend: str) -> str:
    """Train a name in a backend; the cell of the table."""
    try:
        if name in FAMILIES:
            declared = FAMILIES[name].config()
        else:  # some functions of optax have no learning rate by default
            lr = math.sqrt(LIBRARY[name].lr.low * LIBRARY[name].lr.high)
            declared = Library(name=name, arguments=(("lr", lr),))
        config = on_backend(declared, backend)
    except UserError as error:
        return "-" if "no class of this name" in str(error) else f"not installed: {error}"
    code = getattr(config, "code", "")
    label = "rule" if name in FAMILIES else f"`{config.reference}` {code.partition('==')[2]}"  # type: ignore[attr-defined]
    native = FAMILIES[name].native_for("torch", config) if name in FAMILIES and backend == "torch" else None
    if native is not None:
        label = f"`{native[0].target}`"
    spec = TrialSpec(
        workload=Workload(dataset="digits", model=small_model(), batch_size=BATCH, epochs=1),
        optimizer=config,
        seeds=Seeds(),
        backend=backend,  # type: ignore[arg-type]
        device="cpu",
        precision="float32",
    )
    dataset = registry.load("digits")
    data = trial_data(dataset, spec.workload, spec.seeds, train_eval=BATCH)
    built = network(spec.workload, dataset.info)
    weights = matching.initial_weights(built, 0, "float32")
    try:
        session = backends.engine(backend, Context()).open(spec, built, data, weights)
        losses = session.train_epoch(data.train.rows[: STEPS * BATCH], 1)
    except Exception as error:  # whatever it is, it belongs into the table
        return f"{label}: no ({type(error).__name__})"
    good = np.isfinite(losses).all() and losses[-1] < 2 * losses[0] and not math.isnan(losses[-1])
    return f"{label}: {'yes' if good else 'no (the loss grows)'}"


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", action="append", choices=BACKENDS)
    wanted = parser.parse_args().backend or backends.installed()
    old = PAGE.read_text(encoding="utf-8").partition(START)[2].partition(END)[0]
    known = {}
    for line in old.splitlines():
        if (found := re.match(r"\| `(\w+)` \| (.*) \|$", line)) is not None:
            known[found[1]] = dict(zip(BACKENDS, found[2].split(" | ")[-3:], strict=True))
    rows = []
    for name in [*FAMILIES, *LIBRARY]:
        cells = known.get(name, dict.fromkeys(BACKENDS, "not tried"))
        cells |= {backend: trained(name, backend) for backend in BACKENDS if backend in wanted}
        source = "optbench" if name in FAMILIES else LIBRARY[name].source
        rows.append(f"| `{name}` | {source} | {' | '.join(cells[b] for b in BACKENDS)} |")
        print(rows[-1], flush=True)
    head = ["| name | from | torch | tensorflow | jax |", "|---|---|---|---|---|"]
    table = "\n".join(["", *head, *rows, ""])
    # The page may have been edited in the minutes that this took.
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{START}{table}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
