"""Run every benchmark, one after the other: ``python benchmarks/all.py > benchmarks.md``.

Prints the machine, then what each script prints, as Markdown; a script that misses a bar or fails says so,
and the next one runs. The whole takes some hours; ``--quick`` takes the smallest sizes that show the ratios.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from optbench import environment

HERE = Path(__file__).resolve().parent
#: Arguments of the quick run; None leaves a script out of it.
QUICK: dict[str, list[str] | None] = {
    "startup": [],
    "trial_overhead": ["--repeats", "5"],
    "engines": ["--rounds", "3"],
    "workers": ["--rounds", "1"],
    "side_by_side": ["--rounds", "1"],
    "suite_speed": ["--images", "2000", "--seeds", "2", "--rounds", "1"],
    "stacked_seeds": ["--sizes", "2,8", "--rounds", "3"],
    "growth": ["--rounds", "1", "--widths", "16,1024", "--seeds", "1,16", "--workers", "1,2"],
    "long_run": ["--trials", "500"],
    "store_speed": ["--trials", "10,1000,10000"],
    "checkpoints": ["--repetitions", "3"],
    "optimizer_step": ["--rounds", "3"],
    "augmentation": ["--images", "3200"],
    "statistics_speed": ["--seeds", "100"],
    "report_speed": ["--trials", "2000"],
    "gpu": ["--rounds", "3"],
    "statistics_simulations": None,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=QUICK, action="append", help="may be repeated")
    options = parser.parse_args()
    facts = environment.describe(HERE)
    versions = ", ".join(f"{name} {version}" for name, version in facts["packages"].items())
    print(f"{facts['cores']} cores of {facts['processor']}, {facts['memory_gb']} GB, {facts['system']}")
    print(f"Python {facts['python']}, {versions}", flush=True)
    failed = []
    for name in options.only or QUICK:
        quick = QUICK[name]
        if options.quick and quick is None:
            continue
        words = quick if options.quick and quick is not None else []
        print(f"\n## {' '.join(['python', f'benchmarks/{name}.py', *words])}\n", flush=True)
        clock = time.perf_counter()
        done = subprocess.run([sys.executable, HERE / f"{name}.py", *words], check=False)
        failed += [name] * bool(done.returncode)
        print(f"\n{time.perf_counter() - clock:.0f} s, exit code {done.returncode}", flush=True)
    if failed:
        raise SystemExit(f"a bar is missed, or it failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
