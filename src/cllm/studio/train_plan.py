"""What a training will cost, before it starts. Runs in a process of its own (`studio.slow`): it needs torch."""

from __future__ import annotations

from typing import Any

from cllm.studio.settings_form import checked
from cllm.training import plan as planning


def size(preset: str | None, settings: dict[str, Any]) -> dict[str, Any]:
    """Parameters, memory by part in bytes, FLOPs: nothing is allocated and nothing measured, so this is quick."""
    config = checked(preset, settings)
    found = planning.size(config)
    t, m = config.train, config.model
    memory = planning.memory_of(planning.device_of(config))
    minutes = planning.DEFAULT_MINUTES if t.steps is None and t.max_minutes is None else t.max_minutes
    return {
        "parameters": found.parameters,
        "bytes": found.bytes_by_part,
        "bytes_total": found.total_bytes,
        "machine_bytes": memory,
        "fits": found.total_bytes <= memory,
        "checkpoint_bytes": planning.checkpoint_bytes(config),
        "flops_per_token": found.flops_per_token,
        "tokens_a_step": t.batch * t.accumulate * (t.sequence or m.context),
        "steps": t.steps,
        "minutes": None if t.steps is not None else minutes,
        "device": planning.device_of(config).type,
    }


def speed(preset: str | None, settings: dict[str, Any]) -> dict[str, Any]:
    """Seconds a step and tokens a second, measured now on this machine with three steps on random tokens."""
    config = checked(preset, settings)
    found, memory = planning.size(config), planning.memory_of(planning.device_of(config))
    if found.total_bytes > memory:
        return {"seconds_a_step": None, "tokens_per_s": None}
    measured = planning.measure(config)
    return {"seconds_a_step": measured.seconds, "tokens_per_s": measured.tokens_per_s}
