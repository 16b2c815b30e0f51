"""The whole page, complete without script. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from obcd.core.markup import Markup, join, tag
from obcd.page.plots import PlotSpan
from obcd.page.static_files import StaticFiles

#: The labels of sections that have no heading of their own.
LABELS = {"troubles": "State in words", "figures": "Figures"}
#: The sections below the headline, in their order.
ORDER = ("troubles", "figures", "plots", "jobs", "endpoints", "cards", "files")
FOOTER = "This page can change nothing. It never shows prompts, answers or messages of failures."


def document(
    title: str, place: str, parts: Mapping[str, Markup], moment: Markup, span: PlotSpan, files: StaticFiles
) -> Markup:
    """Return the page.

    Args:
        title: Of the browser's tab.
        place: The machine, or the machine and the root.
        parts: `{id of a section: its content}`; an empty one is hidden.
        moment: The time of what is shown.
        span: Of the plots.
        files: The addresses of style and script.
    """
    head = tag(
        "head", {},
        tag("meta", {"charset": "utf-8"}),
        tag("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        tag("meta", {"name": "color-scheme", "content": "light dark"}),
        tag("title", {}, title),
        tag("link", {"rel": "icon", "href": files.url("icon.svg"), "type": "image/svg+xml"}),
        tag("link", {"rel": "stylesheet", "href": files.url("page.css")}),
        # The script loads uPlot after the first paint: browsers run what is deferred before they paint.
        tag("script", {
            "src": files.url("page.js"), "defer": True,
            "data-plots": files.url("uPlot.iife.min.js"), "data-plots-css": files.url("uPlot.min.css"),
        }),
    )  # fmt: skip
    updated = tag("p", {"id": "updated"}, tag("span", {"id": "moment"}, "as of ", moment), tag(
        "button", {"id": "pause", "type": "button", "hidden": True, "aria-pressed": "false"}, "Pause updates"
    ))  # fmt: skip
    top = tag(
        "header", {},
        tag("h1", {}, "obcd", tag("span", {"class": "place"}, place)),
        tag("div", {"id": "state", "role": "status"}, parts["state"]), updated,
    )  # fmt: skip
    shown = [_section(name, parts[name]) for name in ORDER]
    body = tag(
        "body", {"data-span": span},
        tag("a", {"href": "#main", "class": "skip"}, "Skip to the content"),
        top, tag("main", {"id": "main", "tabindex": "-1"}, shown), tag("footer", {}, tag("p", {}, FOOTER)),
    )  # fmt: skip
    return join([Markup("<!doctype html>\n"), tag("html", {"lang": "en"}, head, body)])


def _section(name: str, content: Markup) -> Markup:
    label = LABELS.get(name)
    named = {"aria-label": label} if label else {"aria-labelledby": f"{name}-title"}
    return tag("section", {"id": name, **named, "hidden": not content}, content)
