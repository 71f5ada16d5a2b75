"""The public algorithms that v1.md relies on: CRC-32C, XXH64, LZ4 blocks. Slow and obvious."""

from __future__ import annotations


def _crc32c_table() -> list[int]:
    table = []
    for entry in range(256):
        for _ in range(8):
            entry = (entry >> 1) ^ (0x82F63B78 if entry & 1 else 0)
        table.append(entry)
    return table


CRC32C_TABLE = _crc32c_table()


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ CRC32C_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def xxh64(data: bytes) -> int:
    """XXH64 with seed 0."""
    mask = 2**64 - 1
    p1, p2, p3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
    p4, p5 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5

    def rotate(x: int, n: int) -> int:
        return ((x << n) | (x >> (64 - n))) & mask

    def mix(lane: int, added: int) -> int:
        return rotate((lane + added * p2) & mask, 31) * p1 & mask

    def word(start: int) -> int:
        return int.from_bytes(data[start : start + 8], "little")

    at = 0
    if len(data) >= 32:
        lanes = [(p1 + p2) & mask, p2, 0, -p1 & mask]
        while at + 32 <= len(data):
            for i in range(4):
                lanes[i] = mix(lanes[i], word(at + 8 * i))
            at += 32
        turns = zip(lanes, (1, 7, 12, 18), strict=True)
        hashed = sum(rotate(lane, turn) for lane, turn in turns) & mask
        for lane in lanes:
            hashed = ((hashed ^ mix(0, lane)) * p1 + p4) & mask
    else:
        hashed = p5
    hashed = (hashed + len(data)) & mask
    while at + 8 <= len(data):
        hashed = (rotate(hashed ^ mix(0, word(at)), 27) * p1 + p4) & mask
        at += 8
    if at + 4 <= len(data):
        hashed = (
            rotate(hashed ^ (int.from_bytes(data[at : at + 4], "little") * p1 & mask), 23) * p2 + p3
        ) & mask
        at += 4
    for byte in data[at:]:
        hashed = rotate(hashed ^ (byte * p5 & mask), 11) * p1 & mask
    for shift, prime in ((33, p2), (29, p3), (32, 1)):
        hashed = ((hashed ^ (hashed >> shift)) * prime) & mask
    return hashed


def lz4_block(data: bytes, length: int) -> bytes:
    """What a raw LZ4 block decompresses to: exactly `length` bytes, or ValueError."""
    out = bytearray()
    at = 0

    def take(count: int) -> bytes:
        nonlocal at
        if at + count > len(data):
            raise ValueError("the LZ4 block ends too early")
        at += count
        return data[at - count : at]

    def extended(count: int) -> int:
        more = 255 if count == 15 else 0
        while more == 255:
            more = take(1)[0]
            count += more
        return count

    while True:
        token = take(1)[0]
        out += take(extended(token >> 4))  # literals
        if at == len(data):
            break
        distance = int.from_bytes(take(2), "little")
        if not 1 <= distance <= len(out):
            raise ValueError("an LZ4 match outside of what was decompressed")
        match = extended(token & 15) + 4
        if len(out) + match > length:
            raise ValueError(f"the LZ4 block gives more than {length} bytes")
        for _ in range(match):
            out.append(out[-distance])
    if len(out) != length:
        raise ValueError(f"the LZ4 block gives {len(out)} bytes, not {length}")
    return bytes(out)
