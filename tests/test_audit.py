"""tools/audit.py: what pip-audit reports, judged."""

import importlib.util
import json
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location("audit", Path(__file__).parents[1] / "tools" / "audit.py")
audit = importlib.util.module_from_spec(spec)
spec.loader.exec_module(audit)

GOOD = {"name": "good", "version": "1.0", "vulns": []}
BAD = {"name": "bad", "version": "2.0", "vulns": [{"id": "PYSEC-2026-1"}]}
UNKNOWN = {"name": "unknown", "skip_reason": "Dependency not found"}


@pytest.mark.parametrize("unless_offline", [False, True])
@pytest.mark.parametrize(
    ("packages", "status", "said"),
    [
        ([GOOD, GOOD], 0, ["2 packages, none with a known vulnerability"]),
        ([GOOD, BAD], 1, ["bad 2.0 is vulnerable: PYSEC-2026-1"]),
        ([GOOD, UNKNOWN], 1, ["unknown could not be looked up"]),
        ([BAD, UNKNOWN], 1, ["bad 2.0 is vulnerable: PYSEC-2026-1", "unknown could not be looked up"]),
    ],
)
def test_a_package_that_is_vulnerable_or_unknown_fails(packages, status, said, unless_offline):
    assert audit.judge(json.dumps({"dependencies": packages}), unless_offline) == (status, said)


@pytest.mark.parametrize("report", ["", json.dumps({"dependencies": [UNKNOWN, UNKNOWN]})])
def test_a_service_out_of_reach_is_no_clean_bill(report):
    for unless_offline, status in ((False, 1), (True, 0)):
        code, (line,) = audit.judge(report, unless_offline)
        assert code == status
        assert line.startswith("no audit")
