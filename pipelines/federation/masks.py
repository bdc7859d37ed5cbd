"""Numbers that only add up: fixed point in 64 bits, and masks of pairs of sites that cancel in the sum of all.

Each pair of sites has a secret by Diffie-Hellman (X25519, https://www.rfc-editor.org/rfc/rfc7748), and of it a key
stream of each round (HKDF and ChaCha20), which one of them adds and the other takes off, modulo 2^64: whoever sees the
masked numbers of single sites sees noise (Bonawitz et al., https://doi.org/10.1145/3133956.3133982). Belongs here:
keys, masks. Does not: what is summed (``statistics``), where it lies (``exchange``).
"""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

NONCE = bytes(16)  # each key is used for one stream


def private_key(path: Path) -> X25519PrivateKey:
    """The private key in a file that only its owner reads; made where there is none."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        made = X25519PrivateKey.generate().private_bytes_raw().hex()
        part = path.with_suffix(".part")
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as f:
            f.write(made)
        part.replace(path)
    return X25519PrivateKey.from_private_bytes(bytes.fromhex(path.read_text()))


def public_text(key: X25519PrivateKey) -> str:
    """The public key as hex characters."""
    return key.public_key().public_bytes_raw().hex()


def stream(key: X25519PrivateKey, peer: str, label: str, n: int) -> np.ndarray:
    """Numbers (n,) uint64 that the two sites of a pair have in common, and nobody else knows.

    Args:
        key: private key of one of them.
        peer: public key of the other, hex.
        label: of the round; the same label gives the same numbers, so it must never be used for two sets of numbers.
        n: how many.
    """
    secret = key.exchange(X25519PublicKey.from_public_bytes(bytes.fromhex(peer)))
    derived = HKDF(SHA256(), 32, salt=None, info=label.encode()).derive(secret)
    made = Cipher(algorithms.ChaCha20(derived, NONCE), mode=None).encryptor().update(bytes(8 * n))
    return np.frombuffer(made, "<u8")


def mask(key: X25519PrivateKey, name: str, peers: Mapping[str, str], label: str, n: int) -> np.ndarray:
    """What a site adds to its numbers (n,) uint64; those of all sites of a round add up to 0.

    Args:
        key: private key of the site.
        name: of the site.
        peers: name -> public key of the others.
        label: of the round.
        n: how many numbers.
    """
    total = np.zeros(n, np.uint64)
    for peer, public in sorted(peers.items()):
        pair = "|".join(sorted((name, peer)))
        common = stream(key, public, f"nightloom|{label}|{pair}", n)
        total = total + common if name < peer else total - common
    return total
