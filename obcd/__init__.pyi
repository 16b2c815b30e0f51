"""The types of what `import obcd` offers; __init__.py imports each when it is used."""

from obcd.client.asking import ask as ask
from obcd.client.batching import batch as batch
from obcd.client.jobs import Job as Job
from obcd.client.records import JobAnswer as JobAnswer
from obcd.client.records import JobFailure as JobFailure
from obcd.client.records import JobStatus as JobStatus
from obcd.client.records import ObcdWarning as ObcdWarning
from obcd.client.submission import attach as attach
from obcd.client.submission import submit as submit
from obcd.errors import AlreadyRunningError as AlreadyRunningError
from obcd.errors import ConfigurationError as ConfigurationError
from obcd.errors import InputError as InputError
from obcd.errors import JobRejected as JobRejected
from obcd.errors import KeyConflict as KeyConflict
from obcd.errors import NoEndpointError as NoEndpointError
from obcd.errors import NotFinished as NotFinished
from obcd.errors import ObcdError as ObcdError
from obcd.errors import ResultRemoved as ResultRemoved
from obcd.errors import TimedOutError as TimedOutError
from obcd.errors import UsageError as UsageError

__version__: str
__all__: list[str]
