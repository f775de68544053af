#!/usr/bin/env python3
"""Derives the test vectors of this folder from the format pages, sharing no code with the crate.

Run `python3 derive.py` here after `pip install cryptography blake3`; it rewrites the .hex files. They are committed, and
the crate's tests read them; this script is for whoever changes a format or doubts a vector.
"""

import hmac
import struct

from blake3 import blake3
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand


def pad(data, multiple):
    return data + bytes(-len(data) % multiple)


def write(name, comment, data):
    """Hex, 32 bytes a line; runs of zero lines are written as `.. 0xOFFSET`."""
    lines, skipping = [f"# {comment}"], False
    for at in range(0, len(data), 32):
        line = data[at:at + 32]
        if not any(line) and at + 32 < len(data):
            skipping = True
            continue
        if skipping:
            lines.append(f".. 0x{at:x}")
            skipping = False
        lines.append(line.hex())
    with open(name, "w", encoding="ascii") as file:
        file.write("\n".join(lines) + "\n")


def pack():
    store_id, number, sequence = b"a store's own id", 3, 9
    key = blake3(store_id + struct.pack("<I", number), derive_key_context="ioex pack v1 header checksum").digest()

    def sealed(offset, header):
        assert len(header) == 56
        return header + blake3(struct.pack("<Q", offset) + header, key=key).digest()[:8]

    page = pad(sealed(0, struct.pack("<8sHHI16sI20x", b"IOEXPACK", 1, 0, 4096, store_id, number)), 4096)
    payloads = [b"hello", b"a second segment"]
    commit = sealed(4096, struct.pack("<4sHHQQII16s8x", b"IOXC", 1, 0, sequence, 4096, len(payloads), number, store_id))
    offset, body = 4096 + 64 * (1 + len(payloads)), b""
    for i, payload in enumerate(payloads):
        header = struct.pack(
            "<4sHHQII32s", b"IOXR", 1, 0, offset + len(body), len(payload), sequence, blake3(payload).digest())
        commit += sealed(4096 + 64 * (1 + i), header)
        body = pad(body + payload, 8)
    return page + pad(commit + body, 4096)


HPKE_INFO = b"ioex file key v1"


def raw_public(private):
    return private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def hpke_seal(private_e, public_r, info, aad, plain, aead_id=2, key_len=32):
    """RFC 9180, base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-GCM; the ephemeral key is given."""
    def extract(suite, salt, label, ikm):
        return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + ikm, "sha256")

    def expand(suite, prk, label, more, length):
        labeled = struct.pack(">H", length) + b"HPKE-v1" + suite + label + more
        return HKDFExpand(hashes.SHA256(), length, labeled).derive(prk)

    kem = b"KEM" + struct.pack(">H", 0x20)
    enc = raw_public(private_e)
    dh = private_e.exchange(X25519PublicKey.from_public_bytes(public_r))
    shared = expand(kem, extract(kem, b"", b"eae_prk", dh), b"shared_secret", enc + public_r, 32)
    suite = b"HPKE" + struct.pack(">HHH", 0x20, 1, aead_id)
    context = b"\0" + extract(suite, b"", b"psk_id_hash", b"") + extract(suite, b"", b"info_hash", info)
    secret = extract(suite, shared, b"secret", b"")
    key = expand(suite, secret, b"key", context, key_len)
    nonce = expand(suite, secret, b"base_nonce", context, 12)
    return enc, AESGCM(key).encrypt(nonce, plain, aad)


def hpke_is_the_rfcs():
    """RFC 9180 appendix A.1.1.1, the first encryption."""
    private_e = "52c4a758a802cd8b936eceea314432798d5baf2d7e9235dc084ab1b9cfa2f736"
    public_r = "3948cfe0ad1ddb695d780e59077195da6c56506b027329794ab02bca80815c4d"
    enc, sealed = hpke_seal(
        X25519PrivateKey.from_private_bytes(bytes.fromhex(private_e)), bytes.fromhex(public_r),
        b"Ode on a Grecian Urn", b"Count-0", b"Beauty is truth, truth beauty", aead_id=1, key_len=16)
    assert enc.hex() == "37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431"
    assert sealed.hex() == (
        "f938558b5d72f1a23810b4be2ab4f84331acc02fc97babc53a52ae8218a355a96d8770ac83d07bea87e13c512a")


def x25519_of(uid):
    """RFC 7748 section 4.1: u = (1 + y) / (1 - y)."""
    p = 2**255 - 19
    y = int.from_bytes(uid, "little") & (2**255 - 1)
    return ((1 + y) * pow(1 - y, -1, p) % p).to_bytes(32, "little")


def signed(private, header, tail):
    assert len(header) == 256
    document = header + tail
    return document + private.sign(b"ioex content list v2\0" + blake3(document).digest())


def entry(content, offset, stored_len, plain_len):
    return struct.pack("<32sQII", blake3(content).digest(), offset, stored_len, plain_len)


HEADER = "<8sHHIQ32sQQIIIIQ32sIIHHHHHHHHII16s16s32sIIHH20x"


def content_list():
    private = Ed25519PrivateKey.from_private_bytes(bytes([7]) * 32)
    publisher = raw_public(private)
    name, target = b"firmware-a7.img", b"router-a7"
    segments = [(b"first", 1 << 20), (b"second", 1 << 20), (b"third", 1000)]
    entries, offset = b"", 0
    for content, length in segments:
        entries += entry(content, offset, length, length)
        offset += length
    tail = pad(name, 8) + pad(target, 8) + entries
    header = struct.pack(
        HEADER, b"IOEXLIST", 2, 1, 256, 256 + len(tail) + 64, publisher, 7, 1893456000,
        1, 20, 3, 1 << 20, offset, blake3(b"the whole file").digest(), len(segments), 0,
        0, 0, 0, len(name), 0, 0, len(target), 0, 0, 0, bytes(16), bytes(16), bytes(32), 0, 0, 0, 0)
    return signed(private, header, tail)


def private_list():
    """Five segments, chunked by content, compressed, encrypted for two readers, 2+2, with outboards and plain hashes."""
    private = Ed25519PrivateKey.from_private_bytes(bytes([7]) * 32)
    publisher = raw_public(private)
    key, file_id = bytes([0x42]) * 32, b"the file's own id"[:16]
    name = b"private.img"
    keys = []
    for seed, ephemeral in ((9, 19), (8, 18)):
        receiver = raw_public(Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32))
        private_e = X25519PrivateKey.from_private_bytes(bytes([ephemeral]) * 32)
        enc, sealed = hpke_seal(private_e, x25519_of(receiver), HPKE_INFO, file_id + publisher, key)
        keys.append(receiver + enc + sealed)
    key_material = b"".join(sorted(keys))
    data = [(100_016, 100_000), (70_001, 90_000), (65_552, 65_536), (200_000, 250_000), (33, 40)]
    entries, offset = b"", 0
    for i, (stored_len, plain_len) in enumerate(data):
        entries += entry(b"data %d" % i, offset, stored_len, plain_len)
        offset += plain_len
    parity = [100_016, 100_016, 200_000, 200_000, 34, 34]
    for i, length in enumerate(parity):
        entries += entry(b"parity %d" % i, 0, length, 0)
    lengths = [stored_len for stored_len, _ in data] + parity
    outboards_len = sum(64 * (-(-length // 65536) - 1) for length in lengths)
    entries += entry(b"outboards", 0, outboards_len, 0)

    def seal(index, plain):
        return AESGCM(key).encrypt(bytes(4) + struct.pack(">Q", index), plain, file_id)

    sealed_hash = seal(2**64 - 1, blake3(b"the whole file").digest())
    plain_hashes = seal(2**64 - 2, b"".join(blake3(b"plain %d" % i).digest() for i in range(len(data))))
    tail = pad(name, 8) + key_material + entries
    header = struct.pack(
        HEADER, b"IOEXLIST", 2, 3, 256, 256 + len(tail) + 64, publisher, 8, 0,
        2, 0, 0, 0, offset, sealed_hash[:32], len(data), len(parity),
        1, 1, 2, len(name), 2, 2, 0, 2, len(key_material), 1, file_id, sealed_hash[32:],
        blake3(plain_hashes).digest(), len(plain_hashes), 65536, 1, 6)
    return signed(private, header, tail)


hpke_is_the_rfcs()
write("pack-v1.hex", "Pack 3 of the store `a store's own id`: one commit, sequence 9, of two short segments.", pack())
write("list-v2.hex", "A list of three segments, signed by the key of the seed 07 x 32.", content_list())
write("list-v2-private.hex", "A list of five segments for the readers of the seeds 08 x 32 and 09 x 32.", private_list())
