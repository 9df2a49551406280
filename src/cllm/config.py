"""Run file → typed, validated configuration. The bottom layer: it knows no tensors.

A run file is TOML; every key can also be set by `--set section.key=value`. `load` merges, in rising priority,
defaults, preset, run file and overrides, and checks each value's path, type and range. The result is complete:
written back as `run.toml` it repeats the run.
"""

from __future__ import annotations

import difflib
import math
import tomllib
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import tomli_w
from msgspec import Meta, Struct, field

from cllm import native
from cllm.errors import ConfigError, closest
from cllm.presets import DEFAULT, PRESETS

Count = Annotated[int, Meta(ge=1)]
Natural = Annotated[int, Meta(ge=0)]
Fraction01 = Annotated[float, Meta(ge=0.0, lt=1.0)]
Positive = Annotated[float, Meta(gt=0.0)]
NonNegative = Annotated[float, Meta(ge=0.0)]
Seed = Annotated[int, Meta(ge=0, lt=2**32)]


Positions = Literal["learned", "sinusoidal", "rope", "spiral", "clock", "prime", "mix"]


class _Section(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    pass


class DataConfig(_Section, frozen=True):
    """Where the text comes from and how it becomes token rows."""

    path: list[str] = field(default_factory=list)  # files, folders, globs, "-" or a named corpus
    tokenizer: str = "bpe"  # bpe, char, word, or the path of a tokenizer.json
    vocab_size: Count | None = None  # default: the preset's V
    field: str = "text"  # of a .jsonl, .csv or .parquet record; a.b is nested
    skip_bad: bool = False  # leave bad records out instead of refusing them
    dedup: bool = False  # leave out documents that came before
    weights: dict[str, Annotated[float, Meta(gt=0.0)]] | None = None  # each source's share of the training rows
    val_fraction: Annotated[float, Meta(gt=0.0, le=0.5)] = 0.1
    pack: bool = True  # False: one document a row, padded
    document_mask: bool = False  # True: attention, positions and targets stay within a document


class ModelConfig(_Section, frozen=True):
    """The network. Sizes left out are filled in by the preset."""

    layers: Annotated[int, Meta(ge=1, le=1024)] = 4
    width: Annotated[int, Meta(ge=1, le=2**16)] = 128
    heads: Annotated[int, Meta(ge=1, le=1024)] = 4
    ff: Annotated[int, Meta(ge=1, le=2**18)] = 512
    context: Annotated[int, Meta(ge=1, le=2**20)] = 512
    vocab: Annotated[int, Meta(ge=1, le=2**24)] = 1000
    positions: Positions = "learned"  # a learned table, a fixed code, rotary (rope), or a mix of some
    positions_start: Literal["normal", "sinusoid"] = "normal"  # what a learned table begins as
    positions_normalize: bool = True  # rows of spiral, clock and prime (alone and in mix) scaled to RMS 0.02
    positions_mix: tuple[float, float, float, float] = (0.25, 0.25, 0.25, 0.25)  # of spiral, clock, prime, learned
    positions_mix_trainable: bool = False  # the four weights of mix are trained, too
    rope_base: Positive = 10000.0  # rope: how slowly the last plane turns
    rope_interleaved: bool = False  # pairs of channels 2j, 2j+1 instead of j, j + head width/2
    init: Literal["normal", "lattice"] = "normal"  # of the token embedding
    init_mix: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.0  # lattice: part of N(0, 0.02²) in each row
    symmetry_classes: Literal["id", "prime"] = "id"  # class of a token: id mod 12, or its prime mod 12
    symmetry_bias: float = 0.0  # β: attention scores get β·ln(1/(1 + d/2)), d the distance of the classes; 0 = off
    symmetry_bias_trainable: bool = False  # β is trained, one for all layers
    lattice_transform: bool = False  # the embedding is turned by a fixed chain of rotations; adds no expressiveness
    equivariant: bool = False  # Wv and Wo are kept equal to their average over the 24 symmetries of the clock
    activation: Literal["gelu_tanh", "gelu_erf"] = "gelu_tanh"
    tied: bool = True
    dropout: Fraction01 = 0.0  # after attention and feed-forward
    attention_dropout: Fraction01 = 0.0  # on the attention probabilities

    @property
    def head_width(self) -> int:
        return self.width // self.heads


LATTICE = ("positions", "rope_", "init", "symmetry_", "lattice_transform", "equivariant")  # keys of the options


class TrainConfig(_Section, frozen=True):
    """How long, and in what pieces."""

    steps: Natural | None = None
    max_minutes: Positive | None = None  # becomes `steps` once the first steps are timed
    batch: Annotated[int, Meta(ge=1, le=2**20)] = 16  # rows a micro-batch
    sequence: Count | None = None  # default: min(context, 256)
    accumulate: Count = 1  # micro-batches a step
    eval_every: Natural | None = None  # default: a twentieth of the run
    eval_rows: Count | None = None  # validation rows scored during training; the last evaluation takes all
    sample_every: Natural | None = None  # default: a fifth of the run; 0 = never
    sample_tokens: Count = 80
    # what the backward computes again to save memory; auto: gelu with memory lean or fused, else nothing
    recompute: Literal["auto", "none", "gelu", "norms", "layer"] = "auto"
    label_smoothing: Fraction01 = 0.0
    early_stop: Count | None = None  # stop after so many evaluations without a lower validation loss


class GroupConfig(_Section, frozen=True):
    """Settings of the tensors whose names match; what is left out stays as it is in [optim]. Later groups win."""

    match: str  # a glob on parameter names: "*.b1", "0.attn.*", "tok"
    lr: NonNegative = 1.0  # a factor on the scheduled rate; 0 freezes
    weight_decay: NonNegative | None = None  # also of tensors that do not decay otherwise
    betas: tuple[Fraction01, Fraction01] | None = None
    eps: Positive | None = None


class OptimConfig(_Section, frozen=True):
    """The optimiser. Decay acts on matrices only (not on biases, norms and positions)."""

    name: Literal["adamw", "sgd", "muon"] = "adamw"  # muon: for the layers' matrices, AdamW for all else
    lr: Positive = 1e-3
    betas: tuple[Fraction01, Fraction01] = (0.9, 0.95)
    eps: Positive = 1e-8
    weight_decay: NonNegative = 0.1
    clip: NonNegative = 1.0  # global gradient norm; 0 = off
    clip_value: NonNegative = 0.0  # per entry; 0 = off
    momentum: Fraction01 = 0.9  # sgd
    nesterov: bool = False  # sgd
    muon_lr: Positive = 0.02  # muon: peak rate of the layers' matrices; `lr` is AdamW's
    muon_momentum: Fraction01 = 0.95  # muon
    ema: Fraction01 = 0.0  # decay of the weights' moving average; 0 = off
    groups: list[GroupConfig] = field(default_factory=list)  # [[optim.groups]]


class ScheduleConfig(_Section, frozen=True):
    """The learning rate as a pure function of the step."""

    name: Literal["cosine", "linear", "constant", "step", "exponential", "polynomial", "wsd"] = "cosine"
    warmup: Natural | None = None  # steps; default: a twentieth of the run, at most 500
    floor: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.1  # final rate as a part of `optim.lr`
    gamma: Annotated[float, Meta(gt=0.0, le=1.0)] | None = None  # step: factor at each drop; exponential: each step
    every: Count | None = None  # step: steps between drops
    power: Positive = 1.0  # polynomial
    decay: Annotated[float, Meta(gt=0.0, le=1.0)] = 0.2  # wsd: part of the run that decays
    shape: Literal["linear", "cosine", "sqrt"] = "linear"  # wsd: of the decay


class CheckpointConfig(_Section, frozen=True):
    every: Natural | None = None  # steps; default: a tenth of the run
    keep: Count = 2  # newest checkpoints kept, besides the best
    background: bool = True  # written by a thread from a copy (of weights and state, in memory) while training goes on


class GuardConfig(_Section, frozen=True):
    """What to do about a step whose loss or gradient norm leaps. (One that is not finite always stops the training.)"""

    spikes: Literal["off", "skip", "rollback"] = "off"  # leave the update out, or go back to the last checkpoint
    by: Literal["loss", "grad_norm", "either"] = "either"
    z: Positive = 6.0  # standard deviations above the moving average
    window: Annotated[int, Meta(ge=10)] = 100  # steps that the average remembers, and steps before the first judgement
    most: Count = 10  # spikes in a row; then it is no spike but a new level, and the average starts again


class LogConfig(_Section, frozen=True):
    every: Count = 1  # steps between `step` events
    grad_norms: bool = True  # the gradient's norm by group of parameters: embeddings, attention, feed-forward, norms
    noise_scale: bool = False  # gradient noise scale, from the micro-batches of a step; needs train.accumulate ≥ 2
    mfu: bool = False  # model FLOPs utilisation against this machine's measured peak
    tensorboard: bool = False  # also write RUN/tensorboard
    trackio: bool = False  # also log to trackio
    wandb: bool = False  # also log to Weights & Biases
    project: str = "cllm"  # of trackio and wandb


class DistributedConfig(_Section, frozen=True):
    """Training by several processes. How many is not said here: it belongs to the launch (`cllm train --processes`)."""

    zero: Literal[0, 1, 2] = 0  # what is cut into one part a process: 1 the moments, 2 the gradients, too
    reduction: Literal["fast", "fixed"] = "fast"  # fixed: the same bits for any number of processes, at a price
    bucket_mb: Positive = 8.0  # gradients that are added over the processes at a time, while the backward runs on
    timeout_s: Positive = 600.0  # a process that does not answer for so long is given up


class Config(_Section, frozen=True):
    """A complete run. Everything that decides the numbers is in here."""

    preset: str = DEFAULT
    start: str | None = None  # run whose weights (and tokenizer) this one starts from
    seed: Seed = 1
    precision: Literal["auto", "bf16", "fp32", "fp64"] = (
        "auto"  # auto: bf16 where the processor multiplies it, and on device = cuda
    )
    memory: Literal["standard", "lean", "fused"] = "standard"  # of weights, gradients and moments
    device: Literal["auto", "cpu", "cuda"] = "auto"
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log: LogConfig = field(default_factory=LogConfig)
    guard: GuardConfig = field(default_factory=GuardConfig)
    distributed: DistributedConfig = field(default_factory=DistributedConfig)


def load(
    file: str | Path | None = None,
    *,
    preset: str | None = None,
    overrides: Mapping[str, Any] | Iterable[str] = (),
    base: Mapping[str, Any] | None = None,
) -> Config:
    """Merge defaults, preset, run file and overrides into one checked `Config`.

    file: path of a run file (TOML), or None.  preset: overrides the file's `preset`.
    overrides: {"optim.lr": 3e-4} or ["optim.lr=3e-4"].  base: values below the run file (but above the preset).
    Raises ConfigError with the path, what was got, what was expected and the closest known key.
    """
    where = str(file) if file is not None else "settings"
    said: dict[str, Any] = {}
    _merge(said, base or {})
    if file is not None:
        _merge(said, read_toml(Path(file)))
    pairs = overrides.items() if isinstance(overrides, Mapping) else [split_setting(text) for text in overrides]
    for key, value in pairs:
        _merge(said, _nest(key, value, where))
    if preset is not None:
        said["preset"] = preset
    name = said.get("preset", DEFAULT)
    if not isinstance(name, str) or name not in PRESETS:
        hint = closest(str(name), PRESETS)
        raise ConfigError(f'{where}: preset: got "{name}", expected one of {", ".join(PRESETS)}{hint}')
    _check_keys(said, Config, where, "")
    if isinstance(said.get("data", {}).get("path"), str):
        said["data"]["path"] = [said["data"]["path"]]
    merged: dict[str, Any] = {"model": dict(PRESETS[name])}
    _merge(merged, said)
    try:
        config = msgspec.convert(merged, Config, strict=True)
    except msgspec.ValidationError as error:
        raise ConfigError(_explain(where, error, merged)) from None
    return check(config, where)


def check(config: Config, where: str = "settings") -> Config:
    """Fill in what depends on other settings and refuse combinations that make no sense."""
    for key, value in _floats(config):
        if not math.isfinite(value):
            raise ConfigError(f"{where}: {key}: expected a finite number, got {value}")
    model, train, data = config.model, config.train, config.data
    _check_lattice(model, where)
    if model.width % model.heads:
        raise ConfigError(
            f"{where}: model.heads: {model.heads} does not divide model.width = {model.width}; "
            "each head needs the same number of channels"
        )
    sequence = train.sequence if train.sequence is not None else min(model.context, 256)
    if sequence > model.context:
        raise ConfigError(f"{where}: train.sequence: got {sequence}, expected at most model.context = {model.context}")
    if data.vocab_size is not None and data.vocab_size < 5:
        raise ConfigError(f"{where}: data.vocab_size: got {data.vocab_size}, expected at least 5 (the specials)")
    if config.log.noise_scale and train.accumulate < 2:
        raise ConfigError(
            f"{where}: log.noise_scale: needs train.accumulate of 2 or more (got {train.accumulate}): the noise is the "
            "difference between the gradients of a step's micro-batches"
        )
    if config.log.noise_scale and config.memory != "standard":
        raise ConfigError(f'{where}: log.noise_scale: needs memory = "standard" (got "{config.memory}")')
    if config.guard.spikes != "off" and config.memory == "fused":
        raise ConfigError(
            f'{where}: guard.spikes: needs the whole gradient before the update; memory = "fused" updates on the way: '
            '"lean" keeps it'
        )
    if config.guard.spikes == "rollback" and config.checkpoint.every == 0:
        raise ConfigError(f"{where}: guard.spikes = rollback goes back to a checkpoint: it needs checkpoint.every > 0")
    precision = config.precision
    if precision == "auto":
        multiplies = config.device == "cuda" or native.multiplies_bf16("engine", "engine")
        precision = "bf16" if multiplies else "fp32"
    recompute = train.recompute
    if recompute == "auto":
        recompute = "none" if config.memory == "standard" else "gelu"
    filled = {"train.sequence": sequence, "train.recompute": recompute, "precision": precision}
    config = replace(config, filled)
    _check_memory(config, where)
    _check_distributed(config, where)
    return config


def _check_distributed(config: Config, where: str) -> None:
    """What the sums over several processes cannot be combined with, whatever their number."""
    d = config.distributed
    said = [(d.zero > 0, f"distributed.zero = {d.zero}"), (d.reduction == "fixed", 'distributed.reduction = "fixed"')]
    if config.memory == "fused":
        for asked, text in said:
            if asked:
                raise ConfigError(
                    f'{where}: {text}: needs the gradient before the update; memory = "fused" updates inside the '
                    'backward: "lean" keeps it'
                )
    if config.log.noise_scale:
        for asked, text in ((d.zero == 2, said[0][1]), said[1]):
            if asked:
                raise ConfigError(
                    f"{where}: log.noise_scale: compares a micro-batch's gradient with the sum before it; with "
                    f"{text} there is no such sum"
                )


def _check_memory(config: Config, where: str) -> None:
    """The smaller memory modes, and what they cannot be combined with."""
    mode, optim, precision = config.memory, config.optim, str(config.precision)
    if mode == "standard":
        return
    if precision != "bf16":
        raise ConfigError(
            f'{where}: memory: "{mode}" keeps the weights as bfloat16 operands and their residuals: it needs '
            f'precision = "bf16", got "{precision}"'
        )
    if optim.name != "adamw":
        raise ConfigError(f'{where}: memory: "{mode}" is for optim.name = "adamw", got "{optim.name}"')
    if config.model.equivariant:
        raise ConfigError(
            f'{where}: memory: "{mode}" rounds the moments of each weight by itself, so equal weights do not stay '
            'equal: model.equivariant needs memory = "standard"'
        )
    if mode == "fused":
        bars = [
            text
            for bar, text in (
                (optim.clip, f"optim.clip = 0 (the global norm is known only at the end), got {optim.clip:g}"),
                (optim.clip_value, f"optim.clip_value = 0, got {optim.clip_value:g}"),
                (config.train.accumulate > 1, f"train.accumulate = 1, got {config.train.accumulate}"),
            )
            if bar
        ]
        if bars:
            raise ConfigError(
                f'{where}: memory: "fused" updates each tensor inside the backward, so it needs {"; ".join(bars)}. '
                '"lean" keeps them all'
            )


def _check_lattice(model: ModelConfig, where: str) -> None:
    """Lattice options that cannot be had together, or that would do nothing."""
    default = ModelConfig()

    def only(keys: tuple[str, ...], allowed: bool, needs: str) -> None:
        for key in keys:
            if not allowed and getattr(model, key) != getattr(default, key):
                raise ConfigError(f"{where}: model.{key}: it does nothing without {needs}; leave it out")

    table = ("spiral", "clock", "prime", "mix")
    only(("positions_mix", "positions_mix_trainable"), model.positions == "mix", 'model.positions = "mix"')
    only(("positions_normalize",), model.positions in table, "a spiral, clock, prime or mix position code")
    only(("positions_start",), has_learned_positions(model), "a learned position table")
    only(("rope_base", "rope_interleaved"), model.positions == "rope", 'model.positions = "rope"')
    only(("init_mix",), model.init == "lattice", 'model.init = "lattice"')
    classes = model.init == "lattice" or model.symmetry_bias != 0 or model.symmetry_bias_trainable
    only(("symmetry_classes",), classes, 'model.init = "lattice" or a symmetry bias')
    if model.width % 2 and (model.positions not in ("learned", "rope") or model.equivariant):
        what = "model.equivariant" if model.equivariant else f'model.positions = "{model.positions}"'
        raise ConfigError(f"{where}: model.width: {what} needs an even width, got {model.width}")
    if model.positions == "rope":
        if model.width % model.heads == 0 and model.head_width % 2:
            raise ConfigError(
                f'{where}: model.heads: positions = "rope" needs an even head width, got {model.head_width}'
            )
        if model.rope_base <= 1:
            raise ConfigError(f"{where}: model.rope_base: expected a number above 1, got {model.rope_base}")
    if model.positions == "mix" and not any(model.positions_mix):
        raise ConfigError(f"{where}: model.positions_mix: all weights are 0: there would be no positions")


def lattice_options(model: ModelConfig) -> dict[str, Any]:
    """The lattice options that are not at their default, by key."""
    default = ModelConfig()
    keys = [f.name for f in msgspec.structs.fields(ModelConfig) if f.name.startswith(LATTICE)]
    return {key: getattr(model, key) for key in keys if getattr(model, key) != getattr(default, key)}


def has_learned_positions(model: ModelConfig) -> bool:
    """Whether a table of positions is among the parameters."""
    if model.positions == "mix":
        return model.positions_mix_trainable or model.positions_mix[3] != 0
    return model.positions == "learned"


def has_symmetry_bias(model: ModelConfig) -> bool:
    """Whether attention scores get a bias by symmetry classes."""
    return model.symmetry_bias != 0 or model.symmetry_bias_trainable


def _floats(config: Config) -> Iterator[tuple[str, float]]:
    def inside(path: str, value: Any) -> Iterator[tuple[str, float]]:
        if isinstance(value, float):
            yield path, value
        elif isinstance(value, dict):
            for key, inner in value.items():
                yield from inside(f"{path}.{key}" if path else key, inner)
        elif isinstance(value, (list, tuple)):
            for i, inner in enumerate(value):
                yield from inside(f"{path}[{i}]" if isinstance(inner, dict) else path, inner)

    yield from inside("", to_dict(config))


def replace(config: Config, values: Mapping[str, Any]) -> Config:
    """A copy with dotted keys replaced: replace(c, {"train.steps": 100})."""
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        if section:
            config = msgspec.structs.replace(
                config, **{section: msgspec.structs.replace(getattr(config, section), **{name: value})}
            )
        else:
            config = msgspec.structs.replace(config, **{name: value})
    return config


def to_dict(config: Config) -> dict[str, Any]:
    """Plain nested dict, without the keys that are None (TOML knows no null)."""

    def said(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: said(inner) for key, inner in value.items() if inner is not None}
        return [said(inner) for inner in value] if isinstance(value, (list, tuple)) else value

    return typing.cast(dict[str, Any], said(msgspec.to_builtins(config)))


def to_toml(config: Config) -> str:
    return tomli_w.dumps(to_dict(config))


def read_toml(path: Path, what: str = "run file") -> dict[str, Any]:
    """Parse a TOML file. Raises ConfigError with the line for anything that is not TOML. what: the kind of file."""
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such {what}") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}; a {what} is TOML in UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None


def split_setting(text: str) -> tuple[str, Any]:
    """`key=value` → (key, value); the value is TOML, or a bare word taken as text."""
    key, equals, raw = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f'--set {text}: expected section.key=value, as in "--set optim.lr=3e-4"')
    try:
        value = tomllib.loads(f"x = {raw.strip()}")["x"]
    except tomllib.TOMLDecodeError:
        value = raw.strip()
    return key.strip(), value


def _nest(key: str, value: Any, where: str) -> dict[str, Any]:
    nested: Any = value
    for part in reversed(key.split(".")):
        if not part:
            raise ConfigError(f'{where}: "{key}" is not a key; expected section.key, as in optim.lr')
        nested = {part: nested}
    return typing.cast(dict[str, Any], nested)


def _merge(into: dict[str, Any], new: Mapping[str, Any]) -> None:
    for key, value in new.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, Mapping) else value


def known_keys() -> list[str]:
    """Every dotted key that a run file may hold."""
    keys: list[str] = []
    for top in msgspec.structs.fields(Config):
        if isinstance(top.type, type) and issubclass(top.type, Struct):
            keys += [f"{top.name}.{inner.name}" for inner in msgspec.structs.fields(top.type)]
        else:
            keys.append(top.name)
    return keys


def _check_keys(said: Mapping[str, Any], kind: type[Struct], where: str, prefix: str) -> None:
    """Unknown keys: name the closest one, also when it belongs to another section."""
    fields = {item.name: item.type for item in msgspec.structs.fields(kind)}
    for key, value in said.items():
        path = f"{prefix}{key}"
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1, cutoff=0.5)
            everywhere = [full for full in known_keys() if full.rpartition(".")[2] == key]
            hint = (
                f'; did you mean "{everywhere[0]}"?'
                if everywhere
                else f'; did you mean "{prefix}{near[0]}"?'
                if near
                else closest(path, known_keys())
            )
            raise ConfigError(f"{where}: {path}: unknown key{hint}")
        inner = fields[key]
        if isinstance(inner, type) and issubclass(inner, Struct):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{where}: {path}: expected a table [{path}], got {_show(value)}")
            _check_keys(value, inner, where, f"{path}.")
        elif isinstance(value, list) and (item := _item(inner)) is not None:
            for i, entry in enumerate(value):
                if not isinstance(entry, Mapping):
                    raise ConfigError(f"{where}: {path}: expected tables [[{path}]], got {_show(entry)}")
                _check_keys(entry, item, where, f"{path}[{i}].")


def _item(kind: Any) -> type[Struct] | None:
    """The struct of which `kind` is a list, if it is one."""
    for inner in typing.get_args(kind):
        if isinstance(inner, type) and issubclass(inner, Struct):
            return inner
    return None


def _explain(where: str, error: msgspec.ValidationError, merged: Mapping[str, Any]) -> str:
    """msgspec's "Expected `float`, got `str` - at `$.optim.lr`" in the house form."""
    text, _, at = str(error).partition(" - at `$")
    path = at.rstrip("`").lstrip(".")
    value: Any = merged
    for part in path.replace("[", ".[").split("."):
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, list) and part.startswith("["):
            index = part.strip("[]")
            value = value[int(index)] if index.isdigit() and int(index) < len(value) else value
    expected = text.split(", got")[0].replace("`", "").replace(" | null", "")  # a key without a value is left out
    expected = expected[0].lower() + expected[1:]
    if expected.startswith("invalid enum value"):
        expected = f"expected one of {', '.join(_choices(path))}"
        if isinstance(value, str):
            return f"{where}: {path}: {expected}, got {_show(value)}{closest(value, _choices(path))}"
    return f"{where}: {path}: {expected}, got {_show(value)}"


def _choices(path: str) -> list[str]:
    kind: Any = Config
    for part in path.split("."):
        kind = next(item.type for item in msgspec.structs.fields(kind) if item.name == part)
        if isinstance(kind, types.UnionType):
            kind = next(arg for arg in typing.get_args(kind) if arg is not type(None))
    return [str(choice) for choice in typing.get_args(kind)]


def _show(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)
