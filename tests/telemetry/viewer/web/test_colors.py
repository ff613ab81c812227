"""The colors of the pages: text is readable and services differ, light and dark."""

from itertools import combinations
from math import cbrt, dist

import pytest
from playwright.sync_api import Browser

from ..conftest import Viewer

Color = tuple[float, float, float]

SERVICES = [f"c{at}" for at in range(12)]

#: Colors of text, and of its background.
TEXTS = [
    *(("text", behind) for behind in ("page", "raised")),
    *(("quiet", behind) for behind in ("page", "raised")),
    *(("accent", behind) for behind in ("page", "raised")),
    *((kind, f"{kind}-back") for kind in ("error", "warn", "good")),
    *((kind, "page") for kind in ("error", "warn")),
    ("on-wait", "queue"),
    ("on-wait", "scheduled"),
    ("on-wait", "prefetch"),
]

#: The colors by their names, as the browser computes them: red, green and blue from 0 to 1.
READ = """
names => Object.fromEntries(names.map(name => {
  const one = document.createElement("i");
  one.style.color = `var(--${name})`;
  document.body.append(one);
  const found = getComputedStyle(one).color.match(/[0-9.]+/g).map(Number);
  one.remove();
  return [name, found.slice(0, 3).map(value => value / 255)];
}))
"""


def linear(color: Color) -> Color:
    red, green, blue = (
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in color
    )
    return red, green, blue


def contrast(a: Color, b: Color) -> float:
    """Return the contrast of two colors as WCAG 2 defines it."""
    weights = (0.2126, 0.7152, 0.0722)
    dark, light = sorted(sum(map(float.__mul__, weights, linear(color))) for color in (a, b))
    return (light + 0.05) / (dark + 0.05)


def oklab(color: Color) -> Color:
    """Return a color in OKLab, where distances are as large as they look."""
    r, g, b = linear(color)
    long = cbrt(0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b)
    middle = cbrt(0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b)
    short = cbrt(0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b)
    return (
        0.2104542553 * long + 0.7936177850 * middle - 0.0040720468 * short,
        1.9779984951 * long - 2.4285922050 * middle + 0.4505937099 * short,
        0.0259040371 * long + 0.7827717662 * middle - 0.8086757660 * short,
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_and_services_differ(
    chromium: Browser, viewer: Viewer, scheme: str
) -> None:
    context = chromium.new_context(base_url=viewer.url, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    page.goto("/logs")
    names = sorted({*SERVICES, *(name for pair in TEXTS for name in pair)})
    colors: dict[str, Color] = page.evaluate(READ, names)
    context.close()
    faint = {pair for pair in TEXTS if contrast(colors[pair[0]], colors[pair[1]]) < 4.5}
    assert faint == set()
    for behind in ("page", "raised"):
        assert [name for name in SERVICES if contrast(colors[name], colors[behind]) < 3] == []
    alike = [
        (a, b)
        for a, b in combinations(SERVICES, 2)
        if dist(oklab(colors[a]), oklab(colors[b])) < 0.12
    ]
    assert alike == []
