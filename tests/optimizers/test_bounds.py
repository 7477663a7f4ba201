"""Whatever a family's bounds allow can be constructed and takes steps: preflight need not try it."""

from __future__ import annotations

from dataclasses import fields
from typing import get_type_hints

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from optbench.optimizers import FAMILIES
from optbench.suite.optimizer_entries import LARGEST

torch = pytest.importorskip("torch")


def configs(family):
    """Hyperparameters of all kinds within the bounds, the extreme ones too."""
    hints = get_type_hints(family.config, include_extras=True)
    drawn = {
        f.name: st.just(f.default) | st.from_type(hints[f.name])
        for f in fields(family.config)
        if f.name != "optimizer"
    }
    return st.fixed_dictionaries(drawn)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_config_within_its_bounds_takes_steps(name, dtype):
    from optbench.backends.torch.optimizers import make_optimizer

    family = FAMILIES[name]

    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
    @given(values=configs(family))
    def take_steps(values):
        values = {name: min(v, LARGEST) if isinstance(v, float) else v for name, v in values.items()}
        try:
            config = TypeAdapter(family.config).validate_python(values)
        except ValidationError:  # hyperparameters that do not go together
            assume(False)
        params = [torch.ones(4, 3, dtype=dtype, requires_grad=True), torch.ones(3, dtype=dtype)]
        optimizer = make_optimizer(config, params)
        for t in (1, 2):
            for w in params:
                w.grad = torch.full_like(w, (-1) ** t * 0.5)
            for part in getattr(optimizer, "parts", (optimizer,)):
                part.loss = 1.0 / t
            optimizer.step()
        assert all(np.shape(w.detach().numpy()) for w in params)

    take_steps()
