"""tools/audit.py: what pip-audit reports, judged."""

import json

import pytest
from conftest import tool_module

audit = tool_module("audit")

GOOD = {"name": "good", "version": "1.0", "vulns": []}
BAD = {"name": "bad", "version": "2.0", "vulns": [{"id": "PYSEC-2026-1"}]}
UNKNOWN = {"name": "unknown", "skip_reason": "Dependency not found"}


@pytest.mark.parametrize("unless_offline", [False, True])
@pytest.mark.parametrize(
    ("packages", "status", "said"),
    [
        ([GOOD, GOOD], 0, ["2 packages, none with a known vulnerability"]),
        ([], 1, ["no audit: requirements-dev.txt locks nothing"]),
        ([GOOD, BAD], 1, ["bad 2.0 is vulnerable: PYSEC-2026-1"]),
        ([GOOD, UNKNOWN], 1, ["unknown could not be looked up"]),
        ([BAD, UNKNOWN], 1, ["bad 2.0 is vulnerable: PYSEC-2026-1", "unknown could not be looked up"]),
    ],
)
def test_a_package_that_is_vulnerable_or_unknown_fails(packages, status, said, unless_offline):
    assert audit.judge(json.dumps({"dependencies": packages}), unless_offline) == (status, said)


@pytest.mark.parametrize(("unless_offline", "status"), [(False, 1), (True, 0)])
def test_a_service_out_of_reach_is_no_clean_bill(unless_offline, status):
    code, (line,) = audit.judge(json.dumps({"dependencies": [UNKNOWN, UNKNOWN]}), unless_offline)
    assert code == status
    assert line.startswith("no audit")


@pytest.mark.parametrize("unless_offline", [False, True])
def test_no_report_at_all_is_a_failure(unless_offline):
    assert audit.judge("", unless_offline)[0] == 1


def test_what_cannot_be_meant_is_told_before_anything_is_asked(monkeypatch):
    monkeypatch.setattr(audit, "ask", None)
    monkeypatch.setattr("sys.argv", ["audit.py", "--nonsense"])
    with pytest.raises(SystemExit):
        audit.main()
