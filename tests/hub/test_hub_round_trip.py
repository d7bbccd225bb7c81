"""What goes to the Hub and what comes back, with the real client against the server of `hub_server`."""

from lora_rec.bundle import file_digest, list_files

PUSH = "import lora_rec\nvalue = vars(lora_rec.load(bundle).push_to_hub(name, **options))"
LISTS = "value = [(i.item_id, i.score) for i in rec.recommend(['i3', 'i5'], k=5, diversity=0.3)]"
LOAD = "import lora_rec\nrec = lora_rec.load(name, **options)\n"


def push(client, bundle, name, **options):
    return client.value(PUSH, bundle=str(bundle), name=name, options=options)


def test_what_is_pulled_is_what_was_pushed(client, hub, bundle):
    pushed = push(client, bundle, "ann/films")
    assert pushed["commit"] == hub.store.resolve("ann/films", "main")
    assert len(hub.store.read("ann/films")["commits"]) == 2  # the one that made it, and ours
    folder = client.value(LOAD + "value = str(rec.folder)", name="ann/films", options={})
    assert str(client.cache) in folder
    from pathlib import Path

    pulled = Path(folder)
    assert list_files(pulled) == list_files(bundle)
    assert {n: file_digest(pulled / n) for n in list_files(pulled)} == {
        n: file_digest(bundle / n) for n in list_files(bundle)
    }
    near = client.value(LOAD + LISTS, name=str(bundle), options={})
    assert client.value(LOAD + LISTS, name="ann/films", options={}) == near
