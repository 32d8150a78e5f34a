import Base
import EventLog
import Foundation

/// How to reach a cluster and under what name to write to it.
package struct KafkaConfiguration: Sendable, CustomStringConvertible {
    /// `host:port`, several with commas.
    package var bootstrap: String
    /// Beginning of the transactional ids and the consumer group. Two nodes of one name fence each other.
    package var name = "headrace"
    /// librdkafka's own settings: TLS, SASL, timeouts. They may hold secrets, so they are never printed.
    package var settings: [(name: String, value: String)] = []
    /// Copies of a new topic's partitions; -1 leaves it to the brokers.
    package var replication = -1
    /// False where the cluster lets nobody create topics: then they must be there.
    package var createsTopics = true
    /// How long one call may wait for the brokers, in seconds.
    package var patience = 30.0
    /// Told once when the brokers do not answer for the first seconds of an opening, with what is known of the reason.
    package var announce: @Sendable (String) -> Void = { _ in }

    package init(bootstrap: String) { self.bootstrap = bootstrap }

    package var description: String { "Kafka at \(bootstrap) as '\(name)'" }

    /// Values that nobody must see, the longest first: those of settings that are named like secrets, and of those that may
    /// hold one among others.
    var secrets: [String] {
        let names = [
            "password", "passphrase", "secret", "key.pem", "oauthbearer.config", "jaas", "kinit.cmd", "sasl.username",
            "client.id",
        ]
        return settings.filter { setting in !setting.value.isEmpty && names.contains { setting.name.contains($0) } }
            .map(\.value).sorted { $0.utf8.count > $1.utf8.count }
    }

    /// What the log itself relies on; set otherwise, it would lose or double events.
    static let reserved: Set<String> = [
        "bootstrap.servers", "metadata.broker.list", "transactional.id", "enable.idempotence", "acks",
        "request.required.acks", "isolation.level", "check.crcs", "enable.auto.commit", "enable.auto.offset.store",
        "auto.offset.reset", "enable.partition.eof", "partitioner", "group.id", "partition.assignment.strategy",
        "max.in.flight", "max.in.flight.requests.per.connection", "plugin.library.paths",
        "queue.buffering.max.messages",
        "enable.gapless.guarantee", "test.mock.num.brokers", "delivery.report.only.error", "dr_cb", "dr_msg_cb",
        "opaque",
        "queue.buffering.max.kbytes",
    ]
    /// Settings of one file.
    static let limit = 200

    /// Reads `name=value` lines; empty lines and lines that begin with # are skipped. `headrace.name`,
    /// `headrace.replication` and `headrace.creates-topics` are ours, everything else is librdkafka's. No message shows a value.
    package mutating func read(file: String) throws(EventLogError) {
        guard let text = try? String(contentsOfFile: file, encoding: .utf8) else {
            throw EventLogError("bad-kafka-setting", "the Kafka settings in \(file) cannot be read")
        }
        for (index, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
            let line = line.trimmingCharacters(in: .whitespaces)
            guard !line.isEmpty, !line.hasPrefix("#") else { continue }
            let place = "\(file):\(index + 1)"
            guard let equals = line.firstIndex(of: "="), equals != line.startIndex else {
                throw EventLogError("bad-kafka-setting", "\(place): a setting is written name=value")
            }
            let name = line[..<equals].trimmingCharacters(in: .whitespaces)
            let value = line[line.index(after: equals)...].trimmingCharacters(in: .whitespaces)
            try set(name, value, place)
        }
    }

    private mutating func set(_ name: String, _ value: String, _ place: String) throws(EventLogError) {
        switch name {
        case "headrace.name":
            guard TopicName.isLegal(value) else {
                throw EventLogError(
                    "bad-kafka-setting", "\(place): headrace.name takes letters, digits, '.', '_' and '-'")
            }
            self.name = value
        case "headrace.replication":
            guard let number = Int(value), number == -1 || (1...100).contains(number) else {
                throw EventLogError("bad-kafka-setting", "\(place): headrace.replication is 1 to 100, or -1")
            }
            replication = number
        case "headrace.creates-topics":
            guard ["true", "false"].contains(value) else {
                throw EventLogError("bad-kafka-setting", "\(place): headrace.creates-topics is true or false")
            }
            createsTopics = value == "true"
        default:
            guard !KafkaConfiguration.reserved.contains(name) else {
                throw EventLogError(
                    "bad-kafka-setting",
                    "\(place): '\(name)' is set by Headrace itself, which relies on it; remove the line")
            }
            guard settings.count < KafkaConfiguration.limit else {
                throw EventLogError(
                    "bad-kafka-setting", "\(place): more than \(KafkaConfiguration.limit) settings")
            }
            settings.append((name, value))
        }
    }
}
