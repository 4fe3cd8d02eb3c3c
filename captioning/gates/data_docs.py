"""A judgement -> HTML pages that need no network: an index of all rules and a page a table.

Great Expectations' own site takes styles, icons and even the rows of its index from content delivery
networks, and puts the time and random ids into its pages. Here its renderer makes the page of each result,
what would be loaded is taken out, and a small style sheet put in: a page needs no network and has the same
bytes each time.
"""

import re
from html import escape
from pathlib import Path
from typing import Any

from captioning.gates.judgement import Finding, Judgement
from captioning.gates.rules import counted

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #222; margin: 0 auto; max-width: 75rem; padding: 2rem }
h1 { font-size: 1.4rem } h4, h5, h6 { margin: .4rem 0; font-size: 1rem } h5 { font-size: 1.1rem }
a { color: #0b57a4 } ul, ol { list-style: none; padding: 0; margin: 0 }
nav li { display: inline-block; margin-right: 1rem }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1rem }
th, td { border-bottom: 1px solid #ddd; padding: .35rem .6rem; text-align: left; vertical-align: top }
.alert { background: #eef1f4; padding: .4rem .8rem; margin-top: 1rem }
.badge { background: #e4e7ea; border-radius: 4px; padding: 0 .35rem; font-family: monospace }
.holds, .text-success { color: #1a7f37 } .refuse, .text-danger { color: #c0202b }
.warn, .text-warning { color: #9a6700 }
i.fa-check-circle::before { content: "✓ " } i.fa-times::before { content: "✗ " }
i.fa-exclamation::before, i.fa-exclamation-triangle::before { content: "! " }
.lead, .ge-breadcrumbs, .card.mb-3, .collapse, thead[hidden] { display: none }
.collapse:target { display: block }
@media (prefers-color-scheme: dark) {
  body { background: #17191c; color: #e4e4e4 } a { color: #7db7f0 } th, td { border-color: #3a3d42 }
  .alert, .badge { background: #2a2e33 } .holds, .text-success { color: #4cc36b }
  .refuse, .text-danger { color: #ff7b84 } .warn, .text-warning { color: #e3b341 }
}
"""

_REPLACEMENTS = (
    (re.compile(r"<(script|style|footer)\b.*?</\1>", re.DOTALL), ""),
    (re.compile(r"<link\b[^>]*>"), ""),
    (re.compile(r"<img\b[^>]*>"), "All expectations"),
    (re.compile(r'href="(?:\.\./)+[^"]*"'), 'href="index.html"'),
    (re.compile(r"(-collapse-body)-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"), r"\1"),
    (re.compile(r"\s*\n\s*"), "\n"),
    (re.compile(r"</head>"), f"<style>{STYLE}</style>\n</head>"),
)


def write_data_docs(judgement: Judgement, folder: Path) -> None:
    """Write `index.html` and one page a table into the empty folder `folder`."""
    for result in judgement.results:
        (folder / f"{result.suite_name}.html").write_text(_page(result), encoding="utf-8")
    (folder / "index.html").write_text(_index(judgement), encoding="utf-8")


def _page(result: Any) -> str:
    from great_expectations.render.renderer import ValidationResultsPageRenderer
    from great_expectations.render.view import DefaultJinjaPageView

    result.meta = {
        "great_expectations_version": result.meta["great_expectations_version"]
    }  # the rest holds times
    page: str = DefaultJinjaPageView().render(ValidationResultsPageRenderer().render(result))
    for pattern, replacement in _REPLACEMENTS:
        page = pattern.sub(replacement, page)
    return page


def _index(judgement: Judgement) -> str:
    accepted, subject = judgement.is_accepted, escape(judgement.subject)
    verdict = (
        f'<span class="{"holds" if accepted else "refuse"}">{"accepted" if accepted else "refused"}</span>'
    )
    counts = (
        counted(len(judgement.findings), "expectation"),
        counted(len(judgement.refusals), "refusal"),
        counted(len(judgement.warnings), "warning"),
    )
    rows = "\n".join(map(_row, judgement.findings))
    notes = "\n".join(f"<p>{escape(note)}</p>" for note in judgement.notes)
    return f"""<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>{subject}</title><style>{STYLE}</style></head>
<body>
<h1>{subject}: {verdict}</h1>
<p>{", ".join(counts)}</p>
{notes}
<table>
<tr><th>verdict</th><th>expectation</th><th>observed</th><th>expected</th><th>params.yaml</th><th>table</th></tr>
{rows}
</table>
</body>
</html>
"""


def _row(finding: Finding) -> str:
    rule = finding.rule
    verdict = "holds" if finding.holds else rule.severity
    cells = [rule.claim, finding.observation, rule.expected, rule.key]
    return (
        f'<tr><td class="{verdict}">{verdict}</td>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        + f'<td><a href="{rule.table}.html">{rule.table}</a></td></tr>'
    )
