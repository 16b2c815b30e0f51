from __future__ import annotations

from typing import Any

import pytest

from obcd.api.forms.batch_request import BatchRequest, parse_batch, parse_count, parse_object
from obcd.api.forms.identifiers import BATCH, FILE, core_of, new_core, split_output
from obcd.api.forms.refusals import ApiError

GOOD = {"input_file_id": "file-1", "endpoint": "/v1/chat/completions", "completion_window": "24h"}


def test_request_is_what_the_client_sent() -> None:
    expiry = {"anchor": "created_at", "seconds": 3600}

    assert parse_batch(GOOD) == BatchRequest("file-1", "/v1/chat/completions")
    assert parse_batch(GOOD | {"metadata": {"a": "b"}, "output_expires_after": expiry}) == BatchRequest(
        "file-1", "/v1/chat/completions", {"a": "b"}, 3600.0
    )


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"input_file_id": None}, "input_file_id"),
        ({"input_file_id": ["file-1"]}, "input_file_id"),
        ({"endpoint": "/v1/responses"}, "endpoint"),
        ({"endpoint": []}, "endpoint"),
        ({"completion_window": "48h"}, "completion_window"),
        ({"completion_window": None}, "completion_window"),
        ({"metadata": "x"}, "metadata"),
        ({"metadata": {"k": 1}}, "metadata"),
        ({"metadata": {"k" * 65: ""}}, "metadata"),
        ({"metadata": {"k": "v" * 513}}, "metadata"),
        ({"metadata": {str(number): "" for number in range(17)}}, "metadata"),
        ({"output_expires_after": 3600}, "output_expires_after"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 1}}, "output_expires_after"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": float("nan")}}, "output_expires_after"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 10**400}}, "output_expires_after"),
        ({"output_expires_after": {"anchor": "other", "seconds": 3600}}, "output_expires_after"),
        ({"user": "root"}, "user"),
        ({"\ud800\n": 1}, "\\ud800\\n"),
    ],
)
def test_what_is_wrong_or_unknown_is_named(change: dict[str, Any], param: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse_batch(GOOD | change)

    assert (caught.value.status, caught.value.param) == (400, param)


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b"1", b"\xff", b'{"a":' * 100_000])
def test_body_that_is_no_object_is_refused(raw: bytes) -> None:
    with pytest.raises(ApiError):
        parse_object(raw)


@pytest.mark.parametrize("text", ["0", "101", "-1", "1.5", "x", "", "\u0661", "9" * 5000])
def test_limit_is_a_number_in_its_range(text: str) -> None:
    assert parse_count(None, 20, 100) == 20
    assert parse_count("100", 20, 100) == 100
    with pytest.raises(ApiError):
        parse_count(text, 20, 100)


def test_ids_sort_by_time_and_differ() -> None:
    cores = [new_core(1_800_000_000 + second) for second in range(5) for _ in range(2)]

    assert sorted(core[:12] for core in cores) == [core[:12] for core in cores]
    assert len({core[12:] for core in cores}) == 10
    assert all(core_of(BATCH + core, BATCH) == core for core in cores)


@pytest.mark.parametrize(
    "text", ["", "file-", "file-../../etc", "batch_" + "0" * 31, "file-" + "0" * 33, "file-" + "G" * 32]
)
def test_other_texts_are_no_ids(text: str) -> None:
    assert (core_of(text, FILE), core_of(text, BATCH)) == (None, None)
    assert (split_output(text), split_output(text + "-output")) == (None, None)
