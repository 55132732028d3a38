from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshpeer.core.ids import JobId
from meshpeer.core.jobs.expand import argv_of, env_of
from meshpeer.core.jobs.model import Array, Element, TaskSpec
from meshpeer.core.jobs.template import expand, names_in

JOB = JobId("j3abc")
SWEEP = Array(
    size=2,
    elements=(
        Element(fields=(("lens", "24mm"), ("seed", "1"))),
        Element(fields=(("lens", "$(rm -rf /) ${seed}"), ("seed", "2"))),
    ),
)


def test_arguments_expand_the_fields_of_the_task() -> None:
    spec = TaskSpec(
        name="t", argv=("x", "${lens}-${seed}", "${index}/${job}/${task}/${attempt}"), array=SWEEP
    )
    assert argv_of(spec, 0, JOB, "t[0]", 2) == ("x", "24mm-1", "0/j3abc/t[0]/2")


def test_expanded_values_are_never_expanded_again() -> None:
    spec = TaskSpec(name="t", argv=("x", "${lens}"), array=SWEEP)
    assert argv_of(spec, 1, JOB, "t[1]", 1) == ("x", "$(rm -rf /) ${seed}")


def test_a_shell_line_is_passed_untouched_and_its_values_come_as_variables() -> None:
    spec = TaskSpec(name="t", shell='echo "$lens" ${seed} $$', array=SWEEP)
    assert argv_of(spec, 1, JOB, "t[1]", 1) == ("/bin/sh", "-c", 'echo "$lens" ${seed} $$')
    assert dict(env_of(spec, 1, JOB, "t[1]", 1))["lens"] == "$(rm -rf /) ${seed}"


def test_every_attempt_gets_its_variables() -> None:
    spec = TaskSpec(name="t", argv=("x",), array=SWEEP, env=(("PATH", "/opt"), ("A", "b")))
    assert env_of(spec, 0, JOB, "t[0]", 3, existing={"PATH", "HOME"}) == (
        ("A", "b"),
        ("MESHPEER_ATTEMPT", "3"),
        ("MESHPEER_IDEMPOTENCY_KEY", "j3abc:t[0]"),
        ("PATH", "/opt"),
        ("attempt", "3"),
        ("index", "0"),
        ("job", "j3abc"),
        ("lens", "24mm"),
        ("seed", "1"),
        ("task", "t[0]"),
    )


def test_fields_never_replace_variables_that_exist() -> None:
    spec = TaskSpec(name="t", argv=("x",), array=SWEEP)
    assert "lens" not in dict(env_of(spec, 0, JOB, "t[0]", 1, existing=["lens"]))


def test_a_task_without_an_array_has_no_index() -> None:
    spec = TaskSpec(name="t", argv=("x", "${task}"))
    assert argv_of(spec, None, JOB, "t", 1) == ("x", "t")
    assert "index" not in dict(env_of(spec, None, JOB, "t", 1))


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("", ""),
        ("$", "$"),
        ("$a $(a) $1 a$", "$a $(a) $1 a$"),
        ("$$", "$"),
        ("$${a}", "${a}"),
        ("$$${a}", "$A"),
        ("${a}${a}", "AA"),
        ("$$$$", "$$"),
    ],
)
def test_only_braces_and_doubled_dollars_mean_something(text: str, expanded: str) -> None:
    assert expand(text, {"a": "A"}) == expanded


@pytest.mark.parametrize(
    ("text", "names"),
    [("${a} $${b} ${c", ["a", None]), ("${}", [""]), ("${a b}", ["a b"]), ("${a${b}}", [None, "b"])],
)
def test_names_are_found_where_expansion_would_look(text: str, names: list[str | None]) -> None:
    assert list(names_in(text)) == names


@given(text=st.text(alphabet="ab$ {}\n"))
def test_doubling_the_dollars_keeps_any_text(text: str) -> None:
    doubled = text.replace("$", "$$")
    assert list(names_in(doubled)) == []
    assert expand(doubled, {}) == text
