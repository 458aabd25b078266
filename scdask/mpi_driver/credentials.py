"""TLS credentials of an MPI job, which only its ranks have."""

from __future__ import annotations

import os
import pickle
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from distributed import Security

from .._extras import require

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .group import Group

# The arguments of distributed's Security, and the options of Dask that stand for them.
FIELDS = {"tls_ca_file": "distributed.comm.tls.ca-file"} | {
    f"tls_{role}_{part}": f"distributed.comm.tls.{role}.{part}"
    for role in ("client", "scheduler", "worker")
    for part in ("cert", "key")
}


@contextmanager
def shared_credentials(group: Group, timeout: float | None = None) -> Iterator[dict[str, str]]:
    """Make the TLS credentials of a job on rank 0, and hand them to every rank.

    They travel sealed, each rank's with a key that only it and rank 0 know (X25519, HKDF, ChaCha20-Poly1305), because
    MPI leaves what it sends readable in shared memory. A rank keeps them in files in memory, since TLS takes files.

    Yields
    ------
    dict
        The arguments of distributed's Security. Each is the path of a file in memory, until the block ends.
    """
    require("cryptography", "mpi")
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    private = X25519PrivateKey.generate()
    publics = group.meet("handing out of credentials", private.public_key().public_bytes_raw, timeout)

    def lock(rank: int) -> ChaCha20Poly1305:
        shared = private.exchange(X25519PublicKey.from_public_bytes(publics[rank]))
        return ChaCha20Poly1305(HKDF(SHA256(), 32, None, b"scdask credentials").derive(shared))

    def seal() -> list[bytes] | None:
        if group.rank:
            return None
        security = Security.temporary()
        letter = pickle.dumps({field: getattr(security, field) for field in FIELDS})
        nonces = [os.urandom(12) for _ in publics]
        return [nonce + lock(rank).encrypt(nonce, letter, None) for rank, nonce in enumerate(nonces)]

    letters: Sequence[bytes] = group.meet("handing out of credentials", seal, timeout)[0]
    letter = letters[group.rank]
    texts: dict[str, str] = pickle.loads(lock(0).decrypt(letter[:12], letter[12:], None))
    with ExitStack() as stack:
        files = {text: stack.enter_context(_in_memory(text)) for text in set(texts.values())}
        yield {field: files[text] for field, text in texts.items()}


@contextmanager
def _in_memory(text: str) -> Iterator[str]:
    """The path of a file that is on no disk, or the text itself where there are no such files, which TLS takes too."""
    if not hasattr(os, "memfd_create"):
        yield text
        return
    number = os.memfd_create("scdask")
    try:
        os.write(number, text.encode())
        yield f"/proc/self/fd/{number}"
    finally:
        os.close(number)
