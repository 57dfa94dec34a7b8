from __future__ import annotations

import pickle
import threading
import warnings

import pytest

from blemish.data.data_warnings import collected_warnings, summary, warn
from blemish.errors import DataWarning


def test_warnings_of_all_threads_are_collected_and_others_pass() -> None:
    with warnings.catch_warnings(record=True) as passed:
        warnings.simplefilter("always")
        with collected_warnings() as found:
            for _ in range(2):
                thread = threading.Thread(target=warn, args=("range", "a.png", "is dark"))
                thread.start()
                thread.join()
            warnings.warn("something else", UserWarning, stacklevel=1)
        assert [str(warning) for warning in found] == ["'a.png' is dark"] * 2
        assert [str(warning.message) for warning in passed] == ["something else"]
    with pytest.warns(DataWarning, match="is dark"):
        warn("range", "a.png", "is dark")


def test_a_summary_counts_files_by_kind() -> None:
    found = [DataWarning("range", file, "is dark") for file in ("a.png", "b.png", "a.png")]
    found.append(DataWarning("constant", "m.png", "is black"))
    lines = summary(found)
    assert lines[0].startswith("2 pictures use a few per cent")
    assert "'a.png' is dark" in lines[0]
    assert lines[1].startswith("1 picture is of one single colour")
    assert summary([]) == []
    assert summary([DataWarning("range", "array", "is dark")] * 3)[0].startswith("3 pictures")
    assert {summary([DataWarning(kind, "x", "y")])[0] for kind in DataWarning.KINDS}


def test_a_warning_survives_pickling() -> None:
    again = pickle.loads(pickle.dumps(DataWarning("range", "a.png", "is dark")))
    assert (again.kind, again.file, str(again)) == ("range", "a.png", "'a.png' is dark")
