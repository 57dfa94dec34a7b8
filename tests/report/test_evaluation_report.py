"""The evaluation page: means over seeds, the best of each line, kinds of defect, examples, the command."""

from __future__ import annotations

import math
from dataclasses import replace
from importlib.resources import files

import numpy as np
import pytest

from blemish.data.full_scale import FullScale
from blemish.evaluation import COLUMNS, RunDetail, ScoredImage
from blemish.report import write_evaluation_report
from blemish.report.pivot import pivot
from blemish.types import Sample


def row(category="nut", detector="patchcore", seed=0, **more):
    facts = {"dataset": "d", "category": category, "detector": detector, "encoder": "pixels", "image_size": 64}
    return dict.fromkeys(COLUMNS, math.nan) | facts | {"shots": 4, "seed": seed, "pooled": False} | more


def rule(name: str) -> str:
    """The style of a class."""
    style = files("blemish.report").joinpath("page.css").read_text("utf-8")
    return next(line for line in style.splitlines() if line.startswith(f".{name} {{"))


def image(file, label, score, defect=""):
    return ScoredImage(file, "nut", "nut", defect, label, score, 0.1, 0.5, "defective" if score > 0.5 else "good")


def test_pivot_takes_means_over_seeds():
    rows = [row(seed=s, image_auroc=v) for s, v in ((0, 0.8), (1, 0.9), (2, 1.0))]
    rows += [row("screw", seed=0, image_auroc=0.5), row("screw", seed=1, image_auroc=math.nan)]
    found = pivot(rows, "image_auroc", lambda r: r["category"], lambda r: r["detector"])
    assert found.cells["nut", "patchcore"] == pytest.approx((0.9, 0.1, 3))
    assert found.cells["screw", "patchcore"] == pytest.approx((0.5, 0.0, 1))
    assert found.mean("patchcore") == pytest.approx(0.7)


def test_a_method_that_misses_a_category_has_no_mean():
    rows = [row(image_auroc=0.9), row("screw", image_auroc=0.8), row(detector="foundad", image_auroc=1.0)]
    found = pivot(rows, "image_auroc", lambda r: r["category"], lambda r: r["detector"])
    assert math.isnan(found.mean("foundad"))


def test_values_read_from_csv_count_too():
    found = pivot([row(image_auroc="0.75"), row(image_auroc="")], "image_auroc", lambda r: "c", lambda r: "m")
    assert found.cells["c", "m"] == (0.75, 0.0, 1)


@pytest.fixture
def details(predict, grain):
    mask = np.zeros((96, 128), bool)
    mask[30:60, 30:60] = True
    made = []
    for detector in ("patchcore", "<b>foundad</b>"):
        facts = row(detector=detector, image_auroc=0.9, aupro_30=0.8, false_alarm_rate=0.1, miss_rate=0.5)
        images = (
            *(image(f"g{i}", 0, 0.1 * i) for i in range(5)),
            *(image(f"b{i}", 1, 0.3 * i, "cut" if i % 2 else "bent") for i in range(4)),
        )
        missed = Sample(grain(), label=1, mask=mask, defect="cut")
        found = Sample(grain(seed=1), label=1, mask=mask, defect="bent")
        examples = {
            "found": ((found, predict(score=1.0, box=(30, 30, 60, 60))),),
            "missed": ((missed, predict(score=0.3)),),
        }
        made.append(RunDetail(facts, images, examples, "Limit from 4 of 4 good pictures.", None))
    return made


def test_the_whole_page(tmp_path, details, read):
    command = "blemish evaluate d --detector patchcore -o 'out <1>'"
    path = write_evaluation_report(tmp_path / "report.html", [d.row for d in details], details, command=command)
    text = path.read_text("utf-8")
    found = read(text)
    assert command in found.text
    assert "AUPRO is exact" in found.text
    assert "One seed" in found.text
    assert "One method only" not in found.text
    assert "1 of 2" in found.text
    assert "cut" in found.text
    assert "Limit from 4 of 4 good pictures." in found.text
    assert found.text.index("Missed\n") < found.text.index("Found\n")
    assert "<b>foundad</b>" in found.text
    assert "<b>foundad" not in text
    assert len(found.all("svg")) == 2  # one histogram a method; kinds are a table when methods are several
    assert len(found.all("img")) == 4
    assert all(a["src"].startswith("data:") and a["alt"] for a in found.all("img"))
    assert "://" not in text.replace("http://www.w3.org/2000/svg", "")


def test_twelve_bits_in_sixteen_are_shown_as_the_model_saw_them(tmp_path, details, grain, predict, read):
    def shown(pixels, full_scale):
        example = {"missed": ((Sample(pixels, label=1, defect="cut"), predict(score=0.3)),)}
        detail = replace(details[0], examples=example, full_scale=full_scale)
        page = read(write_evaluation_report(tmp_path / "r.html", [detail.row], [detail]).read_text("utf-8"))
        (photo,) = (one["src"] for one in page.all("img"))
        return photo

    eight = grain()
    twelve = eight.astype(np.uint16) << 4
    assert shown(twelve, FullScale(bits=12)) == shown(eight, FullScale())
    assert shown(twelve, FullScale(bits=14)) != shown(eight, FullScale())


def test_coarse_aupro_is_named(tmp_path, details):
    coarse = [replace(d, aupro_thresholds=200) for d in details]
    text = write_evaluation_report(tmp_path / "r.html", [d.row for d in coarse], coarse).read_text("utf-8")
    assert "at 200 thresholds" in text
    assert "understates" in text


def test_what_does_not_pass_as_good_counts_as_found_and_promises_are_compared(tmp_path, details, read):
    unsure = tuple(replace(one, verdict="unsure") if one.label else one for one in details[0].images)
    detail = replace(details[0], images=unsure, notes=("masks for 2 of 4 defective pictures.",))
    detail.row.update(target_false_alarm_rate=0.05, unsure_rate=4 / 9, unknown_rate=0.0)
    found = read(write_evaluation_report(tmp_path / "r.html", [detail.row], [detail]).read_text("utf-8"))
    assert found.text.count("2 of 2") >= 2
    assert "masks for 2 of 4 defective pictures." in found.text
    assert "False alarms, promised and kept" in found.text
    assert "0 % to 52 %" in found.text  # none of five: 1 − 0.025 ** (1 / 5)
    assert "unsure of" in found.text
    assert "unlike anything" not in found.text


def test_one_method_gets_bars(tmp_path, details, read):
    found = read(write_evaluation_report(tmp_path / "r.html", [details[0].row], details[:1]).read_text("utf-8"))
    assert "1 of 2" in found.text
    assert len(found.all("svg")) == 2
    assert "One method only" in found.text
    assert len(found.all("div", "multiples")) == 2  # columns of a fixed least width: one chart does not fill the page
    assert "auto-fit, minmax(min(100%, 440px)" not in rule("multiples")
    assert "auto-fill" in rule("multiples")


def test_no_rows_no_details_is_still_a_page(tmp_path, read):
    assert "No rows." in read(write_evaluation_report(tmp_path / "r.html", []).read_text("utf-8")).text
    read(write_evaluation_report(tmp_path / "r.html", [row()]).read_text("utf-8"))


def test_gone_files_do_not_lose_the_report(tmp_path, details, read):
    sample, prediction = details[0].examples["found"][0]
    gone = replace(sample, image=tmp_path / "gone.png", mask=tmp_path / "gone_mask.png")
    detail = replace(details[0], examples={"found": ((gone, prediction),)})
    found = read(write_evaluation_report(tmp_path / "r.html", [detail.row], [detail]).read_text("utf-8"))
    assert "not at hand" in found.text


def test_many_rows_stay_bounded(tmp_path, details):
    rows = [row(f"c{i}", image_auroc=0.9) for i in range(2000)]
    many = [details[0]] * 300
    assert write_evaluation_report(tmp_path / "r.html", rows, many).stat().st_size < 4_000_000
