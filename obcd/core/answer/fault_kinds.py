"""The kinds of faults: stable words for machines, as they stand in ledgers and in errors.jsonl."""

from __future__ import annotations

from enum import StrEnum


class FaultKind(StrEnum):
    """What went wrong with an attempt, or with a line; the `class` of a line of errors.jsonl."""

    # The line, or what it asks for
    BAD_LINE = "bad_line"  # it is no request
    TOO_LONG = "too_long"  # prompt and answer do not fit into the context, or the line is larger than a line may be
    BAD_REQUEST = "bad_request"  # the server refuses it
    BAD_SCHEMA = "bad_schema"  # the server cannot make a grammar of its JSON schema
    UNSUPPORTED = "unsupported"  # the model cannot do what it asks
    POISON = "poison"  # each server that was asked it crashed, the last one with nothing beside it
    CANCELLED = "cancelled"  # its job was cancelled before it had a result, or nobody wants the attempt
    # The answer
    BAD_SAMPLE = "bad_sample"  # the server could not read what the model wrote
    REPETITION = "repetition"  # the model repeated itself until the server stopped it
    CUT_IN_THOUGHT = "cut_in_thought"  # the token limit came while the model still thought
    CUT_SHORT = "cut_short"  # the token limit came before the JSON was complete
    INVALID_ANSWER = "invalid_answer"  # it is not in the form that was asked for
    # The models of the endpoints
    MODEL_MISSING = "model_missing"  # the server has no such model; of a line: none has
    WEIGHTS_MISSING = "weights_missing"  # no endpoint has the weights any more with which its job was begun
    OTHER_WEIGHTS = "other_weights"  # the answer came from other weights than those of its job
    INCOMPATIBLE = "incompatible"  # the model needs another version of Ollama
    OFF_GPU = "off_gpu"  # not all of the model lies on the GPU, where that is required
    UNSEEN = "unseen"  # whether it lies on the GPU cannot be seen, where that is required
    CONTEXT_LOWERED = "context_lowered"  # the server loaded the model with a smaller context than was asked for
    # The server
    UNREACHABLE = "unreachable"  # no connection
    FORBIDDEN = "forbidden"  # it does not let us in
    REDIRECT = "redirect"  # it answers with a redirect, which is not followed
    BUSY = "busy"  # its queue is full, or it is starting
    OUT_OF_MEMORY = "out_of_memory"  # it has not enough memory for the model
    LOAD_FAILED = "load_failed"  # it could not load the model
    CRASHED = "crashed"  # the model's process ended while it answered
    SERVER_ERROR = "server_error"  # any other error that it reports
    ABORTED = "aborted"  # it stopped before the answer was complete
    CUT = "cut"  # the connection broke before the answer was complete
    INVALID_REPLY = "invalid_reply"  # what it sent is no reply of Ollama's
    TOO_LARGE = "too_large"  # its reply is larger than a reply may be
    TIMEOUT = "timeout"  # no answer within the time limit
    HUNG = "hung"  # the model's process hung, as another request showed
    DOUBTED = "doubted"  # it answers nobody at present: not asked
    # obcd itself
    UNREADABLE = "unreadable"  # the job's folder cannot be read
    WORKER_FAULT = "worker_fault"  # our own code failed
    WORKER_LOST = "worker_lost"  # the worker process ended, or was ended since it froze
