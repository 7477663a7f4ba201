"""``optbench schema``: what a suite file may say, for editors and other tools."""

from __future__ import annotations


def schema() -> None:
    """Print the JSON Schema of a suite file.

    An editor that reads it completes fields and marks mistakes. `optbench run SUITE --plan` checks more:
    whether names agree, layers fit the data, files are there.
    """
    import json

    from optbench.suite.json_schema import suite_schema

    print(json.dumps(suite_schema(), indent=1, ensure_ascii=False))
