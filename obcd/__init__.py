"""obcd, the Ollama Batch Cluster Daemon: drop a JSONL file into one folder, find the results in another.

For programs and notebooks (etc/manual/from-python.md):

    job = obcd.submit(rows, "Summarise: {note}", key="visits-2026-11")
    job.wait(progress=True)
    df = job.to_pandas()

    df["summary"] = obcd.ask(df, "Summarise: {note}")
"""

import importlib

__version__ = "0.2.0"

#: {name: the module that has it}; imported when it is used, so that `import obcd` costs a program nothing (PEP 562).
_PLACES = {
    "submit": "obcd.client.submission",
    "attach": "obcd.client.submission",
    "batch": "obcd.client.batching",
    "ask": "obcd.client.asking",
    "Job": "obcd.client.jobs",
    "JobAnswer": "obcd.client.records",
    "JobFailure": "obcd.client.records",
    "JobStatus": "obcd.client.records",
    "ObcdWarning": "obcd.client.records",
    "ObcdError": "obcd.errors",
    "AlreadyRunningError": "obcd.errors",
    "ConfigurationError": "obcd.errors",
    "InputError": "obcd.errors",
    "JobRejected": "obcd.errors",
    "KeyConflict": "obcd.errors",
    "NoEndpointError": "obcd.errors",
    "NotFinished": "obcd.errors",
    "ResultRemoved": "obcd.errors",
    "TimedOutError": "obcd.errors",
    "UsageError": "obcd.errors",
}

__all__ = ["__version__", *_PLACES]  # noqa: PLE0604 - the names are texts


def __getattr__(name: str) -> object:
    place = _PLACES.get(name)
    if place is None:
        raise AttributeError(f"module 'obcd' has no attribute {name!r}")
    found = globals()[name] = getattr(importlib.import_module(place), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
