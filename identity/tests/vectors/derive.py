#!/usr/bin/env python3
"""Derives the test vectors of this folder from the specifications, sharing no code with the crate.

Run `python3 derive.py` here after `pip install cryptography blake3`; it rewrites the .json files. They are committed,
and the crate's tests read them; this script is for whoever changes a format or doubts a vector.
"""

import base64
import json
import struct

from blake3 import blake3
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
DOMAINS = {
    "ContentList": "ioex content list v2",
    "Token": "ioex token v1",
    "Certificate": "ioex certificate v1",
    "DhtRecord": "ioex dht record v1",
    "Receipt": "ioex receipt v1",
    "Envelope": "ioex envelope v1",
    "MailboxLogin": "ioex mailbox login v1",
    "Pairing": "ioex pairing v1",
}


def base58(data):
    number, text = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = ALPHABET[digit] + text
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + text


class Key:
    def __init__(self, seed):
        self.seed = seed
        self.private = Ed25519PrivateKey.from_private_bytes(seed)
        raw = serialization.Encoding.Raw, serialization.PublicFormat.Raw
        self.uid = self.private.public_key().public_bytes(*raw)

    def sign(self, domain, message):
        return self.private.sign(DOMAINS[domain].encode() + b"\0" + message)


def write(name, value):
    with open(name, "w", encoding="ascii") as file:
        json.dump(value, file, indent=1)
        file.write("\n")


# CBOR (RFC 8949), as much of it as tokens need. Maps are lists of pairs, so that wrong orders can be written, too.
def head(major, value):
    if value < 24:
        return bytes([major << 5 | value])
    for info, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if value < 1 << 8 * size:
            return bytes([major << 5 | info]) + value.to_bytes(size, "big")
    raise ValueError(value)


class Raw(bytes):
    """Bytes that are CBOR already."""


def cbor(value):
    if isinstance(value, Raw):
        return bytes(value)
    if isinstance(value, int):
        return head(0, value) if value >= 0 else head(1, -1 - value)
    if isinstance(value, bytes):
        return head(2, len(value)) + value
    if isinstance(value, str):
        return head(3, len(value)) + value.encode()
    if isinstance(value, tuple):
        return head(4, len(value)) + b"".join(cbor(item) for item in value)
    if isinstance(value, list):
        return head(5, len(value)) + b"".join(cbor(key) + cbor(item) for key, item in value)
    raise TypeError(value)


A, B, NODE = Key(bytes(range(32))), Key(bytes(range(32, 64))), Key(bytes(range(64, 96)))
RFC8032 = Key(bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"))
START, END = 1_800_000_000, 1_800_086_400
NOW = START + 3600
HASH = blake3(b"segment").digest()
LIST = blake3(b"list").digest()


def signing():
    keys = [{"seed": key.seed.hex(), "uid": key.uid.hex(), "uid_text": base58(key.uid)} for key in (A, B, NODE, RFC8032)]
    messages = [b"", b"abc", bytes(range(256))]
    signatures = [
        {"seed": A.seed.hex(), "domain": domain, "domain_string": text, "message": message.hex(),
         "signature": A.sign(domain, message).hex()}
        for domain, text in DOMAINS.items() for message in messages
    ]
    leading_zeros = bytes(3) + A.uid[3:]
    texts = [{"bytes": data.hex(), "text": base58(data)} for data in (leading_zeros, bytes(32), b"\xff" * 32)]
    write("signing.json", {"keys": keys, "uid_texts": texts, "signatures": signatures})


def address():
    cases = []
    for uid, nospam in ((A.uid, "00000000"), (A.uid, "deadbeef"), (B.uid, "01020304"), (bytes(32), "00000000")):
        body = uid + bytes.fromhex(nospam)
        whole = body + blake3(b"ioex address v1\0" + body).digest()[:2]
        cases.append({"uid": uid.hex(), "nospam": nospam, "bytes": whole.hex(), "text": base58(whole)})
    write("address.json", cases)


def sealed():
    cases = []
    for key, passphrase, cost in ((A, "correct horse battery staple", (64 << 10, 3, 4)), (B, "gr\u00fcn", (64, 1, 1))):
        salt = blake3(key.uid).digest()[:16]
        memory_kib, passes, lanes = cost
        kdf = Argon2id(salt=salt, length=32, iterations=passes, lanes=lanes, memory_cost=memory_kib)
        header = key.uid + struct.pack("<3I", *cost) + salt
        cipher = AESGCM(kdf.derive(passphrase.encode()))
        record = header + cipher.encrypt(bytes(12), key.seed, b"ioex sealed key v1\0" + header)
        cases.append({"seed": key.seed.hex(), "passphrase": passphrase, "memory_kib": memory_kib, "passes": passes,
                      "lanes": lanes, "salt": salt.hex(),
                      "text": "ioex-sealed-key-1:" + base64.urlsafe_b64encode(record).decode() + "\n"})
    write("sealed.json", cases)


def certificate():
    secret = ec.derive_private_key(0x1D0E, ec.SECP256R1())
    spki = secret.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    write("certificate.json", {
        "oid": "1.2.840.113556.1.8000.2554.45979.11319.23300.19180.40185.11313712.4882703",
        "seed": NODE.seed.hex(),
        "spki_der": spki.hex(),
        "extension_value": (b"\x04\x60" + NODE.uid + NODE.sign("Certificate", spki)).hex(),
    })


ISS, SUB, AUD, EXP, NBF, IAT, CTI = 1, 2, 3, 4, 5, 6, 7
ACTION, SCOPE, BYTES_MAX, LEASE_END = -65537, -65538, -65539, -65540
TOKEN_ID = bytes(range(0xA0, 0xB0))


def claims(**changes):
    values = {
        ISS: base58(A.uid), SUB: base58(B.uid), AUD: base58(NODE.uid), EXP: END, NBF: START, CTI: TOKEN_ID,
        ACTION: 1, SCOPE: (0,), BYTES_MAX: None, LEASE_END: None,
    }
    names = {"iss": ISS, "sub": SUB, "aud": AUD, "exp": EXP, "nbf": NBF, "cti": CTI, "action": ACTION, "scope": SCOPE,
             "bytes_max": BYTES_MAX, "lease_end": LEASE_END}
    values.update({names[name]: value for name, value in changes.items()})
    return [(label, value) for label, value in values.items() if value is not None]


def token(payload, protected=None, unprotected=None, external=b"ioex token v1\0", tag=b"\xd2", key=A, flip=False):
    protected = cbor([(1, -8)]) if protected is None else protected
    payload = bytes(payload) if isinstance(payload, bytes) else cbor(payload)
    signature = bytearray(key.private.sign(cbor(("Signature1", protected, external, payload))))
    signature[0] ^= flip
    return tag + cbor((protected, unprotected or [], payload, bytes(signature)))


def tokens():
    accepted = [
        ("any content", claims(), {"scope": "any"}),
        ("any content, bounded", claims(bytes_max=1 << 20), {"scope": "any", "bytes_max": 1 << 20}),
        ("one address", claims(scope=(1, HASH), bytes_max=23), {"scope": "hash", "address": HASH.hex(), "bytes_max": 23}),
        ("one list", claims(scope=(2, LIST), bytes_max=(1 << 64) - 1),
         {"scope": "list", "address": LIST.hex(), "bytes_max": (1 << 64) - 1}),
        ("one list, with a lease", claims(scope=(2, LIST), bytes_max=1 << 20, lease_end=END + 90 * 86400),
         {"scope": "list", "address": LIST.hex(), "bytes_max": 1 << 20, "lease_expires_s": END + 90 * 86400}),
        ("deletion of one address", claims(action=2, scope=(1, HASH)),
         {"action": "delete", "scope": "hash", "address": HASH.hex()}),
        ("deletion of one list", claims(action=2, scope=(2, LIST)),
         {"action": "delete", "scope": "list", "address": LIST.hex()}),
    ]
    whole = token(claims())
    signature_raw = A.private.sign(b"ioex token v1\0" + cbor(claims()))
    indefinite = Raw(b"\xbf" + b"".join(cbor(k) + cbor(v) for k, v in claims()) + b"\xff")
    refused = [
        ("empty", b"", "Length"),
        ("513 bytes", bytes(513), "Length"),
        ("arrays nested 512 deep", b"\x81" * 512, "NotCose"),
        ("a byte string said to have 2^63 bytes", b"\x5b\x7f" + b"\xff" * 7, "NotCose"),
        ("a byte behind it", whole + b"\0", "NotCose"),
        ("the last byte missing", whole[:-1], "NotCose"),
        ("without the tag", whole[1:], "NotCose"),
        ("tag 17, COSE_Mac0", token(claims(), tag=b"\xd1"), "NotCose"),
        ("CWT tag 61 around it", b"\xd8\x3d" + whole, "NotCose"),
        ("detached payload", b"\xd2" + cbor((cbor([(1, -8)]), [], Raw(b"\xf6"), bytes(64))), "NotCose"),
        ("algorithm ES256", token(claims(), protected=cbor([(1, -7)])), "Algorithm"),
        ("algorithm Ed25519 (-19)", token(claims(), protected=cbor([(1, -19)])), "Algorithm"),
        ("no algorithm", token(claims(), protected=b""), "Algorithm"),
        ("algorithm unprotected", token(claims(), protected=b"", unprotected=[(1, -8)]), "Algorithm"),
        ("a critical header", token(claims(), protected=cbor([(1, -8), (2, (-70001,)), (-70001, 1)])), "CriticalHeader"),
        ("the algorithm said to be critical", token(claims(), protected=cbor([(1, -8), (2, (1,))])), "CriticalHeader"),
        ("a key id", token(claims(), protected=cbor([(1, -8), (4, b"kid")])), "UnknownHeader"),
        ("a key id, unprotected", token(claims(), unprotected=[(4, b"kid")]), "UnknownHeader"),
        ("the payload is a text", token(cbor("claims")), "NotClaims"),
        ("a claim twice", token(cbor(claims() + [(BYTES_MAX, 1), (BYTES_MAX, 2)])), "NotClaims"),
        ("the issuer is no UID", token(claims(iss="node.example")), "Claim"),
        ("no subject", token(claims(sub=None)), "Claim"),
        ("a token id of 15 bytes", token(claims(cti=TOKEN_ID[:15])), "Claim"),
        ("a start before 1970", token(claims(nbf=-1)), "Claim"),
        ("an end with a fraction", token(claims(exp=Raw(b"\xfb\x41\xda\xd2\x74\x80\x20\x00\x00"))), "Claim"),
        ("action 3", token(claims(action=3)), "Claim"),
        ("deletion of any content", token(claims(action=2)), "Claim"),
        ("deletion with a lease", token(claims(action=2, scope=(1, HASH), lease_end=END)), "Claim"),
        ("a negative lease end", token(claims(lease_end=-1)), "Claim"),
        ("no action", token(claims(action=None)), "Claim"),
        ("no scope", token(claims(scope=None)), "Claim"),
        ("scope 3", token(claims(scope=(3, HASH))), "Claim"),
        ("any content, with an address", token(claims(scope=(0, HASH))), "Claim"),
        ("an address of 31 bytes", token(claims(scope=(1, HASH[:31]))), "Claim"),
        ("a negative bound", token(claims(bytes_max=-1)), "Claim"),
        ("a claim with a text label", token(cbor(claims() + [("note", 1)])), "Claim"),
        ("claim iat", token(cbor(claims()[:5] + [(IAT, START)] + claims()[5:])), "UnknownClaim"),
        ("private claim -65541", token(cbor(claims() + [(-65541, 1)])), "UnknownClaim"),
        ("a signature of 63 bytes", whole[:-66] + b"\x58\x3f" + whole[-63:], "SignatureLength"),
        ("a map of indefinite length", token(indefinite), "NotCanonical"),
        ("a number in more bytes than it needs", token(claims(action=Raw(b"\x18\x01"))), "NotCanonical"),
        ("claims out of order", token(cbor(claims()[1:2] + claims()[0:1] + claims()[2:])), "NotCanonical"),
        ("no lifetime", token(claims(exp=START)), "Lifetime"),
        ("it ends before it starts", token(claims(exp=START - 1)), "Lifetime"),
        ("it lives 31 days and a second", token(claims(exp=START + 31 * 86400 + 1)), "Lifetime"),
        ("it starts 61 s from now", token(claims(nbf=NOW + 61)), "NotYet"),
        ("it ended 60 s ago", token(claims(exp=NOW - 60)), "Expired"),
        ("for another node", token(claims(aud=base58(B.uid))), "OtherAudience"),
        ("of an issuer that is not trusted", token(claims(iss=base58(B.uid)), key=B), "UntrustedIssuer"),
        ("signed by another key", token(claims(), key=B), "Signature"),
        ("one bit of the signature flipped", token(claims(), flip=True), "Signature"),
        ("signed without the domain", token(claims(), external=b""), "Signature"),
        ("signed under another domain", token(claims(), external=b"ioex receipt v1\0"), "Signature"),
        ("signed as domain, zero, payload", whole[:-64] + signature_raw, "Signature"),
    ]
    write("token.json", {
        "issuer_seed": A.seed.hex(), "issuer": base58(A.uid), "subject": base58(B.uid), "audience": base58(NODE.uid),
        "not_before_s": START, "expires_s": END, "now_s": NOW, "token_id": TOKEN_ID.hex(),
        "accepted": [
            {"name": name, **expected, "token": token(values).hex(),
             "text": base64.urlsafe_b64encode(token(values)).rstrip(b"=").decode()}
            for name, values, expected in accepted
        ],
        "refused": [{"name": name, "error": error, "token": data.hex()} for name, data, error in refused],
    })


signing()
address()
sealed()
certificate()
tokens()
