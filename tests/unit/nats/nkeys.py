"""Seeds, public keys and credentials files as NATS writes them (ADR-14), for tests that need some."""

import base64
import binascii

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

USER = 20 << 3


def seed_of(secret, *, kind=USER):
    return encode(bytes([18 << 3 | kind >> 5, (kind & 31) << 3]) + secret)


def public_of(secret, *, kind=USER):
    return encode(bytes([kind]) + Ed25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw())


def encode(raw):
    checked = raw + binascii.crc_hqx(raw, 0).to_bytes(2, "little")
    return base64.b32encode(checked).decode().rstrip("=")


def creds(jwt, seed):
    return f"""-----BEGIN NATS USER JWT-----
{jwt}
------END NATS USER JWT------

************************* IMPORTANT *************************
NKEY Seed printed below can be used to sign and prove identity.

-----BEGIN USER NKEY SEED-----
{seed}
------END USER NKEY SEED------

*************************************************************
"""
