"""Looks whether the source has new data; if so, writes what it saw and has Prefect start a retrain.

The download stage depends on what is written, source.json, which is committed to the branch that retrains commit to;
the next one goes on from there. Nothing new writes nothing and starts nothing. The word goes out before the file is
committed: after a kill in between it is said twice, never not at all. (Without git it is written first.)
"""

from typing import Any

from prefect import State, flow
from prefect.events import emit_event
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed

from captioning import params
from flows import workspace
from flows.checkout import BusyError

EVENT = "captioning.source.changed"


def resource_id(model_name: str) -> str:
    """Return what the event is about: the source of the pipeline that trains this model."""
    return f"captioning.source.{model_name}"


@flow
def probe() -> State[Any]:
    """Look whether the source has new data, and start a retrain if so."""
    logger = get_run_logger()
    try:
        with workspace.opened(None, say=logger.info, warn=logger.debug, wait=False) as place:
            news = place.look()
            if not news:
                return Completed(name="Unchanged", message="nothing is new")
            name = str(params.read(place.folder / params.PARAMS_FILE)["register"]["model_name"])
            emit_event(EVENT, {"prefect.resource.id": resource_id(name)}, payload={"news": news})
            place.announce("\n".join(["Seen at the source", "", *news]))
            return Completed(name="Changed", message="; ".join(news))
    except BusyError as error:
        return Completed(name="Skipped", message=f"{error}; the next look sees what is new")
    except (ValueError, OSError) as error:
        return Failed(message=str(error))
