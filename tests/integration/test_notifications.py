"""From a dropped file to the notification, with a real coordinator."""

from __future__ import annotations

import email
import email.policy
import signal
from pathlib import Path

import pytest

from obcd.host.supervisord.up_programs import free_ports
from obcd.spool.folders.event_files import folder_of
from tests.receivers import given_to, receiving, write_program, write_secret
from tests.support import Cluster, prompts, wait_until

pytestmark = pytest.mark.integration


def test_a_published_job_is_sent_by_every_way_and_its_event_is_removed(cluster: Cluster, tmp_path: Path) -> None:
    server = cluster.simulate("--seconds", 0.01)
    heard, mails = tmp_path / "heard", tmp_path / "mails"
    with receiving() as receiver:
        config = cluster.configure(
            server.names,
            notify={
                "webhook": receiver.url,
                "webhook_secret_file": str(write_secret(tmp_path / "secret")),
                "command": [str(write_program(tmp_path / "tell", heard)), "--room", "batches"],
                "mail_to": ["ops@example.org"],
                "sendmail": str(write_program(tmp_path / "sendmail", mails)),
            },
            profiles={"silent": {"notify": {"events": ["job.failures"], "webhook": False}}},
        )
        coordinator = cluster.coordinate(config)
        coordinator.drop(prompts(3))
        coordinator.drop(prompts(2), "quiet.jsonl", "silent")
        coordinator.published()
        coordinator.published("silent/quiet")
        wait_until(lambda: given_to(heard) and given_to(mails) and receiver.received, what=coordinator.text)
        wait_until(lambda: not list(folder_of(coordinator.root).iterdir()), what=coordinator.text)
        assert coordinator.status()["processes"]["notifier"]
        coordinator.send(signal.SIGTERM)
        coordinator.wait()

    (received,) = receiver.received
    assert (received.message["type"], received.message["data"]["name"]) == ("job.published", "notes.jsonl")
    assert received.message["data"]["counts"]["responses"] == 3
    assert received.message["data"]["folder"] == str(coordinator.outbox / "notes")
    ((words, given),) = given_to(heard)
    assert (words, given.encode()) == (["--room", "batches"], received.body + b"\n")
    ((words, given),) = given_to(mails)
    mail = email.message_from_string(given, policy=email.policy.default)
    assert words == ["-i", "-t"]
    assert mail["Subject"] == "obcd: notes.jsonl is published: 3 responses, 0 failures"


def test_an_event_that_is_left_over_is_sent_by_the_next_coordinator(cluster: Cluster, tmp_path: Path) -> None:
    server = cluster.simulate("--seconds", 0.01)
    with receiving(lambda number: (500, {})) as receiver:
        notify = {"webhook": receiver.url, "webhook_secret_file": str(write_secret(tmp_path / "secret"))}
        coordinator = cluster.coordinate(cluster.configure(server.names, notify=notify))
        coordinator.drop(prompts(1))
        wait_until(lambda: receiver.received, what=coordinator.text)
        wait_until(lambda: coordinator.status()["troubles"], what=coordinator.text)
        (trouble,) = coordinator.status()["troubles"]
        coordinator.kill()
        receiver.answer = lambda number: (204, {})
        again = cluster.coordinate(cluster.folder / "obcd.toml")
        wait_until(lambda: len(receiver.received) > 1, what=again.text)
        wait_until(lambda: not list(folder_of(again.root).iterdir()), what=again.text)
        assert again.status()["troubles"] == []

    assert len(set(receiver.ids())) == 1
    assert "webhook at 127.0.0.1 fail" in trouble
    assert "room=1" not in trouble


def test_a_lost_endpoint_is_notified_once_and_a_reload_switches_everything_off(
    cluster: Cluster, tmp_path: Path
) -> None:
    with receiving() as receiver:
        notify = {
            "webhook": receiver.url,
            "webhook_secret_file": str(write_secret(tmp_path / "secret")),
            "endpoint_minutes": 0.001,
        }
        (port,) = free_ports(1)
        coordinator = cluster.coordinate(cluster.configure([f"127.0.0.1:{port}"], notify=notify))
        wait_until(lambda: receiver.received, what=coordinator.text)
        wait_until(lambda: not list(folder_of(coordinator.root).iterdir()), what=coordinator.text)
        cluster.configure([f"127.0.0.1:{port}"])
        assert coordinator.obcd("reload").returncode == 0
        assert not folder_of(coordinator.root).exists()
        wait_until(lambda: "notifier" not in coordinator.status()["processes"], what=coordinator.text)

    (received,) = receiver.received
    assert received.message["type"] == "endpoint.lost"
    assert list(received.message["data"]["endpoints"]) == [f"127.0.0.1:{port}"]
