"""Whose records count, rule by rule, with real files."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from obcd.hosts.record import MAX_RECORD_BYTES, HostRecord, HostState, encode_record
from obcd.hosts.scan import MOST_RECORDS, OwnedRecord, RefusedRecord, Scan, Scanner
from obcd.hosts.trust import find_trusted

OWN = os.geteuid()
RECORD = HostRecord(id="gpu1", boot="b1", sequence=1, state=HostState.SERVING)


def write(folder: Path, name: str = "gpu1", raw: bytes | None = None) -> Path:
    path = folder / f"{name}.json"
    path.write_bytes(encode_record(RECORD) if raw is None else raw)
    path.chmod(0o640)
    return path


def scan(folder: Path, *trusted: int) -> Scan:
    return Scanner(folder, frozenset(trusted or (OWN,))).scan()


def refusal(folder: Path, name: str = "gpu1", *trusted: int) -> RefusedRecord:
    found = scan(folder, *trusted)
    assert name not in found.found
    return found.refused[name]


def test_record_of_a_listed_user_counts(tmp_path: Path) -> None:
    write(tmp_path)

    assert scan(tmp_path).found == {"gpu1": OwnedRecord(RECORD, OWN)}


def test_record_of_another_user_does_not_count(tmp_path: Path) -> None:
    write(tmp_path)

    assert refusal(tmp_path, "gpu1", OWN + 1).uid == OWN


def link(path: Path) -> None:
    target = path.with_name("target")
    path.rename(target)
    path.symlink_to(target)


def hard_link(path: Path) -> None:
    os.link(path, path.with_name("second"))


def make_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_socket(path: Path) -> None:
    path.unlink()
    here = os.open(path.parent, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(f"/proc/self/fd/{here}/{path.name}")  # whatever the length of the path
    finally:
        os.close(here)


def make_device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def lengthen(path: Path) -> None:
    path.write_bytes(encode_record(RECORD).ljust(MAX_RECORD_BYTES + 1))


def tear(path: Path) -> None:
    path.write_bytes(encode_record(RECORD)[:-20])


def rename(path: Path) -> None:
    copy = path.read_bytes().replace(b'"gpu1"', b'"gpu2"')
    path.write_bytes(copy)


def open_to(mode: int) -> Callable[[Path], None]:
    return lambda path: path.chmod(mode)


@pytest.mark.parametrize(
    "spoil",
    [
        link,
        hard_link,
        make_fifo,
        make_folder,
        make_socket,
        make_device,
        lengthen,
        tear,
        rename,
        open_to(0o660),
        open_to(0o646),
    ],
)
def test_file_that_breaks_a_rule_does_not_count(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    spoil(write(tmp_path))

    assert refusal(tmp_path).why


def test_pipe_that_holds_a_record_does_not_count(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "gpu1.json", 0o640)
    descriptor = os.open(tmp_path / "gpu1.json", os.O_RDWR | os.O_NONBLOCK)
    try:
        os.write(descriptor, encode_record(RECORD))
        assert refusal(tmp_path).uid == OWN
    finally:
        os.close(descriptor)


def test_huge_file_is_not_read_and_the_others_count(tmp_path: Path) -> None:
    with write(tmp_path, "huge").open("r+b") as file:
        file.truncate(2**40)
    write(tmp_path)

    assert scan(tmp_path).found.keys() == {"gpu1"}


def test_record_that_cannot_be_read_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)
    really_open = os.open

    def refuse(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == "gpu1.json":
            raise PermissionError(13, "Permission denied")
        return really_open(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", refuse)

    assert refusal(tmp_path).uid == OWN


@pytest.mark.parametrize("call", ["open", "read", "fstat"])
def test_file_server_that_fails_is_no_refusal_of_its_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    write(tmp_path)
    scanner = Scanner(tmp_path, frozenset((OWN,)))
    scanner.scan()

    def fail(*arguments: object, **options: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(OSError, match="Input/output"):
            scanner.scan()
    assert scanner.scan().found


def test_record_that_is_replaced_while_it_is_read_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path)

    def fail(*arguments: object) -> None:
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr(os, "read", fail)

    found = scan(tmp_path)
    assert (dict(found.found), dict(found.refused)) == ({}, {})


def test_temporary_hidden_and_other_files_are_passed_over(tmp_path: Path) -> None:
    for name in (".gpu1.json", ".gpu1.abc.tmp", "notes.txt", "a b.json", "gpu1.json.bak", ".json"):
        (tmp_path / name).write_text("x")

    found = scan(tmp_path)
    assert (dict(found.found), dict(found.refused)) == ({}, {})


def test_folder_filled_by_somebody_takes_no_place_from_records_that_counted(tmp_path: Path) -> None:
    write(tmp_path, "zzz", encode_record(HostRecord(id="zzz", boot="b", sequence=1, state=HostState.SERVING)))
    scanner = Scanner(tmp_path, frozenset((OWN,)))
    assert not scanner.scan().is_cut
    for number in range(MOST_RECORDS + 10):
        os.mkfifo(tmp_path / f"a{number}.json")

    found = scanner.scan()

    assert (list(found.found), len(found.refused), found.is_cut) == (["zzz"], MOST_RECORDS - 1, True)


def test_files_that_are_no_records_cut_the_scan_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("obcd.hosts.scan.MOST_ENTRIES", 5)
    for number in range(5):
        (tmp_path / f"{number}.txt").touch()
    assert not scan(tmp_path).is_cut

    (tmp_path / "5.txt").touch()
    assert scan(tmp_path).is_cut


def test_lease_on_a_file_that_never_counted_stops_no_scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)
    leased = write(tmp_path, "leased")
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)  # the kernel tells the holder of the lease
    with leased.open("r+") as file:
        try:
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        except OSError as error:
            pytest.skip(f"this file system has no leases: {error}")
        found = scan(tmp_path)
    signal.signal(signal.SIGIO, before)

    assert (list(found.found), list(found.refused)) == (["gpu1"], ["leased"])


def test_record_that_counted_and_cannot_be_read_is_a_fault_of_the_file_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path)
    scanner = Scanner(tmp_path, frozenset((OWN,)))
    scanner.scan()

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("obcd.hosts.scan.read_trusted", fail)
    with pytest.raises(OSError, match="Input/output"):
        scanner.scan()


def test_same_bytes_are_not_parsed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path)
    scanner = Scanner(tmp_path, frozenset((OWN,)))
    first = scanner.scan()
    monkeypatch.setattr("obcd.hosts.trust.parse_record", lambda raw, **_: pytest.fail("parsed again"))
    assert scanner.scan() == first
    monkeypatch.undo()

    path.write_bytes(encode_record(RECORD).replace(b'"serving"', b'"draining"'))
    assert scanner.scan().found["gpu1"].record.state == HostState.DRAINING


def test_folder_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        scan(tmp_path / "hosts")


def test_listed_users_are_names_or_numbers_and_unknown_ones_are_returned() -> None:
    assert find_trusted(None, 1000) == (frozenset((1000, 0)), [])
    assert find_trusted(["root", "1001", "no-such-user"], 1000) == (frozenset((0, 1001)), ["no-such-user"])
