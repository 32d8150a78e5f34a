"""What a cluster does or shows that librdkafka's client does not ask for.

  remove-member BROKER GROUP CLIENT   takes a silent member out of its group, as its session's end does elsewhere
  count BROKER TOPIC                  the records of a topic, those of aborted transactions too
"""

import sys
import time

from kafka import KafkaConsumer, TopicPartition
from kafka.admin import KafkaAdminClient, MemberToRemove


def remove_member(broker, group, client):
    admin = KafkaAdminClient(bootstrap_servers=broker)
    members = [
        MemberToRemove(member_id=member["member_id"])
        for member in admin.describe_groups([group])[group]["members"]
        if member["client_id"] == client
    ]
    admin.remove_group_members(group, members)
    admin.close()
    print(len(members))


def count(broker, topic):
    consumer = KafkaConsumer(bootstrap_servers=broker, isolation_level="read_uncommitted", enable_auto_commit=False)
    partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)]
    ends = consumer.end_offsets(partitions)
    consumer.assign(partitions)
    consumer.seek_to_beginning(*partitions)
    found = 0
    deadline = time.monotonic() + 30
    while any(consumer.position(partition) < ends[partition] for partition in partitions):
        if time.monotonic() > deadline:
            sys.exit("not read to the end")
        found += sum(len(records) for records in consumer.poll(timeout_ms=200).values())
    consumer.close()
    print(found)


{"remove-member": remove_member, "count": count}[sys.argv[1]](*sys.argv[2:])
