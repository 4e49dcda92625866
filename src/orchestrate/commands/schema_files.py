"""The JSON schemas of what both commands print and of the files in a job's folder, made from the structs.

They are files of this package, in the folder `schema`; `make man` writes them.
"""

import json
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from blocksync.commands import results as engine
from orchestrate.commands import results
from orchestrate.job.folder import JobState
from orchestrate.job.invocation import Invocation
from orchestrate.job.journal import Content
from orchestrate.plan.model import Plan

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_TYPES = "$defs"
_REFERENCE = f"#/{_TYPES}/{{name}}"

COMMANDS: dict[str, tuple[type, ...]] = {
    "blocksync-sync": (engine.SyncResult,),
    "blocksync-verify": (engine.VerifyResult,),
    "blocksync-tune": (engine.TuneResult,),
    "blocksync-changed": (engine.ChangedResult,),
    "xen2kvm-prepare": (results.PrepareResult,),
    "xen2kvm-plan": (results.PlanResult,),
    "xen2kvm-sync": (results.VolumesSyncResult,),
    "xen2kvm-precopy": (results.PrecopyResult,),
    "xen2kvm-status": (results.StatusResult, JobState),
    "xen2kvm-status-all": (results.JobsResult,),
    "xen2kvm-rehearse": (results.RehearsalResult,),
    "xen2kvm-cutover": (results.CutoverResult,),
    "xen2kvm-rollback": (results.RollbackResult,),
    "xen2kvm-finish": (results.FinishResult,),
    "xen2kvm-schema": (results.SchemaResult,),
}
"""What the object of a command's --json holds besides what all have."""

FILES: dict[str, tuple[type, ...]] = {
    "plan": (Plan,),
    "state": (JobState,),
    "journal": (Content,),
    "report": (results.CutoverResult,),
    "job": (Invocation,),
    "log-line": engine.LOG_LINES,
}
"""What a file holds, a plan's TOML read as JSON among them, or a line of --log-json: one of these."""


def made() -> dict[str, dict[str, Any]]:
    """Every schema, by its name."""
    found = {name: _of_command(name, parts) for name, parts in COMMANDS.items()}
    return found | {name: _of_file(name, kinds) for name, kinds in FILES.items()}


def as_text(schema: dict[str, Any]) -> str:
    """A schema as its file has it."""
    return json.dumps(schema, indent=2) + "\n"


def names() -> list[str]:
    """The names of all schemas."""
    return sorted([*COMMANDS, *FILES])


def folder() -> Path:
    """Where they are written."""
    return Path(__file__).parents[1] / "schema"


def text(name: str) -> str:
    """A schema of the package."""
    return resources.files("orchestrate").joinpath("schema", f"{name}.json").read_text(encoding="utf-8")


def read(name: str) -> dict[str, Any]:
    """The same, read."""
    schema: dict[str, Any] = json.loads(text(name))
    return schema


def _of_file(name: str, kinds: tuple[type, ...]) -> dict[str, Any]:
    schemas, types = msgspec.json.schema_components(kinds, ref_template=_REFERENCE)
    one = schemas[0] if len(kinds) == 1 else {"anyOf": list(schemas)}
    return {"$schema": DIALECT, "title": name, **one, _TYPES: types}


def _of_command(name: str, parts: tuple[type, ...]) -> dict[str, Any]:
    """One object: what all have, always; the result's fields, unless there is an error."""
    schemas, types = msgspec.json.schema_components([engine.CommandResult, *parts], ref_template=_REFERENCE)
    objects = [types.pop(schema["$ref"].rpartition("/")[2]) for schema in schemas]
    properties = {key: value for one in reversed(objects) for key, value in one["properties"].items()}
    result = sorted({key for one in objects[1:] for key in one.get("required", ())})
    return {
        "$schema": DIALECT,
        "title": name,
        "description": " ".join(objects[1]["description"].split()),
        "type": "object",
        "properties": properties,
        "required": objects[0]["required"],
        "anyOf": [{"required": result}, {"properties": {"error": {"type": "object"}}}],
        _TYPES: types,
    }
