"""The run's own page and the report of `snakemake --report` in a real browser."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.browser import needs_browser, visit
from tests.workflow.conftest import Workflow

CATEGORIES = [
    "Datasets", "Tables", "Zero-shot", "Deterioration", "Retrieval", "Training", "Provenance",
]  # fmt: skip

# Opens every result that can be opened, one category after the other, and leaves what it saw in the page.
VISITOR = """
seen.categories = {};
const link = text => [...document.querySelectorAll("a")].find(found => found.innerText.trim() === text);
const rows = () => [...document.querySelectorAll("tr")].filter(row => row.querySelector("a"));
window.addEventListener("load", async () => {
  await wait(1500);
  for (const category of CATEGORIES) {
    if (!link(category)) continue;
    link(category).click();
    await wait(500);
    const results = seen.categories[category] = {};
    for (let place = 0; place < rows().length; place++) {
      const row = rows()[place], label = row.innerText.trim(), eye = row.querySelector("a[iconname=eye]");
      results[label] = null;
      if (!eye || eye.target === "_blank" || eye.getAttribute("href") !== "#") continue;
      eye.click();
      await wait(700);
      const image = [...document.querySelectorAll("img")].find(found => found.src.startsWith("data:image/png"));
      results[label] = image ? [image.src.match(/filename=([^;]*)/)[1], image.naturalWidth] : null;
      link(category).click();
      await wait(500);
    }
    link("Results") ? link("Results").click() : document.querySelector("nav a").click();
    await wait(500);
  }
  report();
});"""


@needs_browser
def test_every_figure_of_the_report_shows_in_a_browser(tiny: Workflow, tmp_path: Path) -> None:
    tiny.snakemake("--report", str(tmp_path / "report.html"))
    visitor = VISITOR.replace("CATEGORIES", json.dumps(CATEGORIES))
    seen = visit(tmp_path / "report.html", visitor, tmp_path, milliseconds=90_000)
    assert list(seen["categories"]) == CATEGORIES
    shown = dict(image for results in seen["categories"].values() for image in results.values() if image)
    plots = {path.name for path in (tiny.directory / "results" / "plots").glob("*.png")}
    assert set(shown) == plots and len(plots) >= 11
    assert min(shown.values()) > 800, "a figure is shown, but not at its size"
    tables = {path.name for path in (tiny.directory / "results" / "tables").glob("*.csv")}
    assert len(seen["categories"]["Tables"]) == len(tables) + 1, "every table, and metrics.csv"
    assert len(seen["categories"]["Provenance"]) == 2


# What is visible of the run's page, and whether anything is wider than the window.
READER = """
window.addEventListener("load", () => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  const isVisible = (found) => found.checkVisibility() && found.offsetHeight > 20 && found.offsetWidth > 100;
  record("tables", ...all("h3[id^=table-]").map((found) => found.id.slice(6)));
  record("unseen", ...all("table").filter((found) => !isVisible(found)).map((found) => found.innerText));
  record("figures", ...all("figure[id]").map((found) => found.id.slice(7)));
  record("broken", ...all("img").filter((found) => !found.naturalWidth).map((found) => found.alt));
  const hashes = all("a[href^='#']").map((found) => found.hash);
  record("lost", ...hashes.filter((hash) => !document.querySelector(hash)));
  record("links", ...all("a:not([href^='#'])").map((found) => found.getAttribute("href")));
  record("cards", ...all(".sets a").map((found) => found.innerText));
  record("terms", ...all("dt").map((found) => found.innerText));
  record("overflow", document.documentElement.scrollWidth - window.innerWidth);
  report();
});"""


@needs_browser
@pytest.mark.parametrize("size", ["1400,900", "390,844"])
def test_the_runs_page_shows_everything_in_a_browser(tiny: Workflow, tmp_path: Path, size: str) -> None:
    results = tiny.directory / "results"
    page = results / "report" / "index.html"
    assert page.stat().st_size < 15e6
    addresses = re.findall(r' (?:src|href)="([^"]{,20})', page.read_text(encoding="utf-8"))
    assert all(address.startswith(("data:image/", "#", "../")) for address in addresses), "it loads nothing"
    seen = visit(page, READER, tmp_path, f"--window-size={size}")
    assert seen["overflow"][0] <= 0
    assert set(seen["tables"]) == {path.stem for path in (results / "tables").glob("*.csv")}
    assert set(seen["figures"]) == {path.stem for path in (results / "plots").glob("*.png")}
    assert [seen[name] for name in ("unseen", "broken", "lost")] == [[], [], []]
    assert all((page.parent / link).exists() for link in seen["links"])
    assert [text.split()[0] for text in seen["cards"]] == ["latin", "greek"]
    assert {"R-AUROC", "R@1", "Crop raises u"} < set(seen["terms"])
