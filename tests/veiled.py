"""A fake of what seals secrets for the disk: legible to nobody who looks for the text itself."""

import base64


class Veiled:
    """Writes texts in base64; ``lost`` is a key that is gone."""

    def __init__(self) -> None:
        self.lost = False

    def sealed(self, text: str, about: str) -> str:
        return "" if self.lost or not text else f"veiled:{about}:{base64.b64encode(text.encode()).decode()}"

    def opened(self, text: str, about: str) -> str:
        start = f"veiled:{about}:"
        if text.startswith(start):
            return "" if self.lost else base64.b64decode(text.removeprefix(start)).decode()
        assert not text.startswith("veiled:"), "opened as something else"
        return text
