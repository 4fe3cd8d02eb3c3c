"""Prefect flows over the stages of dvc.yaml.

The one place where Prefect's defaults are replaced, before anything imports it: its files stay in
`$CAPTIONING_HOME/.work/prefect`, a temporary server may take two minutes to start (its own limit of 20 s is too
short for a busy machine), and a server that starts again still knows which runs hold a concurrency limit (in memory,
its default, it forgets them, and Prefect ends those runs). A server whose database is away answers with status 500,
which is asked again like one that does not answer. Export a variable beforehand to decide otherwise.
"""

import os

from captioning import home

os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
os.environ.setdefault(
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE", "prefect.server.concurrency.lease_storage.filesystem"
)
os.environ.setdefault("PREFECT_CLIENT_RETRY_EXTRA_CODES", "500")
if "PREFECT_HOME" not in os.environ:
    os.environ["PREFECT_HOME"] = str(home.work("prefect"))
