"""The target table's rows come from real certificates in processes of their own."""

from __future__ import annotations

import pytest

from cllm.bench import certify
from cllm.bench.certify import TARGETS, Target
from cllm.errors import CertificateError


def test_a_row_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certify, "TARGETS", (TARGETS[0], TARGETS[-1]))
    (row,) = certify.run(large=False).rows
    assert row.figures["certified"] is True and 0 < row.figures["radius_over_rms"] <= 1e-20
    assert row.figures["peak_rss_mb"] > 50 and row.figures["s"] > 0


def test_a_row_that_fails_says_so() -> None:
    with pytest.raises(CertificateError, match="nothing like it"):
        certify.alone(Target("none", "full", "nothing like it", 4, 1.0))


@pytest.mark.prove
@pytest.mark.timeout(1800)
def test_the_whole_target_table() -> None:
    table = certify.run()
    table.render()
    assert len(table.rows) == len(TARGETS)
    for row in table.rows:
        assert row.figures["certified"]
        if "radius_over_rms" in row.figures:
            assert row.figures["radius_over_rms"] <= 1e-20
        if row.name.startswith("seed") and "max_over_rms" in row.figures:
            assert row.figures["max_over_rms"] <= 2e-4
            assert row.figures["p99_over_rms"] <= 1e-5 and row.figures["normwise"] <= 1e-5
