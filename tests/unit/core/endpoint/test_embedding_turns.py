"""Requests for vectors take turns at their server."""

from __future__ import annotations

from obcd.core.answer.outcomes import Cost, ModelAnswer
from obcd.core.endpoint.embedding_turns import EmbeddingTurns


def test_r28_eight_in_flight_at_one_slot_work_as_long_as_the_slot() -> None:
    turns, costs = EmbeddingTurns(), []
    for number in range(24):
        sent, ended = max(0, number - 7) * 0.4, (number + 1) * 0.4
        cost = Cost(seconds=round(ended - sent, 3), load_seconds=0.001, prompt_eval_seconds=round(ended - sent, 3))
        costs.append(turns.with_wait(ModelAnswer(embeddings=[[1.0]], cost=cost), sent, ended).cost)

    assert round(sum(cost.seconds - cost.wait_seconds for cost in costs), 3) == 9.6
    assert round(sum(cost.prompt_eval_seconds for cost in costs), 3) == 9.6


def test_request_that_found_the_server_idle_did_not_wait() -> None:
    turns = EmbeddingTurns()
    answer = ModelAnswer(embeddings=[[1.0]], cost=Cost(0.4, prompt_eval_seconds=0.4))

    assert [turns.with_wait(answer, sent, sent + 0.4).cost.wait_seconds for sent in (5.0, 6.0, 6.1)] == [0.0, 0.0, 0.3]
