"""Change one operator at a time and see whether a test notices: python tools/mutate.py MODULE TESTS

    python tools/mutate.py optbench/stats/flips.py tests/stats/test_flips.py
    python tools/mutate.py optbench/report/exports.py tests/report/test_exports.py
    python tools/mutate.py optbench/backends/jax/layers.py "tests/backends/test_layers.py -k jax"

Needs cosmic-ray (``pip install cosmic-ray``), and works on the files in place: run it in a clone. A sample of
the mutations is drawn, the same for a seed; those that no test noticed are printed, to be killed
by a test or left because they change nothing.
"""

from __future__ import annotations

import argparse
import random
import sqlite3
import subprocess
import sys
from pathlib import Path

CONFIG = """
[cosmic-ray]
module-path = "{module}"
timeout = {timeout}
excluded-modules = []
test-command = "{python} -m pytest -x -q -n 0 -p no:cacheprovider {tests}"

[cosmic-ray.distributor]
name = "local"
"""
#: Operators that change what a reader of types sees, and nothing that runs.
HARMLESS = ("core/ReplaceBinaryOperator_BitOr", "core/RemoveDecorator")
#: Identity in place of equality: the same for short texts and small numbers.
SAME = ("_Is", "_IsNot")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("module", type=Path)
    parser.add_argument("tests", nargs="+")
    parser.add_argument("--most", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timeout", type=float, default=180.0, help="seconds of the tests")
    parser.add_argument("--folder", type=Path, default=Path("build/mutations"))
    parser.add_argument("--cosmic-ray", default="cosmic-ray", help="the command, where it is not on the path")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    stem = options.folder / options.module.with_suffix("").as_posix().replace("/", ".")
    config, session = Path(f"{stem}.toml"), Path(f"{stem}.sqlite")
    session.unlink(missing_ok=True)
    config.write_text(
        CONFIG.format(
            module=options.module.as_posix(),
            timeout=options.timeout,
            python=sys.executable,
            tests=" ".join(options.tests),
        )
    )
    command = options.cosmic_ray
    # Tests that fail, or that are none, would notice every mutation.
    if subprocess.run([command, "baseline", config], check=False).returncode:
        parser.exit(1, f"{' '.join(options.tests)}: not passed without a mutation; nothing was tried\n")
    subprocess.run([command, "init", config, session], check=True)
    with sqlite3.connect(session) as opened:
        # By place and operator: the jobs' names are drawn anew each time.
        rows = opened.execute(
            "SELECT job_id, operator_name FROM mutation_specs "
            "ORDER BY start_pos_row, start_pos_col, operator_name, operator_args, occurrence"
        ).fetchall()
        useful = [
            job for job, operator in rows if not (operator.startswith(HARMLESS) or operator.endswith(SAME))
        ]
        kept = set(random.Random(options.seed).sample(useful, min(options.most, len(useful))))
        dropped = [(job,) for job, _ in rows if job not in kept]
        for table in ("mutation_specs", "work_items"):
            opened.executemany(f"DELETE FROM {table} WHERE job_id = ?", dropped)
    subprocess.run([command, "exec", config, session], check=True)
    with sqlite3.connect(session) as opened:
        results = opened.execute(
            "SELECT test_outcome, diff FROM work_results JOIN mutation_specs USING (job_id)"
        ).fetchall()
    survived = [diff for outcome, diff in results if str(outcome).rsplit(".", 1)[-1].lower() == "survived"]
    for diff in survived:
        print(diff)
    noticed = len(results) - len(survived)
    print(f"{options.module}: {noticed} of {len(results)} mutations noticed ({len(rows)} possible)")


if __name__ == "__main__":
    main()
