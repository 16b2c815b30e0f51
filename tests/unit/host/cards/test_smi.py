"""What nvidia-smi prints, read."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from obcd.host.cards import smi
from obcd.host.cards.card import Card, GpuError, MigInstance, Readings, Reason

Answers = Callable[[dict[str, str]], list[list[str]]]

ROW = "0, GPU-aaaa, NVIDIA A100-SXM4-40GB, 40960, 00000000:07:00.0, {mig}\n"
LOST = (
    "Unable to determine the device handle for GPU1: 0000:0A:00.0: GPU is lost.  "
    "Reboot the system to recover this GPU\n"
)
LISTED = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-aaaa)
  MIG 3g.20gb     Device  0: (UUID: MIG-1111)
  MIG 1g.5gb      Device  2: (UUID: MIG-2222)
"""


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> Answers:
    """Return what lets nvidia-smi say things: `says({"beginning of its first argument": "text"})`."""

    def use(answers: dict[str, str]) -> list[list[str]]:
        calls: list[list[str]] = []

        def run(arguments: list[str], deadline: float) -> str:
            calls.append(arguments)
            return next(text for start, text in answers.items() if arguments[0].startswith(start))

        monkeypatch.setattr(smi, "_run", run)
        return calls

    return use


def test_card_and_its_instances_are_read(says: Answers) -> None:
    says({"--query-gpu": ROW.format(mig="Enabled"), "-L": LISTED})

    assert smi.find_cards(1.0) == [
        Card(
            index=0,
            uuid="GPU-aaaa",
            name="NVIDIA A100-SXM4-40GB",
            memory_bytes=40960 * 2**20,
            pci="00000000:07:00.0",
            instances=(MigInstance(uuid="MIG-1111", number=0), MigInstance(uuid="MIG-2222", number=2)),
            is_mig=True,
        )
    ]


def test_without_mig_one_call_is_enough(says: Answers) -> None:
    calls = says({"--query-gpu": ROW.format(mig="[N/A]")})

    found = smi.find_cards(1.0)

    assert found is not None
    assert (found[0].is_mig, len(calls)) == (False, 1)


def test_sentence_about_a_lost_card_does_not_hide_the_others(says: Answers) -> None:
    says({"--query-gpu": LOST + ROW.format(mig="[N/A]")})

    found = smi.find_cards(1.0)

    assert [item.uuid for item in found or ()] == ["GPU-aaaa"]


def test_when_all_are_lost_the_driver_answers_all_the_same(says: Answers) -> None:
    says({"--query-gpu": LOST})

    assert smi.find_cards(1.0) == []
    assert smi.read_cards((), 1.0) == {}


@pytest.mark.parametrize("nothing", ["[N/A]", "[Not Supported]", "[Unknown Error]", "N/A"])
def test_value_that_is_not_told_is_none(says: Answers, nothing: str) -> None:
    says({"--query-gpu": f"3, GPU-aaaa, {nothing}, 10, 20, {nothing}, {nothing}, {nothing}, {nothing}\n"})

    found = smi.read_cards((), 1.0)

    used, total = 10 * 2**20, 20 * 2**20
    assert found == {"GPU-aaaa": Readings(uuid="GPU-aaaa", index=3, memory_used_bytes=used, memory_total_bytes=total)}


def test_newer_name_of_the_throttle_field_is_tried_when_the_older_is_gone(says: Answers) -> None:
    old, new = ("--query-gpu=" + ",".join((*smi.READING_FIELDS, field)) for field in smi.THROTTLE_FIELDS)
    row = "0, GPU-aaaa, 97, 1, 2, 61, 300.25, 0, 0x0000000000000004\n"
    says({old: 'Field "clocks_throttle_reasons.active" is not a valid field to query.\n', new: row})

    found = smi.read_cards((), 1.0)

    assert found is not None
    assert (found["GPU-aaaa"].throttle, found["GPU-aaaa"].power_watts) == (("power cap",), 300.25)


def test_instances_are_asked_for_when_one_is_expected(says: Answers) -> None:
    says({"--query-gpu": "0, GPU-aaaa, 97, 1, 2, 61, 300, 0, 0x0\n", "-L": LISTED})

    found = smi.read_cards(["MIG-2222"], 1.0)

    assert found is not None
    assert found["MIG-2222"] == Readings(uuid="MIG-2222", index=0)


def test_unknown_complaint_is_quoted(says: Answers) -> None:
    says({"--query-gpu": "Something quite new.\nSecond line"})

    with pytest.raises(GpuError, match=r"nvidia-smi says: Something quite new\.") as caught:
        smi.find_cards(1.0)

    assert caught.value.reason is Reason.FAILED


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999", "[N/A]", "\u00b2"])
def test_what_is_no_number_is_not_known(says: Answers, value: str) -> None:
    says({"--query-gpu": f"0, GPU-aaaa, {value}, {value}, {value}, {value}, {value}, {value}, 0x?{value}\n"})

    assert smi.read_cards((), 1.0) == {"GPU-aaaa": Readings(uuid="GPU-aaaa", index=0)}


def test_a_name_may_have_a_comma_and_nothing_that_moves_the_cursor(says: Answers) -> None:
    says({"--query-gpu": "0, GPU-aaaa, NVIDIA, the \x1b[2Jlast, 40960, 00000000:07:00.0, Disabled\n"})

    (found,) = smi.find_cards(1.0) or []
    assert (found.name, found.pci) == ("NVIDIA, the \\x1b[2Jlast", "00000000:07:00.0")


def test_an_index_in_other_digits_is_no_row(says: Answers) -> None:
    says({"--query-gpu": "\u00b2, GPU-aaaa, L4, 40960, 00000000:07:00.0, Disabled\n"})

    with pytest.raises(GpuError):
        smi.find_cards(1.0)
