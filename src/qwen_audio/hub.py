"""A hub's files, one by one, as a tap comes to need them."""

from __future__ import annotations

from pathlib import Path

from .errors import CheckpointError

__all__ = ["HubFiles"]


class HubFiles:
    """Files of one commit of a hub model, fetched one by one as they are needed.

    huggingface_hub does the work: its cache, token, endpoint and offline mode apply.
    """

    def __init__(self, repo: str, folder: Path, commit: str) -> None:
        self.repo, self.folder, self.commit = repo, folder, commit

    @classmethod
    def of(cls, repo: str, revision: str | None) -> HubFiles:
        """Resolve a revision to a commit by fetching config.json."""
        if repo.count("/") != 1 or repo.startswith((".", "/", "~")):
            raise CheckpointError(
                f"{repo!r} is no checkpoint: give 'embedded', an existing folder, or a hub model "
                "such as Qwen/Qwen2-Audio-7B-Instruct"
            )
        path = Path(_download(repo, "config.json", revision))
        return cls(repo, path.parent, path.parent.name)

    def fetch(self, name: str, *, optional: bool = False) -> None:
        """Bring one file of this commit into the folder; an optional one may not exist."""
        from huggingface_hub.errors import EntryNotFoundError

        try:
            _download(self.repo, name, self.commit)
        except CheckpointError as error:
            if not (optional and isinstance(error.__cause__, EntryNotFoundError)):
                raise


def _download(repo: str, name: str, revision: str | None) -> str:
    from huggingface_hub import hf_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return str(hf_download(repo, name, revision=revision))
    except LocalEntryNotFoundError as error:
        raise CheckpointError(
            f"{repo}: {name} is not in the local cache and the hub can't be reached: check the "
            "network (or HF_HUB_OFFLINE), or name a folder"
        ) from error
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"{repo}: {name} can't be fetched from the hub ({reason}): check the name, "
            "revision, network and access token"
        ) from error
