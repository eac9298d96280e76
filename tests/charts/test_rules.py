"""Alerts and recording rules: promtool accepts them, each alert fires when it should and has a page that helps."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.dashboards import uses
from support.helm import CHART, ROOT
from support.prometheus import promtool

RULES = CHART / "files" / "rules.yaml"
TESTS = Path(__file__).parent / "rules_test.yaml"
PAGES = ROOT / "docs" / "runbooks"
HEADINGS = ["What it means", "What to look at", "What to do"]
SEVERITIES = {"critical", "warning", "info"}
pytestmark = pytest.mark.grader


def rules(file: Path = RULES) -> list[dict[str, Any]]:
    groups = yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def test_promtool_accepts_the_rules() -> None:
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)
    assert done.returncode == 0, done.stderr
    assert f"{len(rules())} rules found" in done.stdout


def test_every_alert_fires_as_its_unit_tests_say() -> None:
    done = promtool("test", "rules", TESTS)
    assert done.returncode == 0, done.stdout + done.stderr


def test_unit_tests_fail_when_an_alert_is_changed(tmp_path: Path) -> None:
    text = RULES.read_text(encoding="utf-8")
    (tmp_path / "rules.yaml").write_text(text.replace("_clock_offset_seconds)) > 2", "_clock_offset_seconds)) > 60"))
    suite = yaml.safe_load(TESTS.read_text(encoding="utf-8"))
    clock = [test for test in suite["tests"] if "clock" in test["name"]]
    file = tmp_path / "tests.yaml"
    file.write_text(yaml.safe_dump({**suite, "rule_files": ["rules.yaml"], "tests": clock}), encoding="utf-8")
    done = promtool("test", "rules", file)
    assert done.returncode != 0
    assert "alertname: RftClockOffset" in done.stdout + done.stderr


@pytest.mark.parametrize("name", alerts())
def test_unit_tests_show_an_alert_both_firing_and_silent(name: str) -> None:
    tests = yaml.safe_load(TESTS.read_text(encoding="utf-8"))["tests"]
    cases = [case for test in tests for case in test.get("alert_rule_test", ()) if case["alertname"] == name]
    assert any(case.get("exp_alerts") for case in cases)
    assert any(not case.get("exp_alerts") for case in cases)


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.get("alert") or rule["record"])
def test_rule_reads_only_what_the_operator_exports(rule: dict[str, Any]) -> None:
    page = (ROOT / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")
    exported = set(re.findall(r"^\| `([a-z_]+)` \|", page, flags=re.MULTILINE))
    for use in uses(rule["expr"]):
        assert use.name in exported or use.name.removesuffix("_bucket") in exported
        if use.name.endswith(("_total", "_bucket")):
            assert use.ranged
            assert {"rate", "increase"} & set(use.functions), use.name


@pytest.mark.parametrize("name", alerts())
def test_alert_says_how_bad_it_is_and_links_a_page_that_helps(name: str) -> None:
    rule = alerts()[name]
    severity = rule["labels"]["severity"]
    assert severity in SEVERITIES
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"https://rft.dev/runbooks/{name}.html"
    text = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    assert text.startswith(f"# {name}\n\nSeverity: {severity}. ")
    assert re.findall(r"^## (.+)$", text, flags=re.MULTILINE) == HEADINGS
    assert all(len(part.split()) >= 8 for part in re.split(r"^## .+$", text, flags=re.MULTILINE)[1:])


def test_index_of_the_runbooks_lists_each_page_once_and_no_page_is_left_over() -> None:
    listed = re.findall(r"^\| \[(\w+)\]\(\1\.md\) \| (\w+) \|", (PAGES / "README.md").read_text(), flags=re.MULTILINE)
    assert dict(listed) == {name: rule["labels"]["severity"] for name, rule in alerts().items()}
    assert len(listed) == len(alerts())
    assert {page.stem for page in PAGES.glob("*.md")} == {*alerts(), "README"}
