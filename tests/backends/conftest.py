from __future__ import annotations

import pytest

from optbench import backends
from tests.backends.contract import BACKENDS


@pytest.fixture(params=BACKENDS, scope="module")
def backend(request) -> str:
    """Each backend in turn, those without their framework skipped."""
    if request.param not in backends.installed():
        pytest.skip(f"backend {request.param}: its framework is not installed")
    return request.param
