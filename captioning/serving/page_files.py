"""The files of the web page, built from web/ by `make page`."""

import os
from pathlib import Path
from typing import Any

from fastapi import Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.types import Scope

PAGE = Path(__file__).parent / "page"


class PageFiles(StaticFiles):
    """Serves them; a browser keeps them, and asks each time whether they are still the same."""

    def __init__(self) -> None:
        super().__init__(directory=PAGE, html=True)

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return a file; refuse a path that has none because it is to be asked by another method."""
        if path == "captions":
            raise HTTPException(405, headers={"Allow": "POST"})
        return await super().get_response(path, scope)

    def file_response(self, full_path: Any, stat_result: os.stat_result, *rest: Any, **more: Any) -> Response:
        """Return a file, or 304."""
        response = super().file_response(full_path, stat_result, *rest, **more)
        response.headers["Cache-Control"] = "no-cache"
        return response
