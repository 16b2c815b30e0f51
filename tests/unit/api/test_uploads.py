from __future__ import annotations

from dataclasses import replace

import pytest

from obcd.api import uploads as module
from obcd.api.forms.refusals import ApiError
from obcd.spool.folders.layout import Layout
from tests.unit.api.api_spool import ANN, BEN, LIMITS, ApiSpool
from tests.unit.spool.spools import Crashed, crash_at


def test_upload_is_its_users_alone(spool: ApiSpool) -> None:
    stored = spool.upload(ANN, b"content")

    assert spool.uploads.find(ANN.uid, stored.id) == stored
    assert spool.uploads.content_of(ANN.uid, stored.id).read_bytes() == b"content"
    assert spool.uploads.find(BEN.uid, stored.id) is None
    assert ApiSpool(spool.layout).uploads.find(ANN.uid, stored.id) == stored, "the next process has it too"
    for path in (spool.layout.root / "api").rglob("*"):
        assert not path.stat().st_mode & 0o077, path


@pytest.mark.parametrize("file", ["", ".", "..", "../..", "file-x", "file-" + "0" * 32])
def test_nothing_else_is_found(spool: ApiSpool, file: str) -> None:
    spool.upload()

    assert spool.uploads.find(ANN.uid, file) is None


def test_upload_that_is_cut_at_any_step_is_there_whole_or_not_at_all(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = set()
    for number in range(1, 99):
        spool = ApiSpool(layout)
        before, coming = set(spool.uploads.names_of(ANN.uid)), None
        try:
            with crash_at(number, monkeypatch):
                coming = spool.uploads.begin(ANN.uid)
                spool.uploads.write(coming, b"content")
                spool.uploads.commit(coming, "in.jsonl", "batch")
        except Crashed:
            if coming is not None:
                coming.file.close()  # a killed process does no more than that
        else:
            break
        again = ApiSpool(layout)
        new = set(again.uploads.names_of(ANN.uid)) - before
        ends.add(len(new))
        assert all(again.uploads.content_of(ANN.uid, name).read_bytes() == b"content" for name in new)
        assert list((layout.root / "api" / "incoming").iterdir()) == []
        again_bytes = sum(max(item.size, module.LEAST_BYTES) for item in again.uploads.all_of(ANN.uid))
        assert again.uploads._count(ANN.uid) == again_bytes
    else:
        pytest.fail("it never ended")
    assert ends == {0, 1}
    assert number > 5


def test_file_that_is_deleted_is_gone_at_any_step(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(1, 9):
        spool = ApiSpool(layout)
        stored = spool.upload()
        try:
            with crash_at(number, monkeypatch):
                spool.uploads.delete(ANN.uid, stored)
        except Crashed:
            again = ApiSpool(layout)
            found = again.uploads.find(ANN.uid, stored.id)
            assert found is None or again.uploads.content_of(ANN.uid, stored.id).is_file()
            assert list((layout.root / "api" / "incoming").iterdir()) == []
        else:
            assert spool.uploads.find(ANN.uid, stored.id) is None
            spool.uploads.delete(ANN.uid, stored)  # a second one is no error
            return
    pytest.fail("it never ended")


def test_file_above_the_limit_is_refused_before_and_while_it_comes(spool: ApiSpool) -> None:
    with pytest.raises(ApiError) as caught:
        spool.uploads.begin(ANN.uid, LIMITS.file_bytes + 1)
    assert caught.value.status == 413

    coming = spool.uploads.begin(ANN.uid)
    spool.uploads.write(coming, b"x" * LIMITS.file_bytes)
    with pytest.raises(ApiError) as caught:
        spool.uploads.write(coming, b"x")
    spool.uploads.give_up(coming)

    assert caught.value.status == 413
    assert list((spool.layout.root / "api" / "incoming").iterdir()) == []


def test_files_of_one_user_have_a_limit_that_others_do_not_use(spool: ApiSpool) -> None:
    half = b"x" * (LIMITS.user_bytes // 2)
    first = spool.upload(ANN, half)
    coming = spool.uploads.begin(ANN.uid, len(half))  # what comes in counts as well
    with pytest.raises(ApiError) as caught:
        spool.upload(ANN)
    assert (caught.value.status, caught.value.code, caught.value.retry) == (429, "insufficient_quota", False)
    spool.upload(BEN, half)

    spool.uploads.give_up(coming)
    spool.upload(ANN)
    with pytest.raises(ApiError):
        spool.upload(ANN, half)
    with pytest.raises(ApiError):
        ApiSpool(spool.layout).upload(ANN, half)
    spool.uploads.delete(ANN.uid, first)
    spool.upload(ANN, half)


def test_many_small_files_count_as_well(spool: ApiSpool) -> None:
    for _ in range(LIMITS.user_bytes // module.LEAST_BYTES):
        spool.upload(ANN, b"x")
    with pytest.raises(ApiError):
        spool.upload(ANN, b"x")


def test_upload_that_would_fill_the_disk_is_refused_for_now(layout: Layout) -> None:
    spool = ApiSpool(layout, replace(LIMITS, min_free_bytes=2**60))

    with pytest.raises(ApiError) as caught:
        spool.upload()

    assert (caught.value.status, caught.value.retry) == (503, True)
    assert not spool.uploads._coming[ANN.uid]


def test_files_are_deleted_in_their_time(spool: ApiSpool) -> None:
    kept = spool.upload()
    coming = spool.uploads.begin(ANN.uid)
    spool.uploads.write(coming, b"x")
    short = spool.uploads.commit(coming, "in.jsonl", "batch", seconds=3600)

    spool.uploads.sweep(short.created_at + 3599)
    assert len(spool.uploads.names_of(ANN.uid)) == 2
    spool.uploads.sweep(short.created_at + 3601)
    assert spool.uploads.names_of(ANN.uid) == [kept.id]
    spool.uploads.sweep(kept.expires_at + 1)
    assert spool.uploads.names_of(ANN.uid) == []
