"""Gates in front of and behind the costly step: small value tables, judged by Great Expectations.

`tables.py` (of the stage validate) and `shards.py` (of inspect) state rules about quantities; `table_quantities.py`
and `shard_quantities.py` (from `shard_looks.py`) reduce the data to a value table of each (`values.py`, `queries.py`),
in memory that does not grow with the data; `judgement.py` has Great Expectations judge those; `profile.py` and
`drift.py` compare the training data with the champion's; `reports.py` writes the verdict, the report and, with
`data_docs.py`, pages for a person.
"""

from captioning.gates.drift import NO_CHAMPION
from captioning.gates.judgement import Finding, Judgement
from captioning.gates.reports import settle
from captioning.gates.shards import InspectSettings, judge_shards
from captioning.gates.tables import ValidateSettings, judge_tables

__all__ = [
    "NO_CHAMPION",
    "Finding",
    "InspectSettings",
    "Judgement",
    "ValidateSettings",
    "judge_shards",
    "judge_tables",
    "settle",
]
