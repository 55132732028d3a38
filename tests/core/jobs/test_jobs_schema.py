from __future__ import annotations

import json
import re

import pytest

from meshpeer.core.jobs import spec
from meshpeer.core.jobs.confinement import LIMIT_FIELDS
from meshpeer.core.jobs.placing import BACKOFF_FIELDS, OWN_RESOURCES, WHERE_FIELDS
from meshpeer.core.jobs.schema import Json, job_schema
from meshpeer.core.jobs.webhook import WEBHOOK_FIELDS

SCHEMA = job_schema()
PARTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "job": (spec.JOB_FIELDS, spec.JOB_FIELDS_LATER),
    "defaults": (spec.DEFAULTS_FIELDS, spec.TASK_FIELDS_LATER),
    "task": (spec.TASK_FIELDS, spec.TASK_FIELDS_LATER),
    "need": (spec.NEED_FIELDS, ()),
    "resources": (OWN_RESOURCES, ()),
    "where": (WHERE_FIELDS, ()),
    "backoff": (BACKOFF_FIELDS, ()),
    "limits": (LIMIT_FIELDS, ()),
    "webhook": (WEBHOOK_FIELDS, ()),
}


@pytest.mark.parametrize("part", PARTS)
def test_schema_and_parser_know_the_same_fields(part: str) -> None:
    known, later = PARTS[part]
    assert sorted(table(definition(part)["properties"])) == sorted(known)
    assert not set(known) & set(later)


@pytest.mark.parametrize("part", PARTS)
def test_every_field_is_described(part: str) -> None:
    for name, field in table(definition(part)["properties"]).items():
        described = {**table(follow(field)), **table(field)}
        assert described.get("description"), name


@pytest.mark.parametrize("part", PARTS)
def test_every_example_fits_its_field(part: str) -> None:
    for name, field in table(definition(part)["properties"]).items():
        for example in items(table(field).get("examples", [])):
            assert not misfits(example, field), name


@pytest.mark.parametrize(
    ("job", "fits"),
    [
        ({"name": "x", "tasks": {"t": {"run": "true"}}}, True),
        ({"name": "x", "tasks": {}}, False),
        ({"name": "x"}, False),
        ({"name": "x", "tasks": {"t": {"run": [1]}}}, False),
        ({"name": "x", "tasks": {"t": {"run": []}}}, False),
        ({"name": "x", "tasks": {"t t": {"run": "x"}}}, False),
        ({"name": "x", "tasks": {"t": {"run": "x", "timeout": "10"}}}, False),
        ({"name": "x", "tasks": {"t": {"run": "x", "outputs": ["a/../b"]}}}, False),
        ({"name": "x", "tasks": {"t": {"run": "x", "outputs": ["..b/c.."]}}}, True),
        ({"name": "x", "tasks": {"t": {"run": "x", "cwd": "/"}}}, False),
        ({"name": "x", "tasks": {"t": {"run": "x", "env": {"MESHPEER_X": "1"}}}}, False),
        ({"name": "x", "tasks": {"t": {"run": "x", "env": {"X": True}}}}, False),
        ({"name": "x", "tasks": {"t": {"run": "x", "retries": True}}}, False),
        ({"name": "x", "tasks": {"t": {"run": "x", "array": {"index": [1]}}}}, False),
        ({"name": "x", "tasks": {"t": {"run": "x", "array": [{"a": 1}, 2]}}}, True),
        ({"name": "x", "tasks": {"t": {"run": "x", "needs": ["a[0]"]}}}, False),
        ({"name": "x", "tasks": {"t": {"run": "x", "webhook": {}}}}, False),
        ({"name": "x", "tasks": {"t": {"webhook": {}}}}, False),
        ({"name": "x", "tasks": {"t": {"webhook": {"url": "http://127.0.0.1:1/x", "body": [1]}}}}, True),
        ({"name": "x", "tasks": {"t": {"needs": []}}}, False),
    ],
)
def test_the_schema_tells_jobs_from_others(job: Json, fits: bool) -> None:
    assert (not misfits(job, SCHEMA)) == fits


def test_the_schema_is_plain_json() -> None:
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA


def definition(part: str) -> dict[str, Json]:
    return SCHEMA if part == "job" else table(table(SCHEMA["$defs"])[part])


def follow(schema: Json) -> Json:
    reference = table(schema).get("$ref")
    return table(SCHEMA["$defs"])[reference.rpartition("/")[2]] if isinstance(reference, str) else {}


def misfits(value: Json, schema: Json) -> list[str]:
    """The keywords that a value breaks; knows as much of JSON Schema as ours uses, and says so beyond."""
    broken: list[str] = []
    for keyword, wanted in table(schema).items():
        match keyword:
            case "title" | "description" | "examples" | "default" | "$defs" | "$schema":
                fits = True
            case "$ref":
                fits = not misfits(value, follow(schema))
            case "type":
                fits = any(
                    is_a(value, str(kind)) for kind in (wanted if isinstance(wanted, list) else [wanted])
                )
            case "oneOf":
                fits = sum(not misfits(value, option) for option in items(wanted)) == 1
            case "not":
                fits = bool(misfits(value, wanted))
            case "enum":
                fits = value in items(wanted)
            case "pattern":
                fits = not isinstance(value, str) or re.search(str(wanted), value) is not None
            case "minLength" | "maxLength":
                fits = not isinstance(value, str) or within(keyword, len(value), wanted)
            case "minimum" | "maximum":
                fits = not is_a(value, "number") or within(keyword, value, wanted)
            case "minItems" | "maxItems":
                fits = not isinstance(value, list) or within(keyword, len(value), wanted)
            case "minProperties" | "maxProperties":
                fits = not isinstance(value, dict) or within(keyword, len(value), wanted)
            case "items":
                fits = not isinstance(value, list) or not any(misfits(item, wanted) for item in value)
            case "required":
                fits = not isinstance(value, dict) or all(name in value for name in items(wanted))
            case "propertyNames":
                fits = not isinstance(value, dict) or not any(misfits(name, wanted) for name in value)
            case "properties":
                known = table(wanted)
                fits = not isinstance(value, dict) or not any(
                    misfits(item, known[name]) for name, item in value.items() if name in known
                )
            case "additionalProperties":
                known = table(table(schema).get("properties", {}))
                others = (
                    [item for name, item in value.items() if name not in known]
                    if isinstance(value, dict)
                    else []
                )
                fits = not others if wanted is False else not any(misfits(item, wanted) for item in others)
            case _:
                raise NotImplementedError(keyword)
        if not fits:
            broken.append(keyword)
    return broken


def is_a(value: Json, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    kinds: dict[str, type | tuple[type, ...]] = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "number": (int, float),
    }
    return isinstance(value, kinds[kind])


def within(keyword: str, size: Json, bound: Json) -> bool:
    assert isinstance(size, int | float)
    assert isinstance(bound, int)
    return size >= bound if keyword.startswith("min") else size <= bound


def table(value: Json) -> dict[str, Json]:
    assert isinstance(value, dict)
    return value


def items(value: Json) -> list[Json]:
    assert isinstance(value, list)
    return value
