# SPDX-License-Identifier: Apache-2.0
"""The hashes of docs/FORMATS.md and zstd, from the system's libraries."""
import ctypes
import functools
import struct

xxhash = ctypes.CDLL("libxxhash.so.0")
zstd = ctypes.CDLL("libzstd.so.1")


class Hash128(ctypes.Structure):
    _fields_ = [("low", ctypes.c_uint64), ("high", ctypes.c_uint64)]


xxhash.XXH3_128bits.restype = Hash128
xxhash.XXH3_128bits.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
xxhash.XXH3_64bits.restype = ctypes.c_uint64
xxhash.XXH3_64bits.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
zstd.ZSTD_decompress.restype = ctypes.c_size_t
zstd.ZSTD_decompress.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t]

NO_CHAIN = bytes(16)


def hash128(data):
    value = xxhash.XXH3_128bits(data, len(data))
    return struct.pack(">QQ", value.high, value.low)


def hash64(data):
    return xxhash.XXH3_64bits(data, len(data))


def decompress(data, size):
    plain = ctypes.create_string_buffer(size)
    return plain.raw if zstd.ZSTD_decompress(plain, size, data, len(data)) == size else None


def digest(vid, base, page_count, cut, writes):
    """`writes`: {page: (size, hash)}."""
    fields = [vid, struct.pack("<QIIQ", base, page_count, cut, len(writes))]
    for page, (size, content) in sorted(writes.items()):
        fields.append(struct.pack("<II", page, size) + content)
    return hash128(b"".join(fields))


def chain(before, vid, lsn, token, content, page_count):
    return hash128(before + vid + struct.pack("<Q", lsn) + token + content + struct.pack("<I", page_count))


def fork_token(origin, lsn, chained, fork, at):
    """Of the commit `at` by which a fork of `origin` begins."""
    return hash128(b"GRFTFORK" + origin + struct.pack("<Q", lsn) + chained + fork + struct.pack("<Q", at))


def fork_digest(references):
    """`references`: (SID, owner, page set as it is encoded) of each."""
    return hash128(b"".join(sid + owner + hash128(pages) for sid, owner, pages in references))


@functools.lru_cache(maxsize=None)
def blank(size):
    """The content of a page that was never written, as it reads."""
    return size, hash128(bytes(size))
