"""The server: who may do what, where what lies, and faults that a test asks for."""

import base64
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from hub_server.cards import find_errors
from hub_server.store import Missing, Store, git_digest, is_lfs

WRITE_TOKEN = "hf_WrItEwRiTeWrItEwRiTeWrItEwRiTe00001"
READ_TOKEN = "hf_rEaDrEaDrEaDrEaDrEaDrEaDrEaDrE00002"
USER = "ann"
ROLES = {WRITE_TOKEN: "write", READ_TOKEN: "read"}
NAME = r"(?P<name>[^/]+/[^/]+)"
REVISION = r"(?P<revision>[^/]+)"


class Refused(Exception):
    """An answer other than success: status, the Hub's error code, text."""

    def __init__(self, status, code=None, text="", **more):
        super().__init__(status, code, text)
        self.status, self.code, self.text, self.more = status, code, text, more


class HubServer:
    """Runs in a thread; `requests` is what was asked, `faults` what goes wrong next."""

    def __init__(self, root):
        self.store = Store(root)
        self.requests = []
        self.faults = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"hub": self}))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def fail(self, match, *, status=500, times=1, method=None):
        """The next requests whose `METHOD path` holds a text are answered with an error."""
        self.faults.append({"match": match, "status": status, "times": times, "method": method})

    def cut(self, match, *, times=1):
        """The next downloads of such a path break off in the middle."""
        self.faults.append({"match": match, "status": None, "times": times, "method": "GET"})

    def fault_of(self, method, path):
        for fault in self.faults:
            if fault["times"] > 0 and fault["match"] in path and fault["method"] in (None, method):
                fault["times"] -= 1
                return fault
        return None

    def sent(self):
        """Paths of the requests that carried files to the server, with the commits' files by name."""
        return [path for method, path in self.requests if method in ("PUT", "FILE")]


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    hub = None

    def log_message(self, *arguments):
        pass

    def _handle(self):
        self.url = urlsplit(self.path)
        self.query = parse_qs(self.url.query)
        path = unquote(self.url.path)
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length)
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                self.body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        self.hub.requests.append((self.command, path))
        fault = self.hub.fault_of(self.command, path)
        self.breaks = fault is not None and fault["status"] is None
        try:
            if fault is not None and fault["status"] is not None:
                raise Refused(fault["status"], text="something broke")
            role = self._role()
            for method, pattern, answer in ROUTES:
                found = re.fullmatch(pattern, path)
                if found and self.command in method.split():
                    answer(self, **found.groupdict())
                    return
            raise Refused(404, text=f"no such address: {self.command} {path}")
        except Refused as refused:
            self._refuse(refused.status, refused.code, refused.text, **refused.more)
        except Missing as missing:
            code = str(missing)
            # The Hub does not tell a stranger whether a repository is private or not there at all.
            status = 401 if code == "RepoNotFound" and role is None else 404
            text = {"RepoNotFound": "Repository not found", "RevisionNotFound": "Invalid rev id"}
            self._refuse(status, code, text.get(code, "Entry not found"))

    do_GET = do_HEAD = do_POST = do_PUT = _handle

    def _refuse(self, status, code, text, **more):
        headers = {"X-Error-Message": text} | ({"X-Error-Code": code} if code else {})
        self._send(status, json.dumps({"error": text} | more).encode(), headers)

    def _send(self, status, content=b"", headers=None, *, total=None):
        self.send_response(status)
        given = {"Content-Type": "application/json", "Content-Length": str(total or len(content))}
        for name, value in (given | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.breaks:
            content = content[: len(content) // 2]
        self.wfile.write(content)
        if self.breaks:
            self.wfile.flush()
            self.close_connection = True

    def _json(self, value, status=200):
        self._send(status, json.dumps(value).encode())

    def _role(self):
        header = self.headers.get("Authorization", "")
        if not header:
            return None
        role = ROLES.get(header.removeprefix("Bearer "))
        if role is None:
            raise Refused(401, text="Invalid credentials in Authorization header")
        return role

    def _may_read(self, name):
        if self.hub.store.read(name)["private"] and self._role() is None:
            raise Missing("RepoNotFound")

    def _may_write(self, name=None):
        role = self._role()
        if role is None:
            raise Refused(401, text="Invalid username or password.")
        if name is not None and not self.hub.store.exists(name):
            raise Missing("RepoNotFound")
        if role != "write" or (name or USER).split("/")[0] != USER:
            raise Refused(403, text="you must use a token with write access to this repository")

    def create(self):
        self._may_write()
        asked = json.loads(self.body)
        name = f"{asked.get('organization') or USER}/{asked['name']}"
        if name.split("/")[0] != USER:
            raise Refused(403, text=f"You don't have the rights to create a model under {name.split('/')[0]}")
        if self.hub.store.exists(name):
            url = f"{self.hub.url}/{name}"
            raise Refused(409, text="You already created this model repo", url=url)
        self.hub.store.create(name, private=asked.get("visibility") == "private")
        self._json({"url": f"{self.hub.url}/{name}", "name": name})

    def whoami(self):
        role = self._role()
        if role is None:
            raise Refused(401, text="Invalid username or password.")
        self._json({"name": USER, "type": "user", "auth": {"accessToken": {"role": role}}})

    def validate(self):
        errors = find_errors(json.loads(self.body)["content"])
        listed = [{"message": error} for error in errors]
        self._json({"errors": listed, "warnings": []}, status=400 if errors else 200)

    def preupload(self, name, revision):
        self._may_write(name)
        there = self.hub.store.files(name, revision)
        answer = []
        for file in json.loads(self.body)["files"]:
            mode = "lfs" if is_lfs(file["path"], file["size"]) else "regular"
            known = there.get(file["path"])
            oid = known and (known["sha256"] if known["lfs"] else known["oid"])
            answer.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._json({"files": answer})

    def batch(self, name):
        self._may_write(name)
        objects = []
        for wanted in json.loads(self.body)["objects"]:
            if not self.hub.store.has(wanted["oid"]):
                wanted["actions"] = {"upload": {"href": f"{self.hub.url}/_lfs/{wanted['oid']}", "header": {}}}
            objects.append(wanted)
        self._json({"transfer": "basic", "objects": objects})

    def upload(self, digest):
        if self.hub.store.put(self.body) != digest:
            raise Refused(400, text="the content is not what was announced")
        self._send(200)

    def commit(self, name, revision):
        self._may_write(name)
        header, contents, large, deleted = {}, {}, {}, []
        for line in self.body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                header = value
            elif entry["key"] == "file":
                contents[value["path"]] = base64.b64decode(value["content"])
                self.hub.requests.append(("FILE", value["path"]))
            elif entry["key"] == "lfsFile":
                large[value["path"]] = value["oid"]
            elif entry["key"] == "deletedFile":
                deleted.append(value["path"])
        head = self.hub.store.resolve(name, revision)
        if header.get("parentCommit") not in (None, head):
            raise Refused(412, text="A commit has happened since. Please refresh and try again.")
        sha = self.hub.store.commit(name, revision, header["summary"], contents, large, deleted)
        self._json({"commitUrl": f"{self.hub.url}/{name}/commit/{sha}", "commitOid": sha, "success": True})

    def info(self, name, revision="main"):
        self._may_read(name)
        sha = self.hub.store.resolve(name, revision)
        files = self.hub.store.files(name, sha)
        private = self.hub.store.read(name)["private"]
        siblings = [{"rfilename": path} for path in files]
        self._json({"id": name, "modelId": name, "sha": sha, "private": private, "siblings": siblings})

    def tree(self, name, revision):
        self._may_read(name)
        rows = []
        for path, file in self.hub.store.files(name, revision).items():
            row = {"type": "file", "path": path, "size": file["size"], "oid": file["oid"]}
            if file["lfs"]:
                row["lfs"] = {"oid": file["sha256"], "size": file["size"], "pointerSize": 134}
            rows.append(row)
        self._json(rows)

    def refs(self, name):
        self._may_read(name)
        repo = self.hub.store.read(name)
        named = {
            kind: [{"name": n, "ref": n, "targetCommit": sha} for n, sha in repo[kind].items()]
            for kind in ("branches", "tags")
        }
        self._json(named | {"converts": []})

    def name_commit(self, name, kind, label):
        self._may_write(name)
        asked = json.loads(self.body or b"{}")
        kind = {"branch": "branches", "tag": "tags"}[kind]
        start = asked.get("startingPoint") or "main"
        if kind == "tags":
            label, start = asked["tag"], label
        if label in self.hub.store.read(name)[kind]:
            raise Refused(409, text="Reference already exists")
        self.hub.store.name_commit(name, kind, label, start)
        self._json({})

    def resolve(self, name, revision, path):
        self._may_read(name)
        sha = self.hub.store.resolve(name, revision)
        file = self.hub.store.files(name, sha).get(path)
        if file is None:
            raise Missing("EntryNotFound")
        content = self.hub.store.get(file["sha256"])
        assert file["lfs"] or git_digest(content) == file["oid"]
        etag = file["sha256"] if file["lfs"] else file["oid"]
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": sha, "Accept-Ranges": "bytes"}
        headers["Content-Type"] = "application/octet-stream"
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted is None:
            self._send(200, content, headers)
            return
        start, end = int(wanted.group(1)), int(wanted.group(2) or len(content) - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
        self._send(206, content[start : end + 1], headers)


ROUTES = [
    ("POST", "/api/repos/create", Handler.create),
    ("GET", "/api/whoami-v2", Handler.whoami),
    ("POST", "/api/validate-yaml", Handler.validate),
    ("POST", f"/api/models/{NAME}/preupload/{REVISION}", Handler.preupload),
    ("POST", rf"/{NAME}\.git/info/lfs/objects/batch", Handler.batch),
    ("PUT", "/_lfs/(?P<digest>[0-9a-f]{64})", Handler.upload),
    ("POST", f"/api/models/{NAME}/commit/{REVISION}", Handler.commit),
    ("GET", f"/api/models/{NAME}", Handler.info),
    ("GET", f"/api/models/{NAME}/revision/{REVISION}", Handler.info),
    ("GET", f"/api/models/{NAME}/tree/{REVISION}", Handler.tree),
    ("GET", f"/api/models/{NAME}/refs", Handler.refs),
    ("POST", f"/api/models/{NAME}/(?P<kind>branch|tag)/(?P<label>.+)", Handler.name_commit),
    ("GET HEAD", f"/{NAME}/resolve/{REVISION}/(?P<path>.+)", Handler.resolve),
]
