"""The screen Inside, server side: what it tells of a checkpoint is what torch, or the plain model, finds itself."""

from __future__ import annotations

import base64
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import cllm
from cllm.certificate.budget import BUDGETS, conditions
from cllm.certificate.record import read as read_certificate
from cllm.data.prepare import open_prepared
from cllm.engine.dispatch import select
from cllm.errors import CorruptError, NonFiniteError, UsageError
from cllm.lattice.tokens import token_prime
from cllm.model.batch import Batch
from cllm.model.layout import layout
from cllm.model.model import Model
from cllm.model.step import Step
from cllm.model.tables import averaged
from cllm.studio import generate_work, inside_certificates, inside_cloud, inside_tensors, inside_trace
from cllm.studio.inside_tensors import BINS, summary
from cllm.studio.workspace import Workspace
from judges import bounds, plain_model
from judges.bounds import UNIT, Bounded
from judges.bounds_model import sensitivity
from judges.lattice_options import OPTIONS

serving = sys.modules["serving"]
TEXT = "The gulls cried"
DOUBLE = 2.0**-53


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return serving.add_trained(tmp_path_factory.mktemp("inside"), "run", precision="fp32")  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def forget() -> None:
    generate_work._models.clear()
    inside_trace._kept = None
    inside_cloud._placed = None


def loaded(folder: Path) -> Model:
    return cllm.load(folder).model


# ------------------------------------------------------------------------------------------------------- statistics


def sums(terms: torch.Tensor) -> float:
    """Bound on the error of a float64 sum of these terms, in any order."""
    n = terms.numel() + 8
    return n * DOUBLE / (1 - n * DOUBLE) * float(terms.abs().sum()) + 1e-300


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("chunk", [7, 1 << 22])
def test_statistics_are_those_of_torch(dtype: torch.dtype, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inside_tensors, "CHUNK", chunk)
    x = torch.randn(13, 17, generator=torch.Generator().manual_seed(3)).mul(40).to(dtype)
    x[3, 4:9] = 0
    found, wide = summary(x), x.double()
    mean = wide.mean()
    assert (found["count"], found["nan"], found["infinite"], found["zeros"]) == (221, 0, 0, 5)
    assert (found["min"], found["max"]) == (float(wide.min()), float(wide.max()))
    assert abs(found["mean"] - float(mean)) <= 2 * sums(wide) / 221
    norm = float(torch.linalg.vector_norm(wide))
    room = sums(wide.square())
    assert abs(found["norm"] - norm) <= 2 * room / norm
    assert abs(found["rms"] - norm / math.sqrt(221)) <= 2 * room / norm
    std = float(wide.std(correction=0))
    assert abs(found["std"] - std) <= 2 * (sums((wide - mean).square()) / 221 + 4 * sums(wide) ** 2) / std
    assert len(found["counts"]) == BINS
    assert sum(found["counts"]) == 221


def test_the_histogram_counts_what_lies_in_each_bin() -> None:
    x = torch.cat([torch.full((k + 1,), k + 0.5) for k in range(BINS)] + [torch.tensor([0.0, float(BINS)])])
    assert summary(x)["counts"] == [2, *range(2, BINS), BINS + 1]


def test_what_is_no_number_is_counted_apart() -> None:
    x = torch.tensor([[1.0, math.nan, -2.0], [math.inf, -math.inf, 0.0]])
    found = summary(x)
    assert (found["count"], found["nan"], found["infinite"], found["zeros"]) == (6, 1, 2, 1)
    assert (found["min"], found["max"], found["norm"]) == (-2.0, 1.0, math.sqrt(5))
    assert sum(found["counts"]) == 3
    huge = summary(torch.tensor([1e308, 1e308, -1.0], dtype=torch.float64))  # whose sum is no number
    assert (huge["count"], huge["infinite"], huge["max"]) == (3, 0, 1e308)
    one = summary(torch.full((5, 2), 0.25))
    assert (one["min"], one["max"], one["std"], one["counts"][BINS // 2], sum(one["counts"])) == (0.25, 0.25, 0, 10, 10)
    nothing = summary(torch.full((3,), math.nan))
    assert nothing["norm"] is None
    assert nothing["counts"] == []
    assert (nothing["nan"], nothing["infinite"]) == (3, 0)


def test_the_structure_is_the_layout(folder: Path) -> None:
    model = loaded(folder)
    found = inside_tensors.structure(str(folder), "latest")
    assert found["checkpoint"] == "step-00000002"
    assert [(t["name"], tuple(t["shape"])) for t in found["tensors"]] == [
        (entry.name, entry.shape) for entry in layout(model.config).entries
    ]
    assert sum(t["count"] for t in found["tensors"]) == layout(model.config).parameters
    assert found["model"]["width"] == 32


def test_tensors_are_those_of_the_file(folder: Path) -> None:
    held = load_file(folder / "checkpoints" / "step-00000002" / "weights.safetensors")
    found = {one["name"]: one for one in inside_tensors.tensors(str(folder), "latest")}
    assert list(found) == [entry.name for entry in layout(loaded(folder).config).entries]
    for name, value in held.items():
        assert found[name] == {"name": name, "shape": list(value.shape)} | summary(value)
        assert inside_tensors.tensor(str(folder), "latest", name) == found[name]
    with pytest.raises(UsageError, match="no tensor of this checkpoint"):
        inside_tensors.tensor(str(folder), "latest", "9.attn.wq")


def test_a_damaged_file_is_refused(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "run"
    shutil.copytree(folder, other)
    path = other / "checkpoints" / "step-00000002" / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptError):
        inside_tensors.tensor(str(other), "latest", "tok")
    path.unlink()
    with pytest.raises(CorruptError):
        inside_tensors.tensor(str(other), "latest", "tok")


# ------------------------------------------------------------------------------------------------------- the forward


def small(precision: torch.dtype = torch.float64, **options: Any) -> Model:
    """Two layers at perturbed random weights."""
    sizes = {"layers": 2, "width": 24, "heads": 3, "ff": 20, "context": 16, "vocab": 30}
    config = cllm.config.load(preset="nano", overrides={f"model.{k}": v for k, v in (sizes | options).items()})
    model = Model(config.model, precision).initialise(4)
    generator = torch.Generator().manual_seed(5)
    for name, view in model.params.items():
        view.add_(torch.randn(view.shape, generator=generator, dtype=torch.float64).to(view.dtype) * 0.2)
        if model.is_averaged(name):
            view.copy_(averaged(view))
    return model


IDS = [3, 7, 7, 1, 29, 4, 4, 0, 11, 12, 5, 7]
DOCUMENTS = [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 2]


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_the_output_is_the_plain_model_s(precision: torch.dtype, *, mask: bool) -> None:
    model = small(precision)
    found = inside_trace.read(model, IDS, DOCUMENTS, document_mask=mask)
    meaning = plain_model.read(torch.tensor([[*IDS, 0]]), torch.tensor([[*DOCUMENTS, -1]]), mask)
    sizes = (dict(model.params), 2, 3, meaning)
    exact, spread = plain_model.evaluate(*sizes).logits[0], sensitivity(*sizes)["logits"].view(len(IDS), -1)
    allowed = UNIT[precision] * spread * (2 if precision == torch.float64 else 1)
    assert ((found.logits(-1, slice(None)).double() - exact).abs() <= allowed).all()
    # the bound is no blank cheque: one row further is outside
    assert ((found.logits(-1, slice(1, None)).double() - exact[:-1]).abs() > allowed[:-1]).any()


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("option", [{}, *OPTIONS.values()], ids=str)
def test_attention_is_that_of_the_pass(option: dict[str, Any], *, mask: bool) -> None:
    """Rows sum to 1, forbidden keys have exactly 0, and A·V is what the real pass went on with."""
    model = small(torch.float64, **option)
    found = inside_trace.read(model, IDS, DOCUMENTS, document_mask=mask)
    t, h = len(IDS), model.config.heads
    hidden = torch.ones(t, t, dtype=torch.bool).triu(1)
    if mask:
        of = torch.tensor(DOCUMENTS)
        hidden |= of[:, None] != of[None, :]
    for layer in range(2):
        a = found.attention(layer)
        assert a.shape == (h, t, t)
        assert (a[:, hidden] == 0).all()
        assert (a >= 0).all()
        assert ((a.sum(2) - 1).abs() <= 4 * t * DOUBLE).all()
        v = found.qkv_T3D[layer][:, 2 * 24 :].view(t, h, -1).transpose(0, 1)
        together = (a @ v).transpose(0, 1).reshape(t, -1)
        room = 64 * t * DOUBLE * (a.abs() @ v.abs()).transpose(0, 1).reshape(t, -1) + 1e-300
        assert ((together - found.heads_TD[layer]).abs() <= room).all()


def test_attention_is_the_softmax_of_the_scores() -> None:
    model = small(torch.float32)
    found = inside_trace.read(model, IDS, DOCUMENTS, document_mask=True)
    of = torch.tensor(DOCUMENTS)
    allowed = torch.ones(len(IDS), len(IDS), dtype=torch.bool).tril() & (of[:, None] == of[None, :])
    for layer in range(2):
        split = found.qkv_T3D[layer].view(len(IDS), 3, 3, 8).permute(1, 2, 0, 3)
        q, k = (Bounded(x, UNIT[torch.float32]) for x in split[:2])
        identity = Bounded(torch.eye(len(IDS)).expand(3, -1, -1), 0.0)
        bound, _ = bounds.attention_forward(q, k, identity, allowed, None, 0.0)
        scores = (split[0].double() @ split[1].double().mT) / math.sqrt(8)
        exact = scores.masked_fill(~allowed, -math.inf).softmax(-1)
        bounds.check("A", found.attention(layer), exact, bound)


def test_statistics_of_a_pass_are_those_of_its_results() -> None:
    model = small(torch.float32)
    found = inside_trace.read(model, IDS, DOCUMENTS, document_mask=False)
    names = [(one["layer"], one["op"]) for one in found.statistics]
    each = ["ln1", "attn.q", "attn.k", "attn.v", "attn", "attn.out", "ln2", "ffn.w1", "ffn.gelu", "ffn.w2"]
    assert names == [(None, "embedding"), *((i, op) for i in (0, 1) for op in each), (None, "lnf"), (None, "head")]
    by = dict(zip(names, found.statistics, strict=True))

    def told(layer: int | None, op: str) -> dict[str, Any]:
        return {key: value for key, value in by[layer, op].items() if key not in ("layer", "op", "shape")}

    assert told(None, "embedding") == summary(found.stream_TD[0])
    assert told(0, "ffn.w2") == summary(found.stream_TD[1])
    assert told(1, "ffn.w2") == summary(found.stream_TD[2])
    assert told(1, "attn") == summary(found.heads_TD[1])
    assert told(1, "attn.v") == summary(found.qkv_T3D[1][:, 48:])
    assert told(None, "head") == summary(found.logits(-1, slice(None)))
    assert by[0, "ffn.gelu"]["shape"] == [12, 20]
    plain = model.params["tok"][IDS] + model.params["pos"][: len(IDS)]
    assert told(None, "embedding") == summary(plain)  # one rounding: the same bits


def test_a_text_is_read_as_it_is_scored(folder: Path) -> None:
    """The losses are those of the evaluation's own scoring; tokens and documents those of the text."""
    found = inside_trace.trace(str(folder), "latest", TEXT)
    run = cllm.load(folder)
    assert [one[0] for one in found["tokens"]] == run.tokenizer.encode(TEXT)
    assert "".join(one[1] for one in found["tokens"]) == TEXT
    assert found["nats"][-1] is None
    ids, model = run.tokenizer.encode(TEXT), run.model
    scored = Step(model, 1, len(ids) - 1, gradients=False).evaluate(Batch.of([ids]))
    meaning = plain_model.read(torch.tensor([ids]), torch.zeros(1, len(ids), dtype=torch.int64), False)
    # both are within the bound of the exact loss
    room = 2 * UNIT[torch.float32] * sensitivity(dict(model.params), 2, 2, meaning)["losses"]
    assert ((torch.tensor(found["nats"][:-1]).double() - scored.losses_BT[0].double()).abs() <= room).all()


def test_documents_and_masks(folder: Path) -> None:
    held = generate_work.loaded(str(folder), "latest")
    end = held.tokenizer.token(held.tokenizer.eos_id or 0)
    ids, documents = inside_trace.cut(held, f"The{end}sea{end}")
    first, second = held.tokenizer.encode("The"), held.tokenizer.encode("sea")
    assert ids == [*first, held.tokenizer.eos_id, *second, held.tokenizer.eos_id]
    assert documents == [0] * 4 + [1] * 4
    assert inside_trace.cut(held, "") == ([held.tokenizer.eos_id], [0])
    found = inside_trace.trace(str(folder), "latest", f"The{end}sea")
    assert not found["masked"]
    assert [one[3] for one in found["tokens"]] == list(range(7))
    found_masked = inside_trace.read(held.model, ids, documents, document_mask=True)
    assert found_masked.derived.positions_BT is not None
    assert found_masked.derived.positions_BT[0].tolist() == [0, 1, 2, 3, 0, 1, 2, 3]


def test_an_empty_text_is_the_run_s_own(folder: Path) -> None:
    found = inside_trace.trace(str(folder), "latest", "")
    data = open_prepared(folder / "data")
    own = (data.val or data.train).tokens[:32].tolist()
    assert [one[0] for one in found["tokens"]] == own
    assert found["text"] == cllm.load(folder).tokenizer.decode(own, show_special=True)


def test_a_long_text_is_cut_and_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = inside_trace.trace(str(folder), "latest", "a" * 50)
    assert (len(found["tokens"]), found["asked"], found["context"]) == (32, 50, 32)
    monkeypatch.setattr(inside_trace, "MOST", 9)
    inside_trace._kept = None
    found = inside_trace.trace(str(folder), "latest", "a" * 50)
    assert (len(found["tokens"]), found["asked"]) == (9, 50)
    with pytest.raises(cllm.errors.LimitError):
        inside_trace.trace(str(folder), "latest", "a" * ((1 << 16) + 1))


def test_maps_small_and_large(folder: Path) -> None:
    t = 15
    lines = list(inside_trace.heads(str(folder), "latest", TEXT))
    assert [line["layer"] for line in lines] == [0, 1]
    for line in lines:
        for number, (picture, told) in enumerate(zip(line["pictures"], line["heads"], strict=True)):
            raw = inside_trace.attention(str(folder), "latest", TEXT, line["layer"], number)
            a = torch.from_numpy(np.frombuffer(raw, "<f4").reshape(t, t).copy()).double()
            assert ((a.sum(1) - 1).abs() <= 4 * t * UNIT[torch.float32]).all()
            shown = np.frombuffer(base64.b64decode(picture), np.uint8).reshape(t, t)
            assert np.array_equal(shown, np.rint(255 * np.sqrt(a.numpy())).astype(np.uint8))
            assert told["previous"] == pytest.approx(float(a.diagonal(-1).mean()), rel=1e-12)
            assert told["own"] == pytest.approx(float(a.diagonal()[1:].mean()), rel=1e-12)
            assert told["first"] == pytest.approx(float(a[1:, 0].mean()), rel=1e-12)
            entropy = torch.special.entr(a[1:]).sum(1).mean()
            assert told["entropy"] == pytest.approx(float(entropy), rel=1e-12)
    for wrong in ((2, 0), (0, 2), (-1, 0)):
        with pytest.raises(UsageError, match="2 layers of 2 heads"):
            inside_trace.attention(str(folder), "latest", TEXT, *wrong)


def test_a_thumbnail_keeps_the_largest_of_each_square() -> None:
    a = torch.zeros(100, 100, dtype=torch.float64)
    a[99, 0], a[41, 7], a[0, 0] = 1.0, 0.25, 0.01
    small = np.frombuffer(inside_trace.thumbnail(a), np.uint8).reshape(40, 40)
    assert small[39, 0] == 255
    assert small[16, 3] == 128  # 255·√0.25, rounded to even
    assert small[0, 0] == 26
    assert (small > 0).sum() == 3


def test_a_single_token_looks_at_nothing_else(folder: Path) -> None:
    lines = list(inside_trace.heads(str(folder), "latest", "T"))
    assert lines[0]["heads"][0] == dict.fromkeys(("previous", "first", "own", "entropy"))


# ------------------------------------------------------------------------------------------------------- logit lens


def test_the_last_layer_of_the_lens_is_the_model_s_output(folder: Path) -> None:
    lines = list(inside_trace.lens(str(folder), "latest", TEXT))
    assert [line["at"] for line in lines] == [2, 1, 0]
    run = cllm.load(folder)
    ids, model = run.tokenizer.encode(TEXT), run.model
    meaning = plain_model.read(torch.tensor([[*ids, 0]]), torch.tensor([[0] * len(ids) + [-1]]), False)
    sizes = (dict(model.params), 2, 2, meaning)
    exact = plain_model.evaluate(*sizes).logits[0]
    allowed = UNIT[torch.float32] * sensitivity(*sizes)["logits"].view(len(ids), -1)
    low, high = torch.softmax(exact, 1) * (-2 * allowed.amax(1, True)).exp(), torch.softmax(exact, 1)
    high = high * (2 * allowed.amax(1, True)).exp()
    for place, (top, p) in enumerate(zip(lines[0]["top"], lines[0]["p"], strict=True)):
        assert p == sorted(p, reverse=True)
        for token, value in zip(top, p, strict=True):
            assert low[place, token] <= value <= high[place, token]
    # what comes, and the entropy
    probabilities = torch.softmax(exact, 1)
    for place, told in enumerate(lines[0]["next"][:-1]):
        assert low[place, ids[place + 1]] <= told[0] <= high[place, ids[place + 1]]
    assert lines[0]["next"][-1] is None
    entropy = torch.special.entr(probabilities).sum(1)
    room = 4 * allowed.amax(1) * (1 + exact.abs().amax(1)) * exact.shape[1]
    assert ((torch.tensor(lines[0]["entropy"]) - entropy).abs() <= room).all()
    # the loss told beside the text is the same number
    nats = inside_trace.trace(str(folder), "latest", TEXT)["nats"]
    for place, told in enumerate(lines[0]["next"][:-1]):
        assert -math.log(told[0]) == pytest.approx(nats[place], abs=1e-12)


def test_the_lens_reads_the_stream_behind_each_layer() -> None:
    model = small(torch.float64)
    found = inside_trace.read(model, IDS, DOCUMENTS, document_mask=False)
    p = model.params
    for place, x in enumerate(found.stream_TD):
        n = torch.nn.functional.layer_norm(x, (24,), p["lnf.g"], p["lnf.b"], 1e-5)
        exact = n @ p["tok"].T
        room = 1e3 * 24 * DOUBLE * (n.abs() @ p["tok"].abs().T + 1)
        assert ((found.logits(place, slice(None)) - exact).abs() <= room).all()
    assert not torch.allclose(found.stream_TD[0], found.stream_TD[1])


def test_the_lens_counts_the_rank_and_names_each_token_once(folder: Path) -> None:
    lines = list(inside_trace.lens(str(folder), "latest", TEXT))
    run = cllm.load(folder)
    ids = run.tokenizer.encode(TEXT)
    names: dict[str, str] = {}
    for line in lines:
        assert not names.keys() & line["texts"].keys()
        names |= line["texts"]
        for place, told in enumerate(line["next"][:-1]):
            if told[1] < inside_trace.SHOWN:
                assert line["top"][place][told[1]] == ids[place + 1]
            else:
                assert ids[place + 1] not in line["top"][place]
    assert {str(i) for line in lines for top in line["top"] for i in top} == names.keys()
    assert all(run.tokenizer.encode(text) == [int(i)] for i, text in names.items() if int(i) > 4)


def test_bf16_is_read_by_its_own_kernels() -> None:
    model = small(torch.bfloat16)
    found = inside_trace.read(model, IDS, DOCUMENTS, document_mask=False)
    assert found.kernels.name == select(torch.bfloat16).name
    a = found.attention(0)
    assert a.dtype == torch.float32
    assert ((a.sum(2) - 1).abs() <= 4 * len(IDS) * UNIT[torch.float32]).all()


# ------------------------------------------------------------------------------------------------- two calls at once

TWO_AT_ONCE = """
import sys, threading
from cllm.studio.worker import function
calls = [function("cllm.studio." + name) for name in ("inside_tensors:structure", "generate_work:loaded")]
start = threading.Barrier(2)
def call(one):
    start.wait()
    one(sys.argv[1], "latest")
threads = [threading.Thread(target=call, args=(one,)) for one in calls]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
from cllm.config import Config
from cllm.studio import worker
assert Config in worker._prepared
"""


def test_the_first_two_calls_may_come_together(folder: Path) -> None:
    """Of msgspec's types made by two threads at once every fourth process used to die."""
    done = subprocess.run([sys.executable, "-c", TWO_AT_ONCE, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# ------------------------------------------------------------------------------------------------------- embedding


def test_components_are_the_principal_ones() -> None:
    generator = torch.Generator().manual_seed(8)
    e = torch.randn(200, 12, generator=generator, dtype=torch.float64) * torch.linspace(4, 0.2, 12) + 3
    xyz, shares = inside_cloud.components(e)
    centred = e - e.mean(0)
    u, s, vh = torch.linalg.svd(centred, full_matrices=False)
    # eigenvalues of the 12 × 12 covariance move by its rounding, vectors by that over the gaps (Davis, Kahan)
    room = 200 * 12 * DOUBLE * float(s[0] ** 2)
    assert ((shares * float(s.square().sum()) - s[:3].square()).abs() <= room).all()
    gap = float((s[:3].square() - s[1:4].square()).min())
    signs = torch.sign((u[:, :3] * s[:3] * xyz).sum(0))
    assert ((u[:, :3] * s[:3] * signs - xyz).abs() <= 8 * room / gap * float(s[0])).all()
    directions = torch.linalg.lstsq(centred, xyz).solution
    assert (directions.gather(0, directions.abs().argmax(0, keepdim=True)) > 0).all()
    assert float(vh.abs().max()) <= 1 + 1e-12
    flat, none = inside_cloud.components(torch.ones(5, 2))
    assert flat.shape == (5, 3)
    assert (none == 0).all()
    e[3, 3] = math.nan
    with pytest.raises(NonFiniteError, match="no picture"):
        inside_cloud.components(e)


def test_the_cloud_tells_of_each_token(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = inside_cloud.cloud(str(folder), "latest")
    run = cllm.load(folder)
    vocab = run.model.config.vocab
    assert found["ids"] == list(range(vocab))
    assert found["primes"] == [int(token_prime(i)) for i in range(vocab)]
    assert found["id_classes"] == [i % 12 for i in range(vocab)]
    assert found["prime_classes"] == [p % 12 for p in found["primes"]]
    tokens = open_prepared(folder / "data").train.tokens
    assert found["counts"] == [int((tokens == i).sum()) for i in range(vocab)]
    norms = torch.linalg.vector_norm(run.model.params["tok"].double(), dim=1)
    assert found["norms"] == pytest.approx(norms.tolist(), rel=32 * 32 * DOUBLE)
    monkeypatch.setattr(inside_cloud, "MOST", 7)
    few = inside_cloud.cloud(str(folder), "latest")
    assert few["vocab"] == vocab
    commonest = sorted(range(vocab), key=lambda i: (-found["counts"][i], i))[:7]
    assert few["ids"] == sorted(commonest)
    assert few["xyz"] == [found["xyz"][i] for i in few["ids"]]


def test_neighbours_are_the_nearest_by_cosine(folder: Path) -> None:
    e = loaded(folder).params["tok"].double()
    token = cllm.load(folder).tokenizer.encode("s")[0]
    found = inside_cloud.near(str(folder), "latest", "s")
    assert (found["id"], found["text"]) == (token, "s")
    cosines = torch.nn.functional.cosine_similarity(e, e[token][None], dim=1)
    cosines[token] = -2
    order = cosines.argsort(descending=True)[:12].tolist()
    assert [one["id"] for one in found["near"]] == order
    for one in found["near"]:
        assert one["cosine"] == pytest.approx(float(cosines[one["id"]]), abs=64 * 32 * DOUBLE)
    assert inside_cloud.near(str(folder), "latest", f"#{token}")["near"] == found["near"]
    with pytest.raises(UsageError, match="no token holds"):
        inside_cloud.near(str(folder), "latest", "zebra")
    with pytest.raises(UsageError, match="has the tokens #0"):
        inside_cloud.near(str(folder), "latest", "#99999")


# ------------------------------------------------------------------------------------------------------ certificates


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a run that has a certificate."""
    workspace: Path = tmp_path_factory.mktemp("certified")
    folder = serving.add_trained(workspace, "runs/small", precision="fp32")
    found = cllm.certificate.certify(folder, 16)
    assert found.ok
    return workspace


def test_a_certificate_is_told_with_its_verdicts(certified: Path) -> None:
    workspace = Workspace(certified)
    (short,) = inside_certificates.listed(workspace, "runs/small")
    told = inside_certificates.shown(workspace, "runs/small", short["name"])
    c = read_certificate(certified / "runs" / "small" / short["name"])
    assert told["statement"] == str(c)
    assert (told["ok"], told["verdict"], told["step"], told["tokens"]) == (True, "WITHIN BUDGET", 2, 16)
    assert [row["name"] for row in told["tensors"]] == [row.name for row in c.tensors]
    factor = conditions(1.0, {row.name: row.rms for row in c.tensors})  # the loss is above 1
    assert c.loss.engine > 1.5
    for row, of in zip(told["tensors"], c.tensors, strict=True):
        assert row["allowed"] == BUDGETS["float32"].normwise * factor[of.name]
        assert (row["radius"], row["max"], row["normwise"]) == (of.radius_over_rms, of.max_over_rms, of.normwise)
        assert row["verdict"] == "WITHIN BUDGET"
        assert 0 <= row["normwise"] <= row["allowed"]
    wrong = next(row for row in c.tensors if row.name == "0.ffn.w1")
    bad = msgspec.structs.replace(wrong, max_over_rms=1e-3)
    changed = msgspec.structs.replace(c, tensors=[bad if row.name == "0.ffn.w1" else row for row in c.tensors])
    outside = [row["name"] for row in inside_certificates.judged(changed) if row["verdict"] == "OUTSIDE BUDGET"]
    assert outside == ["0.ffn.w1"]
    none = msgspec.structs.replace(c, budget={"version": 1})
    assert {row["verdict"] for row in inside_certificates.judged(none)} == {"REPORTED"}


def test_only_certificates_of_the_run_are_read(certified: Path, tmp_path: Path) -> None:
    workspace, folder = Workspace(certified), certified / "runs" / "small"
    secret = tmp_path / "certificate-secret.json"
    secret.write_text("{}")
    (folder / "certificate-link.json").symlink_to(secret)
    (folder / "certificate-broken.json").write_text("{not json")
    try:
        found = {one["name"]: one for one in inside_certificates.listed(workspace, "runs/small")}
        assert "certificate-link.json" not in found
        assert "not a certificate" in found["certificate-broken.json"]["error"]
        with pytest.raises(cllm.errors.CllmError):
            inside_certificates.shown(workspace, "runs/small", "certificate-link.json")
        for name in ("../../../etc/passwd", "run.toml", "certificate-../x.json", "certificate-x.json/.."):
            with pytest.raises(UsageError):
                inside_certificates.shown(workspace, "runs/small", name)
    finally:
        (folder / "certificate-link.json").unlink()
        (folder / "certificate-broken.json").unlink()


def test_the_command_takes_a_checkpoint_and_says_how_far_it_is(certified: Path) -> None:
    folder = certified / "runs" / "small"
    command = [sys.executable, "-m", "cllm", "certify", str(folder), "--tokens", "8", "--json"]
    done = subprocess.run(
        [*command, "--checkpoint", "step-00000002"],
        capture_output=True, text=True, env={**os.environ, "CLLM_PROGRESS": "lines"}, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["subject"]["checkpoint"] == "step-00000002"
    steps = [float(line.split()[-1]) for line in done.stderr.splitlines() if line.startswith("progress proving ")]
    assert steps == sorted(set(steps))
    assert 0.9 < steps[-1] <= 1
    missing = subprocess.run([*command, "--checkpoint", "step-00000009"], capture_output=True, text=True, check=False)
    assert missing.returncode == 2
    assert "step-00000009" in missing.stderr


# ------------------------------------------------------------------------------------------------------ over the wire

PLACE = {"run": "runs/small", "checkpoint": "latest"}


def test_the_routes_answer(server: Any) -> None:
    client, read = server.client, PLACE | {"text": TEXT}
    folder = server.workspace / "runs" / "small"
    structure = inside_tensors.structure(str(folder), "latest")
    assert client.ask("/api/inside/model", PLACE) == json.loads(json.dumps(structure))
    one = client.ask("/api/inside/tensor", PLACE | {"name": "tok"})
    assert one == inside_tensors.tensor(str(folder), "latest", "tok")
    assert client.lines("/api/inside/tensors", PLACE)[0] == one
    assert client.ask("/api/inside/trace", read)["tokens"][0][1] == "T"
    heads = client.lines("/api/inside/heads", read)
    assert [line["layer"] for line in heads] == [0, 1]
    raw = client.post("/api/inside/attention", read | {"layer": 1, "head": 1})
    assert raw.status == 200
    assert raw.body == inside_trace.attention(str(folder), "latest", TEXT, 1, 1)
    assert [line["at"] for line in client.lines("/api/inside/lens", read)] == [2, 1, 0]
    assert client.ask("/api/inside/cloud", PLACE)["width"] == 32
    assert len(client.ask("/api/inside/near", PLACE | {"token": "e"})["near"]) == 12


@pytest.mark.parametrize(
    ("route", "change", "status"),
    [
        ("model", {"run": "../outside"}, 403),
        ("model", {"run": "runs/none"}, 404),
        ("model", {"checkpoint": "../../x"}, 400),
        ("trace", {"checkpoint": "step-00000009"}, 404),
        ("tensor", {"name": "nothing"}, 400),
        ("attention", {"layer": 7}, 400),
        ("near", {"token": "zebra"}, 400),
        ("lens", {"run": "runs/long"}, 409),
        ("certify", {"tokens": 0}, 400),
        ("certify", {"run": "runs/none"}, 404),
        ("stop", {}, 409),
    ],
)
def test_what_is_wrong_is_said(server: Any, route: str, change: dict[str, Any], status: int) -> None:
    asked = {"run": "runs/small"} if route == "stop" else PLACE
    answer = server.client.post(f"/api/inside/{route}", asked | change)
    assert answer.status == status, answer.body
    assert answer.json["error"]


def test_a_certification_is_a_job(server: Any) -> None:
    """Started, told of on the socket while it runs, its file listed when it has ended; a second one is refused."""
    client = server.client
    with client.socket() as socket:
        job = client.ask("/api/inside/certify", PLACE | {"tokens": 24, "step": True})
        assert job["command"] == "cllm certify runs/small --checkpoint latest --tokens 24 --step"
        assert client.post("/api/inside/certify", PLACE).status == 409
        states = []
        while not states or states[-1]["state"] != "ended":
            message = json.loads(socket.recv(timeout=60))
            if message.get("topic") == "certify":
                states += [one["job"] for one in message["value"] if one["run"] == "runs/small"]
    assert {one["id"] for one in states} == {job["id"]}
    assert states[-1]["error"] is None
    found = client.ask("/api/inside/certificates", run="runs/small")
    assert found["job"]["state"] == "ended"
    (short,) = [one for one in found["certificates"] if one["tokens"] == 24]
    assert short["adamw"]
    told = client.ask("/api/inside/certificate", run="runs/small", name=short["name"])
    assert told["statement"].startswith("CERTIFIED")
    assert len(told["steps"]) == 10


def test_a_certification_can_be_stopped(server: Any) -> None:
    client = server.client
    client.ask("/api/inside/certify", PLACE | {"tokens": 64})
    client.post("/api/inside/stop", {"run": "runs/small"})
    serving.until(
        lambda: client.ask("/api/inside/certificates", run="runs/small")["job"]["state"] == "ended", seconds=60
    )
    job = client.ask("/api/inside/certificates", run="runs/small")["job"]
    assert job["error"] is None  # being stopped is no failure
    # another training of the run is not taken for it, nor it for a training
    assert client.ask("/api/studio")["version"]
