"""Products and the good pictures that they learn from."""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from blemish.data.full_scale import learn_full_scale
from blemish.data.images import load_image
from blemish.errors import ImageError, MissingPackageError, SettingsError
from blemish.model.inspector import Inspector
from blemish.scoring.calibration import check_rates
from blemish.serve.choices import CHOSEN, check_choices
from blemish.serve.core import Core, new_id, record_change
from blemish.serve.errors import ConflictError, UnknownError
from blemish.serve.pictures import sha256_of
from blemish.serve.records import GoodPicture, Product, ProductSettings
from blemish.types import Sample

NAME_LENGTH = 100


@dataclass(frozen=True)
class AddedPictures:
    """What became of good pictures that were given: new ones, known ones, and the refused ones' names and reasons."""

    added: tuple[GoodPicture, ...]
    repeated: int
    refused: tuple[tuple[str, str], ...]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "added": [one.to_dict() for one in self.added],
            "repeated": self.repeated,
            "refused": [{"name": name, "error": error} for name, error in self.refused],
        }


class Catalog:
    """What products there are, how each learns, and from what."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def products(self) -> list[Product]:
        """All products by name."""
        return [Product.of(row) for row in self._core.store.rows("SELECT * FROM products ORDER BY name")]

    def create(self, name: str, who: str, settings: ProductSettings | None = None) -> Product:
        """A new product. Raises SettingsError for a name or settings that cannot be, ConflictError for a taken one."""
        name = checked_name(name)
        settings = checked_settings(settings or ProductSettings())
        check_choices(settings)
        default = asdict(ProductSettings())
        chosen = {name: value for name, value in asdict(settings).items() if value != default[name]}
        identity = new_id()
        try:
            with self._core.store.transaction() as connection:
                connection.execute(
                    "INSERT INTO products (id, name, created_at, settings, secret) VALUES (?, ?, ?, ?, ?)",
                    (identity, name, time.time(), json.dumps(asdict(settings)), secrets.token_bytes(32)),
                )
                record_change(connection, who, "created the product", identity, {"name": name, **chosen})
        except sqlite3.IntegrityError as error:
            raise ConflictError("the name of a new product", f"{name!r}, which there is", "choose another") from error
        product = self._core.product(identity)
        self._core.events.publish("product", product.to_dict())
        return product

    def change(self, product: Product, who: str, **changes: Any) -> Product:
        """Change settings by name; they hold from the next learning on, the audit share at once."""
        unknown = set(changes) - set(ProductSettings.__dataclass_fields__)
        if unknown:
            known = ", ".join(ProductSettings.__dataclass_fields__)
            raise SettingsError(f"settings of a product: {known}", ", ".join(sorted(unknown)), "leave others out")
        settings = checked_settings(replace(product.settings, **changes))
        if moved(product.settings, changes).keys() & CHOSEN:
            check_choices(settings)
        with self._core.store.transaction() as connection:
            row = connection.execute("SELECT * FROM products WHERE id = ?", (product.id,)).fetchone()
            now = Product.of(row).settings  # what others have changed meanwhile stays
            settings = checked_settings(replace(now, **changes))
            connection.execute(
                "UPDATE products SET settings = ? WHERE id = ?", (json.dumps(asdict(settings)), product.id)
            )
            record_change(connection, who, "changed settings", product.id, moved(now, changes))
        return self._core.product(product.id)

    def secret(self, product: Product) -> bytes:
        """What the random sample of a product's parts is drawn with; never shown."""
        row = self._core.store.row("SELECT secret FROM products WHERE id = ?", (product.id,))
        return b"" if row is None else bytes(row["secret"])

    def good(self, product: Product) -> list[GoodPicture]:
        """The good pictures of a product in the order they came."""
        rows = self._core.store.rows(
            "SELECT * FROM good_pictures WHERE product = ? ORDER BY added_at, sha256", (product.id,)
        )
        return [GoodPicture(**dict(row)) for row in rows]

    def is_good(self, product: Product, sha256: str) -> bool:
        """Whether a product learns from the picture of a hash."""
        query = "SELECT 1 FROM good_pictures WHERE product = ? AND sha256 = ?"
        return self._core.store.row(query, (product.id, sha256)) is not None

    def add_good(self, product: Product, pictures: Sequence[tuple[str, bytes]], who: str) -> AddedPictures:
        """Take good pictures (name, file content). One that cannot be read is refused, the others are taken."""
        known = {one.sha256 for one in self.good(product)}
        added: list[tuple[GoodPicture, bytes]] = []
        refused: list[tuple[str, str]] = []
        repeated = 0
        for name, content in pictures:
            try:
                if sha256_of(content) in known:
                    repeated += 1
                    continue
                self._check(content, shown_name(name))
            except (ImageError, MissingPackageError) as error:
                refused.append((shown_name(name), str(error)))
                continue
            sha256 = self._core.pictures.add(content)
            known.add(sha256)
            added.append((GoodPicture(product.id, sha256, shown_name(name), time.time(), who), content))
        with self._core.store.transaction() as connection:
            for one, content in added:
                self._core.pictures.ensure(one.sha256, content)
            connection.executemany(
                "INSERT OR IGNORE INTO good_pictures VALUES (?, ?, ?, ?, ?)",
                [(one.product, one.sha256, one.name, one.added_at, one.added_by) for one, _ in added],
            )
            if added:
                record_change(connection, who, "added good pictures", product.id, {"added": len(added)})
        self._core.events.publish("good", {"product": product.id, "added": len(added)})
        return AddedPictures(tuple(one for one, _ in added), repeated, tuple(refused))

    def _check(self, content: bytes, name: str) -> None:
        """Raise ImageError or MissingPackageError for what learning could not read.

        Of more than 8 bits the full scale is not known yet; learning chooses one that no good picture exceeds.
        """
        levels = self._core.decoders.levels(content, name)
        load_image(levels, full_scale=learn_full_scale([Sample(levels)]))

    def remove_good(self, product: Product, sha256: str, who: str) -> None:
        """Learn no more from a picture. Raises UnknownError where it is none of the product's."""
        with self._core.store.transaction() as connection:
            gone = connection.execute(
                "DELETE FROM good_pictures WHERE product = ? AND sha256 = ?", (product.id, sha256)
            ).rowcount
            if not gone:
                raise UnknownError(f"a good picture of {product.name!r}", repr(sha256[:80]), "take its sha256")
            record_change(connection, who, "removed a good picture", product.id, {"sha256": sha256})
        self._core.delete_unused(sha256)


def moved(settings: ProductSettings, changes: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The settings that changes make others, each from what to what."""
    before = asdict(settings)
    return {name: [before[name], value] for name, value in changes.items() if before[name] != value}


def checked_name(name: str) -> str:
    """A product's or user's name without spaces around it. Raises SettingsError."""
    name = name.strip()
    if not name or len(name) > NAME_LENGTH or not name.isprintable() or "/" in name:
        raise SettingsError(
            f"a name of 1 to {NAME_LENGTH} letters without slashes", repr(name[:NAME_LENGTH]), "choose another"
        )
    return name


def shown_name(name: str) -> str:
    """The last part of a file's name as somebody sent it, safe to show: it is never used as a path."""
    last = name.replace("\\", "/").rpartition("/")[2]
    return "".join(letter for letter in last if letter.isprintable())[:NAME_LENGTH]


def checked_settings(settings: ProductSettings) -> ProductSettings:
    """The settings, once they can be. Raises SettingsError."""
    try:
        check_rates(settings.false_alarm_rate, settings.unsure_rate)
        is_share = 0 <= settings.audit_share <= 1
        inspector_of(settings)
    except TypeError as error:
        raise SettingsError(
            "settings of the right kinds", str(error), "see GET /api/choices and /api/openapi.json"
        ) from error
    if not is_share:
        raise SettingsError("an audit share from 0 to 1", repr(settings.audit_share), "set it to 0.02, say")
    return settings


def inspector_of(settings: ProductSettings) -> Inspector:
    """An inspector that learns as a product's settings say. Raises SettingsError for what cannot be."""
    return Inspector(
        encoder=settings.encoder,
        detector=settings.detector,
        image_size=settings.image_size,
        false_alarm_rate=settings.false_alarm_rate,
        unsure_rate=settings.unsure_rate,
        device=settings.device,
        seed=settings.seed,
        **settings.detector_settings,
    )
