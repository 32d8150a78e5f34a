import Base
import EventLog
import KafkaLog

extension LogReport {
    /// What a log on Kafka holds and how its clients fare; no settings, so no secrets.
    static func inspection(_ log: KafkaLog) throws -> JSON {
        var partitions: [JSON] = []
        for layout in log.topics {
            for number in 0..<layout.partitions {
                let place = TopicPartition(layout.name, number)
                let offsets = try log.offsets(place)
                partitions.append(
                    .object([
                        "partition": .string(place.description),
                        "offsets": .array([.int(offsets.lowerBound), .int(offsets.upperBound)]),
                    ]))
            }
        }
        return .object([
            "kafka": .string(log.configuration.bootstrap), "cluster": .string(log.clusterID),
            "events": .int(Int64(log.eventCount)), "partitions": .array(partitions), "drift": drift(log),
            "lag": .object(
                Dictionary(uniqueKeysWithValues: log.lag.map { ("\($0.group) \($0.partition)", .int($0.records)) })),
            "clients": .array(
                log.clientReports.map { client in
                    .object([
                        "name": .string(client.name), "queued": .int(client.statistics.queuedMessages),
                        "sent": .int(client.statistics.sentMessages),
                        "received": .int(client.statistics.receivedMessages),
                        "errors": .object(client.errors.mapValues { .int(Int64($0)) }),
                        "messages": .array(client.messages.map { .string($0) }),
                    ])
                }),
        ])
    }

    static func drift(_ log: KafkaLog) -> JSON {
        .array(
            log.drift.map {
                .object([
                    "topic": .string($0.topic), "setting": .string($0.setting), "declared": .string($0.declared),
                    "actual": .string($0.actual),
                ])
            })
    }
}

extension KafkaLog {
    /// One line of Prometheus' text format a value: name, help, samples.
    package func metrics() -> [(name: String, kind: String, help: String, samples: [(String, Double)])] {
        let clients = clientReports
        var errors: [String: Int] = ["retriable": 0, "abort": 0, "fatal": 0, "refused": 0]
        for client in clients { errors.merge(client.errors) { $0 + $1 } }
        let done = transactions
        return [
            (
                "headrace_kafka_up", "gauge", "1 while the brokers answer.", [("", outage == nil ? 1 : 0)]
            ),
            (
                "headrace_kafka_lag", "gauge", "Records between the fold's committed offset and the end.",
                lag.map {
                    (
                        "{group=\"\($0.group)\",topic=\"\($0.partition.topic)\",partition=\"\($0.partition.partition)\"}",
                        Double($0.records)
                    )
                }
            ),
            (
                "headrace_kafka_queue_messages", "gauge", "Messages that wait in a client.",
                clients.map { ("{client=\"\($0.name)\"}", Double($0.statistics.queuedMessages)) }
            ),
            (
                "headrace_kafka_sent_messages_total", "counter", "Messages that a client sent.",
                clients.map { ("{client=\"\($0.name)\"}", Double($0.statistics.sentMessages)) }
            ),
            (
                "headrace_kafka_received_messages_total", "counter", "Messages that a client received.",
                clients.map { ("{client=\"\($0.name)\"}", Double($0.statistics.receivedMessages)) }
            ),
            (
                "headrace_kafka_broker_rtt_seconds", "gauge", "Round trip to a broker, averaged over five seconds.",
                clients.flatMap { client in
                    client.statistics.brokers.map {
                        ("{client=\"\(client.name)\",broker=\"\($0.name)\"}", $0.roundTrip)
                    }
                }
            ),
            (
                "headrace_kafka_errors_total", "counter",
                "Errors that clients reported, by what may be done about them.",
                errors.sorted { $0.key < $1.key }.map { ("{kind=\"\($0.key)\"}", Double($0.value)) }
            ),
            (
                "headrace_kafka_transactions_total", "counter", "Transactions of appends.",
                [("{result=\"committed\"}", Double(done.committed)), ("{result=\"repeated\"}", Double(done.repeated))]
            ),
            (
                "headrace_kafka_topic_drift", "gauge", "1 where a topic is not what its declaration says.",
                drift.map { ("{topic=\"\($0.topic)\",setting=\"\($0.setting)\"}", 1) }
            ),
        ]
    }
}
