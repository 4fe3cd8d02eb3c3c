"""One thin file per DVC stage: paths in, paths out. `dvc.yaml` passes the paths."""

import sys
import warnings
from collections.abc import Callable
from pathlib import Path


def run(main: Callable[..., None]) -> None:
    """Call a stage's `main` with the command line's paths; end with one message and exit code 1 where it refuses.

    `ValueError` and `OSError` carry messages written for the user; anything else is a defect and keeps its traceback.
    """
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        main(*map(Path, sys.argv[1:]))
    except (ValueError, OSError) as error:
        stage = Path(sys.argv[0]).stem
        print(f"{stage}: {error}", file=sys.stderr)
        sys.exit(1)
