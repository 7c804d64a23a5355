"""Records that the driver's Python side cannot write: librdkafka itself, by ctypes (types of ``rdkafka.h``)."""

import ctypes
from ctypes import c_char_p, c_int, c_int32, c_size_t, c_void_p, create_string_buffer

from headrace.testing.kafka.native import find_librdkafka

PRODUCER = 0
TOPIC, PARTITION, VALUE, MESSAGE_FLAGS, HEADER = 1, 3, 4, 7, 9
COPY = 2


class Bytes(ctypes.Structure):
    _fields_ = [("mem", c_char_p), ("size", c_size_t)]


class Header(ctypes.Structure):
    _fields_ = [("name", c_char_p), ("value", c_char_p), ("size", ctypes.c_ssize_t)]


class Value(ctypes.Union):
    _fields_ = [
        ("text", c_char_p), ("number", c_int), ("partition", c_int32), ("mem", Bytes), ("header", Header),
        ("padding", ctypes.c_char * 64),
    ]  # fmt: skip


class Part(ctypes.Structure):
    """An rd_kafka_vu_t."""

    _fields_ = [("kind", c_int), ("u", Value)]


def write_header(bootstrap, topic, body, name, value):
    """Store a record in partition 0 with one header, whatever bytes its name has."""
    library = ctypes.CDLL(str(find_librdkafka()))
    for function, result, arguments in (
        (library.rd_kafka_conf_new, c_void_p, ()),
        (library.rd_kafka_conf_set, c_int, (c_void_p, c_char_p, c_char_p, c_char_p, c_size_t)),
        (library.rd_kafka_new, c_void_p, (c_int, c_void_p, c_char_p, c_size_t)),
        (library.rd_kafka_produceva, c_void_p, (c_void_p, ctypes.POINTER(Part), c_size_t)),
        (library.rd_kafka_flush, c_int, (c_void_p, c_int)),
        (library.rd_kafka_destroy, None, (c_void_p,)),
    ):
        function.restype, function.argtypes = result, arguments
    said = create_string_buffer(512)
    settings = library.rd_kafka_conf_new()
    for key, text in ((b"bootstrap.servers", bootstrap.encode()), (b"log_level", b"0")):
        assert library.rd_kafka_conf_set(settings, key, text, said, len(said)) == 0, said.value
    client = library.rd_kafka_new(PRODUCER, settings, said, len(said))
    assert client, said.value
    try:
        parts = (Part * 5)(
            Part(TOPIC, Value(text=topic.encode())),
            Part(PARTITION, Value(partition=0)),
            Part(VALUE, Value(mem=Bytes(body, len(body)))),
            Part(MESSAGE_FLAGS, Value(number=COPY)),
            Part(HEADER, Value(header=Header(name, value, len(value)))),
        )
        assert not library.rd_kafka_produceva(client, parts, len(parts))
        assert library.rd_kafka_flush(client, 20_000) == 0
    finally:
        library.rd_kafka_destroy(client)
