"""What the model is, in real numbers: forward pass, loss and optimiser step, over any number system.

The rest of cllm computes; this room says what the right answer is, and encloses it. It shares no code with the
engine. Start with `gpt` (the model, one page) and `tape` (all the calculus, one table).
"""

from cllm.spec.balls import BallArray, Balls
from cllm.spec.batch import Batch
from cllm.spec.fast import FastBalls, fastest
from cllm.spec.floats import Float64
from cllm.spec.gpt import Model, loss
from cllm.spec.gradient import Enclosure, Gradient, distance, enclose
from cllm.spec.intervals import Interval, Intervals
from cllm.spec.ops import OPS, Op
from cllm.spec.optimiser import AdamW, adamw, clip_scale, decays, global_norm, sgd
from cllm.spec.system import Named, System
from cllm.spec.tape import Leaves, Tape, pullback, recording

__all__ = [
    "OPS",
    "AdamW",
    "BallArray",
    "Balls",
    "Batch",
    "Enclosure",
    "FastBalls",
    "Float64",
    "Gradient",
    "Interval",
    "Intervals",
    "Leaves",
    "Model",
    "Named",
    "Op",
    "System",
    "Tape",
    "adamw",
    "clip_scale",
    "decays",
    "distance",
    "enclose",
    "fastest",
    "global_norm",
    "loss",
    "pullback",
    "recording",
    "sgd",
]
