"""Parts from folders and cameras, old pictures that go, and manifests of Lookout for Vision."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import closing, suppress
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from made_up_parts import made_up_part
from serve_parts import bad_png, good_png, served, taught
from typer.testing import CliRunner

from blemish.cli.main import app
from blemish.cli.serve import imported_in_words, pair_of, prepare_users, serve
from blemish.errors import DatasetError, SettingsError
from blemish.serve.core import ServiceSettings
from blemish.serve.errors import ConflictError
from blemish.serve.housekeeping import Housekeeping
from blemish.serve.inputs import Inputs
from blemish.serve.lookout_manifest import read_manifest
from blemish.serve.parts import PartQuery
from blemish.serve.retention import DAY, Limits
from blemish.serve.service import Service
from blemish.serve.sources import camera as camera_module
from blemish.serve.sources.watched_folder import WatchSettings


def wait_for(service: Service, count: int) -> None:
    until = time.monotonic() + 15
    while service.parts.count(PartQuery()) < count and time.monotonic() < until:
        time.sleep(0.05)


def test_a_folder_is_inspected_each_picture_once(toy: str, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name, content in (("a1.png", good_png(1)), ("a2.png", bad_png(2)), ("a3.png", b"broken")):
        (folder / name).write_bytes(content)
        os.utime(folder / name, (time.time() - 60, time.time() - 60))
    with Service.open(tmp_path / "data") as service:
        taught(service)
        inputs = Inputs(service)
        inputs.watch("disc", folder, WatchSettings(poll_s=0.05, settle_s=0.05))
        wait_for(service, 3)
        time.sleep(0.3)
        inputs.close()
        parts = {part.part_id: part for part in service.parts.find(PartQuery())}
        assert {name: part.verdict for name, part in parts.items()} == {"a1": "good", "a2": "defective", "a3": None}
        assert {part.source for part in parts.values()} == {"folder"}
        assert inputs.all()[0]["state"] == "watching"
    assert sorted(path.name for path in (folder / "done").iterdir()) == ["a1.png", "a2.png"]


def test_broken_pictures_of_the_same_content_all_fail(toy: str, tmp_path: Path) -> None:
    """Cameras and copies that break off leave empty files, which are all alike."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes(b"")
        os.utime(folder / name, (time.time() - 60, time.time() - 60))
    with Service.open(tmp_path / "data") as service:
        taught(service)
        inputs = Inputs(service)
        inputs.watch("disc", folder, WatchSettings(poll_s=0.05, settle_s=0.05))
        until = time.monotonic() + 15
        while any(folder.glob("*.png")) and time.monotonic() < until:
            time.sleep(0.05)
        inputs.close()
        assert sorted(part.part_id for part in service.parts.find(PartQuery(verdict="error"))) == ["a", "b"]
    names = ["a.png", "a.png.txt", "b.png", "b.png.txt"]
    assert sorted(path.name for path in (folder / "failed").iterdir()) == names
    assert not (folder / "done").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="names that are no UTF-8 ask for a file system that has them")
def test_names_that_are_no_text_are_shown(toy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in (b"x\xff_7.png", b"y\xff_8.png"):
        path = os.fsencode(folder) + b"/" + name
        Path(os.fsdecode(path)).write_bytes(good_png(5) if name.startswith(b"x") else b"broken")
        os.utime(path, (time.time() - 60, time.time() - 60))
    with served(tmp_path / "data") as (service, client):
        taught(service)
        inputs: Inputs = client.app.state.inputs  # type: ignore[attr-defined]
        with monkeypatch.context() as patch:
            patch.setattr(service.line, "inspect", lambda *_: {}["busy"])
            inputs.watch("disc", folder, WatchSettings(poll_s=0.05, settle_s=0.05, part_id=r"_(\d+)"))
            until = time.monotonic() + 15
            while "KeyError" not in inputs.all()[0]["state"] and time.monotonic() < until:
                time.sleep(0.05)
            found = client.get("/api/sources")
            assert (found.status_code, "KeyError" in found.text) == (200, True)
        wait_for(service, 2)
        until = time.monotonic() + 15
        while any(folder.glob("*.png")) and time.monotonic() < until:
            time.sleep(0.05)
    assert [os.fsencode(path.name) for path in (folder / "done").iterdir()] == [b"x\xff_7.png"]
    assert len(list((folder / "failed").iterdir())) == 2


def test_a_folder_waits_for_a_busy_service_and_refuses_a_name_that_is_too_long(toy: str, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    long = "x" * 201
    with Service.open(tmp_path / "data", ServiceSettings(time_limit=0.2, workers=1)) as service:
        taught(service)
        inputs = Inputs(service)
        with service.core.store.transaction():  # nothing can be committed meanwhile
            service.line.submit("disc", good_png(5))
            for name, content in (("a.png", good_png(1)), (f"{long}.png", good_png(2))):
                (folder / name).write_bytes(content)
                os.utime(folder / name, (time.time() - 60, time.time() - 60))
            inputs.watch("disc", folder, WatchSettings(poll_s=0.05, settle_s=0.05))
            until = time.monotonic() + 15
            while "BusyError" not in inputs.all()[0]["state"] and time.monotonic() < until:
                time.sleep(0.05)
            assert "a.png: BusyError" in inputs.all()[0]["state"]
            assert (folder / "a.png").is_file()
        until = time.monotonic() + 15
        while any(folder.glob("*.png")) and time.monotonic() < until:
            time.sleep(0.05)
        inputs.close()
        assert [part.part_id for part in service.parts.find(PartQuery())] == ["a", ""]
    assert [path.name for path in (folder / "done").iterdir()] == ["a.png"]
    assert sorted(path.name for path in (folder / "failed").iterdir()) == [f"{long}.png", f"{long}.png.txt"]


def test_the_command_line_says_how_folders_are_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uvicorn = pytest.importorskip("uvicorn")
    found: list[tuple[str, Path, WatchSettings | None]] = []
    monkeypatch.setattr(Inputs, "watch", lambda _, *given: found.append(given))
    monkeypatch.setattr(uvicorn.Server, "run", lambda *_, **__: None)
    serve(
        data=tmp_path / "data",
        port=0,
        watch=[f"disc={tmp_path}"],
        watch_part_id=r"_(\d+)_",
        watch_keep=True,
        max_upload=3,
    )
    expected = WatchSettings(part_id=r"_(\d+)_", move=False, max_bytes=3 * 2**20)
    assert found == [("disc", tmp_path, expected)]
    with pytest.raises(SettingsError, match="--watch-part-id"):
        serve(data=tmp_path / "data", port=0, watch_part_id="(")


def test_a_start_finishes_what_an_interrupted_deletion_left(
    toy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without limits as well: else no page would ever show these parts again."""
    uvicorn = pytest.importorskip("uvicorn")
    with Service.open(tmp_path) as service:
        taught(service)
        part = service.line.inspect("disc", good_png(60), "p")
        Housekeeping(service, Limits())._mark([part.id])  # as if killed right afterwards
    monkeypatch.setattr(uvicorn.Server, "run", lambda *_, **__: None)
    serve(data=tmp_path, port=0)
    with Service.open(tmp_path) as service:
        assert [one.has_picture for one in service.parts.find(PartQuery())] == [False]
        assert not service.core.pictures.path(part.sha256).exists()
        assert service.retention is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_stops_the_service_gets_exit_code_0(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "blemish", "serve", "--data", str(tmp_path / "data"), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        address = running.stdout.readline().split()[2]
        httpx.get(f"{address}/ping", timeout=60)  # it listens before it can be stopped
        running.send_signal(number)
        assert running.wait(60) == 0
        assert running.stderr is not None
        assert running.stderr.read() == ""
    assert not (tmp_path / "data" / ".lock").exists()  # it was closed


def test_a_camera_is_triggered(toy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Capture:
        def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
            return True

        def grab(self) -> bool:
            return True

        def retrieve(self) -> tuple[bool, np.ndarray]:
            return True, made_up_part(seed=5, defective=True)[..., ::-1]

        def release(self) -> None:
            pass

    with served(tmp_path) as (service, client):
        taught(service)
        inputs: Inputs = client.app.state.inputs  # type: ignore[attr-defined]
        assert client.post("/api/sources/trigger?product=disc").status_code == 409
        monkeypatch.setattr(camera_module, "open_with_opencv", lambda _: Capture())
        inputs.camera("disc", "0")
        part = client.post("/api/sources/trigger?product=disc&part_id=9").json()
        assert (part["verdict"], part["part_id"], part["source"]) == ("defective", "9", "camera")
        assert client.get("/api/sources").json()["sources"][0]["kind"] == "camera"
        inputs.close()
        with pytest.raises(ConflictError):
            Inputs(service).trigger("disc")


def test_old_pictures_go_results_stay(toy: str, tmp_path: Path) -> None:
    """Good parts first; what was decided, waits for a decision or was learned from stays with its picture."""
    with Service.open(tmp_path) as service:
        product = service.catalog.change(taught(service), "test", audit_share=0.0)
        good = [service.line.inspect("disc", good_png(60 + i), f"g{i}") for i in range(4)]
        learned = service.line.inspect("disc", good_png(1), "learned")
        alarm = service.line.inspect("disc", bad_png(70), "waits")
        assert Housekeeping(service, Limits(days=1)).tidy() == 0
        assert Housekeeping(service, Limits(count=3)).tidy() == 3
        kept = {part.part_id for part in service.parts.find(PartQuery()) if part.has_picture}
        assert kept == {good[3].part_id, "learned", "waits"}
        assert service.parts.count(PartQuery()) == 6
        gone = service.parts.get(good[0].id)
        assert (gone.score, gone.to_dict()["links"]) == (good[0].score, {})
        assert not service.core.pictures.path(gone.sha256).exists()
        assert Housekeeping(service, Limits(count=0)).tidy() == 1
        assert service.parts.get(alarm.id).has_picture
        assert service.core.pictures.path(learned.sha256).is_file()
        assert len(service.catalog.good(product)) == 12


def test_an_interrupted_deletion_is_finished(toy: str, tmp_path: Path) -> None:
    with Service.open(tmp_path) as service:
        taught(service)
        part = service.line.inspect("disc", good_png(60), "p")
        Housekeeping(service, Limits())._mark([part.id])  # as if killed right afterwards
        assert service.parts.count(PartQuery()) == 0
        assert Housekeeping(service, Limits()).tidy() == 1
        assert service.parts.find(PartQuery())[0].has_picture is False


def test_pictures_that_limits_rest_on_stay_and_a_limit_that_cannot_be_kept_is_said(toy: str, tmp_path: Path) -> None:
    """Heat counts, too; the estimate of false alarms is the same with fewer pictures."""
    with served(tmp_path) as (service, client):
        product = service.catalog.change(taught(service), "test", audit_share=0.5)
        assert client.get("/api/status").json()["retention"] is None
        assert "blemish_retention" not in client.get("/metrics").text
        parts = [service.line.inspect("disc", good_png(100 + i)) for i in range(12)]
        parts += [service.line.inspect("disc", bad_png(200 + i)) for i in range(6)]
        drawn = [part for part in parts if part.is_audited]
        assert 2 < len(drawn) < len(parts)
        for part in parts:
            if part.id != drawn[-2].id:
                service.parts.review(part.id, "good", "test")
        before = service.feedback.state(product)
        assert before["counted"] == len(drawn) - 2
        sizes = {part.id: service.core.pictures.size(part.sha256, part.id) for part in parts}
        assert all(sizes[part.id] > service.core.pictures.path(part.sha256).stat().st_size for part in parts)
        housekeeping = Housekeeping(service, Limits(days=0, bytes=1000))
        time.sleep(0.01)
        assert housekeeping.tidy() == len(parts) - len(drawn)
        kept = {part.id for part in service.parts.find(PartQuery()) if part.has_picture}
        assert kept == {part.id for part in drawn}
        after = service.feedback.state(product)
        assert {**after, "false_alarms": 0} == {**before, "false_alarms": 0}
        found = client.get("/api/status").json()["retention"]
        size = sum(sizes[part.id] for part in drawn)
        assert found["limits"] == {"days": 0, "count": None, "bytes": 1000}
        assert (found["bytes"], found["too_large"], found["too_old"]) == (size, size - 1000, len(drawn))
        assert (found["too_many"], found["is_kept"], found["error"]) == (0, False, "")
        lines = client.get("/metrics").text.splitlines()
        assert f"blemish_retention_too_old_parts {len(drawn)}" in lines
        assert any(one.startswith("blemish_retention_bytes ") for one in lines)
        page = client.get("/settings").text
        assert f"{len(drawn)} pictures too old" in page
        assert "GB too much" in page


def test_a_clock_that_jumps_ahead_deletes_nothing_for_a_day(
    toy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither while it runs nor where it was wrong at the start; limits of another kind are kept all the same."""
    clock = SimpleNamespace(now=time.time(), ran=0.0, time=lambda: clock.now, monotonic=lambda: clock.ran)

    def pass_time(seconds: float, jump: float = 0.0) -> None:
        clock.now, clock.ran = clock.now + seconds + jump, clock.ran + seconds

    with Service.open(tmp_path) as service:
        service.catalog.change(taught(service), "test", audit_share=0.0)
        for i in range(3):
            service.line.inspect("disc", good_png(100 + i))
        monkeypatch.setattr("blemish.serve.housekeeping.time", clock)
        running = Housekeeping(service, Limits(days=30))
        assert running.tidy() == 0
        pass_time(600, jump=365 * DAY)
        for housekeeping in (running, Housekeeping(service, Limits(days=30))):
            assert housekeeping.tidy() == 0
            assert service.retention is not None
            assert "the clock is far ahead" in service.retention.error
        assert Housekeeping(service, Limits(days=30, count=2)).tidy() == 1
        pass_time(600, jump=-365 * DAY)
        assert running.tidy() == 0
        pass_time(29 * DAY)
        assert running.tidy() == 0
        assert service.retention.error == ""
        pass_time(2 * DAY)
        assert running.tidy() == 2


def test_tidying_that_fails_is_said(toy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(tmp_path) as (service, client):
        service.catalog.change(taught(service), "test", audit_share=0.0)
        service.line.inspect("disc", good_png(100))

        def delete_map(part: str) -> None:
            raise PermissionError(part)

        monkeypatch.setattr(service.core.pictures, "delete_map", delete_map)
        assert Housekeeping(service, Limits(count=0)).tidy() == 0
        assert "1 pictures could not be deleted" in client.get("/settings").text
        assert "blemish_retention_failed 1" in client.get("/metrics").text.splitlines()
        monkeypatch.setattr(service.feedback, "reviewed", delete_map)
        with closing(Housekeeping(service, Limits(count=0))) as housekeeping:
            housekeeping.start()
            for _ in range(500):
                if service.retention and service.retention.error:
                    break
                time.sleep(0.01)
        assert not client.get("/api/status").json()["retention"]["is_kept"]


@pytest.mark.parametrize("is_good", [False, True])
def test_a_picture_that_is_deleted_before_it_is_named_again_is_written_again(
    toy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_good: bool
) -> None:
    with Service.open(tmp_path) as service:
        product = service.catalog.change(taught(service), "test", audit_share=0.0)
        old = service.line.inspect("disc", good_png(60))
        pictures, housekeeping = service.core.pictures, Housekeeping(service, Limits(count=0))
        add = pictures.add

        def added(content: bytes) -> str:
            sha256 = add(content)
            assert housekeeping.tidy() == 1
            assert not pictures.path(sha256).exists()
            return sha256

        monkeypatch.setattr(pictures, "add", added)
        if is_good:
            service.catalog.add_good(product, [("g.png", good_png(60))], "test")
        else:
            service.line.inspect("disc", good_png(60))
        assert pictures.read(old.sha256) == good_png(60)


def test_nothing_is_stored_between_the_look_for_other_owners_and_the_deletion(
    toy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Service.open(tmp_path) as service, ThreadPoolExecutor(1) as pool:
        service.catalog.change(taught(service), "test", audit_share=0.0)
        service.line.inspect("disc", good_png(60))
        pictures = service.core.pictures
        delete, again = pictures.delete, []

        def deleted(sha256: str) -> None:
            again.append(pool.submit(service.line.inspect, "disc", good_png(60)))
            with suppress(FutureTimeoutError):
                again[0].result(0.5)
            delete(sha256)

        monkeypatch.setattr(pictures, "delete", deleted)
        assert Housekeeping(service, Limits(count=0)).tidy() == 1
        assert pictures.read(again[0].result(30).sha256) == good_png(60)


def manifest_line(source: str, name: str) -> str:
    facts = {"class-name": name, "confidence": 1, "human-annotated": "yes", "type": "groundtruth/image-classification"}
    row = {"source-ref": source, "anomaly-label": int(name == "anomaly"), "anomaly-label-metadata": facts}
    return json.dumps(row)


def test_a_lookout_manifest_is_imported(tmp_path: Path) -> None:
    folder = tmp_path / "bucket"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "1.png").write_bytes(good_png(1))
    (folder / "2.png").write_bytes(good_png(2))
    (folder / "3.png").write_bytes(bad_png(3))
    (tmp_path / "secret.png").write_bytes(good_png(9))
    lines = [
        manifest_line("s3://bucket/a/1.png", "normal"),
        manifest_line("s3://bucket/deep/2.png", "normal"),
        manifest_line("s3://bucket/3.png", "anomaly"),
        manifest_line("s3://bucket/gone.png", "normal"),
        manifest_line("s3://bucket/../secret.png", "normal"),
        manifest_line(f"s3://bucket/{'x' * 300}.png", "normal"),
        manifest_line("s3://bucket/\0.png", "normal"),
        "",
    ]
    file = folder / "train.manifest"
    file.write_text("\n".join(lines))
    found = read_manifest(file)
    assert [path.name for path in found.good] == ["1.png", "2.png"]
    assert [path.name for path in found.anomalous] == ["3.png"]
    assert len(found.missing) == 4
    with Service.open(tmp_path / "data") as service:
        assert imported_in_words(service, "cups", file).startswith("cups: 2 good pictures added of 2; 1 anomalous")
        assert len(service.catalog.good(service.core.product("cups"))) == 2
    file.write_text('{"source-ref": "s3://b/x.png"}')
    with pytest.raises(DatasetError):
        read_manifest(file)


def test_who_may_use_a_service_that_others_can_reach(tmp_path: Path) -> None:
    with Service.open(tmp_path / "data") as service:
        with pytest.raises(SettingsError):
            prepare_users(service, True, None, False)
        assert prepare_users(service, False, None, False) == ""
        assert not service.users.are_any
        short = tmp_path / "token"
        short.write_text("short")
        with pytest.raises(SettingsError):
            prepare_users(service, True, short, False)
        token = prepare_users(service, True, None, True)
        assert service.users.by_token(token, "here") == service.users.all()[0]
        assert prepare_users(service, True, None, True) == ""  # once


@pytest.mark.parametrize("text", ["", "disc", "=folder", "disc="])
def test_pairs_on_the_command_line(text: str) -> None:
    assert pair_of("--watch", "disc=a=b", "FOLDER") == ("disc", "a=b")
    with pytest.raises(SettingsError, match="expected --watch PRODUCT=FOLDER"):
        pair_of("--watch", text, "FOLDER")


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--import-lookout", "disc", "PRODUCT=MANIFEST"),
        ("--watch", "disc", "PRODUCT=FOLDER"),
        ("--camera", "0", "PRODUCT=ADDRESS"),
        ("--camera-interval", "0", "0.0"),
        ("--keep-days", "-1", "equal to 0"),
        ("--keep-gb", "-1", "equal to 0"),
        ("--host", f"{'x' * 70}.example", "--host or --port"),
    ],
)
def test_a_wrong_option_is_named(tmp_path: Path, option: str, value: str, said: str) -> None:
    found = CliRunner().invoke(app, ["serve", "--data", str(tmp_path / "data"), "--port", "0", option, value])
    assert found.exit_code == 2
    assert option in found.stderr
    assert said in found.stderr
    assert not (tmp_path / "data").exists()
