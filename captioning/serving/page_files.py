"""The files of the web page, built from web/ by `make page`."""

import os
from pathlib import Path
from typing import Any

from fastapi import Response
from fastapi.staticfiles import StaticFiles

PAGE = Path(__file__).parent / "page"


class PageFiles(StaticFiles):
    """Serves them; a browser keeps them, and asks each time whether they are still the same."""

    def __init__(self) -> None:
        super().__init__(directory=PAGE, html=True)

    def file_response(self, full_path: Any, stat_result: os.stat_result, *rest: Any, **more: Any) -> Response:
        """Return a file, or 304."""
        response = super().file_response(full_path, stat_result, *rest, **more)
        response.headers["Cache-Control"] = "no-cache"
        return response
