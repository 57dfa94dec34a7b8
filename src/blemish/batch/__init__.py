"""A million images: a folder or manifest in, Parquet out, resumable; on one machine by processes, on many by Ray Data.

`run_batch` is the whole of it. What is done is on disk at once, and each image has exactly one row in the end, whatever
ends a run early and however often. No module here loads torch or pyarrow when it is imported.
"""

from blemish.batch.run import ERROR, BatchSettings, BatchSummary, run_batch
from blemish.batch.source import Entry

__all__ = ["ERROR", "BatchSettings", "BatchSummary", "Entry", "run_batch"]
