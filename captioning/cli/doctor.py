"""Look over this machine and this project: what does not work, or soon will not, and how to mend it.

Exit code 1 where something does not work. Takes up to ten seconds, and changes nothing.
"""

import argparse
import json
from dataclasses import asdict

HELP = "what does not work on this machine, and how to mend it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument("--json", action="store_true", help="one JSON line a finding")


def run(options: argparse.Namespace) -> int:
    """Print the findings; return 1 if there is a problem."""
    from captioning import doctor
    from captioning.doctor.findings import PROBLEM, WARNING

    findings = [(check, finding) for check, found in doctor.examine().items() for finding in found]
    for check, finding in findings:
        if options.json:
            print(json.dumps({"check": check, **asdict(finding)}, ensure_ascii=False))
            continue
        print(f"{finding.state:<9}{check:<13}{finding.what}")
        if finding.mend:
            print(f"{'':<9}{'mend:':<13}{finding.mend}")
    counts = {state: sum(finding.state == state for _, finding in findings) for state in (PROBLEM, WARNING)}
    if not options.json:
        print(f"problems: {counts[PROBLEM]}, warnings: {counts[WARNING]}")
    return int(counts[PROBLEM] > 0)
