"""Make the README's pictures and the gallery from stores.

    optbench run suites/quick.yaml
    python tools/make_pictures.py results/quick results/wame_variants

The first store is the one of the README's command: both of its pictures are of that run. The gallery takes
each plot from the first store that has it. Needs Chromium (``chromium`` on the PATH) to turn the terminal's
picture into a PNG.
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
from optbench.report import plots
from optbench.report.analysis import analyse, leading_tables
from optbench.report.figures import Plot, report_plots
from optbench.report.terminal import answer_lines, rich_table

DOCS = Path(__file__).resolve().parent.parent / "docs"
OUT = DOCS / "img"
WIDTH = 138
GALLERY = """# Every plot, and how to read it

Made by `tools/make_pictures.py` from stores of `suites/quick.yaml`, `suites/wame_variants.yaml` and
`suites/optimizers_offline.yaml`. The page of a report shows those that its records allow; `--format plots`
writes them as PNG, SVG and PDF.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("stores", type=Path, nargs="+")
    stores = parser.parse_args().stores
    reports = []
    for path in stores:
        spec, store = api.find_store(path)
        reports.append(analyse(api.load_results(store), spec))
    first = reports[0]
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    console.print(answer_lines(first.answer))
    for _, table in leading_tables(first):
        console.print(rich_table(table, width=WIDTH))
    svg = console.export_svg(title="optbench run suites/quick.yaml", theme=MONOKAI)
    screenshot(svg, OUT / "quick-leaderboard.png")
    found: dict[str, Plot] = {}
    for report in reports:
        for plot in report_plots(report):
            if plot.name not in found or (report is first and plot.section.startswith("mnist-mini")):
                figure = plot.draw()
                if figure is not None:
                    found[plot.name] = plot
                    plots.save(figure, OUT / "gallery" / plot.name, endings=("png",))
    shutil.copy(OUT / "gallery" / "loss.png", OUT / "quick-loss.png")
    parts = [
        f"## {plot.title}\n\n![{plot.alt}](img/gallery/{name}.png)\n\n{plot.caption}\n"
        for name, plot in found.items()
    ]
    (DOCS / "gallery.md").write_text("\n".join([GALLERY, *parts]), encoding="utf-8")


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
