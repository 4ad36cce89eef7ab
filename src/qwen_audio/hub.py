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
        from huggingface_hub.errors import RemoteEntryNotFoundError

        if optional and self._is_known_to_lack(name):
            return
        try:
            _download(self.repo, name, self.commit)
        except CheckpointError as error:
            # Only the hub's word counts: a file that can't be fetched may well exist.
            if not (optional and isinstance(error.__cause__, RemoteEntryNotFoundError)):
                raise

    def _is_known_to_lack(self, name: str) -> bool:
        """Whether the cache remembers that this commit has no such file."""
        from huggingface_hub import (
            _CACHED_NO_EXIST,
            get_cached_repo_tree,
            try_to_load_from_cache,
        )
        from huggingface_hub.errors import CachedRepoTreeNotFoundError

        if try_to_load_from_cache(self.repo, name, revision=self.commit) is _CACHED_NO_EXIST:
            return True
        try:  # left behind by downloads of whole models
            listed = get_cached_repo_tree(self.repo, revision=self.commit)
        except CachedRepoTreeNotFoundError:
            return False
        return name not in {file.path for file in listed}


def _download(repo: str, name: str, revision: str | None) -> str:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return hf_hub_download(repo, name, revision=revision)
    except LocalEntryNotFoundError as error:
        if isinstance(error.__cause__, HfHubHTTPError):
            raise _refused(repo, name, error.__cause__) from error
        raise CheckpointError(
            f"{repo}: {name} is not in the local cache and the hub can't be reached: check the "
            "network (or HF_HUB_OFFLINE), or name a folder"
        ) from error
    except Exception as error:  # the hub client's HTTP library has errors of its own
        raise _refused(repo, name, error) from error


def _refused(repo: str, name: str, error: Exception) -> CheckpointError:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    reason = " ".join(line.strip() for line in lines if line.strip())
    return CheckpointError(
        f"{repo}: {name} can't be fetched from the hub ({reason:.300}): check the name, "
        "revision, network and access token"
    )
