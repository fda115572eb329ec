"""From files of keyed texts to their index: made once, and again only when the files change."""

import posixpath
from collections.abc import Iterator, Sequence

from curation.ingest.keyed_index import IndexFacts, build_index, stored_facts
from curation.ingest.keyed_rows import KeyedBy, keyed_rows
from curation.shards.container import stamp_of
from curation.shards.fingerprint import digest_of
from curation.shards.target import Target
from curation.shards.urls import shard_name
from schemas.dataset import INPUTS_DIR, InputIdentity
from schemas.errors import UserError
from schemas.location import file_system


def texts_identity(name: str, urls: Sequence[str], keyed: KeyedBy) -> InputIdentity:
    """What the texts of `urls` are, told without reading them: names, sizes and times (or ETags), and how they are
    read. `name` is what they are to the units that use them."""
    stamps = [stamp_of(url, "folder" if file_system(url)[0].isdir(url) else "tar") for url in urls]
    files = [[shard_name(url), size, stamp] for url, (size, stamp) in zip(urls, stamps, strict=True)]
    digest = digest_of([files, keyed.key, keyed.text, keyed.shard, keyed.by_name])
    return InputIdentity(name, sum(size for size, _ in stamps), digest, digest)


def index_place(target: Target, name: str, asked: str | None) -> tuple[Target, str]:
    """(directory, file in it) of an index: the file `asked` for, else in the dataset itself.

    Raises `UserError` where that is not on a disk: SQLite needs one.
    """
    if asked is not None:
        folder, file = posixpath.split(asked)
        return Target(folder or "."), file
    if not target.is_local:
        raise UserError(f"{target.url}: name a file on a disk that all workers see with --index FILE, for the index.")
    return target, f"{INPUTS_DIR}/{name}.sqlite"


def ensure_texts(place: tuple[Target, str], urls: Sequence[str], keyed: KeyedBy, identity: InputIdentity) -> IndexFacts:
    """The facts of the index at `place`, which is made of `urls` unless it is there already.

    Raises `UserError` for files that cannot be read, and if there is no text in them.
    """
    target, path = place
    facts = stored_facts(target.path(path), identity.digest)
    if facts is None:
        target.require_writable()
        facts = build_index(target, path, _rows(urls, keyed), identity.digest)
    if facts.keys == 0:
        raise UserError(f"{urls[0]}: no text in it ({facts.rows:,} rows). Check the path and the names of the columns.")
    return facts


def _rows(urls: Sequence[str], keyed: KeyedBy) -> Iterator[tuple[str, str | None]]:
    for url in urls:
        yield from keyed_rows(url, keyed)
