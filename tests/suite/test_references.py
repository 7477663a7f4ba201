"""References to code that a suite names."""

import platform

import pytest

from optbench.suite.references import ImportProblem, identify


@pytest.mark.parametrize("reference", ["os:system", "os:getcwd", "sys:exit", "math:sin", "json:loads"])
def test_the_standard_library_is_identified_by_the_interpreter(reference, tmp_path):
    assert identify(reference, tmp_path) == f"python=={platform.python_version()}"


@pytest.mark.parametrize("reference", ["os", "no_such_module:name", "gone.py:name", ":name", "os:not a name"])
def test_a_reference_that_leads_nowhere_is_refused(reference, tmp_path):
    with pytest.raises(ImportProblem):
        identify(reference, tmp_path)
