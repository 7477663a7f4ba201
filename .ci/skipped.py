"""Print the tests that a run skipped, one a line, from its JUnit file: ``python .ci/skipped.py FILE``."""

import sys
from xml.etree import ElementTree

for case in ElementTree.parse(sys.argv[1]).iter("testcase"):
    if case.find("skipped") is not None:
        module, name = case.get("classname"), case.get("name", "")
        # A module skipped as a whole stands there as a test without a class, called by the module's name.
        print(f"{module.replace('.', '/')}.py::{name}" if module else f"{name.replace('.', '/')}.py")
