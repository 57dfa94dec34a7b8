from __future__ import annotations

import csv
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from blemish.errors import OutputError, SettingsError
from blemish.research.experiments.row_store import RowStore, key_text

KEY, MEASURES = ("category", "shots", "seed", "data"), ("auroc", "seconds")
# Adds cells without end, and says so after each.
ADDING = """
import sys
from pathlib import Path
from blemish.research.experiments.row_store import RowStore
store = RowStore(Path(sys.argv[1]), "an-experiment", ("seed",), ("auroc",), {}).open()
for seed in range(10**6):
    store.add({"seed": seed}, [{"auroc": i / 100} for i in range(50)])
    print(seed, flush=True)
"""
# Is killed when the tables are made and nothing is in them yet.
KILLED = """
import os, signal, sqlite3, sys
from pathlib import Path
from blemish.research.experiments import row_store

class Killing(sqlite3.Connection):
    def executemany(self, *arguments):
        os.kill(os.getpid(), signal.SIGKILL)

connect = sqlite3.connect
row_store.sqlite3.connect = lambda path: connect(path, factory=Killing)
store = row_store.RowStore(Path(sys.argv[1]), "an-experiment", ("seed",), ("auroc",), {}).open()
store.add({"seed": 0}, [{"auroc": 0.5}])
"""


def opened(folder: Path, name: str = "an-experiment", **settings: Any) -> RowStore:
    return RowStore(folder, name, KEY, MEASURES, settings).open()


def key(seed: int = 0, data: str = "d", **more: Any) -> dict[str, Any]:
    return {"category": "001", "shots": "all", "seed": seed, "data": data, **more}


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_rows_come_back_as_they_were_added(tmp_path: Path) -> None:
    first = opened(tmp_path / "new" / "folder")
    first.add(key(), [{"auroc": 0.1234567, "seconds": 3}, {"auroc": float("nan"), "category": "a,b\n"}])
    again = opened(tmp_path / "new" / "folder")
    assert repr(again.rows) == repr(first.rows)
    one, two = again.rows
    assert (one["category"], one["shots"], one["seed"], one["auroc"], one["seconds"]) == ("001", "all", 0, 0.1234567, 3)
    assert two["auroc"] != two["auroc"]
    assert two["category"] == "a,b\n"
    assert again.keys() == {key_text(key())}


def test_the_published_table_holds_the_same(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.add(key(1), [{"auroc": 0.1234567, "seconds": 3, "category": "a,b\n"}, {"auroc": float("nan")}])
    one, two = table(tmp_path)
    assert (one["category"], one["seed"], one["auroc"], one["seconds"], one["of"]) == (
        "a,b\n",
        "1",
        "0.123457",
        "3",
        "2",
    )
    assert (two["category"], two["auroc"], two["seconds"]) == ("001", "", "")
    assert one["cell"] == two["cell"]
    store.add(key(0), [{"auroc": 1}])
    assert [row["seed"] for row in table(tmp_path)] == ["1", "1", "0"]
    (tmp_path / "results.csv").unlink()
    opened(tmp_path)
    assert len(table(tmp_path)) == 3


def test_a_cell_measured_again_replaces_its_rows(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.add(key(), [{"auroc": 0.1}, {"auroc": 0.2}])
    store.add(key(), [{"auroc": 0.3}])
    assert [row["auroc"] for row in opened(tmp_path).rows] == [0.3]


def test_a_kill_while_writing_leaves_whole_cells_alone(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ADDING, str(tmp_path)], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        added = [int(run.stdout.readline()) for _ in range(5)]
        run.kill()
    store = RowStore(tmp_path, "an-experiment", ("seed",), ("auroc",), {}).open()
    assert {key_text({"seed": seed}) for seed in added} <= store.keys()
    seeds = [row["seed"] for row in store.rows]
    assert all(seeds.count(seed) == 50 for seed in set(seeds))
    assert len(table(tmp_path)) == len(seeds)


def test_an_empty_file_of_a_killed_run_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "results.sqlite").touch()
    store = opened(tmp_path)
    assert not store.keys()
    store.add(key(), [{"auroc": 0.5}])
    assert len(opened(tmp_path).rows) == 1


def test_other_settings_are_named_and_refused(tmp_path: Path) -> None:
    opened(tmp_path, steps=100).add(key(), [{}])
    with pytest.raises(SettingsError, match="steps 100 there, 200 now"):
        opened(tmp_path, steps=200)
    with pytest.raises(SettingsError, match="results of an-experiment"):
        opened(tmp_path, "another", steps=100)
    assert opened(tmp_path, steps=100).rows


def test_a_table_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text("file,score\na,1\n")
    with pytest.raises(SettingsError, match="something else"):
        opened(tmp_path)
    assert (tmp_path / "results.csv").read_text() == "file,score\na,1\n"


def test_a_run_that_was_killed_at_its_first_row_goes_on(tmp_path: Path) -> None:
    found = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], timeout=120, check=False)
    assert found.returncode == -signal.SIGKILL
    assert (tmp_path / "results.sqlite").exists()
    store = opened(tmp_path)
    store.add(key(), [{"auroc": 0.5}])
    assert [row["auroc"] for row in opened(tmp_path).rows] == [0.5]


def test_rows_of_changed_images_are_forgotten(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.add(key(0, "old"), [{"auroc": 0.5}])
    first.add(key(1, "old"), [{"auroc": 0.5}])
    assert first.forget([key(0, "old")], "data") == 0
    assert first.forget([key(0, "old"), key(0, "new")], "data") == 0  # both are planned
    assert first.forget([key(0, "new")], "data") == 1
    assert [row["seed"] for row in opened(tmp_path).rows] == [1]
    assert [row["seed"] for row in table(tmp_path)] == ["1"]


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        opened(tmp_path / "file").add(key(), [{}])


def test_a_damaged_store_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "results.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(OutputError, match=r"results\.sqlite"):
        opened(tmp_path)


def test_any_program_can_read_the_store(tmp_path: Path) -> None:
    opened(tmp_path).add(key(), [{"auroc": 0.5}])
    with sqlite3.connect(tmp_path / "results.sqlite") as store:
        assert store.execute("SELECT json_extract(rows, '$[0].auroc') FROM cells").fetchone() == (0.5,)
    store.close()
