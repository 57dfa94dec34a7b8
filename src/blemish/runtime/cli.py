"""`blemish-run`: inspect pictures with a bundle, into the same results as `blemish inspect`.

Exit codes: 0 all done; 1 a picture is not good (only with --fail-on-defect); 2 wrong usage or bundle; 3 some pictures
could not be read (this goes before 1); 70 a fault of blemish-run itself; 130 interrupted; 143 terminated.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from blemish.errors import BlemishError, DataWarning
from blemish.utils.streams import discard, replace_unencodable

NOT_GOOD, WRONG_USAGE, UNREADABLE, FAULT, INTERRUPTED, TERMINATED = 1, 2, 3, 70, 130, 143

NO_MEMORY = (
    "expected enough memory for pictures and bundle; got too little; close other programs, or give smaller pictures"
)


def program() -> int:
    """The entry point: a polite kill, as of systemd or docker stop, ends like Ctrl-C does."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    return main()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    replace_unencodable()
    options = parser().parse_args(arguments)
    quiet_numpy()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", DataWarning)
            warnings.showwarning = show_warning
            return run(options)
    except BlemishError as error:
        say(f"error: {error}", sys.stderr)
        return WRONG_USAGE
    except (KeyboardInterrupt, SystemExit) as error:  # Ctrl-C, or a polite kill
        say("error: interrupted; the same command goes on where it stopped", sys.stderr)
        return TERMINATED if isinstance(error, SystemExit) else INTERRUPTED
    except MemoryError:
        say(f"error: {NO_MEMORY}", sys.stderr)
        return WRONG_USAGE
    except Exception as error:  # Python's own exit code would be that of a picture that is not good
        if os.environ.get("BLEMISH_DEBUG"):
            traceback.print_exc()
        what = f"blemish-run failed in a way it did not foresee ({type(error).__name__}: {error})"
        say(f"error: {what}; please report what it shows with BLEMISH_DEBUG=1 set", sys.stderr)
        return FAULT


def say(line: str, stream: TextIO) -> None:
    """Print a line at once; a reader that left, as `head` does, is no reason to stop, nor to exit otherwise."""
    try:
        print(line, file=stream, flush=True)
    except BrokenPipeError:
        discard(stream)


def quiet_numpy() -> None:
    """Let numpy, which is not imported yet, multiply in one thread: others would spin beside those of the engine.

    A number that is set already stays.
    """
    if "numpy" not in sys.modules:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Print what a warning says, not where in the program it arose."""
    say(f"warning: {message}", sys.stderr)


def parser() -> argparse.ArgumentParser:
    """What can be asked for."""
    found = argparse.ArgumentParser("blemish-run", description="Inspect pictures with an exported bundle.")
    found.add_argument("bundle", metavar="BUNDLE", type=Path, help="the folder that `blemish export` wrote")
    found.add_argument("paths", metavar="PATH", nargs="+", help="pictures and folders of pictures")
    found.add_argument("-o", "--output", metavar="OUT", type=Path, required=True, help="the folder of the results")
    found.add_argument("--threads", metavar="N", type=int, default=0, help="of the engine; all cores unless given")
    found.add_argument("--maps", action="store_true", help="write each anomaly map as .npy, too")
    found.add_argument("--no-overlays", action="store_true", help="write rows alone")
    found.add_argument("--append", action="store_true", help="keep results of other pictures in OUT")
    found.add_argument("--restart", action="store_true", help="remove results of an earlier run in OUT")
    found.add_argument("--fail-on-defect", action="store_true", help="exit with 1 unless every picture is good")
    return found


def run(options: argparse.Namespace) -> int:
    """Inspect what the `options` name; returns the exit code."""
    from blemish.cli.interrupts import deferred_interrupts
    from blemish.cli.result_folder import (
        Origin,
        Wanted,
        begin_results,
        check_choice,
        remove_report,
        result_folder,
        samples_left,
        write_summary,
    )
    from blemish.cli.results import ResultWriter
    from blemish.data.folder import find_inspection
    from blemish.runtime.runtime import Runtime
    from blemish.types import Failure
    from blemish.utils.atomic import output_errors
    from blemish.utils.paths import shown

    runtime = Runtime(options.bundle, options.threads)
    samples = find_inspection(options.paths).samples
    check_choice(options.restart, options.append)
    wanted = Wanted(overlays=not options.no_overlays, maps=options.maps, restart=options.restart, append=options.append)
    origin = Origin(model=runtime.bundle.sha256, category=runtime.bundle.category)
    verdicts: Counter[str] = Counter()
    with output_errors(options.output):
        options.output.mkdir(parents=True, exist_ok=True)
    with result_folder(options.output, writes_page=False) as out:
        kept = begin_results(out, origin, samples, wanted, lambda row, _: verdicts.update([row["verdict"]]))
        remove_report(out)
        write_summary(out, origin.to_dict())
        left = samples_left(samples, kept.identities)
        with ResultWriter(out, wanted.overlays, wanted.maps, iter(kept.names)) as results:
            stream = runtime.inspect_stream(sample for sample, _ in left)
            for found, (_, identity) in zip(stream, left, strict=True):
                with deferred_interrupts():  # the row of a picture is written whole
                    if isinstance(found, Failure):
                        results.write_failure(found.file, found.error)
                        verdicts["unreadable"] += 1
                        say(f"{found.file}: {found.error}", sys.stderr)
                    else:
                        prediction, image = found
                        results.write(prediction, image, identity)
                        verdicts[prediction.verdict] += 1
    counts = ", ".join(f"{count} {name}" for name, count in sorted(verdicts.items()))
    say(counts or "nothing to inspect", sys.stdout)
    say(f"Results in {shown(options.output)}", sys.stdout)
    if verdicts["unreadable"]:
        return UNREADABLE
    return NOT_GOOD if options.fail_on_defect and verdicts.total() > verdicts["good"] else 0


if __name__ == "__main__":
    sys.exit(program())
