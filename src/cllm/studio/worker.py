"""The child process of `cllm.studio.work`: `python -m cllm.studio.worker`.

It reads calls from standard input and writes answers to what was standard output, each a msgpack map behind four bytes
of length (nothing is pickled). A call names a function as "module:function"; only the server writes here, and the names
are constants of its source. A generator's items are sent one by one, and `cancel` ends it between two of them.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, BinaryIO

import msgspec

from cllm.errors import CllmError

MOST = 1 << 30  # bytes of one frame


def read_frame(file: BinaryIO) -> dict[str, Any] | None:
    """The next frame, or None at the end of the stream."""
    head = file.read(4)
    if len(head) < 4:
        return None
    body = file.read(int.from_bytes(head, "big"))
    return msgspec.msgpack.decode(body, type=dict[str, Any])


def frame(message: dict[str, Any]) -> bytes:
    """A frame as bytes."""
    body = msgspec.msgpack.encode(message)
    if len(body) > MOST:
        raise ValueError(f"a frame of {len(body)} bytes")
    return len(body).to_bytes(4, "big") + body


_preparing, _importing = threading.Lock(), threading.Lock()
_prepared: set[type] = set()


def prepare_types() -> None:
    """Make every msgspec type that is known by now ready for several threads.

    msgspec finds out about a type when something is first read into it, and keeps what it found where another thread
    sees it half made: two threads that read their first run file together end the process (msgspec 0.22).
    """
    with _preparing:
        waiting = list(msgspec.Struct.__subclasses__())
        while waiting:
            kind = waiting.pop()
            waiting += kind.__subclasses__()
            if kind not in _prepared:
                _prepared.add(kind)
                with contextlib.suppress(TypeError, NameError):  # it holds what cannot be read: nobody reads into it
                    msgspec.json.Decoder(kind)


def function(call: str) -> Callable[..., Any]:
    """The function "module:function", its module imported and its types ready before it is called."""
    module, _, name = call.partition(":")
    with _importing:
        found: Callable[..., Any] = getattr(importlib.import_module(module), name)
        prepare_types()
    return found


class Server:
    """Answers calls, each in a thread of its own. out: a binary stream."""

    def __init__(self, out: BinaryIO) -> None:
        self._out, self._lock = out, threading.Lock()
        self._cancelled: dict[int, threading.Event] = {}

    def serve(self, source: BinaryIO) -> None:
        """Until the stream ends."""
        while (message := read_frame(source)) is not None:
            number = message["id"]
            if message.get("cancel"):
                if number in self._cancelled:
                    self._cancelled[number].set()
                continue
            self._cancelled[number] = threading.Event()
            threading.Thread(target=self._answer, args=(number, message), daemon=True).start()

    def _answer(self, number: int, message: dict[str, Any]) -> None:
        try:
            result = function(message["call"])(**message["args"])
            if inspect.isgenerator(result):
                for item in result:
                    if self._cancelled[number].is_set():
                        result.close()
                        break
                    self._send({"id": number, "item": item})
                result = None
            self._send({"id": number, "result": result})
        except CllmError as error:
            self._send({"id": number, "error": str(error), "kind": type(error).__name__})
        except MemoryError:
            self._send({"id": number, "error": "there was not enough memory for this", "kind": "LimitError"})
        except Exception as error:
            traceback.print_exc()
            what = f"{type(error).__name__}: {error}"
            if "allocate memory" in what:  # how torch says it
                self._send({"id": number, "error": "there was not enough memory for this", "kind": "LimitError"})
            else:
                self._send({"id": number, "error": what, "kind": "Internal"})
        finally:
            self._cancelled.pop(number, None)

    def _send(self, message: dict[str, Any]) -> None:
        data = frame(message)
        with self._lock:
            self._out.write(data)
            self._out.flush()


def main() -> None:
    """Serve until standard input is closed: the server that started this process has gone."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not get between the frames
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the terminal is the server's business
    with contextlib.suppress(BrokenPipeError):
        Server(out).serve(sys.stdin.buffer)
    os._exit(0)  # threads may still be calculating for nobody


if __name__ == "__main__":
    main()
