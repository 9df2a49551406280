"""The screen Generate, server side: its tokens are those of `cllm generate`, its branches and figures are right."""

from __future__ import annotations

import json
import math
import runpy
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import cllm
from cllm.generation.sampling import SamplingOptions, distribution
from cllm.model.decode import Decoder
from cllm.studio import generate_work
from cllm.studio.generate import Asked, Options, command, python

serving = sys.modules["serving"]
PROMPT = "The gulls"
CASES: list[dict[str, Any]] = [
    {"seed": 1, "max_tokens": 12},
    {"seed": 7, "max_tokens": 12, "temperature": 0.0},
    {"seed": 3, "max_tokens": 12, "temperature": 1.7, "top_k": 5},
    {"seed": 4, "max_tokens": 12, "top_p": 0.6, "repetition_penalty": 1.4},
    {"seed": 5, "max_tokens": 12, "min_p": 0.08},
    {"seed": 6, "max_tokens": 60, "past_context": "slide"},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return serving.add_trained(tmp_path_factory.mktemp("generate"), "run")  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def forget() -> None:
    generate_work._models.clear()


def stream(folder: Path, prompt: str = PROMPT, path: list[int] | None = None, **options: Any) -> list[dict[str, Any]]:
    return list(generate_work.write(str(folder), "latest", prompt, path or [], options))


def tokens(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in lines if "nats" in line]


@pytest.mark.parametrize("options", CASES)
@pytest.mark.parametrize("prompt", [PROMPT, "", "a"])
def test_the_same_tokens_as_the_interface(folder: Path, prompt: str, options: dict[str, Any]) -> None:
    pieces = [piece for piece in cllm.load(folder).stream(prompt, **options) if piece.token >= 0]
    lines = stream(folder, prompt, **options)
    found = [line for line in tokens(lines) if line["id"] != lines[0]["eos"]]
    assert [line["id"] for line in found] == [piece.token for piece in pieces]
    for line, piece in zip(found, pieces, strict=True):
        assert line["nats"] == pytest.approx(piece.surprise * math.log(2), abs=1e-12)
    text = "".join(line["text"] for line in found) + str(lines[-1].get("rest", ""))
    assert text == cllm.load(folder).generate(prompt, **options)


@pytest.mark.parametrize("options", CASES)
def test_going_on_is_the_same_as_going_through(folder: Path, options: dict[str, Any]) -> None:
    """Whatever was asked in between, and whether or not the model still remembers, bit for bit."""
    whole = tokens(stream(folder, **options))
    ids = [line["id"] for line in whole]
    for cut in (0, 1, 5, 11, 30, 59):
        if cut >= len(ids):
            continue
        for between in ("nothing", "another prompt", "forgotten"):
            if between == "another prompt":
                stream(folder, PROMPT[:5], max_tokens=3)
                stream(folder, PROMPT + "".join(line["text"] for line in whole[:3]), max_tokens=3)  # read in one go
            elif between == "forgotten":
                generate_work._models.clear()
            rest = tokens(stream(folder, path=ids[:cut], **(options | {"max_tokens": options["max_tokens"] - cut})))
            plain = [{k: v for k, v in line.items() if k != "seconds"} for line in rest]
            assert plain == [{k: v for k, v in line.items() if k != "seconds"} for line in whole[cut:]]


@pytest.mark.parametrize("options", CASES)
def test_probabilities(folder: Path, options: dict[str, Any]) -> None:
    """p and q against the model read afresh: softmax of its logits, and what the filters leave of it."""
    if options["max_tokens"] > 12:
        pytest.skip("beyond the context the model sees a part of the text only")
    run = cllm.load(folder)
    ids = list(run.tokenizer.encode(PROMPT))
    sampling = SamplingOptions(**{"temperature": 0.8} | {k: v for k, v in options.items() if k != "max_tokens"})
    for line in tokens(stream(folder, **options)):
        logits = Decoder(run.model).read(torch.tensor([ids]))[0].double()
        p = torch.softmax(logits, 0)
        kept, left = distribution(logits, sampling, seen=ids)
        q = torch.zeros_like(p).index_copy_(0, kept, left)
        # one pass over all against one token at a time: each logit differs by rounding only
        near = {"rel": 1e-4, "abs": 1e-9}
        assert line["p"] == pytest.approx(float(p[line["id"]]), **near)
        assert line["nats"] == pytest.approx(-math.log(line["p"]), abs=1e-9)
        assert line["kept"] == len(kept)
        assert line["q"] == pytest.approx(float(q[line["id"]]), **near)
        shown = [one[0] for one in line["top"]]
        assert [one[2] for one in line["top"]] == sorted((one[2] for one in line["top"]), reverse=True)
        assert float(p[shown].sum()) == pytest.approx(float(torch.topk(p, len(shown)).values.sum()), rel=1e-6)
        for token, _, before, behind in line["top"]:
            assert before == pytest.approx(float(p[token]), **near)
            assert behind == pytest.approx(float(q[token]), **near)
        ids.append(line["id"])


def test_the_next_token(folder: Path) -> None:
    found = generate_work.following(str(folder), "latest", PROMPT, [], {"temperature": 1.0, "top_k": 3})
    drawn = tokens(stream(folder, temperature=1.0, top_k=3, max_tokens=1, seed=0))[0]
    assert found["top"][:12] == drawn["top"]
    assert found["kept"] == 3
    assert sum(one[3] for one in found["top"]) == pytest.approx(1)
    assert found["mass"] == pytest.approx(sum(one[2] for one in found["top"][:3]))
    everything = generate_work.following(str(folder), "latest", PROMPT, [], {"temperature": 1.0})
    assert everything["kept"] == everything["vocab"]
    assert everything["entropy"][0] == pytest.approx(everything["entropy"][1])
    assert found["entropy"][1] < everything["entropy"][1]


def test_ends(folder: Path) -> None:
    free = tokens(stream(folder, max_tokens=10, seed=1))
    text = "".join(line["text"] for line in free)
    stop = text[4:6]
    lines = stream(folder, max_tokens=10, seed=1, stop=[stop])
    assert lines[-1]["end"] == "stop"
    kept = "".join(line["text"] for line in tokens(lines))
    assert kept[: len(kept) - lines[-1]["cut"]] == cllm.load(folder).generate(
        PROMPT, max_tokens=10, seed=1, stop=[stop]
    )
    assert stream(folder, max_tokens=3)[-1]["end"] == "tokens"
    context = stream(folder, max_tokens=1)[0]["context"]
    assert len(tokens(stream(folder, max_tokens=context + 5, seed=2))) == sum(
        piece.token >= 0 for piece in cllm.load(folder).stream(PROMPT, max_tokens=context + 5, seed=2)
    )
    full = stream(folder, max_tokens=context + 5, seed=2)
    assert full[-1]["end"] in ("context", "eos")
    slid = tokens(stream(folder, max_tokens=context + 5, seed=2, past_context="slide"))
    pieces = cllm.load(folder).stream(PROMPT, max_tokens=context + 5, seed=2, past_context="slide")
    assert [line["id"] for line in slid][: context + 5] == [piece.token for piece in pieces if piece.token >= 0]


def test_at_most_two_models_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [serving.add_run(tmp_path, f"r{n}") for n in range(3)]
    first = generate_work.loaded(str(folders[0]), "latest")
    assert generate_work.loaded(str(folders[0]), "step-00000003") is first  # the same by another name
    generate_work.loaded(str(folders[1]), "latest")
    assert generate_work.loaded(str(folders[0]), "latest") is first
    generate_work.loaded(str(folders[2]), "latest")  # in place of the one that was not used lately
    assert {Path(key[0]).name for key in generate_work._models} == {"r0", "r2"}
    monkeypatch.setattr(generate_work, "SHARE", 1e-12)
    with pytest.raises(cllm.errors.LimitError, match="GB"):
        generate_work.loaded(str(folders[1]), "latest")


OLD = {"run": "runs/old"}
REFUSED: list[tuple[dict[str, Any], int, str]] = [
    ({"run": "runs/none"}, 404, "no"),
    ({"run": "runs/long"}, 404, "checkpoints"),
    (OLD | {"checkpoint": "step-9"}, 404, "step-9"),
    (OLD | {"checkpoint": "../x"}, 400, "checkpoint"),
    (OLD | {"path": [10**9]}, 400, "token"),
    (OLD | {"path": [-1]}, 400, "token"),
    (OLD | {"options": {"temperature": -1}}, 400, "temperature"),
    (OLD | {"options": {"top_p": 2}}, 400, "top_p"),
    (OLD | {"options": {"max_tokens": 10**7}}, 422, "max_tokens"),
    (OLD | {"prompt": "n" * 50}, 400, "context"),
]


@pytest.mark.parametrize(("asked", "status", "words"), REFUSED, ids=range(len(REFUSED)))
def test_what_cannot_be_written_is_explained(
    server: Any, asked: dict[str, Any], status: int | None, words: str
) -> None:
    answer = server.client.post("/api/generate/stream", {"prompt": PROMPT, **asked})
    assert answer.status == status if status else 400 <= answer.status < 500
    assert words in answer.json["error"]


def test_over_the_wire(server: Any) -> None:
    client = server.client
    sources = {one["run"]: one for one in client.ask("/api/generate/checkpoints")["runs"]}
    assert sources["runs/old"]["checkpoints"] == ["step-00000003"]
    assert sources["runs/old"]["latest"] == "step-00000003"
    assert "runs/long" not in sources
    asked = {"run": "runs/small", "prompt": PROMPT, "options": {"max_tokens": 6, "seed": 1}}
    lines = client.lines("/api/generate/stream", asked)
    assert [line["id"] for line in tokens(lines)] == [
        piece.token for piece in cllm.load(server.workspace / "runs/small").stream(PROMPT, max_tokens=6, seed=1)
        if piece.token >= 0
    ]  # fmt: skip
    assert client.ask("/api/generate/next", asked)["vocab"] > 5


def test_an_aborted_fetch_ends_the_writing(tmp_path: Path) -> None:
    workspace = tmp_path / "w"
    serving.add_run(workspace)
    with serving.in_thread(workspace) as (client, studio):
        asked = {"run": "runs/old", "options": {"max_tokens": 90_000, "past_context": "slide", "seed": 1}}
        body = json.dumps(asked).encode()
        head = (
            f"POST /api/generate/stream HTTP/1.1\r\nHost: {client.host}\r\nCookie: {client.cookie}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        lines = [socket.create_connection(("127.0.0.1", client.port)) for _ in range(2)]
        for line in lines:
            line.sendall(head.encode() + body)
            assert line.recv(1000)
        serving.until(lambda: studio.models._child._answers)
        for line in lines:
            line.close()
        serving.until(lambda: not studio.models._child._answers, seconds=20)
        # both places are free again: a short one is answered at once
        begin = time.monotonic()
        asked["options"] = {"max_tokens": 2}
        assert len(tokens(client.lines("/api/generate/stream", asked))) == 2
        assert time.monotonic() - begin < 20


SHELL = "a \"n\",\nb\t$H `x` 'y' \\"


ASKED = [
    Asked("runs/small", "latest", SHELL, [], Options(max_tokens=8, seed=9)),
    Asked("runs/small", "step-00000002", "", [], Options(max_tokens=8, seed=2, temperature=0.0, stop=["q", "\n\n"])),
    Asked("runs/small", "latest", "-5 – ü", [], Options(max_tokens=60, seed=3, past_context="slide", min_p=0.1)),
]


@pytest.mark.parametrize("asked", ASKED, ids=range(len(ASKED)))
def test_the_command_and_the_script_write_the_same(
    server: Any, asked: Asked, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command as a real shell reads it, the script as it stands."""
    import msgspec

    from cllm.cli import run as run_command

    value = msgspec.to_builtins(asked)
    lines = server.client.lines("/api/generate/stream", value)
    text = "".join(line["text"] for line in tokens(lines)) + lines[-1].get("rest", "")
    text = text[: len(text) - lines[-1].get("cut", 0)]
    told = server.client.ask("/api/generate/text", value)
    assert told == {"command": command(asked), "python": python(asked)}
    shell = f"cllm() {{ printf '%s\\0' \"$@\"; }}\n{told['command']}"
    words = subprocess.run(["sh", "-c", shell], capture_output=True, check=True).stdout.decode().split("\0")[:-1]
    monkeypatch.chdir(server.workspace)
    assert run_command(words) == 0
    assert capsys.readouterr().out == asked.prompt + text + "\n"
    script = tmp_path / "script.py"
    script.write_text(told["python"])
    runpy.run_path(str(script))
    assert capsys.readouterr().out == text + "\n"
