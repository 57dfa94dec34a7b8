"""The REST API, from an empty folder to a verdict, a review and moved limits."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from made_up_parts import made_up_part
from PIL import Image
from serve_parts import HEIC, TOY, bad_png, good_png, heic_package, served, taught

from blemish.serve.api import parts
from blemish.serve.core import ServiceSettings
from blemish.serve.parts import PartQuery
from blemish.serve.records import PartRecord
from blemish.serve.service import Service
from blemish.serve.statistics import sample

Served = tuple[Service, TestClient]


@pytest.fixture
def line(toy: str, tmp_path: Path) -> Iterator[Served]:
    """A service whose product "disc" has learned, and a client."""
    with served(tmp_path / "data", ServiceSettings(max_upload=200_000), compat=["lookout"]) as (service, client):
        taught(service)
        yield service, client


def test_from_an_empty_folder_to_a_verdict(toy: str, tmp_path: Path) -> None:
    with served(tmp_path / "new") as (service, client):
        body = {"name": "disc", "detector": toy, "encoder": "pixels", "image_size": 64}
        assert client.post("/api/products", json=body).status_code == 201
        refused = client.post("/api/inspect", content=good_png(0))
        assert refused.status_code == 409
        assert refused.json()["error"].keys() == {"expected", "got", "do"}
        files = [("files", (f"{seed}.png", good_png(seed), "image/png")) for seed in range(8)]
        added = client.post("/api/products/disc/good", files=[*files, files[0], ("files", ("x.png", b"no picture"))])
        assert (len(added.json()["added"]), added.json()["repeated"]) == (8, 1)
        assert [one["name"] for one in added.json()["refused"]] == ["x.png"]
        job = client.post("/api/products/disc/learn").json()
        assert service.learning.wait(job["id"]).state == "done"
        assert client.get(f"/api/jobs/{job['id']}").json()["state"] == "done"
        good = client.post("/api/inspect?part_id=7", content=good_png(90)).json()
        bad = client.post("/api/inspect", files={"files": ("bad.png", bad_png(91))}).json()
        assert (good["verdict"], bad["verdict"]) == ("good", "defective")
        assert (good["part_id"], bad["name"]) == ("7", "bad.png")
        assert client.get("/api/parts?order=score").json()["parts"][0]["id"] == bad["id"]


def test_several_files_of_one_request_have_a_result_each(line: Served) -> None:
    files = [("files", ("a.png", good_png(50))), ("files", ("b.png", b"broken")), ("files", ("c.png", bad_png(51)))]
    found = line[1].post("/api/inspect", files=files, data={"part_id": ["1", "2", "3"]}).json()["parts"]
    assert [one["part_id"] for one in found] == ["1", "2", "3"]
    assert [one["verdict"] for one in found] == ["good", None, "defective"]
    assert found[1]["error"].keys() == {"expected", "got", "do"}


def test_a_picture_that_is_only_tried_is_no_part_of_the_line(line: Served) -> None:
    service, client = line
    product = service.core.product("disc")
    service.webhooks.add("http://127.0.0.1:9/none", [], "", "test")
    before = sorted(path.name for path in service.core.folder.rglob("*") if path.parent.parent.name != "models")
    found = client.post("/api/inspect/try?product=disc&name=a/b.png", content=bad_png(3)).json()
    assert (found["name"], found["verdict"]) == ("b.png", "defective")
    kind, _, content = found["overlay"].partition(",")
    assert kind == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(content))).size == (80, 64)
    assert client.get("/api/parts").json()["total"] == 0
    assert "blemish_inspection_seconds_count 0" in client.get("/metrics").text
    assert service.watch.state(product)["parts"] == 0
    assert [one["waiting"] for one in service.webhooks.waiting()] == [0]
    assert sorted(path.name for path in service.core.folder.rglob("*") if path.parent.parent.name != "models") == before
    stored = client.post("/api/inspect?product=disc", content=bad_png(3)).json()
    assert {name: found[name] for name in ("score", "p_value", "threshold", "unsure_threshold")} == {
        name: stored[name] for name in ("score", "p_value", "threshold", "unsure_threshold")
    }
    assert client.post("/api/inspect/try", content=b"no picture").status_code == 422
    assert client.post("/api/inspect/try", content=b"\x89PNG" + bytes(300_000)).status_code == 413
    assert client.post("/api/inspect/try?product=none", content=bad_png(3)).status_code == 404


@pytest.mark.parametrize("view", ["image", "overlay", "heat", "thumbnail"])
def test_a_part_is_shown(line: Served, view: str) -> None:
    part = line[1].post("/api/inspect", content=bad_png(3)).json()
    found = line[1].get(part["links"][view])
    assert found.status_code == 200
    assert Image.open(io.BytesIO(found.content)).size == (80, 64)
    assert found.headers["content-type"] in ("image/png", "image/jpeg")
    if view == "image":
        assert found.content == bad_png(3)


def test_reviews_and_undo(line: Served) -> None:
    client = line[1]
    part = client.post("/api/inspect", content=bad_png(3)).json()
    assert part["is_for_review"]
    decided = client.post("/api/reviews", json={"part": part["id"], "decision": "defective", "defect": "scratch"})
    assert decided.json()["review"]["defect"] == "scratch"
    assert client.get("/api/parts?state=open").json()["total"] == 0
    assert client.get("/api/defects?product=disc").json()["defects"] == {"scratch": 1}
    client.post("/api/reviews", json={"part": part["id"], "decision": "good"})
    assert client.get(f"/api/parts/{part['id']}").json()["review"]["decision"] == "good"
    assert client.delete("/api/reviews/last").json()["review"]["decision"] == "defective"
    assert client.delete("/api/reviews/last").json()["review"] is None
    assert client.delete("/api/reviews/last").status_code == 409
    assert len(client.get(f"/api/parts/{part['id']}").json()["history"]) == 4
    assert client.post("/api/reviews", json={"part": part["id"], "decision": "maybe"}).status_code == 422


def test_limits_are_previewed_and_moved(line: Served) -> None:
    client = line[1]
    parts = [client.post("/api/inspect", content=good_png(60 + i)).json() for i in range(6)]
    before = client.get("/api/thresholds?product=disc").json()
    assert sum(before["counts"]["good"]) == before["totals"]["good"] == 12
    assert before["totals"]["unlabelled"] == 6
    middle = sorted(part["score"] for part in parts)[3]
    move = {"product": "disc", "threshold": middle, "unsure_threshold": middle}
    preview = client.post("/api/thresholds/preview", json=move).json()
    expected = {part["id"] for part in parts if part["verdict"] == "good" and part["score"] > middle}
    assert {flip["part"] for flip in preview["flips"] if flip["before"] == "good"} == expected
    assert client.get("/api/thresholds?product=disc").json()["threshold"] == before["threshold"]
    moved = client.put("/api/thresholds", json=move | {"version": preview["version"]})
    assert moved.json()["threshold"] == middle
    assert client.put("/api/thresholds", json=move | {"version": preview["version"]}).status_code == 409
    above = next(part for part in parts if part["score"] > middle)
    again = client.post("/api/inspect?part_id=again", content=good_png(60 + parts.index(above))).json()
    assert (again["verdict"], again["score"]) == ("defective", above["score"])
    entry = client.get("/api/audit?product=disc").json()["audit"][0]
    assert (entry["what"], entry["change"]["from"][0], entry["change"]["to"][0]) == (
        "moved the limits",
        before["threshold"],
        middle,
    )
    first = client.get("/api/products/disc/versions").json()["versions"][-1]
    client.post("/api/products/disc/activate", json={"version": first["id"]})
    assert client.get("/api/thresholds?product=disc").json()["threshold"] == before["threshold"]
    by_rate = client.put("/api/thresholds", json={"product": "disc", "false_alarm_rate": 0.2, "unsure_rate": 0.1})
    assert by_rate.json()["threshold"] < before["threshold"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/products/none", 404),
        ("POST", "/api/inspect?product=none", 404),
        ("GET", "/api/parts/none", 404),
        ("GET", "/api/parts/../../etc/passwd", 404),
        ("GET", "/api/products/disc/good/..%2f..%2fline.sqlite", 404),
        ("GET", "/api/parts?verdict=perhaps", 400),
        ("GET", "/api/parts?order=colour", 422),
        ("GET", "/nothing", 404),
    ],
)
def test_what_does_not_exist_is_refused_in_three_facts(line: Served, method: str, path: str, status: int) -> None:
    found = line[1].request(method, path, content=good_png(0) if method == "POST" else None)
    assert found.status_code == status
    assert found.json()["error"].keys() == {"expected", "got", "do"}


def test_a_body_that_is_no_json_is_named_as_a_whole(line: Served) -> None:
    found = line[1].post("/api/products", content=b'{"name":', headers={"Content-Type": "application/json"})
    assert found.status_code == 422
    assert found.json()["error"]["expected"].endswith("with a valid body")


def test_broken_and_oversize_pictures_are_refused(line: Served) -> None:
    client = line[1]
    broken = client.post("/api/inspect?part_id=b", content=good_png(0)[:200])
    assert broken.status_code == 422
    assert broken.json()["verdict"] is None
    assert client.get("/api/parts?verdict=error").json()["total"] == 1
    big = client.post("/api/inspect", content=b"\x89PNG" + bytes(300_000))
    assert big.status_code == 413
    in_form = client.post("/api/inspect", files={"files": ("big.png", bytes(300_000))})
    assert in_form.status_code == 413

    def chunks() -> Iterator[bytes]:
        for _ in range(300):
            yield bytes(1000)

    assert client.post("/api/inspect", content=chunks()).status_code == 413  # no length is declared
    assert client.post("/api/reviews", content=b" " * 2_000_000).status_code == 413
    header = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\xff\xff\0\0\xff\xff\x08\x02\0\0\0"  # 4 billion pixels
    assert client.post("/api/inspect", content=header + bytes(100)).status_code == 422


def test_headers_are_on_every_answer(line: Served) -> None:
    for path in ("/api/status", "/nothing", "/v2/health/live"):
        headers = line[1].get(path).headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


def test_open_inference_protocol(line: Served) -> None:
    client = line[1]
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get("/v2/models/disc").json()["versions"] == ["1"]
    assert client.get("/v2/models/disc/versions/1/ready").json()["ready"]
    pixels = np.asarray(Image.open(io.BytesIO(bad_png(4))))
    tensor = {"name": "image", "datatype": "UINT8", "shape": [1, *pixels.shape]}
    found = client.post(
        "/v2/models/disc/infer", json={"id": "x", "inputs": [tensor | {"data": pixels.ravel().tolist()}]}
    )
    assert found.json()["id"] == "x"
    outputs = {one["name"]: one["data"] for one in found.json()["outputs"]}
    encoded = base64.b64encode(bad_png(4)).decode()
    files = {"name": "image", "datatype": "BYTES", "shape": [2], "data": [encoded, encoded]}
    request = {"inputs": [files], "outputs": [{"name": "score"}]}
    again = client.post("/v2/models/disc/versions/1/infer", json=request).json()["outputs"]
    assert [one["name"] for one in again] == ["score"]
    assert again[0]["data"] == [outputs["score"][0]] * 2
    assert outputs["verdict"] == ["defective"]
    for wrong in (tensor | {"data": [1.5] * pixels.size}, tensor | {"data": [1]}, files | {"data": ["?"]}):
        refused = client.post("/v2/models/disc/infer", json={"inputs": [wrong]})
        assert refused.status_code == 400
        assert isinstance(refused.json()["error"], str)
    assert client.post("/v2/models/disc/versions/9/infer", json=request).status_code == 400
    assert isinstance(client.get("/v2/models/none").json()["error"], str)
    for body, place in ((b"{", "body"), (b'{"inputs": [{"name": "image"}]}', "body.inputs.0.shape"), (b"", "body")):
        refused = client.post("/v2/models/disc/infer", content=body)
        assert refused.status_code == 422
        assert f"a valid {place};" in refused.json()["error"]
    described = client.get("/api/openapi.json").json()["paths"]["/v2/models/{model}/infer"]["post"]
    assert described["requestBody"]["content"]["application/json"]["schema"]["required"] == ["inputs"]


def test_invocations(line: Served) -> None:
    client = line[1]
    assert client.get("/ping").status_code == 200
    direct = client.post("/invocations", content=bad_png(4), headers={"content-type": "image/png"}).json()
    encoded = base64.b64encode(bad_png(4)).decode()
    for body in (
        {"instances": [{"b64": encoded}]},
        {"inputs": [encoded]},
        {"dataframe_records": [{"image": encoded}]},
        {"dataframe_split": {"columns": ["image"], "data": [[encoded]]}},
    ):
        (found,) = client.post("/invocations", json=body).json()["predictions"]
        assert (found["verdict"], found["score"]) == ("defective", direct["score"])
    assert client.post("/invocations", json={"rows": []}).status_code == 400


def test_lookout(line: Served) -> None:
    path = "/2020-11-20/projects/disc/models/1/detect"
    bad = line[1].post(path, content=bad_png(4), headers={"content-type": "image/png"}).json()["DetectAnomalyResult"]
    good = line[1].post(path, content=good_png(70)).json()["DetectAnomalyResult"]
    assert (bad["IsAnomalous"], good["IsAnomalous"]) == (True, False)
    assert bad["Source"] == {"Type": "direct"}
    assert 0.5 <= bad["Confidence"] <= 1
    assert 0.5 <= good["Confidence"] <= 1
    assert [one["Name"] for one in bad["Anomalies"]] == ["background", "anomaly"]
    assert [one["Name"] for one in good["Anomalies"]] == ["background"]
    mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(bad["AnomalyMask"]))))
    inside = (mask == (0x23, 0xA4, 0x36)).all(axis=2)
    assert inside.mean() == pytest.approx(bad["Anomalies"][1]["PixelAnomaly"]["TotalPercentageArea"])
    assert inside[30, 36]  # where the dark square is


def test_metrics_are_in_the_text_format(line: Served) -> None:
    for seed in range(3):
        line[1].post("/api/inspect", content=good_png(seed + 40))
    lines = line[1].get("/metrics").text.splitlines()
    assert sum(float(one.rsplit(" ")[-1]) for one in lines if one.startswith("blemish_parts_total{")) == 3
    assert sample("blemish_parts_total", {"product": "disc"}, 12_345_678) == (
        'blemish_parts_total{product="disc"} 12345678'
    )
    assert float(sample("blemish_inspection_seconds_sum", {}, 1_234_567.875).split()[1]) == 1_234_567.875
    assert "blemish_inspection_seconds_count 3" in lines
    assert 'blemish_inspection_seconds_bucket{le="+Inf"} 3' in lines
    assert any(one.startswith('blemish_p_value_median{product="disc"} ') for one in lines)


def test_a_table_of_a_running_line_repeats_and_skips_nothing(line: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    service, client = line
    ids = [service.line.inspect("disc", good_png(40 + i)).id for i in range(5)]
    find = service.parts.find

    def found(query: PartQuery) -> list[PartRecord]:
        page = find(query)
        service.line.inspect("disc", good_png(80))
        return page

    monkeypatch.setattr(parts, "MOST", 2)
    monkeypatch.setattr(service.parts, "find", found)
    rows = client.get("/api/parts.csv?product=disc").text.splitlines()[1:]
    assert [row.partition(",")[0] for row in rows] == ids[::-1]


def test_heat_that_a_loss_of_power_left_empty_is_gone(line: Served) -> None:
    service, client = line
    part = service.line.inspect("disc", good_png(40))
    service.core.pictures._map_path(part.id).write_bytes(b"")
    assert client.get(f"/api/parts/{part.id}/heat").status_code == 404


def test_a_good_picture_of_a_format_that_needs_a_package_does_not_hold_up_others(
    toy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heic_package(tmp_path, "raise ImportError('not there')", monkeypatch)
    with served(tmp_path / "data") as (service, client):
        service.catalog.create("disc", "test", TOY)
        files = [("files", ("a.heic", HEIC)), ("files", ("b.png", good_png(90)))]
        found = client.post("/api/products/disc/good", files=files).json()
    assert [one["name"] for one in found["added"]] == ["b.png"]
    assert "pip install" in found["refused"][0]["error"]


def test_good_pictures_of_floats_are_taken_with_the_scale_that_learning_gives_them(toy: str, tmp_path: Path) -> None:
    """As `blemish fit` takes them: levels of 12 bits that some program has stored as floats."""
    with served(tmp_path) as (service, client):
        product = service.catalog.create("disc", "test", TOY)
        for seed in range(12):
            levels = made_up_part(seed=seed).mean(axis=2).astype(np.float32) * 16
            file = io.BytesIO()
            Image.fromarray(levels).save(file, "TIFF")
            found = client.post("/api/products/disc/good", files={"files": (f"{seed}.tif", file.getvalue())}).json()
            assert (len(found["added"]), found["refused"]) == (1, [])
        job = service.learning.wait(service.learning.start(product, "test").id)
        assert job.state == "done", job.error
        assert client.post("/api/inspect", content=file.getvalue()).json()["verdict"] == "good"
        file = io.BytesIO()
        Image.fromarray(np.full((40, 50), np.nan, np.float32)).save(file, "TIFF")
        found = client.post("/api/products/disc/good", files={"files": ("nan.tif", file.getvalue())}).json()
        assert "NaN" in found["refused"][0]["error"]


def test_parts_as_a_table(line: Served) -> None:
    line[1].post("/api/inspect?part_id==1%2B1", content=good_png(40))
    rows = line[1].get("/api/parts.csv?product=disc").text.splitlines()
    assert len(rows) == 2
    assert "'=1+1" in rows[1]  # no formula for a spreadsheet
