"""What a product can learn by is what is installed; other choices are refused when made, not when it learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from serve_parts import TOY, good_png, served

from blemish.errors import SettingsError
from blemish.model.inspector import Inspector
from blemish.serve.choices import LARGEST, SMALLEST, check_choices, choices, detectors, encoders
from blemish.serve.records import ProductSettings


def test_what_is_offered_can_be_chosen() -> None:
    """Each method with the encoder left open, each encoder with the method left open."""
    for one in detectors():
        check_choices(ProductSettings(detector=one.name))
    for one in encoders():
        check_choices(ProductSettings(encoder=one.name))
        Inspector(encoder=one.name)
    names = {one.name for one in detectors()}
    assert {"hybrid", "patchcore", "padim", "foundad", "dinomaly"} <= names
    assert not names & {"btf", "cfm", "text-guided", "winclip", "anomalyclip", "promptad"}
    assert "pixels" in {one.name for one in encoders()}
    assert choices()["defaults"]["detector"] == "auto"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"detector": "patchcor"}, "known detector"),
        ({"detector": "cfm"}, "from pictures alone"),
        ({"detector": "winclip"}, "sentences"),
        ({"encoder": "nothing"}, "known encoder"),
        ({"encoder": "/etc"}, "known encoder"),
        ({"encoder": "points-fpfh"}, "encoder of pictures"),
        ({"encoder": "dinov3-vitl16"}, "on this machine"),
        ({"detector": "hybrid", "encoder": "pixels"}, "2 encoders joined"),
        ({"image_size": SMALLEST - 1}, "picture size"),
        ({"image_size": LARGEST + 1}, "picture size"),
    ],
)
def test_what_cannot_be_is_refused_in_three_facts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], words: str
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(SettingsError, match=words):
        check_choices(replace(ProductSettings(), **changes))
    with served(tmp_path / "data") as (service, client):
        refused = client.post("/api/products", json={"name": "disc", **changes})
        assert refused.status_code == 400
        assert refused.json()["error"].keys() == {"expected", "got", "do"}
        assert service.catalog.products() == []


def test_settings_are_chosen_when_a_product_is_made_and_changed_for_its_next_version(toy: str, tmp_path: Path) -> None:
    with served(tmp_path) as (service, client):
        chosen = {"detector": "toy", "encoder": "pixels", "image_size": 64, "false_alarm_rate": 0.1}
        assert {"toy"} <= {one["name"] for one in client.get("/api/choices").json()["detectors"]}
        made = client.post("/api/products", json={"name": "disc", **chosen})
        assert made.status_code == 201
        product = service.core.product("disc")
        assert product.settings == replace(TOY, false_alarm_rate=0.1)
        assert service.core.journal(product.id)[0].change == {"name": "disc", **chosen}
        service.catalog.add_good(product, [(f"{seed}.png", good_png(seed)) for seed in range(6)], "test")
        first = service.learning.wait(service.learning.start(product, "test").id)
        changed = client.patch("/api/products/disc", json={"encoder": "patches", "detector": None, "image_size": 96})
        assert changed.json()["settings"]["detector"] == "toy"
        second = service.learning.wait(service.learning.start(service.core.product("disc"), "test").id)
        versions = {one.id: one.details for one in service.models.versions(product.id)}
        assert [versions[job.version]["encoder"] for job in (first, second)] == ["pixels", "patches"]
        assert [versions[job.version]["image_size"] for job in (first, second)] == [64, 96]
        refused = client.patch("/api/products/disc", json={"encoder": "points-fpfh"})
        assert refused.status_code == 400
        assert "encoder patches, 96 pixels" in client.get(f"/products/{product.id}").text
        settings = client.get("/settings").text
        assert '<option value="patches"' in settings
        for page in ("/", "/settings"):
            assert 'name="detector"' in client.get(page).text


def test_operators_are_shown_no_choices(tmp_path: Path) -> None:
    with served(tmp_path) as (service, client):
        service.users.add("boss", "engineer", "test")
        token = service.users.add("anna", "operator", "test")
        client.post("/api/session", json={"token": token}, headers={"X-Blemish": "1"})
        home = client.get("/")
        assert home.status_code == 200
        assert 'name="detector"' not in home.text


def test_a_product_whose_encoder_has_gone_can_still_be_changed_otherwise(toy: str, tmp_path: Path) -> None:
    with served(tmp_path) as (service, client):
        product = service.catalog.create("disc", "test", TOY)
        with service.core.store.transaction() as connection:
            connection.execute("UPDATE products SET settings = replace(settings, 'pixels', 'dinov3-vitl16')")
        assert client.patch("/api/products/disc", json={"audit_share": 0.5}).status_code == 200
        assert service.core.product(product.id).settings.encoder == "dinov3-vitl16"
        assert 'value="dinov3-vitl16" selected' in client.get("/settings").text
