"""Envoy's configuration from a template that is checked against its settings."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template

from headrace_common.config import MIB, ProcessContext
from headrace_common.errors import InvalidArgument
from headrace_router.ingress.native import LIBRARY

_INGRESS = re.compile(r"^ *# \[ingress\].*?^ *# \[/ingress\]\n", re.MULTILINE | re.DOTALL)
_APPLICATION = "headrace_router.app:app"
# With the back-off of the template this bridges about four seconds.
_AUTOSCALER_RETRIES = 12
_UNAVAILABLE = "the autoscaler does not answer at the moment; try again in some seconds"
_BAD_PATH = "the path has a malformed percent-escape or a byte that is not ASCII; all paths here are ASCII"
_MAX_CONNECTIONS = 50_000
_BUFFER_BYTES = 4 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One value for each ${key} of router.yaml. Paths are absolute, sizes in bytes.

    Attributes:
        ingress_module: "": the application takes unary ModelInfer too.
    """

    admin_socket: str
    process_socket: str
    autoscaler_socket: str
    listen_host: str
    listen_port: int
    pyvoy_module: str
    pyvoy_config: str
    ingress_module: str = ""
    max_connections: int = _MAX_CONNECTIONS
    buffer_bytes: int = _BUFFER_BYTES
    autoscaler_retries: int = _AUTOSCALER_RETRIES
    unavailable_message: str = _UNAVAILABLE
    bad_path_api_answer: str = json.dumps({"code": 3, "message": _BAD_PATH, "details": []})
    bad_path_answer: str = json.dumps({"error": _BAD_PATH})
    bad_path_message: str = _BAD_PATH


def settings_of(context: ProcessContext, application: str = _APPLICATION) -> Settings:
    """What `context` means for Envoy.

    Args:
        context: of a router.
        application: "module:attribute" of the ASGI application.

    Raises:
        InvalidArgument: `listen` is not host:port.
    """
    host, port = split_listen(context.listen)
    native = context.mesh.router.native_ingress and application == _APPLICATION
    return Settings(
        admin_socket=str(admin_socket(context)),
        process_socket=str(context.socket),
        autoscaler_socket=context.autoscaler_target.removeprefix("unix:"),
        listen_host=host,
        listen_port=port,
        pyvoy_module=_pyvoy_module(),
        ingress_module=str(LIBRARY) if native and LIBRARY.exists() else "",
        pyvoy_config=json.dumps(
            {"app": application, "interface": "asgi", "root_path": "", "lifespan": True, "loop": "uvloop"}
        ),
    )


def render(settings: Settings, template: str | None = None) -> str:
    """The configuration as YAML.

    Args:
        settings: the values.
        template: instead of router.yaml.

    Raises:
        InvalidArgument: the template has a key that the settings lack, or lacks one that they have.
    """
    text = Template(template or (files(__package__) / "router.yaml").read_text())
    if not settings.ingress_module:
        text = Template(_INGRESS.sub("", text.template))
    values = {field.name: json.dumps(getattr(settings, field.name)) for field in dataclasses.fields(settings)}
    wanted = set(text.get_identifiers())
    placed = wanted if settings.ingress_module else wanted | {"ingress_module"}
    for names, problem in ((wanted - set(values), "no setting for"), (set(values) - placed, "no place for")):
        if names:
            raise InvalidArgument(f"Envoy's template: {problem} {', '.join(sorted(names))}")
    return text.substitute(values)


def admin_socket(context: ProcessContext) -> Path:
    """Where Envoy's admin interface listens."""
    return context.runtime_dir / f"{context.process}-admin.sock"


def config_path(context: ProcessContext) -> Path:
    """Where the rendered configuration is written."""
    return context.runtime_dir / f"{context.process}-envoy.yaml"


def split_listen(listen: str) -> tuple[str, int]:
    """host:port; an IPv6 host in brackets. Port 0 is any free one."""
    host, separator, port = listen.rpartition(":")
    if not separator or not host or not port.isdigit() or int(port) > 65535:
        raise InvalidArgument(f"listen address {listen!r}: expected HOST:PORT, such as 127.0.0.1:8080")
    return host.strip("[]"), int(port)


def _pyvoy_module() -> str:
    spec = importlib.util.find_spec("pyvoy._pyvoy")
    if spec is None or spec.origin is None:
        raise InvalidArgument("pyvoy's native module is not installed for this platform; reinstall the package pyvoy")
    return spec.origin
