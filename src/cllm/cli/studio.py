"""`cllm studio`."""

from __future__ import annotations

from pathlib import Path


def studio(
    workspace: Path = Path("."),
    /,
    *,
    port: int | None = None,
    host: str = "127.0.0.1",
    expose: bool = False,
    no_browser: bool = False,
) -> int:
    """The studio in your browser: look at the lattice, calculate exactly, train, generate, look inside.

    It prints an address that ends in a token made for this start; who has it is let in. Everything it reads and writes
    is below the workspace. Ctrl-C ends it; training it started goes on and is found again at the next start.

    Examples:

      cllm studio

      cllm studio experiments --port 8500 --no-browser

    Parameters
    ----------
    workspace: Path
        The folder with your texts and runs.
    port: int
        Where to listen; 0 takes any free one. Default: 8470, or any free one when that is taken.
    host: str
        The address to listen on. Others than this machine's own also need --expose.
    expose: bool
        Let other machines connect (with the token, but unencrypted): only in a network you trust.
    no_browser: bool
        Print the address, open nothing.
    """
    from cllm.errors import MissingExtraError

    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
        import websockets  # noqa: F401
    except ImportError:
        raise MissingExtraError("The studio's web server", "pip install 'cllm[studio]'") from None
    from cllm.studio.server import serve

    serve(workspace, host=host, port=port, expose=expose, browser=not no_browser)
    return 0
