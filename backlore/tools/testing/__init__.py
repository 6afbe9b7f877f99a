"""Tests as rows over HTTP: a request, and what must come back."""

from backlore.tools.testing.reply import RowReply
from backlore.tools.testing.report import Failure, Report, Skipped
from backlore.tools.testing.rows import (
    PASSWORD,
    SuiteError,
    destroy,
    get,
    mail,
    parallel,
    post,
    request,
    row,
    sign_up,
    visitor,
)
from backlore.tools.testing.run import check, run

__all__ = [
    "PASSWORD",
    "Failure",
    "Report",
    "RowReply",
    "Skipped",
    "SuiteError",
    "check",
    "destroy",
    "get",
    "mail",
    "parallel",
    "post",
    "request",
    "row",
    "run",
    "sign_up",
    "visitor",
]  # fmt: skip
