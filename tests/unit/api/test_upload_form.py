from __future__ import annotations

import pytest

from obcd.api.forms.refusals import ApiError
from obcd.api.forms.upload_form import MAX_FIELD_BYTES, UploadForm

TYPE = "multipart/form-data; boundary=XX"
FILE = b'--XX\r\nContent-Disposition: form-data; name="file"; filename="in.jsonl"\r\n\r\n'
PURPOSE = b'--XX\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
END = b"\r\n--XX--\r\n"


def read(body: bytes, step: int = 10**9) -> tuple[UploadForm, bytes]:
    form = UploadForm(TYPE)
    content = b"".join(form.feed(body[at : at + step]) for at in range(0, len(body), step))
    form.finish()
    return form, content


@pytest.mark.parametrize("step", [1, 2, 7, 10**9])
@pytest.mark.parametrize("content", [b"", b"{}\n", b"\r\n--X", b"--XX", b"\r\n\r\n", bytes(range(256)) * 9])
def test_file_and_fields_come_out_as_they_went_in(content: bytes, step: int) -> None:
    for body in (PURPOSE + FILE + content + END, FILE + content + b"\r\n" + PURPOSE.rstrip(b"\r\n") + END):
        form, found = read(body, step)

        assert found == content
        assert form.fields == {"purpose": "batch"}
        assert form.filename == "in.jsonl"


@pytest.mark.parametrize(
    ("name", "shown"),
    [("a.jsonl", "a.jsonl"), ("../../etc/passwd", "passwd"), ("/x/", "upload.jsonl"), ("a" * 999, "a" * 255)],
)
def test_name_of_a_file_is_only_a_name(name: str, shown: str) -> None:
    form, _ = read(FILE.replace(b"in.jsonl", name.encode()) + b"x" + END)

    assert form.filename == shown


@pytest.mark.parametrize(
    "content_type", ["", "application/json", "multipart/form-data", "multipart/form-data; boundary="]
)
def test_other_bodies_are_refused(content_type: str) -> None:
    with pytest.raises(ApiError) as caught:
        UploadForm(content_type)

    assert caught.value.status == 400


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        FILE + b"x",
        PURPOSE + b"--XX--\r\n",
        FILE + b"x\r\n" + FILE + b"y" + END,
        PURPOSE.replace(b"batch", b"b" * (MAX_FIELD_BYTES + 1)) + FILE + b"x" + END,
        b"".join(PURPOSE.replace(b"purpose", b"p%d" % number) for number in range(20)) + FILE + b"x" + END,
        FILE.replace(b"\r\n\r\n", b"\r\nX: " + b"x" * 9000 + b"\r\n\r\n") + b"x" + END,
        FILE.replace(b"\r\n\r\n", b"\r\nX: x" * 99 + b"\r\n\r\n") + b"x" + END,
    ],
    ids=["empty", "other", "cut off", "no file", "two files", "long field", "many fields", "long header", "headers"],
)
def test_form_that_is_cut_off_or_overdone_is_refused(body: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        read(body)

    assert caught.value.status == 400
