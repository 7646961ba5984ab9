"""Data sets on the Hugging Face Hub: the files of one commit, downloaded only because a recipe names them."""

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,  # pyright: ignore[reportPrivateImportUsage]  # httpx's or httpx2's, whichever the installed Hub uses
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from prefloop.data.compressed import ENDINGS
from prefloop.data.files import READERS
from prefloop.errors import DataError

NAME = re.compile(r"(?P<repository>[\w-][\w.-]*/[\w-][\w.-]*)(@(?P<revision>[^@:]+))?(:(?P<split>[\w./-]+))?")


@dataclass(frozen=True)
class HubName:
    """A data set as a recipe names it: `org/name@revision:split`."""

    repository: str
    revision: str
    split: str | None

    @classmethod
    def read(cls, name: str) -> "HubName | None":
        """What a name says; None where it has another form."""
        found = NAME.fullmatch(name)
        return None if found is None else cls(found["repository"], found["revision"] or "main", found["split"])


@lru_cache  # one commit for a whole process, even where the branch moves on meanwhile
def fetched(name: HubName) -> Path:
    """The local copy of a repository's data files, in a folder that is called as the commit.

    Where a split is wanted, only files with its name in theirs are fetched.

    Raises:
        DataError: it cannot be had; says why.
    """
    wanted = [f"*{name.split or ''}*{suffix}{packed}" for suffix in READERS for packed in ("", *ENDINGS)]
    try:
        found = snapshot_download(name.repository, repo_type="dataset", revision=name.revision, allow_patterns=wanted)
    except (HTTPError, OSError, ValueError) as error:
        raise DataError(f"{name.repository}: {_why(error, name)}") from error
    return Path(found)


def _why(error: Exception, name: HubName) -> str:
    match error:
        case GatedRepoError():
            return "access to it must be granted. Accept its terms on huggingface.co and set HF_TOKEN."
        case RepositoryNotFoundError():
            return "neither a path here nor a data set on the Hub that this token may read."
        case RevisionNotFoundError():
            return f"has no revision '{name.revision}'. Name a branch, a tag or a commit of it."
        case LocalEntryNotFoundError():
            return (
                f"neither a path here nor in the local cache at '{name.revision}', and the Hub was not reached. "
                "Check the network and HF_HUB_OFFLINE."
            )
        case HfHubHTTPError():
            return f"the Hub answered {error.response.status_code}. Try again later."
        case _:
            return f"could not be fetched: {str(error).splitlines()[0]}."
