"""Measure the speed of this machine into benchmarks/speed.json and docs/speed.md: minutes, on an idle machine."""

import json
import subprocess
import sys
from pathlib import Path

from mdrn_cli.cli.speed import to_markdown
from mdrn_cli.speed import Speed

ROOT = Path(__file__).resolve().parent.parent
FIGURES = ROOT / "benchmarks" / "speed.json"


def main() -> None:
    """Measure, unless given --page: then only write the page of the figures there are."""
    if "--page" not in sys.argv:
        command = [sys.executable, "-m", "mdrn_cli", "bench", "--speed", "--json"]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
        FIGURES.write_text(json.dumps(json.loads(done.stdout), indent=1) + "\n")
    about = json.loads(FIGURES.read_text())
    fields = Speed.__dataclass_fields__
    speeds = [Speed(**{key: row[key] for key in fields}) for row in about["results"]]
    (ROOT / "docs" / "speed.md").write_text(to_markdown(about["machine"], speeds) + "\n")


if __name__ == "__main__":
    main()
