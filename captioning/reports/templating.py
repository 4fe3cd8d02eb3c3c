"""Values -> HTML or Markdown, through the templates of this package; what comes from data is always escaped."""

import math
import re
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from captioning.score_names import label

TEMPLATES = Path(__file__).parent / "templates"
MARKDOWN_SIGNS = re.compile(r"([\\`*_\[\]<>|~#&])")


def render(template: str, **values: Any) -> str:
    """Return a filled template; a value that it names and is not given is an error."""
    return _environment(template.endswith(".html")).get_template(template).render(values)


def number(value: float) -> str:
    """Return a score in three digits, or one after the point where it is large; a dash where there is none."""
    if math.isnan(value):
        return "–"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:,.1f}"


def markdown_escaped(value: Any) -> Any:
    """Return a value as text that Markdown shows as it is, in one line, also inside a table."""
    if isinstance(value, Markup):
        return value
    return MARKDOWN_SIGNS.sub(r"\\\1", " ".join(str(value).split()))


def code(value: Any) -> Markup:
    """Return a value as Markdown's code, also inside a table."""
    return Markup("`{}`").format(Markup(str(value).replace("`", "'").replace("|", "\\|").replace("\n", " ")))


def verbatim(value: Any) -> Markup:
    """Return a value as one line of an indented block, where Markdown has no signs."""
    return Markup(" ".join(str(value).split()))


@cache
def _environment(is_html: bool) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=is_html,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=None if is_html else markdown_escaped,
    )
    environment.filters |= {
        "number": number,
        "label": label,
        "code": code,
        "verbatim": verbatim,
        "thousands": lambda count: f"{count:,}",
        "percent": lambda share: f"{100 * share:.1f} %",
    }
    return environment
