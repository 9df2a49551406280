"""`cllm bench startup` runs the real commands."""

from __future__ import annotations

import subprocess

from cllm.bench import startup


def test_every_command_is_run_and_torch_is_not_needed_for_help(monkeypatch) -> None:
    ran: list[list[str]] = []
    real = subprocess.run

    def watched(command, **options):
        ran.append(command)
        return real(command, **options)

    monkeypatch.setattr(startup.subprocess, "run", watched)
    table = startup.run("nano", rounds=1)
    assert [row.name for row in table.rows if row.figures["target_s"]] == list(startup.TARGETS_S)
    assert sum("generate" in command for command in ran) == 2  # a warm-up and a sample
    assert all(row.figures["ms"] > 0 for row in table.rows)
