"""Files on the wire, as OpenAI's clients know them."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, WithJsonSchema

from api.fields import Absent
from api.wire.answers import Answer, Count
from api.wire.media import Media
from shared.states import FilePurpose

SHORTEST_S, LONGEST_S = 3600, 30 * 24 * 3600
"""How long a file may be asked to be kept."""
MOST_LISTED = 10_000
ANCHOR, SECONDS = "expires_after[anchor]", "expires_after[seconds]"
JSONL = Media("application/jsonl")
"""The bytes of a file."""


Seconds = Annotated[int, Field(ge=SHORTEST_S, le=LONGEST_S)]
Bytes = Annotated[bytes, WithJsonSchema({"type": "string", "format": "binary"})]


class ExpiresAfter(BaseModel):
    """When a file is to be deleted: so many seconds after it was made; 30 days unless it is said."""

    anchor: Literal["created_at"]
    seconds: Seconds


class UploadIn(BaseModel):
    """What is said with an uploaded file, the fields with brackets in their names folded into one."""

    purpose: Literal["batch"]
    expires_after: ExpiresAfter | None = None


class UploadForm(BaseModel):
    """The parts of an upload as they are named in the body, in any order."""

    file: Annotated[Bytes, Field(description="Up to 512 MB. For a batch: one JSON object a line, up to 200 MB.")]
    purpose: Literal["batch"]
    anchor: Annotated[Literal["created_at"], Field(alias=ANCHOR, description="Goes with the seconds.")] = "created_at"
    seconds: Annotated[Seconds, Field(alias=SECONDS, description="Goes with the anchor.")] = LONGEST_S


class FilesQuery(Absent):
    """The query string of the list of files."""

    purpose: Annotated[str, Field(max_length=64)] | None = None
    limit: Annotated[int, Field(ge=1, le=MOST_LISTED)] = MOST_LISTED
    order: Literal["asc", "desc"] = "desc"
    after: Annotated[str, Field(max_length=64, description="The last id of the page before.")] | None = None


class FileOut(Answer):
    """A file that is whole. Times: unix seconds."""

    id: str
    object: Literal["file"]
    bytes: Count
    created_at: Count
    expires_at: Count
    filename: str
    purpose: FilePurpose
    status: Literal["processed"]


class FileList(Answer):
    """A page of the team's files, by the time they were made."""

    object: Literal["list"]
    data: list[FileOut]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedFileOut(Answer):
    """A file that is there no more."""

    id: str
    object: Literal["file"]
    deleted: Literal[True]
