"""Pictures are decoded by processes: as in this one, bit for bit; and what befalls them befalls nothing else."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile
from made_up_parts import made_up_part
from PIL import Image
from serve_parts import HEIC, good_png, heic_package, served, taught

from blemish.cli.serve import serve
from blemish.data.images import load_image, load_levels
from blemish.errors import BlemishError, ImageError
from blemish.serve import decoders as decoders_module
from blemish.serve.core import ServiceSettings
from blemish.serve.decoders import Decoders
from blemish.serve.errors import DecoderError, NoDecoderError
from blemish.serve.inputs import Inputs
from blemish.serve.parts import PartQuery
from blemish.serve.sources.watched_folder import WatchSettings

MEMORY = 2**30
# A decoder as a stranger's file would have it: blemish imports this package for files that begin as HEIC does.
DECODER = """
import os, sys, time
from pathlib import Path
from PIL import Image

def register_heif_opener():
    Image.register_open("HEIF", None, accept)

def accept(head):
    Path(__file__).with_name("pid").write_text(str(os.getpid()))
    match head[12:]:
        case b"slow": time.sleep(600)
        case b"dies": os.abort()
        case b"eats": bytearray(2**31)
        case b"says": print("hello", flush=True); os.write(1, b"hello")
    return False
"""


def heic(what: str) -> bytes:
    """A file of which `DECODER` does something."""
    return HEIC + what.encode()


@pytest.fixture
def decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where `DECODER` writes the number of its process; it is installed as the package that reads HEIC."""
    return heic_package(tmp_path, DECODER, monkeypatch) / "pid"


@pytest.fixture
def decoders() -> Iterator[Decoders]:
    """Two processes that decode."""
    found = Decoders(2, 60.0, MEMORY)
    yield found
    found.close()


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    """A picture as a file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def turned(image: Image.Image, orientation: int) -> bytes:
    """A JPEG that EXIF says is turned."""
    exif = Image.Exif()
    exif[274] = orientation
    return saved(image, "JPEG", exif=exif)


def array_file(levels: np.ndarray) -> bytes:
    """An array as a file."""
    file = io.BytesIO()
    np.save(file, levels)
    return file.getvalue()


def tiff(levels: np.ndarray) -> bytes:
    """A TIFF of any levels."""
    file = io.BytesIO()
    tifffile.imwrite(file, levels)
    return file.getvalue()


def files() -> dict[str, bytes]:
    """Files of every kind of pixel, and broken ones."""
    part = made_up_part(seed=1, size=(90, 120))
    rgb, grey = Image.fromarray(part), Image.fromarray(part).convert("L")
    deep = part.astype(np.uint16) * 200 + 3
    rgba = rgb.copy()
    rgba.putalpha(grey)
    clear = rgb.copy()
    clear.putalpha(0)
    jpeg = saved(rgb, "JPEG", quality=90)
    return {
        "rgb.png": saved(rgb, "PNG"),
        "grey.png": saved(grey, "PNG"),
        "two levels.png": saved(grey.convert("1"), "PNG"),
        "palette.png": saved(rgb.quantize(16), "PNG", transparency=3),
        "alpha.png": saved(rgba, "PNG"),
        "transparent.png": saved(clear, "PNG"),
        "rgb.jpg": jpeg,
        "cmyk.jpg": saved(rgb.convert("CMYK"), "JPEG"),
        **{f"turned {number}.jpg": turned(rgb, number) for number in (3, 6, 8)},
        "rgb.webp": saved(rgb, "WEBP", lossless=True),
        "deep grey.png": saved(Image.fromarray(deep[..., 0]), "PNG"),
        "deep rgb.tif": tiff(deep),
        "floats.tif": tiff(part[..., 0].astype(np.float32) * 3),
        "floats.npy": array_file(part.astype(np.float64) / 255),
        "big-endian.npy": array_file(deep.astype(">u2")),
        "bool.npy": array_file(part[..., 0] > 100),
        "negative.npy": array_file(part.astype(np.int32) - 200),
        "complex.npy": array_file(part.astype(np.complex64)),
        "seven channels.npy": array_file(np.zeros((5, 5, 7))),
        "no pixels.npy": array_file(np.zeros((0, 5))),
        "large.npy": array_file(np.zeros((1000, 101), np.uint8)),
        "objects.npy": array_file(np.array([[None]])),
        "cut.jpg": jpeg[: len(jpeg) // 2],
        "cut.png": saved(rgb, "PNG")[:200],
        "text.png": b"no picture at all",
        "empty.png": b"",
    }


def outcome(decode: Callable[[bytes], np.ndarray], content: bytes) -> tuple[Any, ...]:
    """All that becomes of a file: its levels and its image of 8 bits, or the error."""
    try:
        levels = decode(content)
        image = load_image(levels)
    except BlemishError as error:
        return type(error), error.expected, error.got, error.do
    return levels.dtype, levels.shape, levels.flags.writeable, levels.tobytes(), image.tobytes()


@pytest.mark.filterwarnings("ignore::blemish.errors.DataWarning")
def test_results_and_errors_are_those_of_this_process(decoders: Decoders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLEMISH_MAX_PIXELS", "100000")
    refused = set()
    for name, content in files().items():
        found = outcome(decoders.levels, content)
        assert found == outcome(load_levels, content), name
        refused |= {name} if isinstance(found[0], type) else set()
    assert refused == {
        *("transparent.png", "negative.npy", "floats.tif", "complex.npy", "seven channels.npy", "no pixels.npy"),
        *("large.npy", "objects.npy", "cut.jpg", "cut.png", "text.png", "empty.png"),
    }


def test_many_threads_share_a_few_processes(decoders: Decoders) -> None:
    contents = [good_png(seed) for seed in range(24)]
    with ThreadPoolExecutor(8) as pool:
        for content, levels in zip(contents, pool.map(decoders.levels, contents), strict=True):
            np.testing.assert_array_equal(levels, load_levels(content))
    assert 1 <= len(decoders._idle) <= 2


def test_they_import_what_decoding_needs_alone() -> None:
    program = "import sys, blemish.serve.decoding_process, blemish.data.images; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "PIL" in loaded
    assert not {"torch", "scipy", "fastapi", "sqlite3", "typer"} & set(loaded)


@pytest.mark.parametrize(
    ("what", "expected", "got"),
    [
        ("slow", "a picture in 'a.heic' that is decoded within 1 s", "one that takes longer"),
        ("dies", "a picture in 'a.heic' that can be decoded", f"killed by signal {int(signal.SIGABRT)}"),
        ("eats", "a picture in 'a.heic' that is decoded in 1024 MB of memory", "one that needs more"),
        ("says", "a picture in 'bytes'", "bytes of no known picture format"),
    ],
)
def test_a_decoder_that_hangs_dies_eats_or_chatters_costs_its_picture_alone(
    decoder: Path, what: str, expected: str, got: str
) -> None:
    found = Decoders(1, 1.0, MEMORY)
    try:
        with pytest.raises(ImageError) as caught:
            found.levels(heic(what), "a.heic")
        assert caught.value.expected == expected
        assert got in caught.value.got
        np.testing.assert_array_equal(found.levels(good_png(1)), load_levels(good_png(1)))
    finally:
        found.close()


def test_a_process_that_is_killed_is_replaced(decoder: Path) -> None:
    found = Decoders(1, 60.0, MEMORY)
    try:
        with ThreadPoolExecutor(2) as pool:
            hung = pool.submit(found.levels, heic("slow"), "a.heic")
            killed = pid_of(decoder)
            waiting = pool.submit(found.levels, good_png(1))  # its turn comes afterwards
            os.kill(killed, signal.SIGKILL)
            with pytest.raises(DecoderError, match=r"'a\.heic'.* the process that decoded it \(killed by signal 9\)"):
                hung.result(30)
            np.testing.assert_array_equal(waiting.result(30), load_levels(good_png(1)))
        (idle,) = found._idle
        for number in (signal.SIGINT, signal.SIGTERM):  # who stops the service has them sent to all its processes
            os.kill(idle._process.pid, number)
        np.testing.assert_array_equal(found.levels(good_png(1)), load_levels(good_png(1)))
        assert found._idle == [idle]
        idle._process.kill()  # one that waits is missed by nobody
        idle._process.wait()
        np.testing.assert_array_equal(found.levels(good_png(2)), load_levels(good_png(2)))
    finally:
        found.close()


def test_an_answer_that_is_none_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {
        "dtype": '{"dtype": "O", "shape": [1, 1]}',
        "size": '{"dtype": "|u1", "shape": [100000, 100000]}',
        "kind": '{"error": "SystemExit", "facts": ["a", "b", "c"]}',
        "facts": '{"error": "ImageError", "facts": []}',
        "text": "hello",
    }
    for what, head in answers.items():
        program = (
            "import struct, sys; o = sys.stdout.buffer; o.write(b'\\1'); o.flush(); sys.stdin.buffer.read(17); "
            f"h = {head.encode()!r}; o.write(struct.pack('<I', len(h)) + h); o.flush(); sys.stdin.read()"
        )
        monkeypatch.setattr(decoders_module, "_PROGRAM", program)
        found = Decoders(1, 60.0, MEMORY)
        with pytest.raises(DecoderError, match="it sent what is no answer"):
            found.levels(b"x")
        assert found._idle == [], what
        found.close()


def test_an_answer_that_was_not_read_to_its_end_is_no_other_pictures(
    decoders: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(decoders_module, "np", SimpleNamespace(dtype=np.dtype, empty=no_memory))
        with pytest.raises(MemoryError):
            decoders.levels(good_png(1))
    np.testing.assert_array_equal(decoders.levels(good_png(2)), load_levels(good_png(2)))


def no_memory(*_: Any) -> np.ndarray:
    """Stands for `np.empty` where memory is full."""
    raise MemoryError


def test_one_that_cannot_be_started_is_the_services_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoders_module, "_PROGRAM", "raise SystemExit(3)")
    found = Decoders(1, 60.0, MEMORY)
    with pytest.raises(NoDecoderError, match="exit code 3"):
        found.levels(good_png(1))
    found.close()


@pytest.mark.parametrize("is_busy", [False, True])
def test_they_end_with_a_service_that_is_killed(decoder: Path, is_busy: bool) -> None:
    program = (
        f"import sys, time; sys.path.insert(0, {str(decoder.parent.parent)!r})\n"
        "from blemish.serve.decoders import Decoders; decoders = Decoders(1, 3.0, 2**30)\n"
        f"try: decoders.levels({heic('slow' if is_busy else 'says')!r})\n"
        "except Exception: time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program]) as service:
        pid = pid_of(decoder)
        service.kill()
    until = time.monotonic() + 30
    while is_running(pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not is_running(pid)


def test_a_service_goes_on(toy: str, tmp_path: Path, decoder: Path) -> None:
    """Every way in: inspected, tried, handed in as good, dropped into a folder; nothing is stored of any."""
    with served(tmp_path / "data", ServiceSettings(decode_limit=1.0)) as (service, client):
        product = taught(service)
        for what in ("slow", "dies"):
            for path in ("/api/inspect?part_id=1&name=a.heic", "/api/inspect/try?name=a.heic"):
                reply = client.post(path, content=heic(what))
                assert reply.status_code == 422
                assert "'a.heic'" in reply.json()["error"]["expected"]
        part = client.post("/api/inspect?part_id=1", content=good_png(50))
        assert (part.status_code, part.json()["verdict"]) == (200, "good")

        sent = [("files", (f"{name}.heic", content)) for name, content in (("x", heic("dies")), ("y", good_png(60)))]
        reply = client.post("/api/products/disc/good", files=sent).json()
        assert [one["name"] for one in reply["added"]] == ["y.heic"]
        assert "'x.heic'" in reply["refused"][0]["error"]

        folder = tmp_path / "line"
        folder.mkdir()
        (folder / "b.heic").write_bytes(heic("dies"))
        (folder / "c.png").write_bytes(good_png(51))
        inputs = Inputs(service)
        inputs.watch("disc", folder, WatchSettings(poll_s=0.05, settle_s=0.0))
        until = time.monotonic() + 30
        while any(path.is_file() for path in folder.iterdir()) and time.monotonic() < until:
            time.sleep(0.05)
        inputs.close()
        assert "'b.heic'" in (folder / "failed" / "b.heic.txt").read_text()
        assert (folder / "done" / "c.png").is_file()
        assert {one.name for one in service.parts.find(PartQuery(product=product.id))} == {"", "c.png"}
        pids = [one._process.pid for pool in (service.line._decoders, service.core.decoders) for one in pool._idle]
        assert pids
    assert not any(map(is_running, pids))


def test_the_command_line_sets_the_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uvicorn = pytest.importorskip("uvicorn")
    found: list[tuple[int, float, int]] = []
    monkeypatch.setattr("blemish.serve.core.Decoders", lambda *given: found.append(given) or Decoders(*given))
    monkeypatch.setattr(uvicorn.Server, "run", lambda *_, **__: None)
    serve(data=tmp_path / "data", port=0, workers=3, decode_limit=5.0, decode_memory=300)
    assert sorted(found) == [(1, 5.0, 300 * 2**20), (3, 5.0, 300 * 2**20)]


def test_views_are_drawn_from_what_a_process_decoded(toy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No reader of files is asked in the service's own process, whatever is looked at."""
    with served(tmp_path / "data") as (service, client):
        product = taught(service)
        own: list[int] = []
        monkeypatch.setattr("blemish.data.images.decode", lambda *_: own.append(threading.get_ident()))
        monkeypatch.setattr("blemish.data.full_scale.decode", lambda *_: own.append(threading.get_ident()))
        content = files()["deep grey.png"]
        service.catalog.add_good(product, [("deep.png", content)], "test")
        part = client.post("/api/inspect", content=content).json()
        links = [*part["links"].values()]
        links += [
            link for one in client.get("/api/products/disc/good").json()["good"] for link in one["links"].values()
        ]
        assert len(links) > 4
        for link in links:
            assert client.get(link).status_code == 200
    assert own == []


def pid_of(file: Path) -> int:
    """The number that `DECODER` writes."""
    until = time.monotonic() + 30
    while not (file.is_file() and file.read_text()) and time.monotonic() < until:
        time.sleep(0.02)
    return int(file.read_text())


def is_running(pid: int) -> bool:
    """Whether there is such a process that has not ended; one that nobody has waited for yet has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
