"""Pages that mkdocs generates while it builds: the command line's reference, from the program itself."""

from __future__ import annotations

import subprocess
import sys

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

EXIT_CODES = """
Exit codes: 0 done; 1 a check of `optbench verify` failed; 2 wrong usage or suite; 3 data missing, with the
command that brings it; 4 some trials crashed; 130 interrupted: the same command goes on.
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    command = [sys.executable, "-m", "typer", "optbench.cli", "utils", "docs", "--name", "optbench"]
    page = subprocess.run([*command, "--title", "Command line"], check=True, capture_output=True, text=True)
    files.append(File.generated(config, "reference/cli.md", content=page.stdout + EXIT_CODES))
    return files
