"""The benchmark compares answers before it times them, and names what is missing."""

import numpy as np
import pytest

from cllm import lattice as lt
from cllm.bench import lattice as bench
from cllm.errors import CertificateError


def test_tables(monkeypatch):
    monkeypatch.setattr(bench, "POINTS", 3000)
    maps = bench.maps_table(rounds=1)
    names = {row.name for row in maps.rows}
    assert {"ulam", "residues", "fold", "clock abacus", "torus"} <= names
    assert all(row.figures["ms"] > 0 for row in maps.rows)
    table = bench.primes_table(rounds=1)
    assert [row.name for row in table.rows][:2] == ["primes below 10^8", "segment at 10^12"]
    assert table.rows[1].figures["sympy_ratio"] > 1
    assert table.to_dict()["rows"]


def test_a_wrong_answer_is_not_timed(monkeypatch):
    monkeypatch.setattr(bench, "POINTS", 100)
    monkeypatch.setattr(lt, "ulam_inverse", lambda x, y: np.zeros(100, dtype=int))
    with pytest.raises(CertificateError, match="ulam: inverse"):
        bench.maps_table(rounds=1)


def test_missing_peers_are_named(monkeypatch):
    table = bench.Table("x", "x")
    assert table.peer("no_such_package_here") is None
    assert "not installed" in table.notes[0]
