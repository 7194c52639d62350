"""docs/results.md is what the manifest says, and nothing else."""

from pathlib import Path

from conftest import record_json

from mdrn_cli.manifest import load_manifest, parse_record
from mdrn_cli.results import HEAD, results_markdown

DOCUMENT = Path(__file__).parents[1] / "docs" / "results.md"


def test_the_document_is_made_from_the_manifest():
    assert DOCUMENT.read_text(encoding="utf-8") == results_markdown(load_manifest())


def test_our_rows_stand_beside_the_papers_in_the_right_cells():
    plain = parse_record(record_json(metrics={"Set12": 27.12, "BSD68": 26.01}))
    distilled = parse_record(
        record_json(name="mdrn-2b-hads-gray-15", sigma=15, distilled="hads", metrics={"Set12": 32.9})
    )
    text = results_markdown([plain, distilled])
    table3 = text.split("## Table 3")[1].split("## Table 4")[0]
    assert "| MDRN (2B) | 32.87 | 27.35 | 31.72 | 26.31 | 32.82 | 26.74 |" in table3
    assert "| **mdrn-2b** | - | **27.12** | - | **26.01** | - | - |" in table3
    assert "| **mdrn-2b hads** | **32.90** | - | - | - | - | - |" in table3
    assert "**" not in text.split("## Table 2")[1].split("## Table 3")[0]


def test_networks_for_other_noise_are_not_among_the_papers():
    """Though they are measured on white noise, too, as all are."""
    camera = parse_record(record_json(name="mdrn-2b-camera-gray-50", noise="camera", metrics={"Set12": 26.5}))
    tables, every = results_markdown([camera]).split("## Every checkpoint")
    assert "**" not in tables.replace(HEAD, "")
    assert "mdrn-2b-camera-gray-50 | 1 | Set12 26.50 (white noise, which it is not for)" in every
