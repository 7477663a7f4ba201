"""Make the README's pictures from a store: ``python tools/make_pictures.py results/quick``.

Needs Chromium (``chromium`` on the PATH) to turn the terminal's picture into a PNG.
"""

import argparse
import io
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI

from optbench import api
from optbench.report.leaderboard import leaderboards
from optbench.report.leaderboard_columns import leaderboard_table
from optbench.report.terminal import rich_table

OUT = Path(__file__).resolve().parent.parent / "docs" / "img"
WIDTH = 138


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    suite, store = api.find_store(parser.parse_args().store)
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    for board in leaderboards(api.load_results(store), suite):
        console.print(rich_table(leaderboard_table(board), width=WIDTH))
    svg = console.export_svg(title="optbench run suites/quick.yaml", theme=MONOKAI)
    screenshot(svg, OUT / "quick-leaderboard.png")
    with tempfile.TemporaryDirectory() as folder:
        api.report(store, out=folder, formats=("plots",))
        shutil.copy(Path(folder) / "plots" / "loss_mnist-mini_small_cnn.png", OUT / "quick-loss.png")


def screenshot(svg: str, out: Path) -> None:
    # Fonts from the network are left out: the picture must not depend on it.
    svg = re.sub(r"@font-face\s*{.*?}", "", svg, flags=re.DOTALL).replace("Fira Code", "DejaVu Sans Mono")
    width, height = (round(float(x)) for x in re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg).groups())
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        page.write_text(f'<body style="margin:0"><div style="width:{width}px">{svg}</div></body>', "utf-8")
        command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        command += [f"--user-data-dir={folder}/profile", "--disable-background-networking"]
        command += [f"--window-size={width},{height}", f"--screenshot={out}", page.as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)


if __name__ == "__main__":
    main()
