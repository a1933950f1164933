"""Pushing a merged folder to the Hugging Face hub: checked before any work, then one commit with all of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pma.merge.formats.open import hub_errors
from pma.merge.ranks import is_first
from pma.merge.write import WEIGHTS

_OLD = (*WEIGHTS, ".bin", ".index.json")  # of a repository: weights that would be read beside or instead of the new


def check_target(repo: str | None, revision: str | None) -> None:
    """Check where a merge is to be pushed, and ask the hub whether the token may; only the first process asks.

    Args:
        repo: null: nowhere.

    Raises:
        ValueError: for a name that is none, a missing or wrong token, or another's repository.
    """
    if repo is None:
        if revision is not None:
            raise ValueError(f"revision={revision}: goes with push_to_hub=NAME/REPOSITORY, as the branch there")
        return
    if not is_first():
        return
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    lead = f"push_to_hub={repo}"
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ValueError(f"{lead}: {_first_line(error)}") from None
    if repo.count("/") != 1:
        raise ValueError(f"{lead}: give it as NAME/REPOSITORY, with your name or that of an organisation")
    if revision is not None and not revision.strip():
        raise ValueError("revision: give the name of a branch, or leave it for main")
    if get_token() is None:
        raise ValueError(f"{lead}: no token of the hub is there; log in with hf auth login, or set HF_TOKEN")
    who: dict[str, Any] = {}
    try:
        who = HfApi().whoami()
    except hub_errors() as error:
        raise ValueError(f"{lead}: the hub does not answer to your token ({_first_line(error)})") from None
    if who.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise ValueError(f"{lead}: your token may only read; make one that may write, and set HF_TOKEN")
    owners = [who.get("name"), *(org.get("name") for org in who.get("orgs", []))]
    if repo.partition("/")[0] not in owners:
        raise ValueError(f"{lead}: your token is of {', '.join(map(str, owners))}; push to one of these")


def push(folder: Path, repo: str, revision: str | None) -> str:
    """Push a folder in one commit, so that nobody ever finds half a model there; return its address.

    The repository and the branch are made where they do not exist. Weights of an earlier push that the new one does not
    replace are removed in the same commit.

    Raises:
        ValueError: when the hub refuses; the folder stays, and the message says how to push it again.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api = HfApi()
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    branch = None if revision in (None, "main") else revision
    try:
        address = api.create_repo(repo, exist_ok=True)
        if branch is not None:
            api.create_branch(repo, branch=branch, exist_ok=True)
        there = api.list_repo_files(repo, revision=branch)
        old = [name for name in there if name.endswith(_OLD) and name not in files]
        adds = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in files.items()]
        deletes = [CommitOperationDelete(path_in_repo=name) for name in old]
        api.create_commit(repo, [*adds, *deletes], commit_message="Merge of checkpoints by pma", revision=branch)
    except hub_errors() as error:
        again = f"hf upload {repo} {folder} ." + (f" --revision {branch}" if branch else "")
        raise ValueError(
            f"push_to_hub={repo}: the hub refused it ({_first_line(error)}); the merge is whole in {folder}, push it "
            f"again with: {again}"
        ) from None
    return f"{address}/tree/{branch}" if branch else str(address)


def _first_line(error: Exception) -> str:
    line = str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
    said = (getattr(error, "server_message", None) or "").strip().split("\n")[0]  # by the hub, where it says why
    return line.removesuffix(": None") + (f": {said}" if said and said not in line else "")
