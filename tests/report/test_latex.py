"""Text in LaTeX: which characters pass, and which are written as their code point."""

import pytest

from optbench.report.latex import escape_latex


@pytest.mark.parametrize("character", ["\u00c0", "\u00d7", "\u0141", "\u017f", "a", "!", "0"])
def test_letters_up_to_latin_extended_a_pass(character):
    assert escape_latex(character) == character


@pytest.mark.parametrize("character", ["\u0080", "\u00bf", "\u0180", "\u03c0", "\U0001f680"])
def test_what_a_standard_font_lacks_is_its_code_point(character):
    assert escape_latex(character) == f"[U+{ord(character):04X}]"


@pytest.mark.parametrize("character", ["\0", "\n", "\x1f", "\x7f"])
def test_what_controls_a_terminal_is_a_space(character):
    assert escape_latex(character) == " "
    assert escape_latex("\x20") == " "
