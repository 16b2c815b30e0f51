"""Endpoints by host, and the cards of registered hosts. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from obcd.coordinator.view import EndpointView, HostView, View
from obcd.core.markup import Child, Markup, join, tag
from obcd.hosts.record import CardReading
from obcd.page import figures
from obcd.page.signs import BAD, ENDPOINTS, HOSTS, WARN, Sign, faint, gauge, show, state
from obcd.page.tables import RowGroup, TableColumn, TableRow, table
from obcd.text import plural

#: The most rows of endpoints and of cards, and the most models and reasons that a row names.
MOST_ENDPOINTS, MOST_CARDS, MOST_MODELS, MOST_REASONS = 512, 512, 3, 4
#: {suffix of a stand-in's version: what it is}
STAND_INS = {"embedded": "real inference on the CPU", "simulated": "simulated, made-up words"}


def show_endpoints(view: View, *, has_names: bool) -> Markup:
    """Return the table of endpoints, each host's together."""
    heading = tag("h2", {"id": "endpoints-title"}, "Endpoints")
    if not view.endpoints:
        return join(
            [heading, tag("p", {"class": "faint"}, "There is no endpoint yet."), _lone_hosts(view, has_names=has_names)]
        )
    grouped: dict[str, list[EndpointView]] = {}  # by host
    for item in view.endpoints[:MOST_ENDPOINTS]:
        grouped.setdefault(item.host, []).append(item)
    records = {name: host for host in view.hosts for name in host.endpoints}
    is_even = all(len({_server(item) for item in items}) == 1 for items in grouped.values())
    groups = [_host(name, items, records, is_even=is_even, has_names=has_names) for name, items in grouped.items()]
    listed = table(ENDPOINT_COLUMNS[:-1] if is_even else ENDPOINT_COLUMNS, groups, "endpoints-title")
    more = len(view.endpoints) - MOST_ENDPOINTS
    rest = tag("p", {"class": "faint"}, f"and {figures.count(more)} more") if more > 0 else None
    return join([heading, listed, rest, _lone_hosts(view, has_names=has_names)])


ENDPOINT_COLUMNS = (
    TableColumn("Endpoint"), TableColumn("State"), TableColumn("Slots in use", "progress"),
    TableColumn("Tokens/s", "num"), TableColumn("Answered", "num"), TableColumn("Faults", "num"), TableColumn("Server"),
)  # fmt: skip


def _host(
    name: str, items: Sequence[EndpointView], records: Mapping[str, HostView], *, is_even: bool, has_names: bool
) -> RowGroup:
    """Return a group of rows: the host with its sums, and with its server if all hosts have one kind; its endpoints."""
    record = next((records[item.name] for item in items if item.name in records), None)
    slots, busy = sum(item.slots for item in items), sum(item.in_flight for item in items)
    words = f"{plural(len(items), 'endpoint')}, {figures.count(busy)} of {figures.count(slots)} slots in use"
    about: list[Child] = [tag("bdi", {"class": "strong"}, name or "no host"), faint(words)]
    if record is not None:
        about += _record(record, has_names=has_names)
    if is_even:
        about.append(faint(_server(items[0])))
    return RowGroup(about, [_endpoint(item, has_server=not is_even) for item in items])


def _record(record: HostView, *, has_names: bool) -> list[Child]:
    """Return what the host's own record says."""
    found: list[Child] = [state(HOSTS, record.state)]
    if record.seconds_left is not None:
        found.append(faint(f"{figures.span(record.seconds_left)} of its allocation left"))
    if has_names and record.by:
        found.append(faint(record.by))
    if record.why and has_names:
        found.append(tag("span", {"class": "why"}, record.why))
    return found


def _endpoint(item: EndpointView, *, has_server: bool) -> TableRow:
    why = [text for text in (item.reason, *item.left_out) if text]
    used = f"{figures.count(item.in_flight)} of {figures.count(item.slots)}" + (" (auto)" if item.finds_slots else "")
    return TableRow(
        (
            [tag("bdi", {}, item.name), faint(f"GPU {figures.count(item.gpu)}")],
            [state(ENDPOINTS, item.state), [tag("span", {"class": "why"}, text) for text in why[:MOST_REASONS]]],
            gauge([(figures.share(item.in_flight, item.slots), "fill")], used),
            figures.rate(item.tokens_per_second),
            figures.count(item.answered),
            figures.count(item.faults),
            *([faint(_server(item))] if has_server else []),
        ),
        f"endpoint-{item.name}",
    )


def _server(item: EndpointView) -> str:
    """Return e.g. `Ollama 0.33.1 with llama3.2:latest, qwen3:8b`."""
    kind = STAND_INS.get(item.version.rpartition("-")[2])
    server = kind or (f"Ollama {item.version}" if item.version else "")
    models, more = ", ".join(item.models[:MOST_MODELS]), len(item.models) - MOST_MODELS
    models += f" and {more} more" if more > 0 else ""
    return " with ".join(filter(None, (server, models)))


def _lone_hosts(view: View, *, has_names: bool) -> Markup | None:
    """Return the hosts none of whose endpoints is used."""
    lone = [host for host in view.hosts if not host.endpoints]
    if not lone:
        return None
    rows = [
        tag("li", {}, tag("bdi", {"class": "strong"}, host.name), " ", _record(host, has_names=has_names))
        for host in lone[:20]
    ]
    rows += [tag("li", {}, f"and {len(lone) - 20} more")] if len(lone) > 20 else []
    return join([tag("h3", {}, "Hosts that are not used"), tag("ul", {"class": "plain"}, rows)])


# --- the cards -------------------------------------------------------------------------------------------------------


def show_cards(view: View) -> Markup:
    """Return the table of cards; a column that no card can fill is left out."""
    cards = [(host.name, card) for host in view.hosts for card in host.cards][:MOST_CARDS]
    if not cards:
        return Markup()
    readings = [card for _, card in cards]
    columns = [column for column, is_known in (
        (TableColumn("Card"), True),
        (TableColumn("Utilisation", "progress"), any(card.utilization is not None for card in readings)),
        (TableColumn("Memory", "progress"), any(card.memory_used_bytes is not None for card in readings)),
        (TableColumn("Power", "num"), any(card.power_watts is not None for card in readings)),
        (TableColumn("Temperature", "num"), any(card.temperature_celsius is not None for card in readings)),
        (TableColumn("Xid", "num"), True),
    ) if is_known]  # fmt: skip
    rows = [
        TableRow((_card(host, card), *(_reading(card, column.name) for column in columns[1:])), f"card-{card.uuid}")
        for host, card in cards
    ]
    return join([tag("h2", {"id": "cards-title"}, "Cards"), table(columns, [RowGroup(None, rows)], "cards-title")])


def _card(host: str, card: CardReading) -> Child:
    lost = show(Sign("✕", "lost", BAD)) if card.is_lost else None
    return [tag("bdi", {}, f"{host}, GPU {figures.count(card.index)}"), faint(card.name), lost]


def _reading(card: CardReading, column: str) -> Child:
    if column == "Utilisation":
        return _with_bar(card.utilization, figures.percent(card.utilization))
    if column == "Memory":
        used, total = card.memory_used_bytes, card.memory_total_bytes
        text = figures.size(used) + (f" of {figures.size(total)}" if used is not None and total else "")
        return _with_bar(figures.share(used, total) if used is not None and total else None, text)
    if column == "Power":
        return (
            figures.UNKNOWN
            if card.power_watts is None
            else f"{figures.count(round(figures.bounded(card.power_watts)))} W"
        )
    if column == "Temperature":
        return figures.UNKNOWN if card.temperature_celsius is None else f"{figures.count(card.temperature_celsius)} °C"
    if not card.xid_errors:
        return faint("none")
    last = f", last {figures.count(card.last_xid)}" if card.last_xid is not None else ""
    return show(Sign("▲", f"{figures.count(card.xid_errors)}{last}", WARN))


def _with_bar(part: float | None, text: str) -> Child:
    return gauge([(figures.bounded(part), "fill")], text) if part is not None else text
