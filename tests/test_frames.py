"""Sliders hold all their frames and need nothing from anywhere."""

import re

import pytest
from matplotlib.figure import Figure

from dulcourse.errors import UsageError
from dulcourse.frames import Slider

pytest_plugins = ["tests.browser"]


def slider(**options) -> str:
    frames = [Figure(figsize=(1, 1)) for _ in range(3)]
    return Slider(frames, ["one", "two", "<three>"], alt='a "picture"', **options)._repr_html_()


def test_every_frame_is_inside_and_one_is_shown():
    page = slider()
    pictures = re.findall(r"<img [^>]*>", page)
    assert len(pictures) == 3
    assert [" hidden" in picture for picture in pictures] == [True, True, False]
    assert all('src="data:image/png;base64,' in picture for picture in pictures)
    assert "http" not in page


def test_words_are_escaped():
    page = slider()
    assert "<three>" not in page
    assert 'alt="a &quot;picture&quot;"' in page
    assert "<output>&lt;three&gt;</output>" in page


def test_the_first_frame_can_be_chosen():
    assert 'value="1"' in slider(start=1)


def test_captions_must_match():
    with pytest.raises(UsageError, match="1 frames and 2 captions"):
        Slider([Figure()], ["one", "two"], alt="")


@pytest.mark.browser
def test_moving_the_slider_changes_the_picture(open_page, tmp_path):
    (tmp_path / "page.html").write_text(f"<!doctype html><meta charset=utf-8><body>{slider(start=0)}")
    page = open_page(tmp_path / "page.html", width=390).page
    page.locator("input").fill("2")
    assert page.locator("img:visible").get_attribute("title") == "<three>"
    assert page.locator("output").inner_text() == "<three>"
