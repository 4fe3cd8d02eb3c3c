"""Looks whether the source has new data; if so, writes what it saw and has Prefect start a retrain.

The download stage depends on what is written, source.json. Nothing new writes nothing and starts nothing. The word goes
out before the file is written: after a kill in between it is said twice, never not at all.
"""

from pathlib import Path
from typing import Any

from prefect import State, flow
from prefect.events import emit_event
from prefect.states import Completed, Failed

from captioning import params, source_state
from captioning.source_state import SOURCE_FILE, Seen
from flows import checkout

EVENT = "captioning.source.changed"


def resource_id(model_name: str) -> str:
    """Return what the event is about: the source of the pipeline that trains this model."""
    return f"captioning.source.{model_name}"


@flow
def probe() -> State[Any]:
    """Look whether the source has new data, and start a retrain if so."""
    try:
        with checkout.alone():
            seen, news = look()
            if not news:
                return Completed(name="Unchanged", message="nothing is new")
            with checkout.unread(SOURCE_FILE):
                emit_event(EVENT, {"prefect.resource.id": _resource()}, payload={"news": news})
                source_state.write(seen)
            return Completed(name="Changed", message="; ".join(news))
    except checkout.BusyError as error:
        return Completed(name="Skipped", message=f"{error}; the next look sees what is new")
    except (ValueError, OSError) as error:
        return Failed(message=str(error))


def look() -> tuple[dict[str, Seen], list[str]]:
    """Return what is seen of the source that params.yaml names, and what of it is new.

    Raises:
        ValueError, OSError: params.yaml is not right, or the source is not there; the message is for the user.
    """
    seen = source_state.observe(params.load("download"))
    return seen, source_state.changes(source_state.read(), seen)


def _resource() -> str:
    return resource_id(str(params.read(Path("params.yaml"))["register"]["model_name"]))
