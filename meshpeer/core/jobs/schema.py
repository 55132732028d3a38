"""The JSON Schema (draft 2020-12) of a job file: what editors complete, and what the reference page is made
of.

The descriptions here are the only ones; the parser owns the rules, and a test holds both to the same fields.
A schema says less than ``check_job``: needs, cycles and sums are beyond it, so a file that fits may still be
refused.
"""

from __future__ import annotations

from typing import Final

from meshpeer.core.jobs import rules
from meshpeer.core.jobs.python import CALL_CHARACTERS_MAX, CALL_PATTERN
from meshpeer.core.jobs.webhook_urls import URL_BYTES_MAX
from meshpeer.core.wire.limits import JOB_TASKS_MAX

Json = str | int | bool | None | list["Json"] | dict[str, "Json"]

SCHEMA_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def job_schema() -> dict[str, Json]:
    """Returns the schema as plain values, ready for ``json.dumps``."""
    return {
        "$schema": SCHEMA_DIALECT,
        "title": "meshpeer job",
        "description": "A graph of tasks that a mesh runs.",
        **_object(_JOB, required=["name", "tasks"]),
        "$defs": {
            "defaults": {
                "description": "What every task gets that doesn't say otherwise.",
                **_object(_COMMON),
            },
            "task": {
                "description": (
                    "One task, or an array of tasks that differ in their fields. It has run, webhook or "
                    "python."
                ),
                **_object({**_TASK, **_COMMON}),
                "oneOf": [{"required": ["run"]}, {"required": ["webhook"]}, {"required": ["python"]}],
            },
            "call": {"type": "string", "maxLength": CALL_CHARACTERS_MAX, "pattern": CALL_PATTERN},
            "python": {
                "description": "A function that the worker calls in a Python of its own, as a program.",
                **_object(_PYTHON, required=["call"]),
            },
            "webhook": {
                "description": "A call of a service on the worker, instead of a program.",
                **_object(_WEBHOOK, required=["url"]),
            },
            "need": {
                "description": "A need whose outputs are staged under a folder of their own.",
                **_object(_NEED, required=["task"]),
            },
            "resources": {
                "description": (
                    "What a task takes while it runs. Any other name is a count of what nodes say that they "
                    "have ([jobs.resources]), such as gpu: 1."
                ),
                **_object(_RESOURCES),
                "additionalProperties": {
                    "type": "integer",
                    "minimum": 0,
                    "maximum": rules.RESOURCE_COUNT_MAX,
                },
                "propertyNames": {"pattern": "^[a-z][a-z0-9_]{0,31}$"},
            },
            "names": {
                "oneOf": [
                    {"type": "string", "pattern": _NAME},
                    {
                        "type": "array",
                        "minItems": 1,
                        "maxItems": rules.WHERE_MAX,
                        "items": {"type": "string", "pattern": _NAME},
                    },
                ]
            },
            "labels": {
                "type": "object",
                "maxProperties": rules.WHERE_LABELS_MAX,
                "additionalProperties": {
                    "oneOf": [
                        {"$ref": "#/$defs/value"},
                        {
                            "type": "array",
                            "minItems": 1,
                            "maxItems": rules.WHERE_MAX,
                            "items": {"$ref": "#/$defs/value"},
                        },
                    ]
                },
            },
            "where": {
                "description": (
                    "Which nodes may run a task: each field that is there has to match, by one of its "
                    "entries."
                ),
                **_object(_WHERE),
            },
            "backoff": {
                "description": "Pauses before retries: the first, doubled with each, up to the longest.",
                **_object(_BACKOFF),
            },
            "limits": {
                "description": "What a task may take before it is ended, or refused more.",
                **_object(_LIMITS),
            },
            "size": {"type": "string", "pattern": "^([1-9][0-9]{0,15}(B|KiB|MiB|GiB|TiB)|none)$"},
            "env": {
                "type": "object",
                "maxProperties": rules.ENV_MAX,
                "propertyNames": {
                    "pattern": "^[A-Za-z_][A-Za-z0-9_]*$",
                    "not": {"pattern": "^(MESHPEER_|(index|job|task|attempt)$)"},
                },
                "additionalProperties": {"type": ["string", "number"]},
            },
            "duration": {"type": "string", "pattern": "^([1-9][0-9]{0,11}(ms|s|m|h)|none)$"},
            "value": {"type": ["string", "number"]},
            "values": {
                "oneOf": [
                    {"type": "string", "pattern": _RANGE},
                    {
                        "type": "array",
                        "minItems": 1,
                        "maxItems": JOB_TASKS_MAX,
                        "items": {"$ref": "#/$defs/value"},
                    },
                ]
            },
            "field": {
                "pattern": "^[a-z][a-z0-9_]*$",
                "not": {"enum": list(rules.OWN_FIELDS)},
            },
            "url": {"type": "string", "maxLength": URL_BYTES_MAX, "pattern": "^https?://"},
            "relative_path": {"type": "string", "minLength": 1, "pattern": "^(?!/)(?!(.*/)?\\.\\.(/|$))"},
        },
    }


def _object(fields: dict[str, Json], required: list[Json] | None = None) -> dict[str, Json]:
    schema: dict[str, Json] = {"type": "object", "properties": fields, "additionalProperties": False}
    return {**schema, "required": required} if required else schema


_NAME = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
_RANGE = "^(0|[1-9][0-9]{0,8})-(0|[1-9][0-9]{0,8})$"
_ELEMENT: dict[str, Json] = {
    "type": "object",
    "minProperties": 1,
    "maxProperties": rules.ARRAY_FIELDS_MAX,
    "propertyNames": {"$ref": "#/$defs/field"},
}

_JOB: dict[str, Json] = {
    "name": {
        "description": "What people call the job; it need not be unique.",
        "type": "string",
        "minLength": 1,
        "maxLength": rules.JOB_NAME_CHARACTERS_MAX,
        "examples": ["flipbook"],
    },
    "files": {
        "description": (
            "Files and folders from the job file's folder that stand in every task's scratch folder, under "
            "the same paths. Links that lead out of the folder are refused."
        ),
        "type": "array",
        "maxItems": rules.FILES_MAX,
        "items": {"$ref": "#/$defs/relative_path"},
        "examples": [["render.py", "assets/"]],
    },
    "defaults": {"$ref": "#/$defs/defaults", "examples": [{"retries": 2, "timeout": "10m"}]},
    "on_complete": {
        "description": (
            "A URL that is sent a POST when the job has ended, however it did, by its owner: the node that "
            "it was submitted at, or a replica that took it over. That one's own settings say what jobs may "
            "call ([webhooks] allow)."
        ),
        "$ref": "#/$defs/url",
        "examples": ["http://127.0.0.1:9000/ended"],
    },
    "on_failure": {
        "description": "The same, when the job has failed.",
        "$ref": "#/$defs/url",
    },
    "keep": {
        "title": "time",
        "description": (
            "How long its results stay where they were made after its end, at least: a number and m, h or "
            "d. Else, and at most, it is as each node says ([jobs] results_days, keep_days_max)."
        ),
        "type": "string",
        "pattern": "^[1-9][0-9]{0,6}[mhd]$",
        "examples": ["12h", "90d"],
    },
    "priority": {
        "description": (
            "Among the jobs of one submitter: the higher one goes first. Between submitters nodes share "
            "alike, whatever their jobs say."
        ),
        "type": "integer",
        "minimum": -rules.PRIORITY_MAX,
        "maximum": rules.PRIORITY_MAX,
        "default": 0,
    },
    "groups": {
        "title": "mapping of counts",
        "description": (
            "Concurrency groups: how many tasks of each are given out at once, in the whole mesh. Tasks name "
            "theirs by group."
        ),
        "type": "object",
        "maxProperties": rules.GROUPS_MAX,
        "propertyNames": {"pattern": "^[A-Za-z0-9][A-Za-z0-9_\\-]*$"},
        "additionalProperties": {"type": "integer", "minimum": 1, "maximum": rules.RESOURCE_COUNT_MAX},
        "examples": [{"licence": 2}],
    },
    "tasks": {
        "description": f"The tasks by name; up to {JOB_TASKS_MAX:,} after arrays are expanded.",
        "type": "object",
        "minProperties": 1,
        "maxProperties": JOB_TASKS_MAX,
        "propertyNames": {
            "pattern": "^[A-Za-z0-9][A-Za-z0-9_\\-]*$",
            "maxLength": rules.TASK_NAME_CHARACTERS_MAX,
        },
        "additionalProperties": {"$ref": "#/$defs/task"},
    },
}
_TASK: dict[str, Json] = {
    "run": {
        "description": (
            "A program and its arguments as a list, or one shell line (/bin/sh) as text. In a list, "
            "${index}, ${job}, ${task}, ${attempt} and the array's own fields are expanded, and $$ is a "
            "dollar sign; in a shell line they are environment variables, so that no value is ever parsed as"
            " shell code."
        ),
        "oneOf": [
            {"type": "array", "minItems": 1, "maxItems": rules.ARGUMENTS_MAX, "items": {"type": "string"}},
            {"type": "string", "pattern": "\\S"},
        ],
        "examples": [["python3", "render.py", "${index}"], "python3 render.py > frame-$index.ppm"],
    },
    "webhook": {
        "$ref": "#/$defs/webhook",
        "examples": [{"url": "http://127.0.0.1:18789/judge", "body": {"frames": 24}}],
    },
    "python": {
        "description": (
            "A function that is called instead of a program: alone, or with its arguments. It is imported "
            "from the task's scratch folder, where the job's files stand, or from the worker's Python. What "
            "it returns, as JSON, is put out as results/NAME.json, of an array as results/NAME.INDEX.json."
        ),
        "oneOf": [{"$ref": "#/$defs/call"}, {"$ref": "#/$defs/python"}],
        "examples": [{"call": "shapes:area", "args": [3, 4]}, "shapes:report"],
    },
    "needs": {
        "description": (
            "Tasks that must succeed first: by name all of a task, name[index] the element of the same index"
            " (arrays of equal size). What they put out stands in the scratch folder under its own paths; "
            "only direct needs are staged. Two needs that put out the same path fail the attempt, unless "
            "into separates them."
        ),
        "type": "array",
        "maxItems": rules.NEEDS_MAX,
        "items": {
            "oneOf": [
                {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_\\-]*(\\[index\\])?$"},
                {"$ref": "#/$defs/need"},
            ]
        },
        "examples": [["split", "render[index]", {"task": "light", "into": "maps"}]],
    },
    "array": {
        "description": (
            "Makes this many tasks of one: a range from 0, a count, a list (its values are the field value, "
            "or each element is a mapping of fields), or a mapping of lists, whose product it is. Elements "
            "count from 0."
        ),
        "oneOf": [
            {"title": "range", "type": "string", "pattern": "^0-(0|[1-9][0-9]{0,8})$"},
            {"title": "count", "type": "integer", "minimum": 1, "maximum": JOB_TASKS_MAX},
            {
                "title": "list",
                "type": "array",
                "minItems": 1,
                "maxItems": JOB_TASKS_MAX,
                "items": {
                    "oneOf": [
                        {"$ref": "#/$defs/value"},
                        {**_ELEMENT, "additionalProperties": {"$ref": "#/$defs/value"}},
                    ]
                },
            },
            {**_ELEMENT, "title": "lists by field", "additionalProperties": {"$ref": "#/$defs/values"}},
        ],
        "examples": ["0-23", ["red", "green"], {"lens": ["24mm", "50mm"], "seed": "1-10"}],
    },
    "outputs": {
        "description": (
            "What to keep of the scratch folder: paths, patterns (*, ?, [...]), or folders with a trailing "
            "slash. Each must match something."
        ),
        "type": "array",
        "maxItems": rules.OUTPUTS_MAX,
        "items": {"$ref": "#/$defs/relative_path"},
        "examples": [["frame-*.ppm", "scene/"]],
    },
}
_COMMON: dict[str, Json] = {
    "env": {
        "description": (
            "Environment variables; numbers are taken as written. meshpeer adds index, job, task, attempt "
            "and the array's fields where no variable of that name exists, and MESHPEER_IDEMPOTENCY_KEY and "
            "MESHPEER_ATTEMPT."
        ),
        "$ref": "#/$defs/env",
        "examples": [{"OMP_NUM_THREADS": 1}],
    },
    "cwd": {
        "description": "The folder to start in, relative to the scratch folder.",
        "$ref": "#/$defs/relative_path",
        "default": ".",
    },
    "retries": {
        "description": "How often a failed attempt is followed by another: 2 is up to 3 attempts.",
        "type": "integer",
        "minimum": 0,
        "maximum": rules.RETRIES_MAX,
        "default": 0,
    },
    "crash_limit": {
        "description": (
            "A task is given up after so many workers were lost while they ran it, lest it take down every "
            "node; so is one whose outputs were lost so often."
        ),
        "type": "integer",
        "minimum": 1,
        "maximum": rules.CRASH_LIMIT_MAX,
        "default": 3,
    },
    "timeout": {
        "description": (
            "How long one attempt may run: a number and ms, s, m or h; none lifts a default. Of a webhook: "
            "from the first call to the answer or the call-back."
        ),
        "$ref": "#/$defs/duration",
        "default": "none",
        "examples": ["90s", "10m", "2h"],
    },
    "resources": {"$ref": "#/$defs/resources", "examples": [{"cpu": 2, "memory": "512MiB"}]},
    "where": {
        "$ref": "#/$defs/where",
        "examples": [{"region": "eu", "label": {"disk": "ssd"}}, {"node": ["alpha", "beta"]}],
    },
    "priority": {
        "description": "Among the tasks of its job that are ready: the higher one goes first.",
        "type": "integer",
        "minimum": -rules.PRIORITY_MAX,
        "maximum": rules.PRIORITY_MAX,
        "default": 0,
    },
    "backoff": {
        "description": "The pause before the first retry, doubled with each.",
        "oneOf": [{"$ref": "#/$defs/duration"}, {"$ref": "#/$defs/backoff"}],
        "default": {"first": "500ms", "max": "60s"},
        "examples": ["10s", {"first": "1s", "max": "5m"}],
    },
    "on_failure": {
        "description": (
            "What follows where it has failed for good: continue skips what needs it and goes on with the "
            "rest; fail-fast ends the rest of the job as cancelled."
        ),
        "type": "string",
        "enum": list(rules.FAILURE_WAYS),
        "default": rules.CONTINUE,
    },
    "group": {
        "description": "The concurrency group that it counts in, of those under groups.",
        "type": "string",
        "pattern": "^[A-Za-z0-9][A-Za-z0-9_\\-]*$",
        "examples": ["licence"],
    },
    "speculate": {
        "description": (
            "Whether it may be run a second time beside an attempt that takes far longer than others of its "
            "kind, when nodes stand idle. The first result counts."
        ),
        "title": "true or false",
        "type": "boolean",
        "default": True,
    },
    "limits": {"$ref": "#/$defs/limits", "examples": [{"processes": 64, "output": "1GiB"}]},
    "network": {
        "description": (
            "host is the node's own network; none leaves the task a loopback of its own and nothing else."
        ),
        "type": "string",
        "enum": list(rules.NETWORKS),
        "default": rules.NETWORKS[0],
    },
    "secrets": {
        "description": (
            "Names of secrets that the task gets as variables of the same names, from the file of each node "
            "that runs it. A node that has none of that name, or not for this submitter, fails the attempt."
        ),
        "type": "array",
        "maxItems": rules.SECRETS_MAX,
        "items": {"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
        "examples": [["API_TOKEN"]],
    },
}
_EXIT_CODE: dict[str, Json] = {"type": "integer", "minimum": 0, "maximum": rules.EXIT_CODE_MAX}
_WHEN: dict[str, Json] = {
    "exit": {
        "description": "The exit code, or a list of them.",
        "oneOf": [_EXIT_CODE, {"type": "array", "minItems": 1, "items": _EXIT_CODE}],
    },
}
_NEED: dict[str, Json] = {
    "task": {
        "description": "The task, as name or name[index].",
        "type": "string",
        "pattern": "^[A-Za-z0-9][A-Za-z0-9_\\-]*(\\[index\\])?$",
    },
    "into": {
        "description": "The folder that its outputs are staged under.",
        "$ref": "#/$defs/relative_path",
    },
    "when": {
        "description": (
            "The end that meets this need; any other skips who needs it. Of a whole array, succeeded is when "
            "all of it has, failed when all of it ended and a part has failed, ended however it went, "
            "skipped included. {exit: 3}, {exit: [3, 4]}: it has ended, after all its retries, with one of "
            "these exit codes, of a whole array all of it. Only what succeeded has outputs."
        ),
        "oneOf": [
            {"type": "string", "enum": list(rules.NEED_ENDS)},
            {"title": "exit codes", **_object(_WHEN, required=["exit"])},
        ],
        "default": rules.SUCCEEDED,
        "examples": ["failed", {"exit": [3, 4]}],
    },
}
_WHERE: dict[str, Json] = {
    "region": {"description": "The node's region.", "$ref": "#/$defs/names", "examples": ["eu"]},
    "role": {"description": "A role of the node.", "$ref": "#/$defs/names", "examples": [["gpu", "render"]]},
    "label": {
        "description": "Labels of the node ([node] labels), each with the value or values that will do.",
        "$ref": "#/$defs/labels",
        "examples": [{"disk": "ssd", "rack": ["a1", "a2"]}],
    },
    "node": {"description": "The node's name.", "$ref": "#/$defs/names", "examples": ["alpha"]},
}
_BACKOFF: dict[str, Json] = {
    "first": {"description": "The first pause.", "$ref": "#/$defs/duration", "default": "500ms"},
    "max": {"description": "The longest pause.", "$ref": "#/$defs/duration", "default": "60s"},
}
_WEBHOOK: dict[str, Json] = {
    "url": {
        "description": (
            "Where the worker sends a POST: http or https, a host and a port. Each node says which it lets "
            "jobs call ([webhooks] allow), its own loopback unless it says more."
        ),
        "$ref": "#/$defs/url",
    },
    "body": {
        "title": "any value",
        "description": (
            "What is sent, as JSON: any values, lists and mappings. In texts, ${index}, ${job}, ${task}, "
            "${attempt} and the array's own fields are expanded, and $$ is a dollar sign."
        ),
        "default": {},
        "examples": [{"frame": "${index}"}],
    },
}
_PYTHON: dict[str, Json] = {
    "call": {
        "description": "The function, as package.module:function.",
        "$ref": "#/$defs/call",
        "examples": ["shapes:area"],
    },
    "args": {
        "description": (
            "Its arguments by position: any values, lists and mappings. In texts, ${index}, ${job}, ${task}, "
            "${attempt} and the array's own fields are expanded, and $$ is a dollar sign."
        ),
        "title": "list of any values",
        "type": "array",
        "examples": [["${index}", 5]],
    },
    "kwargs": {
        "description": "Its arguments by name, likewise.",
        "type": "object",
        "examples": [{"scale": 2}],
    },
}
_RESOURCES: dict[str, Json] = {
    "cpu": {
        "description": "Slots of a node that the task takes.",
        "type": "integer",
        "minimum": 1,
        "maximum": rules.CPU_MAX,
        "default": 1,
    },
    "memory": {
        "description": (
            "What the task's processes may use together, 16MiB or more; a process that asks for more is "
            "killed. It is set aside for the task while it runs. none: nothing is, and it may use what its "
            "node has for all tasks."
        ),
        "$ref": "#/$defs/size",
        "default": "none",
        "examples": ["512MiB", "4GiB"],
    },
}
_LIMITS: dict[str, Json] = {
    "processes": {
        "description": "Processes and threads at once; more can't be started.",
        "type": "integer",
        "minimum": 1,
        "maximum": rules.PROCESSES_MAX,
        "default": rules.PROCESSES_MAX,
    },
    "output": {
        "description": (
            "What stdout, stderr and all files in the scratch folder may come to, together, 4KiB or more; "
            "beyond that the task is ended. none: the node's own limit ([jobs] output_bytes_max)."
        ),
        "$ref": "#/$defs/size",
        "default": "none",
        "examples": ["256MiB", "2GiB"],
    },
}
