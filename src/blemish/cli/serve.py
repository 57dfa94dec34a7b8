"""`blemish serve`: the page where people decide, and the service that programs call."""

from __future__ import annotations

import os
import socket
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from blemish.cli.options import given_path
from blemish.errors import OutputError, SettingsError

if TYPE_CHECKING:
    from blemish.serve.service import Service

LOOPBACK = ("localhost", "127.0.0.1", "::1")
FIRST_USER = "engineer"


class Compatible(StrEnum):
    """A closed service whose clients are answered, too."""

    lookout = "lookout"


def serve(
    data: Annotated[
        Path,
        typer.Option("--data", metavar="FOLDER", help="Where everything is kept; made if need be.", parser=given_path),
    ] = Path("blemish-data"),
    host: Annotated[
        str, typer.Option("--host", metavar="HOST", help="The address to listen at; beyond this machine with a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", metavar="PORT", min=0, max=65535, help="0: any free one.")] = 8765,
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file",
            metavar="FILE",
            help="Holds the first engineer's token, 32 letters or more.",
            parser=given_path,
        ),
    ] = None,
    new_token: Annotated[
        bool, typer.Option("--new-token", help="Where there is no user yet, make an engineer and print the token.")
    ] = False,
    compat: Annotated[
        list[Compatible] | None, typer.Option("--compat", help="Answer the clients of a closed service, too.")
    ] = None,
    max_upload: Annotated[
        int, typer.Option("--max-upload", metavar="MB", min=1, help="The largest picture's file, in megabytes.")
    ] = 64,
    waiting: Annotated[
        int, typer.Option("--waiting", metavar="N", min=1, help="Inspections that may wait; further ones get 503.")
    ] = 64,
    workers: Annotated[int, typer.Option("--workers", metavar="N", min=1, help="Inspections at once.")] = 2,
    time_limit: Annotated[
        float, typer.Option("--time-limit", metavar="S", min=1, help="Seconds after which an inspection is given up.")
    ] = 60.0,
) -> None:
    """Serve a line: pages in the browser and a REST API, with everything kept in one folder.

    An empty folder is enough to begin. On this machine alone nobody is asked for a token until the first user is added;
    with another --host every request needs one. Nothing that was acknowledged is lost, whatever ends it.

    Exit code 0: stopped; 2: wrong usage, or the folder or the port is taken.
    """
    from blemish.cli.console import say
    from blemish.utils.optional import need

    for module in ("fastapi", "python_multipart"):
        need(module, "serve", "blemish serve")
    uvicorn = need("uvicorn", "serve", "blemish serve")
    listening = bound_socket(host, port)
    with listening:
        from blemish.serve.app import create_app
        from blemish.serve.core import ServiceSettings
        from blemish.serve.service import Service

        settings = ServiceSettings(
            max_upload=max_upload * 2**20, waiting=waiting, workers=workers, time_limit=time_limit
        )
        is_exposed = host not in LOOPBACK
        with Service.open(data, settings) as service:
            if token := prepare_users(service, is_exposed, token_file, new_token):
                say(f"The token of the user '{FIRST_USER}', shown this once: {token}")
            app = create_app(service, is_exposed, [one.value for one in compat or ()])
            shown = f"[{host}]" if ":" in host else host
            say(f"blemish serves http://{shown}:{listening.getsockname()[1]} from {data}; Ctrl-C ends it.")
            config = uvicorn.Config(
                app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=3
            )
            uvicorn.Server(config).run(sockets=[listening])


def bound_socket(host: str, port: int) -> socket.socket:
    """A socket at this address; bound before anything is loaded. Raises OutputError where that cannot be."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name != "nt":
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
    except OSError as error:
        found.close()
        raise OutputError(
            f"an address to listen at, {host}:{port}",
            error.strerror or str(error),
            "name another with --host or --port",
        ) from error
    return found


def prepare_users(service: Service, is_exposed: bool, token_file: Path | None, new_token: bool) -> str:
    """See that there is an engineer where tokens are demanded; gives a token that was made, to be shown.

    Raises SettingsError where other machines reach the service and nobody has a token.
    """
    if service.users.are_any:
        return ""
    if token_file is not None:
        try:
            token = token_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"a token in '{token_file}'", str(error), "write one, of 32 letters or more") from error
        if not token:
            raise SettingsError(f"a token in '{token_file}'", "an empty file", "write one, of 32 letters or more")
        service.users.add(FIRST_USER, "engineer", "the command line", token)
        return ""
    if new_token:
        return service.users.add(FIRST_USER, "engineer", "the command line")
    if is_exposed:
        raise SettingsError(
            "a token where other machines reach the service",
            "none",
            "add --new-token to have one made and shown, or --token-file FILE",
        )
    return ""
