"""The benchmark's rows: every candidate computes, agrees, and is timed; sizes are cut down here."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from cllm.bench import numbers as bench
from cllm.bench.measure import Table
from cllm.errors import CertificateError


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("DIGITS", 2000), ("ELEMENTS", 2000), ("VECTOR", 50), ("MATRIX", 128)):
        monkeypatch.setattr(bench, name, value)


@pytest.mark.usefixtures("small")
def test_all_rows_with_every_peer() -> None:
    scalars, arrays = bench.tables(rounds=1)
    names = [row.name for row in scalars.rows] + [row.name for row in arrays.rows]
    assert len(names) == len(set(names)) == 20
    for part in (
        "product",
        "pi",
        "exp at 1000",
        "ln at 10000",
        "sin at 10000",
        "vector",
        "float64 to balls",
        "512 bits",
    ):
        assert any(part in name for name in names), part
    for row in (*scalars.rows, *arrays.rows):
        assert row.figures["ms"] > 0  # type: ignore[operator]
    assert scalars.rows[0].figures["gmpy2_ratio"] is not None and scalars.rows[2].figures["mpmath_ratio"] is not None
    assert {"within_target"} <= set(arrays.columns)


@pytest.mark.usefixtures("small")
def test_missing_peers_are_named_and_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", none)
    scalars = bench.scalars_table(rounds=1)
    assert any("gmpy2 is not installed" in note for note in scalars.notes)
    assert not any(column in ("gmpy2_ratio", "mpmath_ratio") for column in scalars.columns)


def test_a_wrong_result_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "exp", bench.sin)
    table = Table("t", "t")
    with pytest.raises(CertificateError, match="exp"):
        bench._function(table, "exp", 1000, {"mpmath": table.peer("mpmath"), "gmpy2": None}, 1)
    assert not table.rows
