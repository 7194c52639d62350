"""tools/noise_levels.py and crop_tables.py: the page docs/noise-levels.md, section by section."""

from types import SimpleNamespace

import pytest
from conftest import tool_module
from PIL import Image

from mdrn_cli.datasets import Dataset
from mdrn_cli.metrics import psnr

CROP_SECTIONS = ("jpeg", "stored", "clipped", "dark", "uneven", "sensor", "grain", "gray-grain", "alike")


@pytest.fixture
def tools():
    return SimpleNamespace(**{name: tool_module(name) for name in ("noise_levels", "crop_tables")})


class Plain:
    """In place of `Denoisers`: networks that leave everything as it is."""

    def find(self, _color, _sigma):
        return lambda image: image


def restored(_denoisers, stored, clean, options):
    facts = SimpleNamespace(sigma=5.0, network=None, by_intensity=None, coarse_sigmas=())
    return [psnr(stored, clean)] * len(options), [facts] * len(options)


@pytest.mark.parametrize("name", CROP_SECTIONS)
def test_a_section_of_the_page_is_what_the_tool_writes(tools, monkeypatch, tmp_path, photo, name):
    """All but the figures, which are here those of networks that do nothing."""
    Image.fromarray(photo[:64, :64]).save(tmp_path / "one.png")

    def dataset(name, _data):
        return Dataset(name, "gray" if name == "Set12" else "color", (tmp_path / "one.png",), folder=tmp_path)

    for what, by in (("open_dataset", dataset), ("restored", restored), ("Denoisers", Plain)):
        monkeypatch.setattr(tools.crop_tables, what, by)
    page = tools.noise_levels.PAGE.read_text()
    written = tools.noise_levels.SECTIONS[name](tmp_path)
    for section in written.split("\n## "):
        fixed, table = section.removeprefix("## ").split("\n| ", 1)
        assert f"\n## {fixed}\n| " in page, "measured by an earlier version, or changed by hand"
        rows = page.split(f"\n## {fixed}\n| ", 1)[1].split("\n\n", 1)[0].splitlines()
        assert [row.count("|") for row in rows] == [row.count("|") for row in table.rstrip("\n").splitlines()]
    assert tools.noise_levels.SECTIONS.keys() == {"levels", "estimates", *CROP_SECTIONS}


def test_sections_take_the_place_of_those_of_their_heading(tools):
    page = "# Page\n\nWhat it is.\n\n## One\n\nold\n\n## Two\n\nkept\n"
    put = tools.noise_levels.replaced
    assert put(page, "## One\n\nnew\n") == page.replace("old", "new")
    assert put(page, "## Two\n\nnew\n\n## One\n\nnewer\n") == page.replace("kept", "new").replace("old", "newer")
    assert put(page, "## Three\n\nadded\n") == f"{page}\n## Three\n\nadded\n"
    assert put(page, "## Two\n\nkept\n") == page
