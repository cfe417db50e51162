"""Generates the Python stubs from the protos beside this file.

    python protos/generate.py            writes the stubs
    python protos/generate.py --check    exits 1 if what is committed differs
    python protos/generate.py --image F  writes the image that buf lints

Two things differ from plain protoc. Validation rules (buf.validate) are left out of the grpc stubs,
so that no stub imports a top-level `buf`; the validator reads them from stubs of its own, of the
other protobuf runtime that it is written for, in headrace_common/rules. And the Open Inference stubs
go into a descriptor pool of their own: other packages register the same names in the default pool,
and Python's protobuf allows each name once per pool.
"""

from __future__ import annotations

import argparse
import filecmp
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import google.api.annotations_pb2
import grpc_tools
from google.protobuf import descriptor_pb2
from google.protobuf.message import Message
from grpc_tools import protoc
from protovalidate._gen.buf.validate import validate_pb

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
RULES = "services/common/headrace_common/rules"
VALIDATE = "buf/validate/validate.proto"
PRIVATE_POOL = "headrace/oip"
GENERATED = (
    "headrace/**/*_pb2.py",
    "headrace/**/*_pb2.pyi",
    "headrace/**/*_pb2_grpc.py",
    f"{RULES}/**/*.py",
)


def sources() -> list[str]:
    return sorted(str(path.relative_to(PROTOS)) for path in PROTOS.glob("headrace/**/*.proto"))


def run_protoc(*arguments: str) -> None:
    builtin = Path(grpc_tools.__file__).parent / "_proto"
    if protoc.main(["protoc", *arguments, f"-I{builtin}"]):
        sys.exit("protoc failed: see its message above")


def full_descriptors(work: Path) -> descriptor_pb2.FileDescriptorSet:
    """Every file with its imports, comments and validation rules."""
    imports = descriptor_pb2.FileDescriptorSet()
    annotations = google.api.annotations_pb2.DESCRIPTOR
    for file in (*annotations.dependencies, annotations):
        file.CopyToProto(imports.file.add())
    imports.file.add().ParseFromString(validate_pb.desc().proto.to_binary())
    (work / "imports.binpb").write_bytes(imports.SerializeToString())
    run_protoc(
        f"--descriptor_set_in={work / 'imports.binpb'}",
        f"-I{PROTOS}",
        "--include_imports",
        "--include_source_info",
        f"--descriptor_set_out={work / 'full.binpb'}",
        *sources(),
    )
    result = descriptor_pb2.FileDescriptorSet()
    result.ParseFromString((work / "full.binpb").read_bytes())
    return result


def without_validation(
    full: descriptor_pb2.FileDescriptorSet,
) -> descriptor_pb2.FileDescriptorSet:
    """The same files as if nothing had been annotated by buf.validate."""
    plain = descriptor_pb2.FileDescriptorSet()
    for file in full.file:
        if file.name == VALIDATE:
            continue
        copy = plain.file.add()
        copy.CopyFrom(file)
        copy.ClearField("source_code_info")
        if VALIDATE in copy.dependency:
            copy.dependency.remove(VALIDATE)
        for message in walk(copy.message_type):
            clear_rules(message.options)
            for field in message.field:
                clear_rules(field.options)
            for oneof in message.oneof_decl:
                clear_rules(oneof.options)
    return plain


def walk(
    messages: Iterable[descriptor_pb2.DescriptorProto],
) -> Iterable[descriptor_pb2.DescriptorProto]:
    for message in messages:
        yield message
        yield from walk(message.nested_type)


def clear_rules(options: Message) -> None:
    """Drops the extensions of buf.validate, which are unknown fields to this parser."""
    options.DiscardUnknownFields()


def use_private_pool(stub: Path) -> None:
    """Makes a generated module register its messages in headrace.oip's pool, not in the default one."""
    text = stub.read_text()
    default = "from google.protobuf import descriptor_pool as _descriptor_pool"
    if text.count(default) != 1 or text.count("_descriptor_pool.Default()") != 1:
        sys.exit(f"{stub.name}: protoc's output has changed; adapt use_private_pool")
    text = text.replace(default, "from headrace.oip._pool import POOL as _POOL")
    stub.write_text(text.replace("_descriptor_pool.Default()", "_POOL"))


def generate(target: Path) -> None:
    """Writes all stubs below `target`."""
    rules = target / RULES
    rules.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        full = full_descriptors(work)
        (work / "plain.binpb").write_bytes(without_validation(full).SerializeToString())
        run_protoc(
            f"--descriptor_set_in={work / 'plain.binpb'}",
            f"--python_out={target}",
            f"--pyi_out={target}",
            f"--grpc_python_out={target}",
            *sources(),
        )
        validated = [file.name for file in full.file if VALIDATE in file.dependency]
        third_party = [
            VALIDATE,
            "google/api/annotations.proto",
            "google/api/http.proto",
        ]
        run_protoc(
            f"--descriptor_set_in={work / 'full.binpb'}",
            f"--plugin=protoc-gen-py={Path(sys.executable).parent / 'protoc-gen-py'}",
            f"--py_out={rules}",
            *validated,
            *third_party,
        )
    for stub in (target / PRIVATE_POOL).glob("*_pb2.py"):
        use_private_pool(stub)


def drift(fresh: Path) -> list[str]:
    """Generated files that are missing here, left over here, or differ."""
    names = {
        str(path.relative_to(root)) for root in (ROOT, fresh) for pattern in GENERATED for path in root.glob(pattern)
    }
    return sorted(
        name
        for name in names
        if not ((ROOT / name).exists() and (fresh / name).exists())
        or not filecmp.cmp(ROOT / name, fresh / name, shallow=False)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with what is committed")
    parser.add_argument("--image", type=Path, help="write the image for buf and stop")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        fresh = Path(name)
        if options.image:
            options.image.write_bytes(full_descriptors(fresh).SerializeToString())
        elif options.check:
            generate(fresh)
            if changed := drift(fresh):
                sys.exit("stubs differ from the protos; run `make protos`:\n  " + "\n  ".join(changed))
        else:
            generate(ROOT)


if __name__ == "__main__":
    main()
