"""What goes wrong between here and the Hub: one clear error each, and nothing half done."""

import json

import numpy as np
import pytest
from hub_server import READ_TOKEN, USER, WRITE_TOKEN
from test_hub_round_trip import LISTS, LOAD, PUSH, push
from tiny import rewrite

STRANGER = "hf_StRaNgErStRaNgErStRaNgErStRaN00003"


def fails(client, code, error, text, **names):
    """Runs code that must fail with one error of one line, and gives what it said."""
    answer = client.run(code, **names)
    assert (answer.error, text in answer.text) == (error, True), (answer.trace, answer.value)
    assert "\n" not in answer.text
    return answer


def use_token(client, token):
    client.value(
        "import os\nos.environ.pop('HF_TOKEN', None)\nos.environ.update(given)",
        given={"HF_TOKEN": token} if token else {},
    )


@pytest.fixture
def films(client, hub, bundle):
    """A bundle on the Hub."""
    if not hub.store.exists("ann/films"):
        push(client, bundle, "ann/films")
    hub.requests.clear()
    return "ann/films"


def test_a_folder_wins_and_a_name_that_is_neither_says_so(client, films, bundle, tmp_path, hub):
    (tmp_path / "ann").mkdir()
    (tmp_path / "ann" / "films").symlink_to(bundle)
    client.value("import os\nhere = os.getcwd()\nos.chdir(place)", place=str(tmp_path))
    try:
        assert client.value(LOAD + "value = str(rec.folder)", name="ann/films", options={}) == "ann/films"
        fails(
            client,
            LOAD,
            "BundleError",
            "a folder has no revision 'v1'",
            name="ann/films",
            options={"revision": "v1"},
        )
    finally:
        client.value("os.chdir(here)")
    assert hub.requests == []
    fails(
        client,
        LOAD,
        "BundleError",
        "there is no such folder, and this is no name on the Hub",
        name="runs/a/b",
        options={},
    )
    for name in ("ann/a--b", "ann/films.git", "ann/" + "x" * 99):
        fails(client, LOAD, "BundleError", "this is no name on the Hub", name=name, options={})
    assert hub.requests == []


def test_missing_repository_revision_and_bundle(client, films, hub):
    missing = "there is no such folder here, and the Hub has no such repository"
    fails(client, LOAD, "HubError", missing, name="ann/flims", options={})
    fails(client, LOAD, "HubError", "no branch, tag or commit 'v9'", name=films, options={"revision": "v9"})
    hub.store.create("ann/empty", private=False)
    fails(
        client,
        LOAD,
        "BundleError",
        "no bundle on the Hub (bundle.json is missing)",
        name="ann/empty",
        options={},
    )
    contents = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"x"}
    hub.store.create("ann/plain", private=False)
    hub.store.commit("ann/plain", "main", "peft", contents, {}, [])
    fails(
        client,
        LOAD,
        "BundleError",
        "a plain PEFT adapter: a tower can start from it",
        name="ann/plain",
        options={},
    )


def test_private_and_tokens(client, hub, bundle):
    push(client, bundle, "ann/secret", private=True)
    assert hub.store.read("ann/secret")["private"]
    use_token(client, None)
    fails(
        client,
        LOAD,
        "HubError",
        "or it is private and there is no token (hf auth login)",
        name="ann/secret",
        options={},
    )
    fails(
        client,
        PUSH,
        "HubError",
        "there is no token; log in first",
        name="ann/x",
        bundle=str(bundle),
        options={},
    )
    use_token(client, STRANGER)
    fails(client, LOAD, "HubError", "does not accept the token", name="ann/secret", options={})
    fails(client, PUSH, "HubError", "does not accept the token", name="ann/x", bundle=str(bundle), options={})
    use_token(client, READ_TOKEN)
    assert client.value(LOAD + "value = len(rec.item_ids)", name="ann/secret", options={}) == 40
    fails(
        client,
        PUSH,
        "HubError",
        "make one with write access to ann",
        name="ann/x",
        bundle=str(bundle),
        options={},
    )
    fails(
        client,
        PUSH,
        "HubError",
        "make one with write access to ann",
        name="ann/secret",
        bundle=str(bundle),
        options={"item_texts": False},
    )
    assert not hub.store.exists("ann/x")
    # The argument counts for more than the environment.
    push(client, bundle, "ann/secret", token=WRITE_TOKEN)


def test_a_public_repository_is_not_taken_for_a_private_one(client, films, hub, bundle):
    head = hub.store.resolve(films, "main")
    fails(
        client,
        PUSH,
        "HubError",
        "it exists and is public",
        name=films,
        bundle=str(bundle),
        options={"private": True},
    )
    assert hub.store.resolve(films, "main") == head


def test_a_private_repository_is_not_taken_for_a_public_one(client, hub, bundle):
    hub.store.create("ann/hidden", private=True)
    said = "it exists and is private, and a public one was asked for"
    fails(client, PUSH, "HubError", said, name="ann/hidden", bundle=str(bundle), options={"private": False})
    push(client, bundle, "ann/hidden")


@pytest.mark.parametrize(
    ("status", "text"), [(403, "the token may not do this"), (400, "the Hub refused"), (500, "in trouble")]
)
def test_an_upload_that_fails_says_why(client, hub, bundle, tmp_path, status, text):
    def change(place):  # or the Hub has the file already
        vectors = np.load(place / "factor_vectors.npy")
        np.save(place / "factor_vectors.npy", vectors + np.float16(1 / status))

    # The client wraps what happens to a large file into an error without a reason.
    hub.fail("/_lfs/", status=status, times=99)
    error, own = "Unreachable" if status == 500 else "HubError", rewrite(bundle, tmp_path / "own", change)
    fails(client, PUSH, error, text, name=f"ann/upload{status}", bundle=str(own), options={})


def test_too_many_requests_are_waited_for_and_a_copy_does_meanwhile(client, films, hub):
    hub.fail("/api/models/", status=429)
    near = client.value(LOAD + LISTS, name=films, options={})
    hub.fail("/api/models/", status=429, times=99)
    answer = client.run(LOAD + LISTS, name=films, options={})
    assert answer.value == near
    assert "using the copy of" in answer.log


def test_a_copy_in_a_cache_that_cannot_be_written_is_loaded(client, films, monkeypatch):
    near = client.value(LOAD + LISTS, name=films, options={})
    block = "import lora_rec.hub.pull as p\nreplace_file = p.replace_file\n"
    block += "def no(*a): raise OSError(30, 'read-only')\np.replace_file = no\n"
    assert client.value(block + LOAD + LISTS, name=films, options={}) == near
    lost = "import pathlib\n(pathlib.Path(cache) / 'models--ann--films/refs/main').write_text('0' * 40)\n"
    answer = client.run(lost + LOAD + LISTS, name=films, options={}, cache=str(client.cache))
    assert answer.value == near
    assert "it is not found without the Hub" in answer.log
    client.value("p.replace_file = replace_file\nvalue = None")


def test_a_manifest_in_the_cache_deletes_nothing_of_the_users(client, hub, tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    up = "../" * 30 + str(precious)[1:]
    for name, file in (("ann/absolute", str(precious)), ("ann/up", up)):
        hub.store.create(name, private=False)
        manifest = json.dumps({"files": {file: "0" * 64}}).encode()
        hub.store.commit(name, "main", "x", {"bundle.json": manifest}, {}, [])
        client.value(
            "from huggingface_hub import snapshot_download\nvalue = snapshot_download(name)", name=name
        )
        assert client.run(LOAD, name=name, options={}).error == "BundleError"
        assert precious.read_text() == "mine"


def test_a_cut_connection_leaves_nothing_and_the_second_try_works(client, films, hub):
    hub.cut("item_vectors.npy")
    hub.fail("item_vectors.npy", method="GET", times=9)
    fails(
        client,
        LOAD,
        "Unreachable",
        "the Hub is in trouble (status 500); try again later",
        name=films,
        options={},
    )
    left = [path.name for path in client.cache.rglob("*")]
    assert not [
        name for name in left if "incomplete" in name or "item_vectors" in name or name == "bundle.json"
    ]
    hub.faults.clear()
    fresh = "import huggingface_hub.constants as k\nk.HF_HUB_OFFLINE = True\n"
    fails(client, fresh + LOAD, "Unreachable", "no whole copy in the cache", name=films, options={})
    client.value("k.HF_HUB_OFFLINE = False")
    assert client.value(LOAD + "value = len(rec.item_ids)", name=films, options={}) == 40


def test_a_cut_that_passes_is_mended(client, films, hub, bundle):
    hub.cut("head.safetensors")
    near = client.value(LOAD + LISTS, name=str(bundle), options={})
    assert client.value(LOAD + LISTS, name=films, options={}) == near


def test_errors_that_pass_are_survived(client, hub, bundle):
    for match in ("/api/repos/create", "/api/models/ann/patient", "/tree/", "/commit/"):
        hub.fail(match)
    pushed = push(client, bundle, "ann/patient")
    assert len(hub.store.read("ann/patient")["commits"]) == 2
    assert all(fault["times"] == 0 for fault in hub.faults)
    hub.fail("/api/models/ann/patient/revision/main")
    hub.fail("/resolve/", times=2)
    assert client.value(LOAD + "value = rec.folder.name", name="ann/patient", options={}) == pushed["commit"]


def test_a_commit_whose_answer_was_lost_is_not_made_twice(client, hub, bundle, monkeypatch):
    from hub_server.server import Handler, Refused

    made = Handler.commit

    def lose(handler, **names):
        handler._json = lambda value: None
        made(handler, **names)
        del handler._json
        monkeypatch.undo()
        raise Refused(502, text="the answer was lost")

    from hub_server import server

    routes = [(m, p, lose if answer is made else answer) for m, p, answer in server.ROUTES]
    monkeypatch.setattr(server, "ROUTES", routes)
    pushed = push(client, bundle, "ann/lost")
    assert pushed["commit"] == hub.store.resolve("ann/lost", "main")
    assert len(hub.store.read("ann/lost")["commits"]) == 2


def test_trouble_that_stays_is_said_once(client, films, hub, bundle):
    hub.fail("/api/models/", times=99)
    fails(
        client,
        LOAD,
        "Unreachable",
        "no whole copy in the cache of the Hub (the Hub is in trouble",
        name=films,
        options={},
    )
    fails(
        client,
        PUSH,
        "Unreachable",
        "status 500); try again later",
        name="ann/other",
        bundle=str(bundle),
        options={},
    )


def test_a_copy_in_the_cache_does_without_the_hub(client, films, hub, new_client, bundle):
    near = client.value(LOAD + LISTS, name=films, options={})
    hub.fail("/api/models/", times=99)
    answer = client.run(LOAD + LISTS, name=films, options={})
    assert answer.value == near
    assert "the Hub does not answer; using the copy of" in answer.log
    home = client.cache.parent / "offline"
    home.mkdir()
    (home / "hub").symlink_to(client.cache)
    offline = new_client(home=home, offline=True, token=None)
    hub.requests.clear()
    assert offline.value(LOAD + LISTS, name=films, options={}) == near
    commit = hub.store.resolve(films, "main")
    assert offline.value(LOAD + LISTS, name=films, options={"revision": commit}) == near
    fails(offline, LOAD, "Unreachable", "no whole copy in the cache", name="ann/other", options={})
    assert hub.requests == []


def test_a_file_that_was_damaged_in_the_cache_is_fetched_again(client, films, bundle):
    damage = """
from lora_rec.hub import find_bundle
blob = (find_bundle(name) / "item_vectors.npy").resolve()
blob.chmod(0o644)
blob.write_bytes(blob.read_bytes()[:-1])
value = None
"""
    near = client.value(LOAD + LISTS, name=str(bundle), options={})
    client.value(damage, name=films)
    answer = client.run(LOAD + LISTS, name=films, options={})
    assert answer.value == near
    assert "item_vectors.npy in the cache is damaged; fetching it again" in answer.log


def test_a_copy_that_another_client_left_halfway_is_made_whole(client, films, bundle):
    part = "from huggingface_hub import hf_hub_download\nvalue = hf_hub_download(name, 'bundle.json')"
    client.value(part, name=films)
    assert client.value(LOAD + LISTS, name=films, options={}) == client.value(
        LOAD + LISTS, name=str(bundle), options={}
    )


def test_a_token_is_found_nowhere(client, hub, bundle, films):
    texts = []
    for token in (WRITE_TOKEN, STRANGER):
        use_token(client, token)
        for match in (None, "/api/models/", "/commit/"):
            hub.faults.clear()
            if match:
                hub.fail(match, status=403, times=9)
            answer = client.run(PUSH, name="ann/quiet", bundle=str(bundle), options={"token": token})
            texts.append(json.dumps(vars(answer)))
            texts.append(json.dumps(vars(client.run(LOAD, name="ann/quiet", options={"token": token}))))
    assert len({text[:80] for text in texts}) > 1
    for text in texts:
        assert WRITE_TOKEN not in text
        assert STRANGER not in text
    for digest in hub.store.root.glob("objects/*"):
        assert WRITE_TOKEN.encode() not in digest.read_bytes()
    for file in (*client.cache.rglob("*"), *bundle.rglob("*")):
        assert not file.is_file() or WRITE_TOKEN.encode() not in file.read_bytes()
    assert USER == "ann"
