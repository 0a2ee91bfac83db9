from deconfuse.runs import panels

GLYPHS, OMNIGLOT = ("glyphs", "none", "proxynca"), ("omniglot", "none", "proxynca")
NOISY = ("glyphs", "10 %", "proxynca")


def test_the_panels_of_a_data_set_are_of_one_setting():
    """Setting a has most models in one panel, b in both together; c is all that omniglot has."""
    found = [("a", GLYPHS, "....."), ("b", GLYPHS, "..."), ("b", NOISY, "..."), ("c", OMNIGLOT, ".")]
    chosen = {GLYPHS: "...", NOISY: "...", OMNIGLOT: "."}
    assert panels.of_one_setting(found, len) == chosen
    assert panels.of_one_setting(reversed(found), len) == chosen


def test_of_what_would_share_a_panel_the_larger_is_drawn():
    found = [("a", GLYPHS, ".."), ("a", GLYPHS, "...."), ("a", GLYPHS, "...")]
    assert panels.of_one_setting(found, len) == {GLYPHS: "...."}
    assert panels.of_one_setting([], len) == {}


def test_points_are_counted_over_the_names():
    assert panels.drawn_in({"eif": [0.1, 0.2], "if": [0.3]}) == 3
    assert panels.drawn_in({}) == 0
