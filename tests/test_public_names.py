"""The names a user imports: all there, and cheap until used."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import blemish

IMPORT = """
import json, sys, time
start = time.process_time()
import blemish
seconds = time.process_time() - start
print(json.dumps({"seconds": seconds, "torch": "torch" in sys.modules, "scipy": "scipy" in sys.modules}))
"""


def fresh(code: str) -> dict[str, object]:
    """What `code` prints as JSON, run in a new interpreter."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return json.loads(done.stdout)


def test_import_is_quick_and_loads_no_torch() -> None:
    runs = [fresh(IMPORT) for _ in range(3)]
    assert not any(run["torch"] or run["scipy"] for run in runs)
    # Processor time of the quickest run: a busy machine must not fail this.
    assert min(float(str(run["seconds"])) for run in runs) < 0.2


def test_light_types_load_no_torch() -> None:
    facts = fresh("import json, sys, blemish; blemish.Prediction; print(json.dumps({'torch': 'torch' in sys.modules}))")
    assert facts == {"torch": False}


@pytest.mark.parametrize("name", blemish.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(blemish, name) is not None
    assert name in dir(blemish)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Inspektor'"):
        blemish.Inspektor  # noqa: B018


def test_the_version_is_that_of_the_package() -> None:
    from importlib.metadata import version

    assert blemish.__version__ == version("blemish")
