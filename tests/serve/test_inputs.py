"""Parts from folders and cameras, old pictures that go, and manifests of Lookout for Vision."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from made_up_parts import made_up_part
from serve_parts import bad_png, good_png, served, taught

from blemish.cli.serve import imported_in_words, pair_of, prepare_users
from blemish.errors import DatasetError, SettingsError
from blemish.serve.errors import ConflictError
from blemish.serve.housekeeping import Housekeeping
from blemish.serve.inputs import Inputs
from blemish.serve.lookout_manifest import read_manifest
from blemish.serve.parts import PartQuery
from blemish.serve.retention import Limits
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
        "",
    ]
    file = folder / "train.manifest"
    file.write_text("\n".join(lines))
    found = read_manifest(file)
    assert [path.name for path in found.good] == ["1.png", "2.png"]
    assert [path.name for path in found.anomalous] == ["3.png"]
    assert len(found.missing) == 2
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
    assert pair_of("disc=a=b") == ("disc", "a=b")
    with pytest.raises(SettingsError):
        pair_of(text)
