"""The log of the service: one JSON object a line, on standard error."""

import json
import logging
import sys
from datetime import UTC, datetime

USUAL = {*vars(logging.makeLogRecord({})), "message", "asctime", "color_message", "taskName"}
"""What every record has; the rest was given as `extra` and goes into the line."""


class JsonLines(logging.Formatter):
    """A record as a line: time (UTC), level, event, and what was given beside."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **{name: value for name, value in vars(record).items() if name not in USUAL},
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def begin() -> None:
    """Write what the service and its web server log as lines; of what they use, warnings."""
    written = logging.StreamHandler(sys.stderr)
    written.setFormatter(JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[written], force=True)
    for name in ("captioning", "uvicorn"):
        logging.getLogger(name).setLevel(logging.INFO)
