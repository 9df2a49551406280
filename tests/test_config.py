"""Run files and `--set`: what is accepted, what is refused, and what is said."""

from __future__ import annotations

import re
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cllm.config import Config, check, known_keys, load, replace, split_setting, to_dict, to_toml
from cllm.errors import ConfigError
from cllm.presets import DEFAULT, PRESETS


def written(tmp_path, text):
    path = tmp_path / "run.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


# The way round


@pytest.mark.parametrize("preset", PRESETS)
def test_the_written_config_repeats_the_run(tmp_path, preset):
    config = load(preset=preset)
    assert load(written(tmp_path, to_toml(config))) == config
    assert to_toml(load(base=to_dict(config))) == to_toml(config)


settings_drawn = st.fixed_dictionaries(
    {},
    optional={
        "seed": st.integers(0, 2**32 - 1),
        "precision": st.sampled_from(["bf16", "fp32", "fp64"]),
        "data.path": st.lists(st.text(min_size=1, max_size=8), max_size=3),
        "data.pack": st.booleans(),
        "data.val_fraction": st.floats(1e-6, 0.5),
        "model.heads": st.sampled_from([1, 2, 4]),
        "model.activation": st.sampled_from(["gelu_tanh", "gelu_erf"]),
        "model.dropout": st.floats(0, 0.999),
        "train.steps": st.integers(0, 10**9),
        "train.max_minutes": st.floats(1e-300, 1e300),
        "optim.lr": st.floats(1e-12, 1e3),
        "optim.betas": st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)).map(list),
        "schedule.name": st.sampled_from(["cosine", "linear", "constant", "step", "wsd"]),
        "schedule.floor": st.floats(0, 1),
        "checkpoint.keep": st.integers(1, 100),
    },
)


@settings(max_examples=100, deadline=None)
@given(settings_drawn, st.sampled_from(sorted(PRESETS)))
def test_any_accepted_config_survives_the_way_through_toml(values, preset):
    config = load(preset=preset, overrides=values)
    assert load(base=tomllib.loads(to_toml(config))) == config
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        got = getattr(getattr(config, section) if section else config, name)
        assert (list(got) if isinstance(got, tuple) else got) == value


def test_rising_priority_defaults_preset_base_file_overrides(tmp_path):
    file = written(tmp_path, 'preset = "nano"\n[model]\nwidth = 64\nff = 256\n[optim]\nlr = 0.5\n')
    config = load(file, base={"model": {"ff": 7, "layers": 3}}, overrides=["model.width=48"])
    assert (config.model.width, config.model.ff, config.model.layers) == (48, 256, 3)
    assert config.model.vocab == PRESETS["nano"]["vocab"] and config.optim.lr == 0.5
    assert config.model.tied is True
    assert load(file, preset="small").model.vocab == PRESETS["small"]["vocab"]
    assert load().preset == DEFAULT
    assert load(overrides=["optim.lr=1", "optim.lr=2"]).optim.lr == 2


def test_the_sequence_is_filled_in():
    assert load(preset="nano").train.sequence == 64
    assert load(preset="seed").train.sequence == 256
    assert load(preset="seed", overrides=["train.sequence=512"]).train.sequence == 512


def test_one_path_is_a_list_of_one():
    assert load(overrides=["data.path=a.txt"]).data.path == ["a.txt"]
    assert load(overrides=['data.path=["a.txt", "b.txt"]']).data.path == ["a.txt", "b.txt"]


def test_known_keys_are_the_keys_a_run_file_may_hold():
    keys = known_keys()
    assert {"seed", "optim.lr", "model.heads"} <= set(keys) and len(set(keys)) == len(keys)
    held = {f"{a}.{b}" for a, part in to_dict(load()).items() if isinstance(part, dict) for b in part}
    assert held <= set(keys)


def test_replace_changes_one_key_and_nothing_else():
    config = load()
    other = replace(config, {"train.steps": 7, "seed": 9})
    assert (other.train.steps, other.seed) == (7, 9)
    assert replace(other, {"train.steps": config.train.steps, "seed": config.seed}) == config


# --set


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("optim.lr=3e-4", "optim.lr", 3e-4),
        ("optim.lr = 3e-4", "optim.lr", 3e-4),
        ("seed=7", "seed", 7),
        ("data.pack=false", "data.pack", False),
        ("optim.betas=[0.8, 0.99]", "optim.betas", [0.8, 0.99]),
        ("data.tokenizer=char", "data.tokenizer", "char"),
        ('data.tokenizer="char"', "data.tokenizer", "char"),
        ("data.path=a=b.txt", "data.path", "a=b.txt"),
        ("data.path=/home/a b/c.txt", "data.path", "/home/a b/c.txt"),
        ("data.path=", "data.path", ""),
    ],
)
def test_split_setting(text, key, value):
    got = split_setting(text)
    assert got == (key, value) and type(got[1]) is type(value)


@pytest.mark.parametrize("text", ["optim.lr", "=3", "", " = 3"])
def test_a_setting_without_key_or_value_is_refused(text):
    with pytest.raises(ConfigError, match=r'expected section.key=value, as in "--set optim.lr=3e-4"'):
        load(overrides=[text])


@pytest.mark.parametrize("key", ["optim.", ".lr", "optim..lr"])
def test_a_torn_key_is_refused(key):
    with pytest.raises(ConfigError, match=f'"{re.escape(key)}" is not a key; expected section.key, as in optim.lr'):
        load(overrides=[f"{key}=1"])


# What is said

MESSAGES = [
    # unknown keys: the closest, also from another section
    ("optim.lrr=1", 'optim.lrr: unknown key; did you mean "optim.lr"?'),
    ("optm.lr=1", 'optm: unknown key; did you mean "optim"?'),
    ("lr=1", 'lr: unknown key; did you mean "optim.lr"?'),
    ("train.weight_decay=1", 'train.weight_decay: unknown key; did you mean "optim.weight_decay"?'),
    ("model.zzzzzz=1", "model.zzzzzz: unknown key"),
    # wrong kinds
    ("optim.lr=fast", 'optim.lr: expected float, got "fast"'),
    ("optim.lr=true", "optim.lr: expected float, got True"),
    ("model.layers=2.5", "model.layers: expected int, got 2.5"),
    ("model.layers=true", "model.layers: expected int, got True"),
    ("data.pack=1", "data.pack: expected bool, got 1"),
    ("data.path=[1]", "data.path[0]: expected str, got 1"),
    ("optim.betas=[0.9]", "optim.betas: expected array of length 2, got [0.9]"),
    ("optim.betas=0.9", "optim.betas: expected array, got 0.9"),
    ("optim=3", "optim: expected a table [optim], got 3"),
    ("optim.lr.x=3", "optim.lr: expected float, got {'x': 3}"),
    # choices
    ("optim.name=adam", 'optim.name: expected one of adamw, sgd, muon, got "adam"; did you mean "adamw"?'),
    ("precision=fp16", 'precision: expected one of auto, bf16, fp32, fp64, got "fp16"'),
    ("preset=sede", 'preset: got "sede", expected one of nano, small, seed, medium, large, gpt2; did you mean "seed"?'),
    # ranges
    ("optim.lr=0", "optim.lr: expected float > 0.0, got 0"),
    ("optim.lr=-1e-3", "optim.lr: expected float > 0.0, got -0.001"),
    ("model.layers=0", "model.layers: expected int >= 1, got 0"),
    ("model.dropout=1.0", "model.dropout: expected float < 1.0, got 1.0"),
    ("seed=-1", "seed: expected int >= 0, got -1"),
    ("data.val_fraction=0.6", "data.val_fraction: expected float <= 0.5, got 0.6"),
    ("optim.betas=[0.9, 1.0]", "optim.betas[1]: expected float < 1.0, got 1.0"),
    # tables in a list
    ("optim.groups=3", "optim.groups: expected array, got 3"),
    ("optim.groups=[3]", "optim.groups: expected tables [[optim.groups]], got 3"),
    ("optim.groups=[{lr=0.5}]", "optim.groups[0]: object missing required field match, got {'lr': 0.5}"),
    (
        'optim.groups=[{match="*.b", rate=0.5}]',
        "optim.groups[0].rate: unknown key",
    ),
    ('optim.groups=[{match="*.b", lr=nan}]', "optim.groups[0].lr: expected float >= 0.0, got nan"),
    ('optim.groups=[{match="*.b", betas=[0.9]}]', "optim.groups[0].betas: expected array of length 2, got [0.9]"),
    # settings that do not fit each other
    ("model.heads=3", "model.heads: 3 does not divide model.width = 128; each head needs the same number of channels"),
    ("train.sequence=513", "train.sequence: got 513, expected at most model.context = 512"),
    ("data.vocab_size=4", "data.vocab_size: got 4, expected at least 5 (the specials)"),
]


@pytest.mark.parametrize(("setting", "message"), MESSAGES)
def test_messages(setting, message):
    with pytest.raises(ConfigError) as caught:
        load(overrides=[setting])
    assert str(caught.value).startswith(f"settings: {message}")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("memory", ["lean", "fused"])
def test_the_smaller_memory_modes_need_bf16(memory):
    with pytest.raises(ConfigError, match=f'memory: "{memory}" keeps the weights as bfloat16 operands'):
        load(overrides={"memory": memory, "precision": "fp32"})


@pytest.mark.parametrize(("memory", "found"), [("standard", "none"), ("lean", "gelu"), ("fused", "gelu")])
def test_what_is_recomputed_goes_by_the_memory_mode(memory, found):
    asked = {"memory": memory, "precision": "bf16", "optim.clip": 0.0}
    assert load(overrides=asked).train.recompute == found
    for said in ("none", "gelu", "norms", "layer"):
        assert load(overrides=asked | {"train.recompute": said}).train.recompute == said


def test_auto_is_resolved_by_the_processor():
    from cllm import native

    expected = "bf16" if native.multiplies_bf16("engine", "engine") else "fp32"
    assert load().precision == load(overrides={"precision": "auto"}).precision == expected


def test_the_same_key_of_another_section_is_the_closest():
    with pytest.raises(ConfigError, match=re.escape('model.lr: unknown key; did you mean "optim.lr"?')):
        load(overrides=["model.lr=1"])


def test_the_file_is_named(tmp_path):
    path = written(tmp_path, "[optim]\nlr = 'fast'\n")
    with pytest.raises(ConfigError, match=re.escape(f'{path}: optim.lr: expected float, got "fast"')):
        load(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[optim\nlr = 1", "not valid TOML: .*line 1"),
        (b"a = '\xff'", r"not UTF-8 at byte 5; a run file is TOML in UTF-8"),
        ("seed = 1\nseed = 2", "not valid TOML"),
        ("preset = 3", 'preset: got "3", expected one of'),
    ],
)
def test_files_that_are_not_run_files(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        load(written(tmp_path, text))


def test_missing_and_unreadable_files(tmp_path):
    with pytest.raises(ConfigError, match=r"none.toml: no such run file"):
        load(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path)


FLOATS = [
    "optim.lr", "optim.eps", "optim.weight_decay", "optim.clip", "optim.clip_value", "optim.momentum", "optim.ema",
    "optim.muon_lr", "optim.muon_momentum", "guard.z",
    "model.dropout", "model.attention_dropout", "model.symmetry_bias",
    "train.max_minutes", "train.label_smoothing", "data.val_fraction",
    "schedule.floor", "schedule.gamma", "schedule.power", "schedule.decay",
    "distributed.bucket_mb", "distributed.timeout_s",
]  # fmt: skip


def test_the_list_of_floats_is_complete():
    """Every number key that takes 0.25 and is not a whole number."""

    def takes(key, value):
        try:
            load(overrides={key: value})
        except ConfigError:
            return False
        return True

    assert set(FLOATS) == {key for key in known_keys() if takes(key, 0.25)}


@pytest.mark.parametrize("value", ["nan", "-nan", "inf", "-inf"])
@pytest.mark.parametrize("key", FLOATS)
def test_numbers_that_are_not_finite_are_refused(key, value):
    with pytest.raises(ConfigError, match=re.escape(key)):
        load(overrides=[f"{key}={value}"])


def test_a_beta_that_is_not_a_number_is_refused():
    with pytest.raises(ConfigError, match=re.escape("optim.betas")):
        load(overrides=["optim.betas=[nan, 0.9]"])


@pytest.mark.parametrize("value", ["[1, 2]", "{a = 1}", "true", "1.5"])
def test_a_preset_that_is_no_name_is_refused(value):
    with pytest.raises(ConfigError, match="preset"):
        load(overrides=[f"preset={value}"])


ANYTHING = st.one_of(
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.booleans(),
    st.text(max_size=5),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    st.lists(st.floats(), min_size=2, max_size=2),
)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([*known_keys(), "optim", "model", "nope", "optim.nope"]), ANYTHING)
def test_no_value_makes_anything_but_a_config_or_a_config_error(key, value):
    try:
        config = load(overrides={key: value})
    except ConfigError as error:
        said = str(error)
    else:
        said = "settings: accepted"
        assert isinstance(config, Config) and check(config) == config
    assert said.startswith("settings: ")


def test_auto_becomes_the_precision_of_this_machine(monkeypatch):
    from cllm import native

    for has, expected in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(native, "multiplies_bf16", lambda room, name, has=has: has)
        found = load(overrides={"precision": "auto"})
        assert found.precision == expected and f'precision = "{expected}"' in to_toml(found)
    monkeypatch.undo()
    for forced in ("off", "baseline", "avx512"):
        monkeypatch.setenv(native.VARIABLE, forced)
        assert load(overrides={"precision": "auto"}).precision == "fp32"
    monkeypatch.delenv(native.VARIABLE)
    if native.multiplies_bf16("engine", "engine"):  # said without loading anything; the library must agree
        assert native.level("engine", "engine") == native.LEVELS[-1]
