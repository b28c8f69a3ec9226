"""The smallest part and run that show what the run room does."""

import pytest

from onepolicy.run.run import Run


class Counter:
    """A stateful part of one number."""

    def __init__(self, value=0):
        self.value = value

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        self.value = state["value"]


@pytest.fixture
def counter():
    return Counter


@pytest.fixture
def make_run(tmp_path):
    """A finished run; metrics, timing: key -> values of steps 1, 2, ... (None: not logged). saved: steps to save."""

    def make(metrics=None, *, timing=None, name="run", config=None, recipe="grpo", samples=(), saved=(), first=1):
        run = Run.create(tmp_path / name, recipe=recipe, config=config or {"steps": 100})
        length = max((len(values) for values in (metrics or {}).values()), default=0)
        with run:
            for i in range(length):
                values = {key: series[i] for key, series in (metrics or {}).items() if i < len(series)}
                clock = {key: series[i] for key, series in (timing or {}).items() if i < len(series)}
                run.log(first + i, {key: v for key, v in values.items() if v is not None}, clock)
            run.sample(first + length, samples)
            for step in saved:
                run.save(step, counter=Counter(step))
        return run

    return make
