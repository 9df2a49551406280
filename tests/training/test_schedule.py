"""The rate of every step: exact tables worked out by hand, and properties over all settings."""

from __future__ import annotations

import dataclasses
import itertools
import math
from fractions import Fraction

import mpmath
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cllm.errors import ConfigError
from cllm.training.schedule import SCHEDULES, Schedule, lr_at, rates

# lr 1 (exact products), worked out by hand from the definitions in the module's docstring.
TABLES: list[tuple[dict, list[float]]] = [
    # warm-up 4: ¼ ½ ¾ 1, then p = ¼ ½ ¾ 1 with floor ¼
    ({"name": "linear", "warmup": 4, "total": 8, "floor": 0.25}, [0.25, 0.5, 0.75, 1, 0.8125, 0.625, 0.4375, 0.25]),
    ({"name": "linear", "warmup": 0, "total": 5, "floor": 0.0}, [1, 0.75, 0.5, 0.25, 0]),
    ({"name": "linear", "warmup": 1, "total": 5, "floor": 0.0}, [1, 0.75, 0.5, 0.25, 0]),
    ({"name": "linear", "warmup": 2, "total": 4, "floor": 0.5}, [0.5, 1, 0.75, 0.5]),
    ({"name": "constant", "warmup": 2, "total": 4, "floor": 0.5}, [0.5, 1, 1, 1]),
    ({"name": "step", "warmup": 2, "total": 8, "floor": 0.0, "gamma": 0.5, "every": 2},
     [0.5, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.125]),
    ({"name": "step", "warmup": 0, "total": 5, "floor": 0.3, "gamma": 0.5, "every": 1}, [1, 0.5, 0.3, 0.3, 0.3]),
    ({"name": "exponential", "warmup": 2, "total": 5, "floor": 0.0, "gamma": 0.5}, [0.5, 1, 0.5, 0.25, 0.125]),
    ({"name": "exponential", "warmup": 0, "total": 5, "floor": 0.0625}, [1, 0.5, 0.25, 0.125, 0.0625]),
    ({"name": "polynomial", "warmup": 0, "total": 5, "floor": 0.0, "power": 2}, [1, 0.5625, 0.25, 0.0625, 0]),
    ({"name": "polynomial", "warmup": 0, "total": 5, "floor": 0.5, "power": 2}, [1, 0.78125, 0.625, 0.53125, 0.5]),
    # the last round(0.4·10) = 4 steps decay: 6, 7, 8, 9 at q = ¼ ½ ¾ 1
    ({"name": "wsd", "warmup": 2, "total": 10, "floor": 0.0, "decay": 0.4},
     [0.5, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0]),
    ({"name": "wsd", "warmup": 0, "total": 10, "floor": 0.0, "decay": 0.4, "shape": "sqrt"},
     [1, 1, 1, 1, 1, 1, 0.5, 1 - math.sqrt(0.5), 1 - math.sqrt(0.75), 0]),
    ({"name": "wsd", "warmup": 0, "total": 4, "floor": 0.5, "decay": 0.01}, [1, 1, 1, 0.5]),
    # a warm-up longer than the run never gets to the peak
    ({"name": "cosine", "warmup": 8, "total": 4}, [0.125, 0.25, 0.375, 0.5]),
    ({"name": "cosine", "warmup": 0, "total": 1}, [1]),
    ({"name": "wsd", "warmup": 3, "total": 4, "floor": 0.0, "decay": 1.0}, [1 / 3, 2 / 3, 1, 0]),
]  # fmt: skip


@pytest.mark.parametrize(("keys", "expected"), TABLES)
def test_tables(keys: dict, expected: list[float]) -> None:
    assert rates(Schedule(lr=1.0, **keys)) == expected


def test_cosine_table_against_mpmath() -> None:
    schedule = Schedule(name="cosine", lr=6e-4, warmup=100, total=1000, floor=0.1)
    with mpmath.workprec(120):
        for step, got in enumerate(rates(schedule)):
            if step < 100:
                exact = mpmath.mpf(6e-4) * (step + 1) / 100
            else:
                p = mpmath.mpf(step - 99) / 900
                floor = mpmath.mpf(0.1)
                exact = mpmath.mpf(6e-4) * (floor + (1 - floor) * (1 + mpmath.cos(mpmath.pi * p)) / 2)
            # Ten roundings of quantities of at most 1, relative to a rate of at least lr·floor.
            assert abs(got - exact) <= 12 * 2.0**-53 * 6e-4


def draw(name: str, data: st.DataObject) -> Schedule:
    extras = {"gamma": data.draw(st.floats(0.5, 1.0)), "every": data.draw(st.integers(1, 20))}
    if name == "exponential" and data.draw(st.booleans()):
        extras = {}
    return Schedule(
        name=name,
        lr=data.draw(st.floats(1e-6, 10.0)),
        warmup=data.draw(st.integers(0, 60)),
        total=data.draw(st.integers(1, 200)),
        floor=data.draw(st.floats(1e-3, 1.0)),
        power=data.draw(st.floats(0.1, 4.0)),
        decay=data.draw(st.floats(0.001, 1.0)),
        shape=data.draw(st.sampled_from(["linear", "cosine", "sqrt"])),
        **extras,
    )


@pytest.mark.parametrize("name", SCHEDULES)
@given(data=st.data())
@settings(deadline=None, max_examples=200)
def test_properties_of_every_schedule(name: str, data: st.DataObject) -> None:
    schedule = draw(name, data)
    peak, total, lr = schedule.peak, schedule.total, schedule.lr
    got = [lr_at(schedule, step) for step in range(total + 50)]
    assert all(0 < rate <= lr for rate in got), "never 0, never above the peak"
    for step in range(min(peak, total)):
        exact = Fraction(lr) * (step + 1) / schedule.warmup
        assert abs(Fraction(got[step]) - exact) <= 2 * Fraction(2) ** -53 * exact
    if peak < total:
        assert got[peak] == lr
    falling = got[peak : total + 50]
    assert all(a >= b for a, b in itertools.pairwise(falling)), "never rises after the peak"
    if name not in ("constant", "step") and schedule.gamma is None and total - 1 > peak:
        assert got[total - 1] == lr * schedule.floor
    if name in ("cosine", "linear", "polynomial", "wsd") and total - 1 > peak:
        assert got[total - 1] == lr * schedule.floor, "the last step is on the floor"
        assert set(got[total:]) == {lr * schedule.floor}, "and so is all beyond"


def test_the_same_for_a_resumed_run() -> None:
    schedule = Schedule(lr=1e-3, warmup=10, total=100)
    assert [lr_at(schedule, step) for step in reversed(range(100))] == rates(schedule)[::-1]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"name": "cosin"}, r"schedule.name: expected one of cosine, .*got 'cosin'; did you mean \"cosine\""),
        ({"lr": -1.0}, r"optim.lr: expected a finite number ≥ 0, got -1.0"),
        ({"lr": math.inf}, r"optim.lr"),
        ({"lr": math.nan}, r"optim.lr"),
        ({"total": 0}, r"train.steps: expected at least 1, got 0"),
        ({"warmup": -1}, r"schedule.warmup"),
        ({"floor": 1.5}, r"schedule.floor.*in \[0, 1\], got 1.5"),
        ({"floor": math.nan}, r"schedule.floor"),
        ({"gamma": 0.0}, r"schedule.gamma"),
        ({"every": 0}, r"schedule.every"),
        ({"power": 0.0}, r"schedule.power"),
        ({"decay": 0.0}, r"schedule.decay"),
        ({"shape": "round"}, r"schedule.shape: expected one of linear, cosine, sqrt, got 'round'"),
        ({"name": "step"}, r"schedule.gamma, schedule.every: expected both"),
        ({"name": "step", "gamma": 0.5}, r"schedule.gamma, schedule.every: expected both"),
        ({"name": "exponential", "floor": 0.0}, r"schedule.gamma: expected a factor"),
    ],
)
def test_wrong_settings_are_named(keys: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Schedule(**{"lr": 1.0, "total": 10, **keys})


def test_settings_cannot_change_under_way() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Schedule(lr=1.0, total=10).lr = 2.0  # type: ignore[misc]
