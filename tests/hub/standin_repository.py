"""What the stand-in Hub keeps: repositories, their branches and commits."""

import hashlib
from dataclasses import dataclass, field

BINARY = (".safetensors", ".png", ".jpg", ".jpeg", ".webp")
"""What goes by Git LFS, beside everything of 10 MB or more."""

Files = dict[str, bytes]


def is_large(path: str, size: int) -> bool:
    return path.endswith(BINARY) or size >= 10_000_000


@dataclass
class Commit:
    sha: str
    title: str
    files: Files
    """Every file of the repository after it."""
    by_lfs: set[str]
    """Paths in this commit that came by Git LFS."""


@dataclass
class Repository:
    private: bool = False
    sdk: str | None = None
    branches: dict[str, list[Commit]] = field(default_factory=lambda: {"main": []})

    def commits(self, revision: str = "main") -> list[Commit]:
        """Oldest first; a revision is a branch, a pull request, or a commit's sha."""
        if revision in self.branches:
            return self.branches[revision]
        for commits in self.branches.values():
            for index, commit in enumerate(commits):
                if commit.sha == revision:
                    return commits[: index + 1]
        raise KeyError(revision)

    def files(self, revision: str = "main") -> Files:
        commits = self.commits(revision)
        return commits[-1].files if commits else {}

    def commit(
        self,
        title: str,
        files: Files,
        *,
        revision: str = "main",
        by_lfs: set[str] | None = None,
        deleted: set[str] | None = None,
    ) -> Commit:
        """Add a commit; in a test, what another person did on the Hub."""
        commits = self.commits(revision)
        sha = hashlib.sha1(f"{title}{len(commits)}{sorted(files)}{id(self)}".encode()).hexdigest()
        kept = {path: content for path, content in self.files(revision).items() if path not in (deleted or ())}
        commits.append(Commit(sha, title, {**kept, **files}, by_lfs or set()))
        return commits[-1]


def object_id(content: bytes, large: bool) -> str:
    """What the Hub calls a file: sha256 for a large one, else git's sha1 of a blob."""
    if large:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
