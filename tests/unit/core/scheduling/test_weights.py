"""Which weights answer a job: most slots win, nobody is pinned too early, and what is chosen stays."""

from __future__ import annotations

from obcd.core.answer.fault_kinds import FaultKind
from obcd.core.endpoint.faults import Fault, Harm, Remedy
from obcd.core.pending.backlog import Backlog
from obcd.core.request.records import Signature
from obcd.core.scheduling.missing_models import MODEL_WAIT_SECONDS, MissingModel
from obcd.core.scheduling.scheduler import Scheduler
from obcd.core.scheduling.weights import TELL_SECONDS
from tests.golden.wording import wording

MODEL = Signature("llama:latest", ())
OLD, NEW = {MODEL.model: "old"}, {MODEL.model: "new"}
UNREACHABLE = Fault(FaultKind.UNREACHABLE, "refused", Remedy.ELSEWHERE, costs_attempt=False, harm=Harm.DOWN)


def scheduler(slots: dict[str, int]) -> Scheduler:
    """Return one with endpoints that told nothing yet."""
    made = Scheduler()
    for name, count in slots.items():
        made.add_endpoint(name, count, 0.0)
    return made


def tell(made: Scheduler, digests: dict[str, dict[str, str]], now: float = 0.0) -> None:
    for name, told in digests.items():
        made.on_probe(name, told, None, now)


def add(made: Scheduler, job: str, count: int = 50, weights: dict[str, str] | None = None) -> Backlog:
    backlog = Backlog(job, bytes(count), (MODEL,), limit=4)
    backlog.weights = {} if weights is None else weights
    made.add_job(backlog, 0.0)
    return backlog


def asked(made: Scheduler, now: float) -> set[str]:
    """Give everything out that can be given out, and return where."""
    return {lease.endpoint for lease in made.assign(now)}


class TestChoice:
    def test_digest_with_the_most_slots_wins_whoever_told_first(self) -> None:
        made = scheduler({"a": 8, "b": 4, "c": 5})
        add(made, "j")

        tell(made, {"a": OLD, "b": NEW, "c": NEW})

        assert asked(made, 0.0) == {"b", "c"}

    def test_of_as_many_slots_the_first_endpoint_in_the_configuration_wins(self) -> None:
        made = scheduler({"a": 4, "b": 4})
        add(made, "j")

        tell(made, {"b": NEW, "a": OLD})

        assert asked(made, 0.0) == {"a"}

    def test_endpoint_that_cannot_be_asked_has_no_say(self) -> None:
        made = scheduler({"a": 8, "b": 4})
        tell(made, {"a": OLD, "b": NEW})
        made.on_probe("a", None, "refused", 1.0)
        add(made, "j")

        assert asked(made, 1.0) == {"b"}

    def test_what_was_answered_before_decides(self) -> None:
        made = scheduler({"a": 8, "b": 4})
        add(made, "j", weights={MODEL.model: "new"})

        tell(made, {"a": OLD, "b": NEW})

        assert asked(made, 0.0) == {"b"}

    def test_jobs_choose_each_for_itself(self) -> None:
        made = scheduler({"a": 2, "b": 4})
        add(made, "begun", weights={MODEL.model: "old"})
        add(made, "new")
        tell(made, {"a": OLD, "b": NEW})

        leases = made.assign(0.0)

        assert {(lease.job, lease.endpoint, lease.digest) for lease in leases} == {
            ("begun", "a", "old"),
            ("new", "b", "new"),
        }

    def test_job_that_may_mix_is_asked_everywhere(self) -> None:
        made = scheduler({"a": 2, "b": 4})
        add(made, "j").weights = None
        tell(made, {"a": OLD, "b": NEW})

        leases = made.assign(0.0)

        assert {lease.endpoint for lease in leases} == {"a", "b"}
        assert {lease.digest for lease in leases} == {""}

    def test_straggler_is_not_asked_again_where_the_weights_are_others(self) -> None:
        # given two endpoints with a model that is loaded on both, one of them idle
        made = scheduler({"a": 1, "b": 1})
        tell(made, {"a": OLD, "b": NEW})
        for job, weights in (("one", "old"), ("two", "new")):
            add(made, job, 1, {MODEL.model: weights})
        for lease in made.assign(0.0):
            made.answered(lease.ticket, lease.endpoint, 1.0)
        add(made, "slow", 1, {MODEL.model: "old"})
        (slow,) = made.assign(1.0)

        # when its only request takes a hundred times as long as others
        copies = made.assign(101.0)

        # then b is not asked for it, unless it is the same by then
        assert (slow.endpoint, copies) == ("a", [])
        tell(made, {"b": OLD}, 102.0)
        assert [copy.endpoint for copy in made.assign(103.0)] == ["b"]


class TestWaiting:
    def test_early_probe_does_not_bind_a_job_to_the_odd_one_out(self) -> None:
        made = scheduler({"a": 4, "b": 4, "c": 4})
        add(made, "j")
        tell(made, {"a": OLD})
        assert asked(made, 0.0) == set()

        tell(made, {"b": NEW, "c": NEW}, 0.5)

        assert asked(made, 0.5) == {"b", "c"}

    def test_endpoint_that_failed_its_first_probe_is_not_waited_for(self) -> None:
        made = scheduler({"a": 4, "b": 4})
        add(made, "j")
        tell(made, {"a": OLD})

        made.on_probe("b", None, "refused", 0.5)

        assert asked(made, 0.5) == {"a"}

    def test_endpoint_that_says_nothing_is_waited_for_a_moment_only(self) -> None:
        made = scheduler({"a": 4, "b": 4})
        add(made, "j")
        tell(made, {"a": OLD})

        assert asked(made, TELL_SECONDS - 0.1) == set()
        assert asked(made, TELL_SECONDS) == {"a"}

    def test_job_under_way_does_not_wait_for_an_endpoint_that_comes(self) -> None:
        made = scheduler({"a": 4})
        add(made, "j", weights={MODEL.model: "old"})
        tell(made, {"a": OLD}, 100.0)

        made.add_endpoint("b", 4, 100.0)

        assert asked(made, 100.0) == {"a"}


class TestLeftOut:
    def test_odd_one_is_named_with_both_digests_while_a_job_runs(self) -> None:
        made = scheduler({"a": 4, "b": 4})
        add(made, "j")
        tell(made, {"a": OLD, "b": NEW})
        revision = made.revision

        made.assign(0.0)

        assert made.odd() == {"b": {wording("its-llama-is-another-one-digest")}}
        assert made.revision > revision
        made.remove_job("j")
        assert made.odd() == {}

    def test_endpoint_that_never_told_or_lacks_the_model_is_no_odd_one(self) -> None:
        made = scheduler({"a": 4, "b": 4, "c": 4})
        add(made, "j", weights={MODEL.model: "old"})

        tell(made, {"b": {}, "c": OLD})

        assert made.odd() == {}

    def test_weights_that_are_gone_fail_what_is_left_after_the_wait(self) -> None:
        # given a job under way
        made = scheduler({"a": 1})
        add(made, "j", 2)
        tell(made, {"a": OLD})
        (lease,) = made.assign(0.0)
        made.answered(lease.ticket, "a", 1.0)

        # when the model is another one
        tell(made, {"a": NEW}, 2.0)
        assert made.assign(2.0) == []
        assert made.take_unservable(9, 2.0) == []

        # then it waits, told, and fails
        assert made.missing() == {MissingModel(MODEL.model, "old")}
        assert made.take_unservable(9, 2.1 + MODEL_WAIT_SECONDS) == [("j", 1, MissingModel(MODEL.model, "old"))]

    def test_weights_that_come_back_in_time_save_the_rest(self) -> None:
        made = scheduler({"a": 1})
        add(made, "j", weights={MODEL.model: "old"})
        tell(made, {"a": NEW})
        made.take_unservable(9, 0.0)

        tell(made, {"a": OLD}, 5.0)

        assert made.take_unservable(9, 2 * MODEL_WAIT_SECONDS) == []
        assert made.missing() == set()
        assert asked(made, 5.0) == {"a"}

    def test_model_that_is_nowhere_is_missed_as_such(self) -> None:
        made = scheduler({"a": 1})
        add(made, "j", weights={MODEL.model: "old"})
        tell(made, {"a": {}})

        made.take_unservable(9, 0.0)

        assert made.missing() == {MissingModel(MODEL.model)}

    def test_endpoint_that_is_down_keeps_its_jobs_waiting(self) -> None:
        made = scheduler({"a": 1, "b": 1})
        add(made, "j", weights={MODEL.model: "old"})
        tell(made, {"a": OLD, "b": NEW})
        made.on_probe("a", None, "refused", 1.0)

        assert made.take_unservable(9, 1.0) == []
        assert made.take_unservable(9, 1e6) == []
        assert asked(made, 1e6) == set()

    def test_starving_job_of_rare_weights_is_switched_to_though_others_serve_its_signature(self) -> None:
        # given the only endpoint with the old weights busy with another model, whose work never ends
        other = Signature("other:latest", ())
        made = scheduler({"rare": 1, "usual": 1})
        tell(made, {"rare": {**OLD, other.model: "o"}, "usual": {**NEW, other.model: "p"}})
        busy = Backlog("busy", bytes(1000), (other,), limit=4)
        busy.weights = {other.model: "o"}
        made.add_job(busy, 0.0)
        (lease,) = made.assign(0.0)
        add(made, "usual", 1000, {MODEL.model: "new"})
        add(made, "starving", 1, {MODEL.model: "old"})

        # when time passes, then it is served after a while
        now, served = 0.0, set[str]()
        held = [lease, *made.assign(0.0)]
        while "starving" not in served and now < 100:
            now += 1.0
            for item in held:
                made.answered(item.ticket, item.endpoint, now)
            held = made.assign(now)
            served |= {item.job for item in held}
        assert now < 40
