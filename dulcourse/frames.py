"""Pictures on a slider: all frames are drawn beforehand, so it works on a static page, without a network."""

import base64
import html
import io
from collections.abc import Sequence

from matplotlib.figure import Figure

from dulcourse.errors import UsageError

__all__ = ["Slider"]


class Slider:
    """Frames that the reader moves through; a notebook shows it as a cell's last value.

    Arguments:
        frames: figures of one size, drawn to PNG here.
        captions: a few words for each frame, shown beside the slider.
        alt: what the pictures show, for those who cannot see them.
        start: the frame shown first, and the only one where scripts are off.
    """

    def __init__(self, frames: Sequence[Figure], captions: Sequence[str], *, alt: str, start: int = -1):
        if not frames or len(frames) != len(captions):
            raise UsageError(
                f"{len(frames)} frames and {len(captions)} captions: expected one or more, as many of each."
            )
        self._pictures = [_data_url(frame) for frame in frames]
        self._captions, self._alt = list(captions), alt
        self._start = range(len(frames))[start]

    def _repr_html_(self) -> str:
        frames = "".join(
            f'<img src="{picture}" alt="{html.escape(self._alt)}" title="{html.escape(caption)}"'
            f"{'' if i == self._start else ' hidden'}>"
            for i, (picture, caption) in enumerate(zip(self._pictures, self._captions, strict=True))
        )
        return (
            f'<div class="frames" style="max-width:100%">{frames}'
            '<label style="display:flex;flex-wrap:wrap;gap:0 1em;align-items:center;max-width:100%">'
            f'<input type="range" min="0" max="{len(self._pictures) - 1}" value="{self._start}" '
            f'aria-label="frame" style="flex:1 1 9em;min-width:0" oninput="{_MOVE}">'
            f"<output>{html.escape(self._captions[self._start])}</output></label></div>"
        )


# Runs on the slider itself: show the picture of that number, hide the others, copy its caption.
_MOVE = (
    "const pictures = this.closest('.frames').querySelectorAll('img');"
    "pictures.forEach((p, i) => p.hidden = i != this.value);"
    "this.nextElementSibling.textContent = pictures[this.value].title"
)


def _data_url(frame: Figure) -> str:
    file = io.BytesIO()
    frame.savefig(file, format="png", metadata={"Software": None})
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
