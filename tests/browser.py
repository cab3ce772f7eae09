"""Pages in a real browser: a script visits one, and what it saw comes back."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="needs a browser: no chromium, chromium-browser or google-chrome here"
)

# What a script has: `seen` is what comes back, as it was when `report()` was called last.
_BEFORE = """
<script>
const seen = {errors: [], usable: performance.now()};
const wait = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
const record = (name, ...values) => { seen[name] = values; };
window.addEventListener("error", (event) => seen.errors.push(String(event.message)));
window.addEventListener("unhandledrejection", (event) => seen.errors.push(String(event.reason)));
function report() {
  const outcome = document.createElement("pre");
  outcome.id = "outcome";
  outcome.textContent = JSON.stringify(seen);
  document.getElementById("outcome")?.remove();
  document.body.append(outcome);
}
"""


def visit(page: Path, script: str, folder: Path, *options: str, milliseconds: int | None = None) -> dict[str, Any]:
    """Return what a script saw on a page on which nothing went wrong.

    Parameters
    ----------
    page
        The HTML file; its relative links are followed from `folder`.
    script
        JavaScript that runs after the page's own.
    folder
        Where the visited page and the browser's profile are written.
    options
        Of the browser, such as `--window-size=390,844`.
    milliseconds
        How long to wait for what happens later, in the page's own time; None: only until it is loaded.
    """
    text = page.read_text(encoding="utf-8")
    end = text.rindex("</body>")
    visited = folder / "visited.html"
    visited.write_text(f"{text[:end]}{_BEFORE}{script}\n</script>{text[end:]}", encoding="utf-8")
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--window-size=1280,900"]
    command += ["--disable-background-networking", f"--user-data-dir={folder}/profile", "--enable-logging=stderr"]
    command += [] if milliseconds is None else [f"--virtual-time-budget={milliseconds}"]
    browser = subprocess.run(
        [*command, *options, "--dump-dom", f"file://{visited}"], capture_output=True, text=True, timeout=240, check=True
    )
    found = re.search(r'<pre id="outcome">(.*?)</pre>', browser.stdout, re.DOTALL)
    assert found, browser.stderr[-2000:]
    assert "Uncaught" not in browser.stderr and ":ERROR:CONSOLE" not in browser.stderr
    seen: dict[str, Any] = json.loads(html.unescape(found[1]))
    assert seen.pop("errors") == []
    return seen
