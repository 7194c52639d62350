"""Asks pip-audit for known vulnerabilities of every package that requirements-dev.txt locks.

    python tools/audit.py [--unless-offline]    # needs `pip install pip-audit`

Ends with 1 when a package is vulnerable or could not be looked up. When none of them could be, as by a mirror
that has no such data, that is no clean bill, but with --unless-offline no failure either. Without any answer it fails.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

LOCK = Path(__file__).parents[1] / "requirements-dev.txt"
PIP_AUDIT = ("-m", "pip_audit", "--format", "json", "--progress-spinner", "off", "--disable-pip", "--require-hashes")


def ask() -> str:
    """pip-audit's report on the lock as JSON, or nothing where it failed to make one."""
    command = [sys.executable, *PIP_AUDIT, "-r", str(LOCK)]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout


def judge(report: str, unless_offline: bool) -> tuple[int, list[str]]:
    """Exit status, and what to say, of a report of pip-audit."""
    if not report.strip():  # a broken lock as well as a broken connection
        return 1, ["no audit: pip-audit failed, as it says above"]
    packages: list[dict[str, Any]] = json.loads(report)["dependencies"]
    if not packages:
        return 1, [f"no audit: {LOCK.name} locks nothing"]
    unknown = [package["name"] for package in packages if "skip_reason" in package]
    if len(unknown) == len(packages):
        return int(not unless_offline), ["no audit: the service of known vulnerabilities cannot be reached"]
    found = [(p["name"], p["version"], v["id"]) for p in packages if "vulns" in p for v in p["vulns"]]
    said = [f"{name} {version} is vulnerable: {which}" for name, version, which in found]
    said += [f"{name} could not be looked up" for name in unknown]
    return int(bool(said)), said or [f"{len(packages)} packages, none with a known vulnerability"]


def main() -> int:
    """Print the judgement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unless-offline", action="store_true")
    arguments = parser.parse_args()  # before the network is asked
    status, said = judge(ask(), arguments.unless_offline)
    print("\n".join(said))
    return status


if __name__ == "__main__":
    sys.exit(main())
