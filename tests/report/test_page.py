"""Templates to pages: what may run on one, and how numbers are written."""

from __future__ import annotations

import base64
import hashlib
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlbench.report.page import number, render, script_json
from tlbench.suites.load import load_suite

JSON = st.recursive(
    st.text() | st.integers() | st.none(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)


@given(JSON)
def test_json_in_a_script_is_the_same_value_and_cannot_leave_it(value: object) -> None:
    told = str(script_json(value))
    assert json.loads(told) == value
    assert not re.search("[<>&\u2028\u2029]", told)


def test_numbers_that_json_lacks_are_null() -> None:
    assert script_json({"a": [float("nan"), float("inf"), 1.5]}) == '{"a":[null,null,1.5]}'


def test_a_page_may_run_its_own_scripts_and_no_others() -> None:
    page = render("base.html", path="models/x.html", suite=load_suite("digits"), analysed=False)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy is not None
    told = policy[1].replace("&#39;", "'")
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    sources = [f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in scripts]
    assert f"script-src {' '.join(sources)};" in told
    assert "default-src 'none'" in told
    assert "unsafe-inline" not in told.split("style-src")[0]


def test_a_page_leads_back_to_the_board_from_its_folder() -> None:
    page = render("base.html", path="models/x.html", suite=load_suite("digits"), analysed=False)
    assert 'href="../index.html"' in page


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.5, "fraction", "50.0"),
        (-0.0001, "fraction", "0.0"),
        (-0.012, "fraction", "−1.2"),
        (float("inf"), "nats", "∞"),
        (None, "nats", "–"),
        (12345.6, "seconds", "12,346"),
        (1.25e7, "bytes", "12.5 MB"),
    ],
)
def test_numbers_are_written_for_people(value: float | None, unit: str, text: str) -> None:
    assert number(value, unit) == text
