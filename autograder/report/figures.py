"""Pictures of a submission: samples, training curves, dependencies, as PNG files that carry their own description."""

from pathlib import Path

__all__ = ["description"]


def description(path: Path) -> str:
    """What a picture shows, for those who cannot see it: the text that `draw` wrote into the file."""
    from PIL import Image

    try:
        with Image.open(path, formats=["PNG"]) as image:
            return str(image.info.get("Description", ""))
    except (OSError, ValueError, SyntaxError):
        return ""
