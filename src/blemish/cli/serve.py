"""`blemish serve`: the page where people decide, and the service that programs call."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from blemish.cli.options import given_path
from blemish.errors import OutputError, SettingsError

if TYPE_CHECKING:
    from blemish.serve.mqtt import MqttSender
    from blemish.serve.service import Service

LOOPBACK = ("localhost", "127.0.0.1", "::1")
FIRST_USER = "engineer"
BACKLOG = 256  # connections that wait to be accepted


class Compatible(StrEnum):
    """A closed service whose clients are answered, too."""

    lookout = "lookout"


def serve(
    *,
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
    watch: Annotated[
        list[str] | None,
        typer.Option("--watch", metavar="PRODUCT=FOLDER", help="Inspect each new picture of a folder. Repeatable."),
    ] = None,
    watch_part_id: Annotated[
        str | None,
        typer.Option(
            "--watch-part-id",
            metavar="PATTERN",
            help="Regular expression that finds a part's id in a file's name: its first group. Unset: the name.",
        ),
    ] = None,
    watch_keep: Annotated[
        bool,
        typer.Option("--watch-keep", help="Leave files where they are, marked by NAME.done or NAME.failed.txt."),
    ] = False,
    camera: Annotated[
        list[str] | None,
        typer.Option("--camera", metavar="PRODUCT=ADDRESS", help="A camera: OpenCV's index or rtsp://… Repeatable."),
    ] = None,
    camera_interval: Annotated[
        float | None,
        typer.Option(
            "--camera-interval", metavar="S", min=0.001, help="Seconds between frames; only when triggered if unset."
        ),
    ] = None,
    keep_days: Annotated[
        float | None,
        typer.Option("--keep-days", metavar="D", min=0, help="Delete pictures of parts after so many days."),
    ] = None,
    keep_gb: Annotated[
        float | None,
        typer.Option("--keep-gb", metavar="GB", min=0, help="Delete the least needed pictures beyond this size."),
    ] = None,
    import_lookout: Annotated[
        list[str] | None,
        typer.Option(
            "--import-lookout",
            metavar="PRODUCT=MANIFEST",
            help="Take the good pictures of a Lookout for Vision manifest, which lie beside it, at the start.",
        ),
    ] = None,
    mqtt: Annotated[
        list[str] | None,
        typer.Option(
            "--mqtt",
            metavar="URL",
            help="Publish results to a topic: mqtt://[user:password@]host:1883/topic; mqtts: with TLS. Repeatable.",
        ),
    ] = None,
    time_limit: Annotated[
        float, typer.Option("--time-limit", metavar="S", min=1, help="Seconds after which an inspection is given up.")
    ] = 60.0,
    decode_limit: Annotated[
        float, typer.Option("--decode-limit", metavar="S", min=1, help="Seconds that decoding a picture may take.")
    ] = 20.0,
    decode_memory: Annotated[
        int, typer.Option("--decode-memory", metavar="MB", min=64, help="Memory that decoding a picture may take.")
    ] = 4096,
) -> None:
    """Serve a line: pages in the browser and a REST API, with everything kept in one folder.

    An empty folder is enough to begin. On this machine alone nobody is asked for a token until the first user is added;
    with another --host every request needs one. Nothing that was acknowledged is lost, whatever ends it.

    Exit code 0: stopped; 2: wrong usage, or the folder or the port is taken.
    """
    from blemish.cli.console import say
    from blemish.utils.optional import need

    imported = [pair_of("--import-lookout", one, "MANIFEST") for one in import_lookout or ()]
    watched = [pair_of("--watch", one, "FOLDER") for one in watch or ()]
    cameras = [pair_of("--camera", one, "ADDRESS") for one in camera or ()]
    for module in ("fastapi", "python_multipart"):
        need(module, "serve", "blemish serve")
    uvicorn = need("uvicorn", "serve", "blemish serve")
    senders = senders_of(mqtt or ())
    with ExitStack() as stack:
        listening = stack.enter_context(bound_socket(host, port))
        from blemish.serve.app import create_app
        from blemish.serve.core import ServiceSettings
        from blemish.serve.housekeeping import Housekeeping
        from blemish.serve.inputs import Inputs
        from blemish.serve.retention import Limits
        from blemish.serve.service import Service
        from blemish.serve.sources.camera import CameraSettings
        from blemish.serve.sources.watched_folder import WatchSettings

        settings = ServiceSettings(
            max_upload=max_upload * 2**20,
            waiting=waiting,
            workers=workers,
            time_limit=time_limit,
            decode_limit=decode_limit,
            decode_memory=decode_memory * 2**20,
        )
        watching = WatchSettings(part_id=watch_part_id, move=not watch_keep, max_bytes=settings.max_upload)
        is_exposed = host not in LOOPBACK
        service = stack.enter_context(Service.open(data, settings))
        if token := prepare_users(service, is_exposed, token_file, new_token):
            say(f"The token of the user '{FIRST_USER}', shown this once: {token}")
        for product, manifest in imported:
            say(imported_in_words(service, product, Path(manifest)))
        service.webhooks.publish_to(senders)
        inputs = Inputs(service)
        stack.callback(inputs.close)
        for product, folder in watched:
            inputs.watch(product, Path(folder), watching)
        for product, address in cameras:
            inputs.camera(product, address, CameraSettings(interval_s=camera_interval))
        limit = None if keep_gb is None else round(keep_gb * 1e9)
        housekeeping = Housekeeping(service, Limits(days=keep_days, bytes=limit))
        housekeeping.finish()
        if keep_days is not None or keep_gb is not None:
            stack.callback(housekeeping.close)
            housekeeping.start()
        app = create_app(service, is_exposed, [one.value for one in compat or ()], inputs)
        shown = f"[{host}]" if ":" in host else host
        say(f"blemish serves http://{shown}:{listening.getsockname()[1]} from {data}; Ctrl-C ends it.")
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=3
        )
        server = uvicorn.Server(config)
        try:
            server.run(sockets=[listening])
        except (KeyboardInterrupt, SystemExit):  # uvicorn raises the signal again that it has stopped for
            if not server.should_exit:
                raise


def senders_of(addresses: Sequence[str]) -> list[MqttSender]:
    """Who publishes to each topic. Raises SettingsError for an address that is none, MissingPackageError."""
    if not addresses:
        return []
    from blemish.serve.mqtt import MqttAddress, MqttSender

    return [MqttSender(one) for one in dict.fromkeys(map(MqttAddress.of, addresses))]


def pair_of(option: str, text: str, kind: str) -> tuple[str, str]:
    """A product and what belongs to it, out of an option's "PRODUCT=WHAT". Raises SettingsError."""
    product, equals, what = text.partition("=")
    if not (product and equals and what):
        raise SettingsError(f"{option} PRODUCT={kind}", repr(text), f"mend {option}: the product's name before the '='")
    return product, what


def imported_in_words(service: Service, product: str, manifest: Path) -> str:
    """Add the good pictures of a manifest to a product, which is created if need be; what came of it, in a sentence."""
    from blemish.serve.errors import UnknownError
    from blemish.serve.lookout_manifest import read_manifest

    found = read_manifest(manifest)
    try:
        known = service.core.product(product)
    except UnknownError:
        known = service.catalog.create(product, "the command line")
    added = 0
    for path in found.good:
        added += len(service.catalog.add_good(known, [(path.name, path.read_bytes())], "the command line").added)
    return (
        f"{product}: {added} good pictures added of {len(found.good)}; {len(found.anomalous)} anomalous ones are left "
        f"to be inspected once it has learned; {len(found.missing)} are not beside the manifest."
    )


def bound_socket(host: str, port: int) -> socket.socket:
    """A socket that listens at this address, before anything is loaded: who connects early waits.

    Raises OutputError where that cannot be.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name != "nt":
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
        found.listen(BACKLOG)
    except (OSError, UnicodeError) as error:  # a name that no machine can have
        found.close()
        raise OutputError(
            f"an address to listen at, {host}:{port}",
            getattr(error, "strerror", None) or str(error),
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
