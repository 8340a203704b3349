"""Chat templates that are up to no good are stopped, with a sentence, in seconds."""

from __future__ import annotations

import pytest

from mobile_llm.errors import InvalidInput
from mobile_llm.generation.template import ChatTemplate

MESSAGES = [{"role": "user", "content": "hello"}]
TENFOLD = "{% for x in [0,1,2,3,4,5,6,7,8,9] %}"
ENDLESS = {
    "a long range": "{% for i in range(10**9) %}{% endfor %}",
    "loops within loops": TENFOLD * 9 + "{% endfor %}" * 9,
    "loops over what was written": "{% set ns = namespace(s='ab') %}"
    + TENFOLD * 6
    + "{% for c in ns.s %}x{% endfor %}"
    + "{% endfor %}" * 6,
    "a macro that calls itself twice": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}"
    "{{ f(40) }}",
    "blocks that call": "{% macro f() %}{{ caller() }}{% endmacro %}"
    + TENFOLD * 5
    + "{% call f() %}{% for y in [1, 2, 3] %}{% endfor %}{% endcall %}"
    + "{% endfor %}" * 5,
}


@pytest.mark.parametrize("source", list(ENDLESS.values()), ids=list(ENDLESS))
def test_a_template_that_never_ends_is_stopped(source: str) -> None:
    with pytest.raises(InvalidInput, match=r"refuses this conversation: it takes more than 200,000 steps"):
        ChatTemplate(source).render(MESSAGES)


def test_a_macro_without_an_end_is_stopped() -> None:
    with pytest.raises(InvalidInput, match="recursion"):
        ChatTemplate("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}").render(MESSAGES)


def test_counting_changes_nothing_that_is_written() -> None:
    source = (
        "{% macro said(m) %}{{ m.role }}: {{ caller() if caller else m.content }}{% endmacro %}"
        "{% for m in messages %}\n{{ loop.index }} {{ said(m) }};{% else %}none{% endfor %}"
        "{% call said(messages[0]) %}called{% endcall %}"
    )
    assert ChatTemplate(source).render(MESSAGES) == "1 user: hello;user: called"
    assert ChatTemplate("{% for m in [] %}{% else %}none{% endfor %}").render(MESSAGES) == "none"


def test_thousands_of_messages_are_not_too_many() -> None:
    source = "{% for m in messages %}{{ m.role }}{{ m.content }}{% if loop.last %}.{% endif %}{% endfor %}"
    assert len(ChatTemplate(source).render(MESSAGES * 5000)) == 9 * 5000 + 1
