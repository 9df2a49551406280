"""The printed statement of a certificate. All bounds are rounded up."""

from __future__ import annotations

from cllm.certificate.record import Bad, Certificate, Quantiles, above


def statement(c: Certificate) -> str:
    """The certificate as text."""
    e = c.engine
    commit = f" @{e['commit']}" if e["commit"] else f" source sha256 {e['source_sha256'][:12]}…"
    head = "CERTIFIED" if c.ok else "NOT CERTIFIED"
    hashes = (("weights", c.hashes["weights"]), ("batch", c.hashes["batch"]), ("spec", c.spec["source_sha256"]))
    made_of = "  ".join(f"{what} sha256 {value[:12]}…" for what, value in hashes)
    worst = f"worst tensor normwise {above(c.worst_normwise)} ({c.worst_tensor})"
    shape = f"{c.subject['rows']} × {c.subject['sequence']} tokens, {c.subject['valid']} valid targets"
    lines = [
        f"{head}  engine {e['name']}{commit}  {made_of}",
        f"{c.subject['parameters']:,} parameters, {shape}",
        f"exact loss in {_ball(c.loss.exact)} ; |engine−exact| ≤ {above(c.loss.error)}",
        f"all {c.entries:,} gradients: enclosure radius ≤ {above(c.radius_over_rms)}·rms",
        f"  |engine−exact|/rms   {_spread(c.errors)}   max {above(c.errors.max)}     {worst}",
        f"  relative             {_spread(c.relative)}",
    ]
    if c.beside is not None:
        lines.append(
            f"  normwise             median {above(c.median_normwise)} worst {above(c.worst_normwise)}; "
            f"{c.beside.name} on the same batch: median {above(c.beside.median)} worst {above(c.beside.worst)}"
        )
    for what in dict.fromkeys(z.what for z in c.structural):
        rows = [z for z in c.structural if z.what == what]
        exact, engine = max(z.exact_bound for z in rows), max(z.engine_max for z in rows)
        lines.append(f"  structural zeros ({what}): exact |g| ≤ {above(exact)}, engine {_number(engine)}")
    if c.adamw is not None:
        error, used = max(row.error for row in c.adamw), max(row.used for row in c.adamw)
        lines.append(
            f"AdamW step t={c.adamw[0].t}..{c.adamw[-1].t}: |Δw error| ≤ {above(error)}·lr "
            f"({c.adamw_entries:,} entries a step, {100 * used:.0f} % of the a-priori budget)"
        )
    lines += [
        f"assumes: {', '.join(c.assumes)}.  {c.bits} bit.  {c.seconds:.1f} s",
        f"enclosure {c.enclosure}; engine {c.verdict} {_budget(c)}",
        f"not certified: {', '.join(c.not_certified)}",
        *(f"note: {note}" for note in c.notes),
    ]
    if c.bad is not None:
        lines += failure(c.bad)
    return "\n".join(lines)


def failure(bad: Bad) -> list[str]:
    """The first thing that is wrong: op, tensor, index, exact and engine values."""
    return [
        f"first fault: op {bad.op or 'not named'}, tensor {bad.tensor}{bad.index if bad.index else ''}: {bad.why}",
        f"  exact  {_ball(bad.exact)}",
        f"  engine {bad.engine}",
    ]


def _spread(q: Quantiles) -> str:
    return f"50% {above(q.p50)}   99% {above(q.p99)}   99.9% {above(q.p999)}"


def _ball(text: str) -> str:
    """FLINT's "[middle +/- radius]" as people write it."""
    return text.strip("[]").replace("+/-", "±")


def _number(x: float) -> str:
    return "0" if x == 0 else f"{x:.2e}"


def _budget(c: Certificate) -> str:
    if "max" not in c.budget:
        return f"(no budget exists for {c.engine['precision']})"
    b = c.budget
    return (
        f"({c.engine['precision']}, table {b['version']}: max ≤ {b['max']:.0e}·rms, 99% ≤ {b['p99']:.0e}·rms, "
        f"every tensor ≤ {b['normwise']:.0e} normwise, times its condition)"
    )
