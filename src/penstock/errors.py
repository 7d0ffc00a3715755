"""Every error that Penstock raises on purpose, in one tree.

    PenstockError
     ├─ InvalidInput            what the caller sent is wrong             → HTTP 400 / 422
     │   ├─ TooLarge            … because it is too big                   → 413
     │   ├─ UnsupportedMedia    … because its type is not understood      → 415
     │   └─ FetchFailed         … because the URL in it leads nowhere     → 422
     ├─ Unauthorized            no key, or a wrong one                    → 401
     ├─ Forbidden               a key that may not do this                → 403
     ├─ NotFound                no such thing for this tenant             → 404
     ├─ Conflict                contradicts what is there already         → 409
     ├─ Overloaded              the queue is full; try again later        → 429 + Retry-After
     ├─ Unavailable             a store or a model cannot be reached now  → 503 + Retry-After
     │   ├─ StorageFull         … because the disk is full                → 507
     │   └─ OutOfMemory         … because a model's device has no room    → 503
     ├─ ProviderError           an upstream model failed or lied          → 502
     ├─ DeadlineExceeded        out of the time it was given              → 504
     ├─ ParseError              a document that cannot be read (final: a retry would not help)
     ├─ LeaseLost               the job belongs to another attempt now; stop and write nothing
     ├─ DataError               a data folder, database or file that is damaged, locked or of another version
     ├─ ConfigError             a setting that is wrong
     └─ MissingDependency       an optional package or a model's weights are not installed

A message says what happened, why, and what to do about it. `code` is stable and machine-readable; it is what
clients and job records carry. Third-party errors are mapped where they enter, always `from exc`.
"""


class PenstockError(Exception):
    """The root. `code` names the kind of error for machines; `retryable`: the same call may succeed later."""

    code = "internal"
    retryable = False

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code


class InvalidInput(PenstockError):
    code = "invalid_input"


class TooLarge(InvalidInput):
    code = "too_large"


class UnsupportedMedia(InvalidInput):
    code = "unsupported_media"


class FetchFailed(InvalidInput):
    """A file that could not be had from a URL. The message never says why: that would tell about our network."""

    code = "fetch_failed"

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable


class Unauthorized(PenstockError):
    code = "unauthorized"


class Forbidden(PenstockError):
    code = "forbidden"


class NotFound(PenstockError):
    code = "not_found"


class Conflict(PenstockError):
    code = "conflict"


class Overloaded(PenstockError):
    """Refused at the door. `retry_after_s` comes from the measured drain rate."""

    code = "overloaded"
    retryable = True

    def __init__(self, message: str, *, retry_after_s: float, position: int | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.position = position


class Unavailable(PenstockError):
    code = "unavailable"
    retryable = True

    def __init__(self, message: str, *, retry_after_s: float = 1.0, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.retry_after_s = retry_after_s


class StorageFull(Unavailable):
    code = "storage_full"


class OutOfMemory(Unavailable):
    code = "out_of_memory"


class ProviderError(PenstockError):
    """An upstream model endpoint failed. Never carries the key or the full upstream body."""

    code = "provider_error"

    def __init__(self, message: str, *, code: str | None = None, retryable: bool = False) -> None:
        super().__init__(message, code=code)
        self.retryable = retryable


class DeadlineExceeded(PenstockError):
    code = "deadline_exceeded"


class ParseError(PenstockError):
    code = "parse_failed"


class LeaseLost(PenstockError):
    code = "lease_lost"


class DataError(PenstockError):
    code = "data_error"


class ConfigError(PenstockError):
    code = "config_error"


class MissingDependency(PenstockError):
    code = "missing_dependency"
