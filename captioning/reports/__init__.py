"""What a run is worth, for people: a page, a data card, a model card; and runs beside each other.

    reports/evaluation.html   the page: opens offline, on a phone, and prints
    reports/data_card.md      what the model learned from
    reports/model_card.md     what the model is, what it is worth, where it fails
    reports/model.json        the model's facts for programs, `captioning compare` among them

The same run gives the same bytes: no time, path or version of a library that changes no score stands in them.
"""

from captioning.reports.data_facts import DataFacts, read_data_facts
from captioning.reports.model_facts import ModelFacts, read_model_facts
from captioning.reports.pictures import Look, Ranking, Shown, choose, look
from captioning.reports.run_reports import draw_figures, write_reports

__all__ = [
    "DataFacts",
    "Look",
    "ModelFacts",
    "Ranking",
    "Shown",
    "choose",
    "draw_figures",
    "look",
    "read_data_facts",
    "read_model_facts",
    "write_reports",
]
