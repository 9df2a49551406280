"""Crystalline: trains transformer language models from scratch, and proves its own arithmetic.

>>> import cllm
>>> run = cllm.train("book.txt", preset="nano")  # doctest: +SKIP
>>> print(run.generate("It was"))  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# public name → where it lives. Loaded when first used (PEP 562): `import cllm` costs nothing.
_PUBLIC = {
    "Config": "cllm.config",
    "Model": "cllm.model.model",
    "Run": "cllm.api",
    "State": "cllm.training.state",
    "Step": "cllm.model.step",
    "certify": "cllm.certificate",
    "evaluate": "cllm.api",
    "find_lr": "cllm.api",
    "generate": "cllm.api",
    "gradcheck": "cllm.certificate",
    "load": "cllm.api",
    "plan": "cllm.api",
    "replay": "cllm.api",
    "train": "cllm.api",
}
_PACKAGES = ("lattice", "numbers", "spec")

__all__ = [
    "Config",
    "Model",
    "Run",
    "State",
    "Step",
    "__version__",
    "certify",
    "evaluate",
    "find_lr",
    "generate",
    "gradcheck",
    "lattice",
    "load",
    "numbers",
    "plan",
    "replay",
    "spec",
    "train",
]

if TYPE_CHECKING:
    from cllm import lattice, numbers, spec
    from cllm.api import Run, evaluate, find_lr, generate, load, plan, replay, train
    from cllm.certificate import certify, gradcheck
    from cllm.config import Config
    from cllm.model.model import Model
    from cllm.model.step import Step
    from cllm.training.state import State


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        value = getattr(import_module(_PUBLIC[name]), name)
    elif name in _PACKAGES:
        value = import_module(f"cllm.{name}")
    else:
        raise AttributeError(f"module 'cllm' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
