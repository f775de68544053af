#!/usr/bin/env python3
"""Derives pairing.json from `peer/docs/pairing.md`, sharing no code with the crate: SPAKE2 is that of python-spake2.

Run `python3 derive_pairing.py` here after `pip install spake2 cryptography blake3`; it rewrites the file, which is committed, and
which the crate's tests read.
"""

import json

from blake3 import blake3
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from spake2 import SPAKE2_A, SPAKE2_B

CODE = "482150733960"
NONCE = bytes(12)


class Key:
    def __init__(self, seed):
        self.private = Ed25519PrivateKey.from_private_bytes(seed)
        raw = serialization.Encoding.Raw, serialization.PublicFormat.Raw
        self.uid = self.private.public_key().public_bytes(*raw)

    def sign(self, message):
        return self.private.sign(b"ioex pairing v1\0" + message)


def base58(data):
    number, text = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"[digit] + text
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + text


def derive(context, material, length):
    return blake3(material, derive_key_context=context).digest(length=length)


def address(key, nospam):
    checksum = blake3(b"ioex address v1\0" + key.uid + nospam).digest()[:2]
    return key.uid + nospam + checksum


def started(side, scalar, guest, host):
    pake = side(CODE.encode(), idA=b"ioex pairing v1 guest\0" + guest, idB=b"ioex pairing v1 host\0" + host)
    group = pake.params.group
    random_scalar, group.random_scalar = group.random_scalar, lambda _: scalar
    message = pake.start()
    group.random_scalar = random_scalar
    return pake, message


def card(side, key, nospam, name, nodes, transcript, confirms, seals):
    signed = bytes([side]) + transcript + nospam
    plain = address(key, nospam) + key.sign(signed) + bytes([len(name)]) + name + nodes
    sealed = AESGCM(seals).encrypt(NONCE, plain, b"")
    return blake3(b"card" + sealed, key=confirms).digest() + sealed


def main():
    meeting = derive("ioex pairing v1 meeting key", CODE[:4].encode(), 36)
    host_session, guest_session = Key(meeting[:32]), Key(bytes([7] * 32))
    guest_scalar, host_scalar = 0x1111222233334444, 0x5555666677778888
    a, guest_message = started(SPAKE2_A, guest_scalar, guest_session.uid, host_session.uid)
    b, host_message = started(SPAKE2_B, host_scalar, guest_session.uid, host_session.uid)
    secret = a.finish(host_message)
    assert secret == b.finish(guest_message)
    keys = derive("ioex pairing v1 keys", secret, 128)
    guest_confirms, host_confirms, guest_seals, host_seals = (keys[i : i + 32] for i in range(0, 128, 32))
    transcript = guest_session.uid + host_session.uid + guest_message[1:] + host_message[1:]
    guest, host = Key(bytes([1] * 32)), Key(bytes([2] * 32))
    node = Key(bytes([3] * 32)).uid + bytes(10) + b"\xff\xff" + bytes([192, 0, 2, 1]) + (4433).to_bytes(2, "little")
    proof = card(0, guest, bytes([1] * 4), b"phone", node, transcript, guest_confirms, guest_seals)
    done = card(1, host, bytes([2] * 4), b"", b"", transcript, host_confirms, host_seals)
    vector = {
        "code": CODE,
        "meeting_seed": meeting[:32],
        "meeting_nospam": meeting[32:],
        "guest_session_seed": bytes([7] * 32),
        "guest_scalar": guest_scalar.to_bytes(32, "little"),
        "host_scalar": host_scalar.to_bytes(32, "little"),
        "guest_seed": bytes([1] * 32),
        "guest_nospam": bytes([1] * 4),
        "guest_name": "phone",
        "guest_nodes": [base58(node[:32]) + "@192.0.2.1:4433"],
        "host_seed": bytes([2] * 32),
        "host_nospam": bytes([2] * 4),
        "host_name": "",
        "host_nodes": [],
        "secret": secret,
        "knock": b"\1" + guest_message[1:],
        "offer": b"\2" + host_message[1:],
        "proof": b"\3" + proof,
        "done": b"\4" + done,
        "kept": b"\5" + blake3(b"kept", key=guest_confirms).digest(),
    }
    text = {name: value.hex() if isinstance(value, bytes) else value for name, value in vector.items()}
    with open("pairing.json", "w", encoding="ascii") as file:
        json.dump(text, file, indent=1)
        file.write("\n")


main()
