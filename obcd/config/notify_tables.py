"""`[notify]` and the same table of a profile as frozen models: every key, its default and its limits."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field, field_validator, model_validator

from obcd.config.notify_values import checked_recipient, checked_webhook
from obcd.config.values import Table


def _checked_argument(value: str) -> str:
    if "\0" in value:
        raise ValueError("an argument of a command holds no NUL")
    return value


#: A program and its arguments; no shell reads them.
Command = Annotated[tuple[Annotated[str, AfterValidator(_checked_argument)], ...], Field(max_length=100)]
Events = tuple[
    Literal["job.published", "job.failures", "job.quarantined", "job.deadline", "endpoint.lost", "disk.full"], ...
]
Webhook = Annotated[str, AfterValidator(checked_webhook)]
Recipients = Annotated[tuple[Annotated[str, AfterValidator(checked_recipient)], ...], Field(max_length=20)]


def _check_program(command: tuple[str, ...] | None) -> None:
    if command and not command[0]:
        raise ValueError("command: its first word, the program, is empty")


class ProfileNotifications(Table):
    """`[profiles.NAME.notify]`: where notifications of a profile's jobs go. A key that is left out is `[notify]`'s.

    Attributes:
        webhook: False: none.
    """

    events: Events | None = Field(None, strict=False)
    command: Command | None = Field(None, strict=False)
    webhook: Literal[False] | Webhook | None = None
    webhook_secret_file: str | None = Field(None, min_length=1)
    mail_to: Recipients | None = Field(None, strict=False)

    @model_validator(mode="after")
    def _has_program(self) -> ProfileNotifications:
        _check_program(self.command)
        return self


class Notifications(Table):
    """`[notify]`: what is sent when something happens, and where; nothing while no way is configured."""

    events: Events = Field(get_args(get_args(Events)[0]), strict=False)
    endpoint_minutes: float = Field(10.0, gt=0, le=7 * 1440)
    command: Command = Field((), strict=False)
    command_seconds: float = Field(60.0, gt=0, le=3600)
    webhook: Webhook | None = None
    webhook_secret_file: str | None = Field(None, min_length=1)
    mail_to: Recipients = Field((), strict=False)
    mail_from: str | None = None
    sendmail: str = "/usr/sbin/sendmail"

    @field_validator("mail_from")
    @classmethod
    def _one_sender(cls, value: str | None) -> str | None:
        return None if value is None else checked_recipient(value)

    @field_validator("sendmail")
    @classmethod
    def _whole_path(cls, value: str) -> str:
        if not value.startswith("/") or "\0" in value:
            raise ValueError(f"must be the whole path of the program, e.g. /usr/sbin/sendmail, not {value!r:.60}")
        return value

    @model_validator(mode="after")
    def _has_program(self) -> Notifications:
        _check_program(self.command)
        return self
