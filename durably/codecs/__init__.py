"""Codecs around every stored value (rule V8): compression, encryption, and one after the other.

    runtime = Runtime("sqlite:///app.db", actors, codec=CodecChain(CompressionCodec(), AesGcmCodec(key)))

What a codec wraps, and what stays readable, says `durably.storage.payload_coding`.
"""

from durably.codecs.aes_gcm import AesGcmCodec as AesGcmCodec
from durably.codecs.chain import CodecChain as CodecChain
from durably.codecs.compression import CompressionCodec as CompressionCodec
from durably.storage.codec_marker import AcceptPlain as AcceptPlain
from durably.storage.payload_coding import Codec as Codec

__all__ = ["AcceptPlain", "AesGcmCodec", "Codec", "CodecChain", "CompressionCodec"]
