"""The routes of the search."""

import asyncio
from typing import Annotated

from fastapi import FastAPI, Query, Response

from captioning.serving.messages import SearchResponse
from captioning.serving.problems import Problem, refusals
from captioning.serving.search import Search
from captioning.serving.settings import ServiceSettings

THUMBNAILS_AT_ONCE = 2
"""Made of whole pictures, in threads that captions need, too."""
KEEP = {"Cache-Control": "private, max-age=600"}


def install(app: FastAPI, search: Search, settings: ServiceSettings) -> None:
    """Add them."""
    making = asyncio.Semaphore(THUMBNAILS_AT_ONCE)

    @app.get("/search", tags=["search"], responses=refusals(401, 404, 422, 429))
    async def find(
        q: Annotated[
            str,
            Query(
                min_length=1,
                max_length=500,
                description='words; "in quotes" together, -word excluded',
                examples=["person sitting on a bench"],
            ),
        ],
        top: Annotated[int, Query(ge=1, description="pictures at most")] = 20,
    ) -> SearchResponse:
        """Find pictures of the collection by the words of their captions, the best match first."""
        if top > settings.max_found:
            raise Problem(422, f"top is {top}; at most {settings.max_found} pictures are found")
        return SearchResponse(images=await asyncio.to_thread(search.find, q, top=top))

    @app.get(
        "/search/thumbnails/{picture_id}",
        tags=["search"],
        response_class=Response,
        responses={200: {"content": {"image/jpeg": {}}}, **refusals(401, 404, 429)},
    )
    async def thumbnail(picture_id: str) -> Response:
        """Return a small JPEG of a picture that a search has found."""
        async with making:
            made = await asyncio.to_thread(search.thumbnail, picture_id)
        return Response(made, media_type="image/jpeg", headers=KEEP)
