"""The report's colours stand out from what they lie on: WCAG 2.2, 1.4.3 (text) and 1.4.11 (lines)."""

import re

import pytest

from deconfuse.report.page import WEB

STYLE = (WEB / "style.css").read_text()
TEXT = [
    *((name, on) for name in ("text", "muted", "accent") for on in ("bg", "surface", "accent-soft")),
    *((name, on) for name in ("text", "muted") for on in ("sunk", "raised")),
    *((name, on) for name in ("harmful", "helpful", "good") for on in ("bg", "surface", f"{name}-soft")),
    ("unsure", "unsure-soft"),
    ("on-accent", "accent"),
]
LINES = [
    *((name, "surface") for name in ("edge", "edge-known", "line-strong", "focus")),
    *((name, "bg") for name in ("line-strong", "focus")),
    ("line-strong", "raised"),
    ("line-strong", "sunk"),
]
SEEN_THROUGH = 0.85  # how much a point of the map covers


def names(block: str) -> dict[str, str]:
    return dict(re.findall(r"--([\w-]+): ([^;]+);", block))


def themes() -> dict[str, dict[str, str]]:
    light, dark, *rest = re.findall(r":root[^{]*\{([^}]*--bg[^}]*)\}", STYLE)
    (same,) = rest
    assert names(dark) == names(same)  # by the system's wish, and by the button
    return {"light": names(light), "dark": {**names(light), **names(dark)}}


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def over(colour: str, ground: str, share: float) -> str:
    both = ((int(colour[i : i + 2], 16), int(ground[i : i + 2], 16)) for i in (1, 3, 5))
    return "#" + "".join(f"{round(share * a + (1 - share) * b):02x}" for a, b in both)


def test_the_ratio_is_that_of_the_standard():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_and_lines_stand_out(theme):
    colours = themes()[theme]
    for pairs, least in ((TEXT, 4.5), (LINES, 3)):
        for name, on in pairs:
            assert contrast(colours[name], colours[on]) >= least, (name, on)
    points = colours["map"].split(", ")
    assert len(set(points)) == 7
    for point in points:
        seen = over(point, colours["surface"], SEEN_THROUGH)
        assert contrast(seen, colours["surface"]) >= 3, point
    for tile in re.findall(r"\.tile-\d \{ background: (#\w{6})", STYLE):
        assert contrast("#ffffff", tile) >= 4.5


def test_nothing_that_is_read_is_seen_through():
    faint = re.findall(r"^(.*)\{[^}]*opacity: \.\d", STYLE, re.MULTILINE)
    assert [rule.strip() for rule in faint] == ["button:disabled"]
