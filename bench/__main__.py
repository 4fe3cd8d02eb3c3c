"""Run the measurements named on the command line, or all; write reports/bench.json and print the table."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

from bench.comparison import Comparison
from bench.first_caption import first_caption_seconds
from bench.generation import (
    beam_decode_vs_tutorial,
    beam_vs_bound,
    beam_vs_tutorial,
    evaluate_vs_tutorial,
)
from bench.http import http_vs_sequential
from bench.metrics import meteor_seconds, metrics_seconds
from bench.noop import noop_repro
from bench.photographs import Unavailable
from bench.preprocess import (
    preprocess_growth,
    preprocess_two_processes,
    preprocess_vs_limit,
    preprocess_vs_tutorial,
)
from bench.reading import read_images
from bench.rewards import reward_microseconds
from bench.search import search_milliseconds
from bench.training import epoch_vs_tutorial
from captioning.outputs import whole_file

MEASUREMENTS: dict[str, Callable[[], Comparison]] = {
    measure.__name__: measure
    for measure in (
        preprocess_vs_tutorial,
        preprocess_vs_limit,
        preprocess_two_processes,
        preprocess_growth,
        read_images,
        epoch_vs_tutorial,
        beam_decode_vs_tutorial,
        beam_vs_tutorial,
        beam_vs_bound,
        evaluate_vs_tutorial,
        reward_microseconds,
        metrics_seconds,
        meteor_seconds,
        noop_repro,
        search_milliseconds,
        http_vs_sequential,
        first_caption_seconds,
    )
}
REPORT = Path("reports/bench.json")


def main(names: list[str]) -> None:
    """Measure, print and write."""
    if unknown := sorted(set(names) - set(MEASUREMENTS)):
        sys.exit(f"bench: no measurement {', '.join(unknown)}; available: {', '.join(MEASUREMENTS)}")
    figures = json.loads(REPORT.read_text()) if REPORT.exists() else {}
    for name in names or MEASUREMENTS:
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            comparison = MEASUREMENTS[name]()
        except Unavailable as reason:
            print(f"{name}: left out: {reason}", file=sys.stderr)
            continue
        figures[name] = comparison.figures()
        REPORT.parent.mkdir(exist_ok=True)
        with whole_file(REPORT) as aside:
            aside.write_text(json.dumps(figures, indent=1) + "\n")
    print(table({name: figures[name] for name in names or MEASUREMENTS if name in figures}))


def table(figures: dict[str, dict]) -> str:
    """Return the figures as a table in Markdown."""
    lines = [
        "| measurement | ours | other | unit | times better | target | what |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, own in figures.items():
        cells = [name, f"{own['value']:,.4g}", f"{own['baseline']:,.4g}", own["unit"]]
        cells += [f"{own['ratio']:.2f}", f"{own['target']:g}", own["what"]]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main(sys.argv[1:])
