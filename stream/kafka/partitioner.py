"""Kafka's default partitioner: the partition of a key."""

from aiokafka.partitioner import murmur2


def partition_of(key: bytes, n_partitions: int) -> int:
    """Return the partition of a key: murmur2, as in the Java client.

    >>> [partition_of(sku, 4) for sku in (b"85123A", b"22423")]
    [0, 1]
    """
    return int(murmur2(key) & 0x7FFFFFFF) % n_partitions
