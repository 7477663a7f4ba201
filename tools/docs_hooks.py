"""What mkdocs generates while it builds: the command line's reference, and the fields of a suite file."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from optbench.suite.json_schema import suite_schema

EXIT_CODES = """
Exit codes: 0 done; 1 a check of `optbench verify` failed; 2 wrong usage or suite; 3 data missing, with the
command that brings it; 4 some trials crashed;
5 a part of the report could not be made, the rest is there; 130 interrupted: the same command goes on.
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    command = [sys.executable, "-m", "typer", "optbench.cli", "utils", "docs", "--name", "optbench"]
    page = subprocess.run([*command, "--title", "Command line"], check=True, capture_output=True, text=True)
    files.append(File.generated(config, "reference/cli.md", content=page.stdout + EXIT_CODES))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    return (
        markdown.replace("<!-- fields -->", fields_table()) if page.file.src_uri == "suite.md" else markdown
    )


def fields_table() -> str:
    """Make a table of every field of a suite file."""
    schema = suite_schema()
    defs = schema["$defs"]
    lines = ["| field | values | default | meaning |", "|---|---|---|---|"]
    sections = [("", schema), ("workloads[].", defs["Workload"]), ("tuning.", defs["Tuning"])]
    parts = {"split": "Split", "early_stopping": "EarlyStopping", "divergence": "Divergence"}
    parts |= {"augment": "Augment", "targets": "Targets"}
    sections += [(f"workloads[].{key}.", defs[name]) for key, name in parts.items()]
    sections += [("tuning.budget.", defs["Budget"])]
    sections += [("analysis.", defs["Analysis"]), ("analysis.sequential.", defs["Sequential"])]
    sections += [("engine.", defs["EngineOptions"])]
    for prefix, section in sections:
        for name, field in section["properties"].items():
            default = "" if field.get("default") is None else f"`{json.dumps(field['default'])}`"
            cells = (f"`{prefix}{name}`", values(field, defs), default, field.get("description", ""))
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def values(field: dict[str, Any], defs: dict[str, Any]) -> str:
    """Say in a few words what a field takes."""
    if "$ref" in field:
        target = defs[field["$ref"].rpartition("/")[2]]
        return "mapping" if "properties" in target else values(target, defs)
    if options := field.get("anyOf") or field.get("allOf"):
        words = [values(option, defs) for option in options if option.get("type") != "null"]
        return " or ".join(dict.fromkeys(words))
    if choices := field.get("enum") or ([field["const"]] if "const" in field else []):
        return ", ".join(f"`{choice}`" for choice in choices if choice is not None)
    kind = {"object": "mapping", "array": "list", "boolean": "`true`, `false`", "integer": "whole number"}
    word = kind.get(field.get("type", ""), field.get("type", ""))
    signs = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}
    return " ".join(
        [word, ", ".join(f"{sign} {field[key]:g}" for key, sign in signs.items() if key in field)]
    )
