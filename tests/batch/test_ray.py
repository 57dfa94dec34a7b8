"""The Ray engine: the same rows as by processes, and a job that failed goes on where it stopped."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from batch_parts import HERE, light, rows_in, write_files

from blemish.batch import BatchSettings, run_batch
from blemish.errors import SettingsError

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Ray's own


@pytest.fixture(scope="session")
def ray() -> Iterator[Any]:
    """Ray on this machine, begun once; four logical cores, so that small machines have one to read and write with.

    Its processes take the environment over. A `runtime_env` would say the same, but each would start Python twice; and
    one process is enough to read the one file of a job's entries.
    """
    path = os.pathsep.join([HERE, *filter(None, [os.environ.get("PYTHONPATH")])])
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        for name, value in {
            "PYTHONPATH": path,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_DATA_PARQUET_FOOTER_NUM_ACTORS": "1",
        }.items():
            patch.setenv(name, value)
        ray = pytest.importorskip("ray", reason="Ray is not installed")
        ray.init(num_cpus=4, include_dashboard=False, object_store_memory=200 << 20, log_to_driver=False)
        yield ray
        ray.shutdown()


@pytest.mark.usefixtures("ray")
def test_the_same_rows_as_by_processes(disc_model: Path, pictures: Path, tmp_path: Path) -> None:
    settings = BatchSettings(
        model=disc_model, source=str(pictures), out=tmp_path / "local", workers=1, threads=1, device="cpu"
    )
    local = run_batch(settings)
    found = run_batch(replace(settings, out=tmp_path / "ray", engine="ray"))
    assert found.counts == local.counts
    expected, rows = rows_in(tmp_path / "local"), rows_in(tmp_path / "ray")
    assert [{**row, "seconds": 0} for row in rows if row["error"] is None] == [
        {**row, "seconds": 0} for row in expected if row["error"] is None
    ]
    assert [row["error"] for row in rows] == [row["error"] for row in expected]
    assert all((tmp_path / "ray" / row["overlay"]).is_file() for row in rows if row["overlay"])
    with pytest.raises(SettingsError, match="--engine"):
        run_batch(replace(settings, out=tmp_path / "ray"))


@pytest.mark.usefixtures("ray")
def test_a_job_that_failed_goes_on(tmp_path: Path) -> None:
    source, marks, out = write_files(tmp_path / "files", 300, last=1), tmp_path / "marks", tmp_path / "out"
    marks.mkdir()
    (marks / "stop").write_text(str(out))
    settings = light(source, out, marks=marks, engine="ray", shard_rows=64)
    with pytest.raises(Exception, match="stopped"):
        run_batch(settings)
    before = len(rows_in(out))
    assert 0 < before < 301
    (marks / "stop").unlink()
    found = run_batch(settings)
    assert found.new == 301 - before
    assert [row["id"] for row in rows_in(out)] == sorted([f"{i:04}.png" for i in range(300)] + ["last.png"])


@pytest.mark.usefixtures("ray")
def test_tasks_do_every_item_once() -> None:
    """The executor by which cells of evaluations and experiments run on a cluster; two at a time here."""
    from blemish.utils.executors import RayTasks

    assert sorted(RayTasks(2).map_ready(abs, [3, -1, 2])) == [(0, 3), (1, 1), (2, 2)]
