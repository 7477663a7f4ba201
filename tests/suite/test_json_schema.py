"""The schema of a suite file is current, accepts what is a suite, and refuses what is none."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from optbench.optimizers import FAMILIES
from optbench.suite.json_schema import attributes, suite_schema
from optbench.suite.load import SuiteFile, load_suite
from optbench.suite.yamlfile import read, read_text
from optbench.trial import Workload

jsonschema = pytest.importorskip("jsonschema", reason="jsonschema checks the schema: pip install jsonschema")
ROOT = Path(__file__).resolve().parents[2]
SUITES = sorted((ROOT / "suites").glob("*.yaml"))
SHOWN = [
    (page.name, text)
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    if page.name != "plugin.md"  # names what only its own package has
    for text in re.findall(r"^```yaml.*?\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    if re.search(r"^suite:", text, re.MULTILINE)
]


@pytest.fixture(scope="module")
def errors():
    validator = jsonschema.Draft7Validator(suite_schema())

    def check(data):
        return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(data)]

    return check


def test_the_schema_beside_the_suites_is_current():
    stored = json.loads((ROOT / "suites" / "optbench.schema.json").read_text())
    assert stored == json.loads(json.dumps(suite_schema())), (
        "run: optbench schema > suites/optbench.schema.json"
    )
    jsonschema.Draft7Validator.check_schema(stored)


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_a_suite_of_the_repository_fits_and_names_the_schema(path, errors):
    assert errors(read(path).data) == []
    assert path.read_text().startswith("# yaml-language-server: $schema=optbench.schema.json\n")


@pytest.mark.parametrize(("page", "text"), SHOWN, ids=[page for page, _ in SHOWN])
def test_a_suite_of_the_documentation_fits(page, text, errors):
    assert errors(read_text(text, path=Path(page)).data) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("adam: {lr: 0.01}", "adam:"),
        ("adam: {lr: 0.01}", "adam: {grid: {lr: [0.1, 0.01]}}"),
        ("adam: {lr: 0.01}", "fast: {optimizer: adam, lr: 1}"),
        ("adam: {lr: 0.01}", "mine: {class: 'collections:OrderedDict', lr: 1, anything: [1]}"),
        ("    epochs: 2", "    grid: {epochs: [2, 3]}"),
        ("{name: mlp, hidden: [8]}", "mlp"),
        ("{name: mlp, hidden: [8]}", "{name: mlp, initializer: he_normal}"),
        ("{name: mlp, hidden: [8]}\n", "{hidden: [8]}\n    grid: {model.name: [mlp]}\n"),
        ("{name: mlp, hidden: [8]}", "{layers: [{kind: dense, units: 4, bias_initializer: zeros}, dense]}"),
        ("seeds: 2", "seeds: {init: 2, order: [0, 4]}"),
        ("seeds: 2", "tuning: {trials: 4, seeds: [9], space: {adam: {lr: {log: [1e-4, 1e-1]}}}}"),
        ("seeds: 2", "tuning: {budget: {epochs: 99}, network: {model.hidden: [[4], [8]]}}"),
        ("seeds: 2", "analysis: ~"),
        ("    epochs: 2", "    epochs: 2\n    schedule: cosine\n    optimizers: {adam: {lr: 0.5}}"),
        ("    epochs: 2", "    epochs: 2\n    schedule: {kind: step, at: [1]}\n    batch_size: full"),
    ],
)  # fmt: skip
def test_what_is_a_suite_fits(write_suite, errors, old, new):
    replaced = [(old, new)]
    if new.startswith("analysis"):
        replaced.append(("analysis: {baseline: wame}", ""))
    if "batch_size" in new:
        replaced.insert(0, ("    batch_size: 256\n", ""))
    path = write_suite(*replaced)
    load_suite(path)
    assert errors(read(path).data) == []


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("epochs: 2", "epoch: 2", "epoch"),
        ("batch_size: 256", 'batch_size: "256"', "batch_size"),
        ("adam: {lr: 0.01}", "adam: {lr: -0.01}", "adam"),
        ("adam: {lr: 0.01}", "adam: {bta: 0.9}", "adam"),
        ("adam: {lr: 0.01}", "fast: {optimizer: adam, learning_rate: 1}", "fast"),
        ("dataset: digits", "dataset: digit", "dataset"),
        ("dataset: digits", "dataset: {csv: a.csv}", "dataset"),
        ("name: mlp, hidden: [8]", "name: mpl", "model"),
        ("name: mlp, hidden: [8]", "name: mlp, hiden: [8]", "model"),
        ("name: mlp, hidden: [8]", "layers: [{kind: dens}]", "layers"),
        ("name: mlp, hidden: [8]", "layers: [{kind: conv2d, filters: 2}]", "layers"),
        ("seeds: 2", "seeds: 0", "seeds"),
        ("seeds: 2", "seeds: {inti: 3}", "seeds"),
        ("{baseline: wame}", "{alpha: 2}", "analysis"),
        ("seeds: 2", "tuning: {trials: 4, space: {adam: {lr: {log: [0, 1]}}}}", "tuning"),
        ("seeds: 2", "tuning: {trials: 4, sampler: best}", "tuning"),
        ("    epochs: 2", "    epochs: 2\n    smoke: true", "smoke"),
    ],
)  # fmt: skip
def test_what_is_no_suite_does_not_fit(write_suite, errors, old, new, where):
    from optbench.suite.spec import SuiteError

    path = write_suite((old, new))
    with pytest.raises(SuiteError):
        load_suite(path)
    assert any(where in line for line in errors(read(path).data))


def test_every_field_of_a_suite_and_a_workload_is_explained():
    schema = suite_schema()
    for where in (schema, schema["$defs"]["Workload"], schema["$defs"]["Tuning"], schema["$defs"]["Axis"]):
        for name, field in where.get("properties", {}).items():
            assert field.get("description"), name


def test_descriptions_come_from_the_docstrings():
    assert attributes(Workload)["weight_decay"].startswith("Decoupled decay (Loshchilov & Hutter 2019)")
    assert attributes(FAMILIES["wame"].config)["eta_minus"].startswith("Growth (above 1) and shrinkage")
    assert set(attributes(SuiteFile)) == set(SuiteFile.__dataclass_fields__)
