"""`obcd api` with a real coordinator: OpenAI's own client, another user's API, a process that is killed."""

from __future__ import annotations

import json
import os
import pwd
import signal
import socket
from pathlib import Path
from typing import Any

import psutil
import pytest

from obcd.api.forms.batch_request import BatchRequest
from obcd.api.place import ApiPlace
from obcd.api.running import opened_parts
from obcd.api.token_file import ApiUser
from obcd.config.loading import load_settings
from obcd.spool.folders import acl
from obcd.spool.folders.layout import Layout
from tests.api_support import ApiProcess, finished, start_api
from tests.faults.users import User, make_shared_root, needs_root
from tests.support import Cluster, Published, Running, Simulated, wait_until, write_config
from tests.unit.api.api_spool import lines

pytestmark = pytest.mark.integration

ME = pwd.getpwuid(os.geteuid()).pw_name
CHAT = "/v1/chat/completions"


@pytest.fixture
def api(cluster: Cluster, quick_server: Simulated, started: list[Running]) -> ApiProcess:
    return start_api(cluster, quick_server, started)


def test_official_client_takes_a_batch_through_its_whole_life(api: ApiProcess, tmp_path: Path) -> None:
    client = api.client()
    source = tmp_path / "in.jsonl"
    source.write_bytes(lines(5) + b"bad\n")

    file = client.files.create(file=source, purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint=CHAT, completion_window="24h", metadata={"night": "1"}
    )
    assert (batch.status, batch.metadata) == ("validating", {"night": "1"})
    done = finished(client, batch.id)

    assert (done.status, done.request_counts.completed, done.request_counts.failed) == ("completed", 5, 1)
    answers = [json.loads(line) for line in client.files.content(done.output_file_id).text.splitlines()]
    assert [answer["custom_id"] for answer in answers] == [f"r-{number}" for number in range(5)]
    assert len(client.files.content(done.error_file_id).text.splitlines()) == 1
    assert client.files.retrieve(done.output_file_id).purpose == "batch_output"
    assert {item.id for item in client.files.list()} == {file.id, done.output_file_id, done.error_file_id}
    assert [item.id for item in client.batches.list(limit=1)] == [batch.id]
    assert [item.id for item in client.models.list()] == ["llama3.2"]
    assert client.files.delete(file.id).deleted


def test_official_client_cancels_and_is_told_what_is_wrong(api: ApiProcess, quick_server: Simulated) -> None:
    import openai  # noqa: PLC0415 - it takes a second

    client = api.client()
    content = lines(400)
    file = client.files.create(file=("in.jsonl", content), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
    wait_until(lambda: client.batches.retrieve(batch.id).request_counts.completed > 0)

    assert client.batches.cancel(batch.id).status == "cancelling"
    done = finished(client, batch.id)

    assert done.status == "cancelled"
    assert 0 < done.request_counts.completed < 400
    assert client.files.content(done.output_file_id).text
    for act, kind in (
        (lambda: client.batches.cancel(batch.id), openai.BadRequestError),
        (lambda: client.batches.retrieve("batch_" + "0" * 32), openai.NotFoundError),
        (lambda: client.files.create(file=("x", b"x"), purpose="fine-tune"), openai.BadRequestError),
        (client.with_options(api_key="obcd-x").models.list, openai.AuthenticationError),
    ):
        with pytest.raises(kind):
            act()


def test_api_that_is_killed_goes_on_where_it_was(api: ApiProcess, quick_server: Simulated) -> None:
    client = api.client(max_retries=9)
    made = []
    for number in range(4):
        file = client.files.create(file=("in.jsonl", lines(number + 1)), purpose="batch")
        made.append(client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h").id)
        if number % 2:
            api.process.send(signal.SIGKILL)
            api.process.wait()
            api.process = api.start()

    ended = [finished(client, batch) for batch in made]

    assert [(item.status, item.request_counts.completed) for item in ended] == [("completed", n) for n in (1, 2, 3, 4)]
    assert len(quick_server.account()) == 10, "no line was sent twice"
    api.process.send(signal.SIGTERM)
    assert api.process.wait() == 0


def test_slow_connections_do_not_keep_others_out(api: ApiProcess) -> None:
    host, _, port = api.address.rpartition(":")
    slow = [socket.create_connection((host, int(port))) for _ in range(100)]
    for number, connection in enumerate(slow):
        connection.sendall(b"POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n"[: 10 + number])
    try:
        assert [item.id for item in api.client(max_retries=0, timeout=30).models.list()] == ["llama3.2"]
        assert psutil.Process(api.process.pid).memory_info().rss < 150 * 2**20
    finally:
        for connection in slow:
            connection.close()


# --- the API of another user than the daemon's ------------------------------------------------------------------------

#: Users of every Linux who own nothing: the API's, and two who have tokens.
API, ANN, BEN = (pwd.getpwnam(name) for name in ("games", "mail", "news"))


@pytest.fixture(params=[False, True], ids=["for the group", "per user"])
def place(shared: Path, quick_server: Simulated, cluster: Cluster, request: pytest.FixtureRequest) -> ApiPlace:
    """Return the API of a shared spool whose coordinator runs; only root can be several users."""
    if not acl.has_acls(shared):
        pytest.skip("the temporary folder's filesystem keeps no ACLs")
    root = make_shared_root(shared)
    config = write_config(
        shared / "obcd.toml", quick_server.names, spool={"per_user": request.param},
        api={"enabled": True, "user": API.pw_name},
    )  # fmt: skip
    cluster.coordinate(config, root)
    settings = load_settings(config)
    return ApiPlace.of(settings, Layout.at(root, per_user=request.param))


def in_parts(place: ApiPlace, act: Any) -> str:
    """Do something with the API's parts, as the API's user."""

    def run() -> str:
        with opened_parts(place) as parts:
            return str(act(parts))

    return User(API.pw_uid, API.pw_gid).does(run)


@needs_root
@pytest.mark.case("F10")
def test_batch_is_the_job_of_the_tokens_user_and_only_its_results_are_the_apis(place: ApiPlace) -> None:
    account, other = ApiUser(ANN.pw_name, ANN.pw_uid), ApiUser(BEN.pw_name, BEN.pw_uid)
    place.give_folder(API.pw_uid)

    def make(parts: Any) -> str:
        coming = parts.uploads.begin(account.uid)
        parts.uploads.write(coming, lines(3))
        stored = parts.uploads.commit(coming, "in.jsonl", "batch")
        batch = str(parts.batches.create(account, BatchRequest(stored.id, CHAT), is_repeated=False)["id"])
        wait_until(lambda: parts.batches.retrieve(account, batch)["status"] == "completed")
        return batch

    batch = in_parts(place, make)
    assert batch.startswith("batch_"), batch
    folder = place.layout.outbox / (ANN.pw_name if place.layout.per_user else "") / batch
    published = Published(folder)
    assert [item["custom_id"] for item in published.responses] == ["r-0", "r-1", "r-2"]
    assert published.manifest["submitter"] == {"uid": ANN.pw_uid, "name": ANN.pw_name}
    assert published.manifest["dropped_by"]["name"] == API.pw_name

    def read(parts: Any) -> str:
        output = parts.batches.find_output(account, f"file-{batch.removeprefix('batch_')}-output")
        return f"{len(output.path.read_bytes().splitlines())} {parts.batches.page(other, None, 9)}"

    assert in_parts(place, read) == "3 ([], False)"
    api = User(API.pw_uid, API.pw_gid)
    assert api.does(lambda: os.listdir(place.layout.outbox)) == "PermissionError"
    assert api.does(lambda: os.listdir(place.layout.inbox)) == "PermissionError"
    assert api.does(lambda: os.listdir(place.layout.jobs)) == "PermissionError"
    mallory = User(BEN.pw_uid, BEN.pw_gid)
    assert mallory.does(lambda: os.listdir(place.folder)) == "PermissionError"
    assert mallory.does((folder / "responses.jsonl").read_bytes) == "PermissionError"


@needs_root
def test_results_of_others_are_not_the_apis(place: ApiPlace) -> None:
    source = place.layout.inbox / "private.jsonl"
    source.write_bytes(b'{"prompt": "mine"}\n')
    os.chown(source, BEN.pw_uid, -1)
    home = place.layout.outbox / (BEN.pw_name if place.layout.per_user else "")
    wait_until((home / "private" / "manifest.json").exists)

    api = User(API.pw_uid, API.pw_gid)

    assert api.does((home / "private" / "responses.jsonl").read_bytes) == "PermissionError"


@needs_root
def test_api_runs_as_its_user_alone(place: ApiPlace) -> None:
    place.give_folder(API.pw_uid)

    for user in (ANN, BEN):
        assert User(user.pw_uid, user.pw_gid).does(place.tokens) == "ConfigurationError"
    assert in_parts(place, lambda parts: "up") == "up"
