"""The kinds of faults: stable words for machines, as they occur in ledgers and in errors.jsonl."""

from __future__ import annotations

from enum import StrEnum


class FaultKind(StrEnum):
    """What went wrong with an attempt, or with a line; the `class` of a line of errors.jsonl."""

    # The line, or what it requests
    BAD_LINE = "bad_line"  # it is not a valid request
    TOO_LONG = "too_long"  # prompt and answer do not fit into the context, or the line is larger than the limit
    BAD_REQUEST = "bad_request"  # the server refuses it
    BAD_SCHEMA = "bad_schema"  # the server cannot make a grammar of its JSON schema
    UNSUPPORTED = "unsupported"  # the model cannot do what the request needs
    POISON = "poison"  # each server that got it crashed, the last one with nothing beside it
    CANCELLED = "cancelled"  # its job was cancelled before it had a result, or the attempt is no longer needed
    # The answer
    BAD_SAMPLE = "bad_sample"  # the server could not read what the model wrote
    REPETITION = "repetition"  # the model repeated itself until the server stopped it
    CUT_IN_THOUGHT = "cut_in_thought"  # the token limit came while the model was still thinking
    CUT_SHORT = "cut_short"  # the token limit came before the JSON was complete
    EMPTY_ANSWER = "empty_answer"  # it says nothing, where the profile does not keep such answers
    INVALID_ANSWER = "invalid_answer"  # it does not have the requested form
    # The models of the endpoints
    MODEL_MISSING = "model_missing"  # the server has no such model; for a line: no server has it
    WEIGHTS_MISSING = "weights_missing"  # no endpoint has the weights any more with which its job started
    OTHER_WEIGHTS = "other_weights"  # the answer came from other weights than those of its job
    INCOMPATIBLE = "incompatible"  # the model needs another version of Ollama
    OFF_GPU = "off_gpu"  # not all of the model lies on the GPU, where that is required
    UNSEEN = "unseen"  # it is unknown whether the model lies on the GPU, where that is required
    CONTEXT_LOWERED = "context_lowered"  # the server loaded the model with a smaller context than requested
    # The server
    UNREACHABLE = "unreachable"  # no connection
    FORBIDDEN = "forbidden"  # it denies access
    REDIRECT = "redirect"  # it answers with a redirect, which is not followed
    BUSY = "busy"  # its queue is full, or it is starting
    OUT_OF_MEMORY = "out_of_memory"  # it does not have enough memory for the model
    LOAD_FAILED = "load_failed"  # it could not load the model
    CRASHED = "crashed"  # the model's process ended while it answered
    SERVER_ERROR = "server_error"  # any other error that it reports
    ABORTED = "aborted"  # it stopped before the answer was complete
    CUT = "cut"  # the connection broke before the answer was complete
    INVALID_REPLY = "invalid_reply"  # its reply is not one of Ollama
    TOO_LARGE = "too_large"  # its reply is larger than the limit
    TIMEOUT = "timeout"  # no answer within the time limit
    HUNG = "hung"  # the model's process hung, as another request showed
    DOUBTED = "doubted"  # it answers no request at present: not sent
    # obcd itself
    UNREADABLE = "unreadable"  # the job's folder cannot be read
    WORKER_FAULT = "worker_fault"  # obcd's own code failed
    WORKER_LOST = "worker_lost"  # the worker process ended, or was ended because it froze
