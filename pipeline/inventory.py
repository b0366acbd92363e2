"""The topics as they are on the broker, compared with what they should be."""

from pipeline import topics
from pipeline.config import Settings


def examine(settings: Settings) -> list[topics.Problem]:
    """Return what is wrong with the topics.

    Raises:
        KafkaError: Kafka is out of reach.
    """
    from pipeline.kafka import Topics

    wanted = topics.plan(settings.kafka)
    admin = Topics(settings.kafka)
    try:
        there = admin.names() & {topic.name for topic in wanted}
        # The embedded broker knows no settings of topics.
        options = admin.options(there) if settings.kafka.transactions else None
        partitions = admin.partitions(there)
    finally:
        admin.close()
    found = topics.problems(wanted, partitions=partitions, options=options or {})
    return found if options is not None else [p for p in found if p.topic not in there]
