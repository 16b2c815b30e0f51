"""What NVML tells, and what is said when it cannot."""

from __future__ import annotations

import inspect
import re
import threading
import time
from pathlib import Path

import pynvml as real
import pytest

from obcd.errors import ExitCode
from obcd.host.cards import gpus, nvml
from obcd.host.cards.card import Card, GpuError, MigInstance, Readings, Reason
from obcd.host.cards.gpus import XidWatch, answer_within, discover, read_cards
from tests import standins
from tests.golden.wording import wording
from tests.gpu_support import StandIns, card, card_uuid, cards, mig_uuid
from tests.standins import pynvml as fake


def test_cards_come_in_the_order_of_nvidia_smi(stand_ins: StandIns) -> None:
    found = discover()

    assert [item.index for item in found] == [0, 1, 2, 3]
    assert found[2] == Card(
        index=2,
        uuid=card_uuid(2),
        name="NVIDIA H100 80GB HBM3",
        memory_bytes=81559 * 2**20,
    )


def test_card_in_mig_mode_has_its_instances_with_gaps_in_their_numbers(stand_ins: StandIns) -> None:
    parts = [{"number": 0, "uuid": mig_uuid(0, 0)}, {"number": 3, "uuid": mig_uuid(0, 3)}]
    stand_ins.describe([card(0, mig=parts), card(1)])

    first, second = discover()

    assert first.is_mig
    assert first.instances == (MigInstance(uuid=mig_uuid(0, 0), number=0), MigInstance(uuid=mig_uuid(0, 3), number=3))
    assert (second.is_mig, second.instances) == (False, ())


def test_lost_card_is_left_out_and_the_others_keep_their_index(stand_ins: StandIns) -> None:
    stand_ins.describe(cards(3, lost=[1]))

    assert [item.index for item in discover()] == [0, 2]


@pytest.mark.parametrize(
    ("driver", "reason", "words"),
    [
        ("not-loaded", Reason.NOT_LOADED, wording("driver-is-not-loaded")),
        ("mismatch", Reason.MISMATCH, wording("different-versions-as-after-an-update")),
        ("denied", Reason.FAILED, wording("rights-of-dev-nvidia")),
    ],
)
def test_reason_of_a_sick_driver_is_said(stand_ins: StandIns, driver: str, reason: Reason, words: str) -> None:
    stand_ins.describe(cards(4), driver=driver)

    with pytest.raises(GpuError, match=words) as caught:
        discover()

    assert caught.value.reason is reason
    assert caught.value.exit_code == ExitCode.NO_ENDPOINT


def test_without_the_drivers_library_nothing_is_known(stand_ins: StandIns) -> None:
    stand_ins.describe([], driver="no-library")

    with pytest.raises(GpuError, match=wording("no-nvidia-gpu-found-nvidia-s")) as caught:
        discover()

    assert caught.value.reason is Reason.NO_LIBRARY
    assert read_cards([card_uuid(0)]) == {}
    assert all(way in str(caught.value) for way in ("gpus = [", "gpus = 0", wording("obcd-up-embedded")))


def test_driver_without_any_card_says_so(stand_ins: StandIns) -> None:
    stand_ins.describe([])

    with pytest.raises(GpuError) as caught:
        discover()

    assert caught.value.reason is Reason.NO_CARD


def test_name_of_a_card_holds_nothing_that_moves_the_cursor(stand_ins: StandIns) -> None:
    stand_ins.describe([card(0, name="NVIDIA, the \x1b[2Jlast")])

    assert discover()[0].name == "NVIDIA, the \\x1b[2Jlast"


def test_readings_hold_what_the_card_tells_with_units(stand_ins: StandIns) -> None:
    stand_ins.describe([card(0, throttle=0x44, ecc=2)])

    assert read_cards() == {
        card_uuid(0): Readings(
            uuid=card_uuid(0),
            index=0,
            utilisation_percent=90,
            memory_used_bytes=4096 * 2**20,
            memory_total_bytes=81559 * 2**20,
            temperature_celsius=60,
            power_watts=300.5,
            energy_joules=1000.5,
            ecc_uncorrected=2,
            throttle=("power cap", "hardware thermal"),
        )
    }


def test_query_that_a_card_does_not_support_gives_none(stand_ins: StandIns) -> None:
    stand_ins.describe(
        [card(0, utilisation=None, temperature=None, power_watts=None, energy_joules=None, ecc=None, throttle=1)]
    )

    found = read_cards()[card_uuid(0)]

    assert (found.utilisation_percent, found.temperature_celsius, found.power_watts) == (None, None, None)
    assert (found.energy_joules, found.ecc_uncorrected, found.throttle, found.is_lost) == (None, None, (), False)


def test_lost_card_is_told_from_a_driver_that_does_not_answer(stand_ins: StandIns) -> None:
    expected = [card_uuid(0), card_uuid(1), "GPU-never-was-here"]
    stand_ins.describe(cards(2, lost=[1]))
    lost = read_cards(expected)
    stand_ins.describe(cards(2), driver="not-loaded")
    silent = read_cards(expected)

    assert {uuid: item.is_lost for uuid, item in lost.items()} == dict(zip(expected, [False, True, True], strict=True))
    assert silent == {}


def test_card_that_is_lost_while_it_is_known_keeps_its_index(stand_ins: StandIns) -> None:
    stand_ins.describe([card(0), card(1, lost="later")])

    found = read_cards()

    assert found[card_uuid(1)] == Readings(uuid=card_uuid(1), index=1, is_lost=True)
    assert [item.index for item in discover()] == [0]


def test_instance_has_memory_of_its_own_and_the_rest_of_its_card(stand_ins: StandIns) -> None:
    stand_ins.describe(cards(2, mig={1: 2}))

    found = read_cards([mig_uuid(1, 1)])

    assert set(found) == {card_uuid(0), card_uuid(1), mig_uuid(1, 0), mig_uuid(1, 1)}
    assert (found[mig_uuid(1, 1)].index, found[mig_uuid(1, 1)].temperature_celsius) == (1, 61)


def test_call_that_hangs_is_given_up_and_no_second_is_put_to_the_driver() -> None:
    release, asked = threading.Event(), list[int]()
    try:
        with pytest.raises(GpuError) as first:
            answer_within(0.02, release.wait)
        with pytest.raises(GpuError) as second:
            answer_within(60.0, lambda: asked.append(1))
    finally:
        release.set()
    gpus._hanging[0].join(10)

    assert first.value.reason is second.value.reason is Reason.HUNG
    assert asked == []
    assert answer_within(10.0, lambda: "again") == "again"


def test_reading_a_hanging_driver_ends_in_time(stand_ins: StandIns, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(nvml, "read_cards", lambda _: release.wait(60))
    monkeypatch.setattr(gpus, "READING_SECONDS", 0.05)
    start = time.monotonic()

    found = read_cards([card_uuid(0)])

    took = time.monotonic() - start
    release.set()
    gpus._hanging[0].join(10)  # else nothing is put to the driver in the next test
    assert (found, took < 2.0) == ({}, True)


def test_each_xid_is_told_once_with_its_card(stand_ins: StandIns) -> None:
    watch = XidWatch()
    before = watch.poll()
    stand_ins.describe(cards(4), xids=[(card_uuid(1), 63), (card_uuid(3), 94)])

    assert before == []
    assert watch.poll() == [(card_uuid(1), 63), (card_uuid(3), 94)]
    assert watch.poll() == []


def test_xid_of_a_card_that_fell_off_the_bus_still_names_it(stand_ins: StandIns) -> None:
    watch = XidWatch()
    stand_ins.describe(cards(4, lost=[2]), xids=[(card_uuid(2), 79)])

    assert watch.poll() == [(card_uuid(2), 79)]


def test_watch_begins_when_the_driver_comes(stand_ins: StandIns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "RETRY_SECONDS", 0.0)
    stand_ins.describe([], driver="not-loaded")
    watch = XidWatch()
    silent = watch.poll()
    stand_ins.describe(cards(1), xids=[(card_uuid(0), 13)])

    assert silent == []
    assert watch.poll() == [(card_uuid(0), 13)]


def test_names_and_parameters_are_those_of_the_real_module() -> None:
    source = Path(nvml.__file__).read_text("utf-8")
    used = set(re.findall(r"\b(?:nvml|self\._nvml)\.(nvml\w+|NVML\w+)", source)) | set(nvml._FAILURES)
    stood_in = {name for name in vars(fake) if name.startswith(("nvml", "NVML"))}

    assert used <= stood_in
    for name in sorted(stood_in):
        theirs, ours = getattr(real, name), getattr(fake, name)
        if inspect.isfunction(ours):
            needed = [
                item
                for item in inspect.signature(theirs).parameters.values()
                if item.default is inspect.Parameter.empty
            ]
            assert len(inspect.signature(ours).parameters) == len(needed), name
        elif not inspect.isclass(ours):
            assert theirs == ours, name
    assert Path(standins.__file__).parent.name == "standins"
