"""What certificates cost and show: the target table, each row in a process of its own (time, peak memory, errors)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from cllm.bench.measure import Figure, Table
from cllm.errors import CertificateError


@dataclass(frozen=True)
class Target:
    """One row. kind: full, pure (without the accelerated product) or local. target_*: seconds and MB."""

    name: str
    kind: str
    preset: str
    tokens: int
    target_s: float
    target_mb: float | None = None
    precision: str = "fp32"
    large: bool = False


TARGETS = (
    Target("tiny (nano, T = 64), full", "full", "nano", 64, 1.0),
    Target("small, T = 64, full", "full", "small", 64, 10.0),
    Target("small, T = 64, full, float64 engine", "full", "small", 64, 10.0, precision="fp64"),
    Target("seed, T = 64, op by op", "local", "seed", 64, 3.0),
    Target("seed, T = 64, full, pure", "pure", "seed", 64, 75.0, 8000.0, large=True),
    Target("seed, T = 64, full, accelerated", "full", "seed", 64, 20.0, 4500.0, large=True),
    Target("seed, T = 256, full, accelerated", "full", "seed", 256, 60.0, 6000.0, large=True),
)

# The rooms are siblings: a row imports the certificate in its own process only.
CHILD = """
import json, os, sys, time
kind, preset, tokens, precision = sys.argv[1:]
from cllm import certificate
from cllm.bench.machine import peak_rss_bytes
from cllm.spec import Balls
from cllm.certificate.full import certify_step
begin, cpu = time.perf_counter(), os.times()
given = certificate.subject(preset=preset, tokens=int(tokens), set={"precision": precision})
made = time.perf_counter()
found = {}
if kind == "local":
    from cllm.certificate.local import certify_ops
    c = certify_ops(given)
    found["budget used"] = max(row.used for row in c.rows)
else:
    c = certify_step(given, system=Balls() if kind == "pure" else None)
    found |= {"bits": c.bits, "radius_over_rms": c.radius_over_rms, "p99_over_rms": c.errors.p99,
              "max_over_rms": c.errors.max, "normwise": c.worst_normwise}
end, after = time.perf_counter(), os.times()
found |= {"ok": c.ok, "s": end - begin if kind != "local" else end - made,
          "cpu_s": after.user + after.system - cpu.user - cpu.system, "peak_rss_mb": (peak_rss_bytes() or 0) / 1e6}
print(json.dumps(found))
"""


def run(*, large: bool = True) -> Table:
    """Every row, or those that take seconds. Raises CertificateError when a row fails or is not certified."""
    table = Table("certify", "certificates: time, memory, and how far the engine is from the exact gradient")
    for target in TARGETS:
        if large or not target.large:
            found = alone(target)
            within = found["s"] <= target.target_s
            if target.target_mb is not None:
                within = within and found["peak_rss_mb"] <= target.target_mb
            ok = found.pop("ok")
            table.add(
                target.name, s=found.pop("s"), target_s=target.target_s, cpu_s=found.pop("cpu_s"),
                peak_rss_mb=found.pop("peak_rss_mb"), target_mb=target.target_mb, in_target=within, certified=ok,
                **found,
            )  # fmt: skip
    table.notes.append(
        "Random weights at 384 bit, end to end: weights made, engine run twice, proof, comparison. "
        "Op by op: the step with every check, weights already made."
    )
    table.notes.append("radius, p99, max: in units of the rms of each tensor's exact gradient.")
    return table


def alone(target: Target) -> dict[str, Any]:
    """The figures of one row, from its own process."""
    words = [sys.executable, "-c", CHILD, target.kind, target.preset, str(target.tokens), target.precision]
    environment = {"OMP_WAIT_POLICY": "passive", **os.environ}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        raise CertificateError(
            f"bench certify: {target.name}: {(done.stderr or 'no message').strip().splitlines()[-1]}"
        )
    found: dict[str, Figure] = json.loads(done.stdout.splitlines()[-1])
    if not found["ok"]:
        raise CertificateError(
            f"bench certify: {target.name}: not certified; see `cllm certify --preset {target.preset}`"
        )
    return found
