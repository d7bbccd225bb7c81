"""Repositories on disk: contents by SHA-256, commits, branches and tags."""

import hashlib
import json
from pathlib import Path

GIT_ATTRIBUTES = (
    b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n*.npy filter=lfs diff=lfs merge=lfs -text\n"
)
LFS_SUFFIXES = (".safetensors", ".npy", ".bin", ".pkl")
LFS_SIZE = 10_000_000


class Missing(Exception):
    """What was asked for is not there; the text is the Hub's error code."""


def git_digest(content):
    """The SHA-1 by which git knows a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def is_lfs(path, size):
    return path.endswith(LFS_SUFFIXES) or size > LFS_SIZE


class Store:
    """All repositories, each one JSON file that names its commits; contents are kept once."""

    def __init__(self, root):
        self.root = Path(root)
        (self.root / "objects").mkdir(parents=True)
        (self.root / "repos").mkdir()

    def _file(self, name):
        return self.root / "repos" / (name.replace("/", "--") + ".json")

    def exists(self, name):
        return self._file(name).is_file()

    def read(self, name):
        if not self.exists(name):
            raise Missing("RepoNotFound")
        return json.loads(self._file(name).read_text())

    def _write(self, name, repo):
        self._file(name).write_text(json.dumps(repo))

    def create(self, name, *, private):
        self._write(name, {"private": private, "commits": {}, "branches": {"main": None}, "tags": {}})
        return self.commit(name, "main", "initial commit", {".gitattributes": GIT_ATTRIBUTES}, {}, [])

    def put(self, content):
        digest = hashlib.sha256(content).hexdigest()
        (self.root / "objects" / digest).write_bytes(content)
        return digest

    def has(self, digest):
        return (self.root / "objects" / digest).is_file()

    def get(self, digest):
        return (self.root / "objects" / digest).read_bytes()

    def resolve(self, name, revision):
        repo = self.read(name)
        named = repo["branches"] | repo["tags"] | {sha: sha for sha in repo["commits"]}
        if revision not in named:
            raise Missing("RevisionNotFound")
        return named[revision]

    def files(self, name, revision):
        """Path to size, git's digest, SHA-256 and whether it is a large file."""
        return self.read(name)["commits"][self.resolve(name, revision)]["files"]

    def commit(self, name, branch, message, contents, large, deleted):
        """Makes a commit of contents by path, of digests of large files by path, and of deletions."""
        repo = self.read(name)
        if branch not in repo["branches"]:
            raise Missing("RevisionNotFound")
        parent = repo["branches"][branch]
        files = dict(repo["commits"][parent]["files"]) if parent else {}
        for path in deleted:
            del files[path]
        for path, digest in (large | {path: self.put(content) for path, content in contents.items()}).items():
            content = self.get(digest)
            files[path] = {"size": len(content), "sha256": digest, "lfs": path in large}
            pointer = (
                f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {len(content)}\n"
            )
            files[path]["oid"] = git_digest(pointer.encode() if path in large else content)
        text = json.dumps([parent, message, len(repo["commits"]), files], sort_keys=True)
        sha = hashlib.sha1(text.encode()).hexdigest()
        repo["commits"][sha] = {"parent": parent, "message": message, "files": files}
        repo["branches"][branch] = sha
        self._write(name, repo)
        return sha

    def name_commit(self, name, kind, label, revision):
        """Adds a branch or a tag."""
        repo = self.read(name)
        repo[kind][label] = self.resolve(name, revision)
        self._write(name, repo)
