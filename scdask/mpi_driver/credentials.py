"""TLS credentials of an MPI job, which only its ranks have."""

from __future__ import annotations

import os
import pickle
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from distributed import Security

from .._extras import require

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .group import Group

BRANCHES = 4  # ranks to which a rank hands the credentials
KEY, NONCE, TAG = 32, 12, 16  # bytes
CLOCKS = timedelta(days=1)  # by which the clocks of hosts may differ
VALID = timedelta(days=365)
# The arguments of distributed's Security, and the options of Dask that stand for them.
FIELDS = {"tls_ca_file": "distributed.comm.tls.ca-file"} | {
    f"tls_{role}_{part}": f"distributed.comm.tls.{role}.{part}"
    for role in ("client", "scheduler", "worker")
    for part in ("cert", "key")
}


@contextmanager
def shared_credentials(group: Group, timeout: float | None = None) -> Iterator[dict[str, str]]:
    """Make the TLS credentials of a job on rank 0, and hand them to every rank.

    They go down a tree of ranks, sealed at each step with a key that only its two ranks know (X25519, HKDF,
    ChaCha20-Poly1305), because MPI leaves what it sends readable in shared memory. A rank keeps them in files in
    memory, since TLS takes files.

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

    letters: list[bytes] = []

    def make() -> int | None:
        if group.rank:
            return None
        security = new_security()
        letters.append(pickle.dumps({field: getattr(security, field) for field in FIELDS}))
        return len(letters[0])

    private = X25519PrivateKey.generate()
    public = private.public_key().public_bytes_raw()

    def lock(other: bytes) -> ChaCha20Poly1305:
        shared = private.exchange(X25519PublicKey.from_public_bytes(other))
        return ChaCha20Poly1305(HKDF(SHA256(), 32, None, b"scdask credentials").derive(shared))

    wait = partial(group.wait, timeout=timeout, what="the handing out of credentials")
    size = group.share("the making of credentials", make, timeout=timeout)
    other = bytearray(KEY)
    if group.rank:
        sealed, above = bytearray(NONCE + size + TAG), (group.rank - 1) // BRANCHES
        wait(group.comm.Isend(public, above))
        wait(group.comm.Irecv(other, above))
        wait(group.comm.Irecv(sealed, above))
        letters.append(lock(bytes(other)).decrypt(bytes(sealed[:NONCE]), bytes(sealed[NONCE:]), None))
    (letter,) = letters
    for below in range(BRANCHES * group.rank + 1, min(BRANCHES * (group.rank + 1), group.size - 1) + 1):
        nonce = os.urandom(NONCE)
        wait(group.comm.Irecv(other, below))
        wait(group.comm.Isend(public, below))
        wait(group.comm.Isend(nonce + lock(bytes(other)).encrypt(nonce, letter, None), below))
    texts: dict[str, str] = pickle.loads(letter)
    with ExitStack() as stack:
        files = {text: stack.enter_context(in_memory(text)) for text in set(texts.values())}
        yield {field: files[text] for field, text in texts.items()}


def new_security() -> Security:
    """Credentials of a key and a certificate that were made just now, for all parts of a cluster.

    Dask's own, `Security.temporary`, are not valid yet on a host whose clock is a second late.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "scdask")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - CLOCKS)
        .not_valid_after(now + VALID)
        .sign(key, SHA256())
    )
    public = certificate.public_bytes(Encoding.PEM).decode()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return Security(
        require_encryption=True, **{field: private if field.endswith("key") else public for field in FIELDS}
    )


@contextmanager
def in_memory(text: str) -> Iterator[str]:
    """The path of a file that is on no disk, or the text itself where there are no such files, which TLS takes too."""
    if not hasattr(os, "memfd_create"):
        yield text
        return
    number = os.memfd_create("scdask")
    try:
        os.write(number, text.encode())
        yield f"/proc/{os.getpid()}/fd/{number}"  # Child processes find it too.
    finally:
        os.close(number)
