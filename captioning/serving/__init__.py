"""The HTTP service `captioning serve`: pictures in, captions out, as JSON; the web page, search, health, metrics.

A request's pictures are read and decoded (`pictures`), wait in a bounded queue, and are captioned in batches together
with those of other requests (`batching`) by the models in service (`models`). Whatever is refused is a problem in JSON
that says what to do (`problems`).
"""
