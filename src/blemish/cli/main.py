"""The program `blemish`: one command a file, one place that turns errors into messages and exit codes.

Exit codes: 0 all done; 1 a picture is not good (only with --fail-on-defect); 2 wrong usage, settings or files;
3 some images could not be read; 70 a fault of blemish itself; 130 interrupted; 143 terminated.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from blemish.cli.batch import batch
from blemish.cli.calibrate import calibrate
from blemish.cli.demo import demo
from blemish.cli.diagnose import diagnose
from blemish.cli.doctor import doctor
from blemish.cli.evaluate import evaluate
from blemish.cli.experiment import experiment
from blemish.cli.export import export
from blemish.cli.fit import fit
from blemish.cli.fit_prompts import fit_prompts
from blemish.cli.generate import generate
from blemish.cli.inspect import inspect
from blemish.cli.listing import listing
from blemish.cli.pretrain import pretrain
from blemish.cli.serve import serve
from blemish.errors import BlemishError
from blemish.utils.paths import shown
from blemish.utils.streams import discard, replace_unencodable

_OF_THE_SYSTEM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EMFILE})
WRONG_USAGE, FAULT, INTERRUPTED, TERMINATED = 2, 70, 130, 143
NO_MEMORY = (
    "expected enough memory for pictures and model; got too little; close other programs, give a smaller --image-size "
    "or smaller pictures, or, on a full GPU, --device cpu"
)


class Commands(TyperGroup):
    """All commands, with every error on its way out reported in one line."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)  # in the order of use, not of the alphabet

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BlemishError as error:
            raise reported(ctx, str(error), WRONG_USAGE, error) from error
        except KeyboardInterrupt as error:
            raise reported(ctx, "interrupted; nothing half-written is left", INTERRUPTED, error) from error
        except BrokenPipeError as error:  # the reader left, as `head` does: there is nobody to write to
            discard(sys.stdout)
            raise typer.Exit(0) from error
        except OSError as error:
            if error.filename is None and error.errno not in _OF_THE_SYSTEM:
                raise unforeseen(ctx, error) from error
            raise reported(ctx, file_error_in_words(error), WRONG_USAGE, error) from error
        except Exception as error:
            if is_typers_own(error):
                raise
            if is_out_of_memory(error):
                raise reported(ctx, NO_MEMORY, WRONG_USAGE, error) from error
            raise unforeseen(ctx, error) from error


def unforeseen(ctx: Any, error: Exception) -> typer.Exit:
    """Report a fault of blemish itself."""
    message = f"blemish failed in a way it did not foresee ({type(error).__name__}: {error})"
    return reported(ctx, f"{message}; please report what `blemish --debug …` shows", FAULT, error)


def file_error_in_words(error: OSError) -> str:
    """What the system says of a file, as the three facts: a file mode or a full disk is no fault of blemish."""
    do = "mend its permissions, or run as a user who has them"
    if not isinstance(error, PermissionError):
        do = "check the path and the disk"
    place = "" if error.filename is None else f" at '{shown(error.filename)}'"
    return f"expected a file or folder that can be used{place}; got {error.strerror}; {do}"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of the machine or of a GPU: torch says so by a RuntimeError."""
    said = ("out of memory", "can't allocate memory")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in said)
    )


def is_typers_own(error: BaseException) -> bool:
    """Whether the command line machinery raised this to steer itself (Exit, Abort, usage errors)."""
    return type(error).__module__.split(".")[0] in {"typer", "click"}


def reported(ctx: Any, message: str, code: int, error: BaseException) -> typer.Exit:
    """Print the message on stderr (with the traceback when debugging) and give the exit that ends the program."""
    from rich.console import Console

    console = Console(stderr=True)
    if ctx.obj or os.environ.get("BLEMISH_DEBUG"):
        import traceback

        console.print("".join(traceback.format_exception(error)), markup=False, highlight=False)
    console.print("[bold red]error:[/bold red] ", end="")
    console.print(message, markup=False, highlight=False, soft_wrap=True)
    return typer.Exit(code)


app = typer.Typer(cls=Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"blemish {version('blemish')}")
        raise typer.Exit


@app.callback()
def options(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show where an error came from; so does BLEMISH_DEBUG=1.")
    ] = False,
) -> None:
    """Show it a few pictures of good parts; it finds the defects in the next million."""
    ctx.obj = debug


COMMANDS: dict[str, Callable[..., None]] = {
    "fit": fit,
    "inspect": inspect,
    "batch": batch,
    "evaluate": evaluate,
    "experiment": experiment,
    "calibrate": calibrate,
    "serve": serve,
    "diagnose": diagnose,
    "export": export,
    "pretrain": pretrain,
    "fit-prompts": fit_prompts,
    "generate": generate,
    "list": listing,
    "doctor": doctor,
    "demo": demo,
}
for name, command in COMMANDS.items():
    app.command(name)(command)


def main() -> None:
    """The entry point: a polite kill ends like Ctrl-C does, so that temporary files are cleared away."""
    replace_unencodable()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    # Torch's threads spin long while they wait, which slows all programs where cores are few; a thirtieth is enough
    # (benchmarks/waiting_threads.py).
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    app()
