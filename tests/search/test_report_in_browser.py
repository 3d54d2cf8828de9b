"""The report as people read it: in a browser, on a phone, by keyboard, without colours."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest
from prunetune.search.report import write_report

from .browser import Page, browser_page, find_chromium
from .runs import finished_trial, write_run

pytestmark = pytest.mark.slow

# Where to keep the screenshots for people to look at.
_SCREENSHOTS = "PRUNETUNE_SCREENSHOTS"

_LUMINANCE = """
(text) => {
  const parts = text.match(/[\\d.]+/g).map(Number).slice(0, 3).map((value) => {
    const share = value / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
}
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The report of a comparison with everything in it, opened."""
    chromium = find_chromium()
    if chromium is None:
        pytest.skip("no Chromium; see CONTRIBUTING.md, or set PRUNETUNE_CHROMIUM to its path")
    folder = tmp_path_factory.mktemp("browser")
    trials = [
        finished_trial(reward, limit, seed, 0.95 + 0.001 * seed, widths=(1 + seed, 2 + index))
        for index, reward in enumerate(
            ("accuracy", "spatial-entropy", "my_reward.py:LeanAgreement")
        )
        for limit in (0.5, 0.3)
        for seed in range(3)
    ]
    run = write_run(folder / "run", trials)
    report, _ = write_report(run.path)
    with browser_page(chromium, folder / "profile") as opened:
        opened.resize(1280, 900)
        opened.open(report)
        yield opened


@pytest.fixture(autouse=True)
def _keep_screenshot(page: Page, request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if os.environ.get(_SCREENSHOTS):
        page.screenshot(Path(os.environ[_SCREENSHOTS]) / f"{request.node.name}.png")


def test_it_renders_without_complaints_and_without_the_network(page: Page) -> None:
    assert page.evaluate("document.querySelector('h1').innerText") == "a <b> run"
    drawn = page.evaluate(
        "Array.from(document.images, (image) => image.complete && image.naturalWidth > 100)"
    )
    assert len(drawn) >= 5 and all(drawn)
    heights = page.evaluate(
        "Array.from(document.querySelectorAll('section'), (each) => each.offsetHeight)"
    )
    assert len(heights) >= 7 and min(heights) > 40
    assert page.complaints == []


def test_its_links_lead_somewhere(page: Page) -> None:
    targets = page.evaluate("Array.from(document.links, (link) => link.href)")
    within = [target for target in targets if "#" in target]
    files = [target for target in targets if "#" not in target]
    assert len(within) >= 7 and len(files) >= 4
    for target in files:
        assert Path(unquote(urlparse(target).path)).is_file(), target
    for index in range(1, len(within)):
        page.evaluate(f"document.querySelectorAll('nav a')[{index - 1}].click()")
        title = page.evaluate("document.querySelector(':target h2').innerText")
        assert title == page.evaluate(f"document.querySelectorAll('nav a')[{index - 1}].innerText")
        top = page.evaluate("document.querySelector(':target').getBoundingClientRect().top")
        assert -1 < top < 900


def test_it_can_be_read_by_keyboard(page: Page) -> None:
    page.evaluate("document.activeElement.blur(); window.scrollTo(0, 0); location.hash = ''")
    page.open(Path(unquote(urlparse(page.evaluate("location.href")).path)))
    reached = []
    for _ in range(40):
        page.press("Tab", 9)
        reached.append(
            page.evaluate(
                "[document.activeElement.tagName, document.activeElement.innerText || '',"
                " getComputedStyle(document.activeElement).outlineStyle]"
            )
        )
        if reached[-1][0] == "BODY":
            break
    assert reached[0][1] == "Skip to the results"
    names = [tag for tag, _, _ in reached]
    # Wide tables are scrolled, and details opened, only if they can be focused.
    assert names.count("DIV") >= 3 and names.count("SUMMARY") == 2
    assert all(outline != "none" for tag, _, outline in reached if tag != "BODY")
    page.evaluate("document.querySelector('summary').focus()")
    page.press("Enter", 13)
    assert page.evaluate("document.querySelector('details').open")


def test_it_fits_a_phone(page: Page) -> None:
    page.resize(390, 844, mobile=True)
    try:
        wide = page.evaluate("document.documentElement.scrollWidth")
        small = page.evaluate(
            "Array.from(document.querySelectorAll('p, li, td, th'),"
            " (each) => parseFloat(getComputedStyle(each).fontSize))"
        )
        assert wide <= 390
        assert min(small) >= 14
        # Pictures keep a readable size and are scrolled, captions stay in sight.
        assert min(page.evaluate("Array.from(document.images, (each) => each.clientWidth)")) > 500
        captions = page.evaluate(
            "Array.from(document.querySelectorAll('caption span'),"
            " (each) => each.getBoundingClientRect().right)"
        )
        assert captions and max(captions) <= 390
        if os.environ.get(_SCREENSHOTS):
            page.screenshot(Path(os.environ[_SCREENSHOTS]) / "phone.png")
    finally:
        page.resize(1280, 900)


def test_it_is_readable_without_colours(page: Page) -> None:
    """Text has WCAG's contrast of 4.5 by luminance alone, which is what grey paper keeps."""
    page.call("Emulation.setEmulatedVisionDeficiency", type="achromatopsia")
    try:
        contrasts = page.evaluate(
            "Array.from(document.querySelectorAll('p, a, td, th, li, caption, h2, figcaption'),"
            f"(each) => 1.05 / (({_LUMINANCE})(getComputedStyle(each).color) + 0.05))"
        )
        assert len(contrasts) > 50 and min(contrasts) >= 4.5
        if os.environ.get(_SCREENSHOTS):
            page.screenshot(Path(os.environ[_SCREENSHOTS]) / "grey.png")
    finally:
        page.call("Emulation.setEmulatedVisionDeficiency", type="none")
