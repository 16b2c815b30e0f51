from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from obcd.core.markup import Markup
from obcd.page import application as module
from obcd.page import status_source
from obcd.page.application import POLICY, PageApplication
from obcd.page.content import Privacy, sections
from obcd.page.status_source import SeenStatus
from obcd.serving.allowed_hosts import AllowedHosts
from obcd.serving.door import Application
from obcd.spool.folders.layout import Layout
from tests.unit.page.asking import ask
from tests.unit.page.made import make_view, place, show

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:starlette")

ADDRESSES = ("/", "/?span=day", "/state.json", "/history.json", "/history.json?span=fortnight", "/metrics")


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setattr(status_source, "FRESH_SECONDS", 0.0)


def serve(layout: Layout, *, show_names: bool = True) -> Application:
    return PageApplication(layout, show_names=show_names).app(AllowedHosts())


def test_page_is_complete_without_script(tmp_path: Path) -> None:
    app = serve(place(tmp_path / "root", make_view(4, 8)))

    page = ask(app)

    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert page.headers["content-security-policy"] == POLICY
    assert POLICY.startswith("default-src 'self';")
    for text in ("clinical/clinical-visits.jsonl", "gpu1:11432", "NVIDIA A100", "timeout", "Requests waiting", "<svg"):
        assert text in page.text
    for trace in ("<style", "style=", "onclick", "javascript:", "http://", "https://"):
        assert trace not in page.text


@pytest.mark.parametrize("path", ADDRESSES)
def test_reply_that_a_browser_has_is_not_sent_again(path: str, tmp_path: Path) -> None:
    app = serve(place(tmp_path / "root", make_view(4, 8)))
    first = ask(app, path, accept_encoding="gzip")

    again = ask(app, path, if_none_match=f'"x", {first.headers["etag"]}')
    other = ask(app, path, if_none_match='"x"')

    assert first.status == other.status == 200
    assert first.text == other.text
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", first.headers["etag"])
    assert first.headers["cache-control"] == again.headers["cache-control"] == "no-cache"


def test_idle_cluster_keeps_its_tag_and_a_change_gives_another(tmp_path: Path) -> None:
    view = make_view(4, 8)
    layout = place(tmp_path / "root", view)
    app = serve(layout)
    before = ask(app, "/state.json").headers["etag"]

    show(layout, replace(view, updated=view.updated + 1))  # nothing that is shown differs
    same = ask(app, "/state.json").headers["etag"]
    show(layout, replace(view, requests_waiting=7))
    changed = ask(app, "/state.json").headers["etag"]

    assert same == before != changed


def test_what_was_made_of_a_state_serves_all_visitors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_source, "FRESH_SECONDS", 60.0)
    made: list[object] = []

    def count(seen: SeenStatus, privacy: Privacy) -> dict[str, Markup]:
        made.append(seen)
        return sections(seen, privacy)

    monkeypatch.setattr(module, "sections", count)
    app = serve(place(tmp_path / "root", make_view(4, 8)))

    for _ in range(20):
        assert ask(app, "/state.json").status == 200

    assert len(made) == 1


@pytest.mark.parametrize("path", ["/", "/state.json"])
@pytest.mark.parametrize(("is_tcp", "per_user", "show_names", "has_names"), [
    (True, False, True, True), (False, False, True, True), (False, True, True, True),
    (True, True, True, False), (True, False, False, False), (False, True, False, False),
])  # fmt: skip
def test_names_of_jobs_and_submitters_are_for_those_who_may_see_them(
    path: str, is_tcp: bool, per_user: bool, show_names: bool, has_names: bool, tmp_path: Path
) -> None:
    view = make_view(4, 8, per_user=per_user)
    jobs = tuple(replace(job, name=f"zanzibar-{job.name}", trouble="zanzibar", profile="zanzibar") for job in view.jobs)
    secret = replace(
        view,
        jobs=jobs,
        further_jobs=tuple(replace(job, name="zanzibar") for job in view.further_jobs),
        troubles=("zanzibar-clinical.jsonl is set aside",),
        notes=("zanzibar",),
        hosts=tuple(replace(host, by="zanzibar", owner="zanzibar", why="zanzibar") for host in view.hosts),
        waiting=tuple(replace(item, file="zanzibar", why="zanzibar") for item in view.waiting),
        rejected=tuple(replace(item, file="zanzibar") for item in view.rejected),
        published=tuple(replace(item, name="zanzibar", job="zanzibar") for item in view.published),
        settling=("zanzibar",),
    )
    app = serve(place(tmp_path / "root", secret), show_names=show_names)

    page = ask(app, path, is_tcp=is_tcp)

    assert ("zanzibar" in page.text) is has_names
    assert (str(tmp_path) in ask(app, "/", is_tcp=is_tcp).text) is has_names
    assert "gpu1:11432" in page.text  # counts and endpoints are for all
    assert "timeout" in page.text


@pytest.mark.parametrize("path", ADDRESSES)
def test_reasons_of_rejections_and_ids_of_drops_are_shown_to_nobody(path: str, tmp_path: Path) -> None:
    view = make_view(4, 8)
    jobs = tuple(replace(job, drop_id="SECRET", batch={"id": "SECRET"}) for job in view.jobs)
    app = serve(place(tmp_path / "root", replace(view, jobs=jobs)))

    assert "SECRET" not in ask(app, path, is_tcp=False).text


def test_stopped_coordinator_is_named_with_the_time_since_when(tmp_path: Path) -> None:
    app = serve(place(tmp_path / "root", make_view(4, 8, updated=1_795_373_853.0)))

    page = ask(app)

    assert "not running" in page.text
    assert 'since <time datetime="2026-11-22T18:57:33Z">' in page.text
    assert "clinical-visits.jsonl" in page.text  # its last state


def test_status_that_vanished_leaves_the_last_state_and_its_time(tmp_path: Path) -> None:
    layout = place(tmp_path / "root", make_view(4, 8))
    app = serve(layout)
    assert "not running" not in ask(app).text

    layout.status.unlink()
    page = ask(app)

    assert "not running" in page.text
    assert "clinical-visits.jsonl" in page.text
    assert "since <time" in page.text


def test_page_that_starts_after_the_coordinator_ended_knows_its_last_line_of_history(tmp_path: Path) -> None:
    layout = place(tmp_path / "root", make_view(4, 8, updated=time.time() - 600))
    layout.status.unlink()

    page = ask(serve(layout))

    assert "not running" in page.text
    assert "since <time" in page.text


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"format": 2}', "[" * 100_000, '{"updated": 1e999}', "\xff"]
)
def test_status_of_something_else_is_named_and_nothing_fails(content: str, tmp_path: Path) -> None:
    layout = place(tmp_path / "root", make_view(1, 1))
    layout.status.write_bytes(content.encode("latin-1"))
    app = serve(layout)

    for path in ADDRESSES:
        assert ask(app, path).status == 200
    assert "another version" in ask(app).text


def test_closed_status_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = place(tmp_path / "root", make_view(1, 1))

    def refuse(layout: Layout) -> object:  # root, which runs these tests too, may read everything
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(status_source, "read_status", refuse)

    assert "has to be in the daemon&#x27;s group" in ask(serve(layout)).text


@pytest.mark.parametrize("path", [
    "/x", "/static/", "/static/page.css", "/static/../application.py", "/static/..%2fapplication.py", "//",
    "/state.json/", "/static/\udcff", "/%00", "/static/" + "x" * 1000, "/?" + "x" * 3000, "/metrics/x",
])  # fmt: skip
def test_other_addresses_are_refused_and_not_repeated(path: str, tmp_path: Path) -> None:
    answered = ask(serve(place(tmp_path / "root", make_view(1, 1))), path)

    assert answered.status in {404, 414}
    assert answered.headers["content-type"].startswith("text/plain")
    assert answered.headers["content-security-policy"] == POLICY
    assert "x" * 20 not in answered.text


@pytest.mark.parametrize("span", ["", "year", "<script>", "day&span=hour", "day%00"])
def test_unknown_span_is_the_hour(span: str, tmp_path: Path) -> None:
    app = serve(place(tmp_path / "root", make_view(1, 1)))

    assert json.loads(ask(app, f"/history.json?span={span}").text)["span"] == "hour"


def test_head_has_the_headers_of_the_page_and_no_body(tmp_path: Path) -> None:
    app = serve(place(tmp_path / "root", make_view(1, 1)))

    head, page = ask(app, method="HEAD"), ask(app)

    assert (head.status, head.headers["content-length"]) == (200, page.headers["content-length"])


def test_files_are_kept_for_a_year_and_sent_packed(tmp_path: Path) -> None:
    app = serve(place(tmp_path / "root", make_view(1, 1)))
    found = [part.split('"')[0] for part in ask(app).text.split('"/static/')[1:]]

    files = [ask(app, f"/static/{name}", accept_encoding="gzip") for name in found]

    assert len(found) == 5
    assert all(file.status == 200 and "immutable" in file.headers["cache-control"] for file in files)
    assert sum(len(file.body) for file in files) < 40_000


def test_metrics_are_those_of_a_running_coordinator_and_of_no_other(tmp_path: Path) -> None:
    layout = place(tmp_path / "root", make_view(2, 3))
    app = serve(layout)

    running = ask(app, "/metrics")
    show(layout, make_view(2, 3, updated=1.0))
    stopped = ask(app, "/metrics")

    assert running.headers["content-type"].startswith("text/plain; version=")
    assert "obcd_up 1.0" in running.text
    assert "clinical-visits" not in running.text
    assert "obcd_up 0.0" in stopped.text
    assert "obcd_endpoint" not in stopped.text
