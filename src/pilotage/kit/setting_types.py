"""What settings are made of: their types, and the sentence that says what each is for."""

from typing import Annotated

import msgspec

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Duration = Annotated[str, msgspec.Meta(pattern=r"^(\d+(\.\d+)?(ms|s|m|h|d))+$")]


def doc(text: str) -> msgspec.Meta:
    """Return what the reference says of a setting."""
    return msgspec.Meta(description=text)
