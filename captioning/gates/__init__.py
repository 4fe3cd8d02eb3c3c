"""Gates in front of and behind the costly step: small feature tables, judged by Great Expectations.

`tables.py` (of the stage validate) and `shards.py` (of inspect) state rules about the feature tables that
`table_features.py` and `shard_features.py` make; `judgement.py` has Great Expectations judge them;
`reports.py` writes the verdict, the report and, with `data_docs.py`, pages for a person.
"""

from captioning.gates.judgement import Finding, Judgement
from captioning.gates.reports import settle
from captioning.gates.shards import InspectSettings, judge_shards
from captioning.gates.tables import ValidateSettings, judge_tables

__all__ = [
    "Finding",
    "InspectSettings",
    "Judgement",
    "ValidateSettings",
    "judge_shards",
    "judge_tables",
    "settle",
]
