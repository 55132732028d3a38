"""Writes PNG pictures, still or moving, with nothing but zlib (PNG, third edition: APNG is part of it)."""

import struct
import zlib


def write_png(path: str, width: int, height: int, pixels: bytes) -> None:
    """Writes one picture of 8-bit RGB pixels, row by row."""
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        file.write(chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)))
        file.write(chunk(b"IDAT", packed(width, height, pixels)))
        file.write(chunk(b"IEND", b""))


def write_film(path: str, width: int, height: int, frames: list[bytes], milliseconds: int) -> None:
    """Writes an endless animation; programs that know no APNG show its first frame."""
    control = struct.pack(">IIIIHHBB", width, height, 0, 0, milliseconds, 1000, 0, 0)
    number = 0
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        file.write(chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)))
        file.write(chunk(b"acTL", struct.pack(">II", len(frames), 0)))
        for position, pixels in enumerate(frames):
            file.write(chunk(b"fcTL", struct.pack(">I", number) + control))
            number += 1
            data = packed(width, height, pixels)
            if position:
                data = struct.pack(">I", number) + data
                number += 1
            file.write(chunk(b"fdAT" if position else b"IDAT", data))
        file.write(chunk(b"IEND", b""))


def packed(width: int, height: int, pixels: bytes) -> bytes:
    """Compresses rows, each pixel as its difference to the one on the left (filter 1), which skies like."""
    rows = bytearray()
    for y in range(height):
        row = pixels[y * width * 3 : (y + 1) * width * 3]
        rows.append(1)
        rows += row[:3]
        rows += bytes((a - b) & 255 for a, b in zip(row[3:], row, strict=False))
    return zlib.compress(bytes(rows), 6)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def write_ppm(path: str, width: int, height: int, pixels: bytes) -> None:
    with open(path, "wb") as file:
        file.write(b"P6\n%d %d\n255\n" % (width, height) + pixels)


def read_ppm(path: str) -> tuple[int, int, bytes]:
    with open(path, "rb") as file:
        file.readline()
        width, height = map(int, file.readline().split())
        file.readline()
        return width, height, file.read()
