#!/usr/bin/env python3
"""Derives the test vectors of this folder from the format pages, sharing no code with the crate.

Run `python3 derive.py` here after `pip install cryptography blake3`; it rewrites the .hex files. They are committed, and
the crate's tests read them; this script is for whoever changes a format or doubts a vector.
"""

import struct

from blake3 import blake3
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


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


def content_list():
    private = Ed25519PrivateKey.from_private_bytes(bytes([7]) * 32)
    raw = serialization.Encoding.Raw, serialization.PublicFormat.Raw
    publisher = private.public_key().public_bytes(*raw)
    name, target = b"firmware-a7.img", b"router-a7"
    segments = [(b"first", 1 << 20), (b"second", 1 << 20), (b"third", 1000)]
    entries, offset = b"", 0
    for content, length in segments:
        entries += struct.pack("<32sQII", blake3(content).digest(), offset, length, length)
        offset += length
    tail = pad(name, 8) + pad(target, 8) + entries
    header = struct.pack(
        "<8sHHIQ32sQQIIIIQ32sIIHHHHHHHHII16s80x",
        b"IOEXLIST", 1, 1, 256, 256 + len(tail) + 64, publisher, 7, 1893456000,
        1, 20, 3, 1 << 20, offset, blake3(b"the whole file").digest(), len(segments), 0,
        0, 0, 0, len(name), 0, 0, len(target), 0, 0, 0, bytes(16))
    assert len(header) == 256
    document = header + tail
    return document + private.sign(b"ioex content list v1\0" + document)


write("pack-v1.hex", "Pack 3 of the store `a store's own id`: one commit, sequence 9, of two short segments.", pack())
write("list-v1.hex", "A list of three segments, signed by the key of the seed 07 x 32.", content_list())
