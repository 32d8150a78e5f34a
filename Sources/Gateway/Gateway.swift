import Base
import Catalog
import EventLog
import Privacy
import RecordFormat

package enum GatewayModule {}
/// Refusals of events. Codes: `unknown-topic`, `reserved-topic`, `bad-json`, `schema-violation`, `future-timestamp`,
/// `event-too-large`, `bad-id`, `no-subject`, `reserved-attribute`, `reserved-member`.
package typealias GatewayError = Failure<GatewayModule>

/// What became of one event that was offered.
package enum GatewayVerdict: Sendable {
    /// Where it stands, and what that promises.
    case accepted(EventReceipt, Durability)
    case refused(GatewayError)
}

/// The one way in for events from outside: checks each against its topic's declaration, seals what is personal, appends
/// what passes, and puts what does not into the dead-letter topic with its raw bytes and the reason.
package final class Gateway: Sendable {
    package static let deadLetterTopic = "headrace.dead-letters"

    let log: any EventLog
    private let topics: Monitor<[String: TopicDefinition]>
    /// Topics that only the platform itself writes.
    private let reserved: Monitor<Set<String>>
    let clock: @Sendable () -> Instant
    /// Keys of the people that personal fields speak of.
    let keys: KeyStore
    let feeds = Monitor(GatewayFeed())

    package init(log: any EventLog, keys: KeyStore, clock: @escaping @Sendable () -> Instant) {
        self.log = log
        self.keys = keys
        self.clock = clock
        topics = Monitor([:])
        reserved = Monitor([])
    }

    package func declare(_ topic: TopicDefinition, reserved isReserved: Bool) throws(EventLogError) {
        let deduplication: Deduplication =
            switch topic.deduplicationTime {
            case nil: .forever
            case 0: .never
            case let time?: .milliseconds(time)
            }
        try log.declare(
            TopicLayout(
                name: topic.name, partitions: topic.partitions,
                retention: Retention(milliseconds: topic.retentionTime, bytes: topic.retentionBytes),
                isCompacted: topic.compacted, tombstoneRetention: topic.tombstoneTime, deduplication: deduplication))
        topics.withLock { $0[topic.name] = topic }
        if isReserved { reserved.withLock { _ = $0.insert(topic.name) } }
    }

    package func topic(_ name: String) -> TopicDefinition? { topics.withLock { $0[name] } }
    package var allTopics: [TopicDefinition] { topics.withLock { $0.values.sorted { $0.name < $1.name } } }
    var hasPersonalTopics: Bool { topics.withLock { $0.values.contains { $0.personal != nil } } }
    package func isReserved(_ name: String) -> Bool { reserved.withLock { $0.contains(name) } }

    /// A checker with its own working memory, for one thread.
    package final class Checker {
        private let gateway: Gateway
        private let document = JSONDocument()
        private var known: [String: TopicDefinition] = [:]

        init(_ gateway: Gateway) { self.gateway = gateway }

        /// nil when the event may be appended.
        /// - Parameter history: event times of imported history are not held against the clock.
        package func check(
            topic name: String, _ event: NewEvent, history: Bool = false, internal isInternal: Bool = false
        ) -> GatewayError? {
            if known[name] == nil { known[name] = gateway.topic(name) }
            guard let topic = known[name] else {
                return GatewayError(
                    "unknown-topic", "there is no topic '\(name)'; declare it in a workspace and apply that")
            }
            if !isInternal, gateway.isReserved(name) {
                return GatewayError(
                    "reserved-topic",
                    "the topic '\(name)' is written by the platform itself; publish to one of your own")
            }
            if !isInternal, !history, gateway.isClaimed(name) {
                return GatewayError(
                    "fed-by-connector",
                    "the topic '\(name)' belongs to a connector until it has finished; publish then, or to another topic"
                )
            }
            if !isInternal, !history, event.type.hasPrefix("source.") {
                return GatewayError(
                    "reserved-type",
                    "events of type '\(event.type)' are written by sources themselves; choose another type")
            }
            if !isInternal, event.extensions.contains(where: { $0.name == EventHeader.keyID }) {
                return GatewayError(
                    "reserved-attribute", "the attribute 'keyid' is written by the platform itself; choose another name"
                )
            }
            for text in [event.type, event.source, event.subject ?? "", event.causation ?? "", event.correlation ?? ""]
            where text.utf8.count > Limits.attributeLength {
                return GatewayError(
                    "bad-event",
                    "an attribute of an event may have \(Limits.attributeLength) bytes, one has \(text.utf8.count)")
            }
            guard event.id.utf8.count <= Limits.nameLength, event.id.utf8.contains(where: { $0 != 0x20 }),
                event.id.utf8.allSatisfy({ $0 >= 0x20 && $0 != 0x7F })
            else {
                return GatewayError(
                    "bad-id",
                    "an event needs a printable id of 1 to \(Limits.nameLength) bytes, not '\(event.id.prefix(40))'")
            }
            if topic.compacted, event.key == nil {
                return GatewayError(
                    "key-required",
                    "the topic '\(name)' keeps the newest event of each key, so the event '\(event.id)' needs a partitionkey"
                )
            }
            if !history, event.time - gateway.clock() > Limits.futureSkew {
                return GatewayError(
                    "future-timestamp",
                    "the event '\(event.id)' is dated \(event.time), more than \(Limits.futureSkew / 1000) s ahead of the clock"
                )
            }
            guard let data = event.data else {
                return topic.compacted
                    ? nil
                    : GatewayError(
                        "no-data", "the event '\(event.id)' has no data; only a compacted topic takes tombstones")
            }
            guard data.count <= Limits.eventData else {
                return GatewayError(
                    "event-too-large",
                    "the event '\(event.id)' has \(data.count) bytes of data; at most \(Limits.eventData) are taken")
            }
            do {
                try document.parse(data)
            } catch {
                return GatewayError("bad-json", "the data of the event '\(event.id)' is not JSON: \(error.message)")
            }
            if let key = document.duplicateKey() {
                return GatewayError(
                    "bad-json", "the data of the event '\(event.id)' has the key '\(key)' twice in one object")
            }
            if let violation = topic.schema?.check(document) {
                return GatewayError(
                    "schema-violation",
                    "the data of the event '\(event.id)' does not fit the schema of '\(name)': \(violation)")
            }
            return topic.personal.flatMap { personal($0, topic, event) }
        }

        /// What a topic with personal fields asks beyond its schema.
        private func personal(_ fields: PersonalFields, _ topic: TopicDefinition, _ event: NewEvent) -> GatewayError? {
            if let name = SealedFields.reservedMember(in: document) {
                return GatewayError(
                    "reserved-member",
                    "the data of the event '\(event.id)' has a member '\(name)'; '\(topic.name)' keeps personal fields, and there such members say what was sealed and erased"
                )
            }
            guard SealedFields.has(fields.fields, in: document), gateway.subject(of: event, fields, document) == nil
            else { return nil }
            return GatewayError(
                "no-subject",
                "the event '\(event.id)' has personal fields, but \(fields.subject.map { "'\($0.source)'" } ?? "its attribute 'subject'") does not say whose; nobody could erase them"
            )
        }
    }

    package func checker() -> Checker { Checker(self) }

    /// Checks and appends. Verdicts come in the order of the events; the rest of a batch goes on without what is refused.
    package func publish(
        _ events: [(topic: String, event: NewEvent)], principal: String, durability: Durability = .synced
    ) async throws -> [GatewayVerdict] {
        let checker = checker()
        var refusals: [Int: GatewayError] = [:]
        var intake = Intake(self)
        for (index, (topic, event)) in events.enumerated() {
            if let refusal = checker.check(topic: topic, event) {
                refusals[index] = refusal
            } else {
                intake.accept(topic, event)
            }
        }
        let count = intake.count
        for index in refusals.keys.sorted() {
            if let refusal = refusals[index], (events[index].event.data?.count ?? 0) <= Limits.eventData {
                intake.refuse(events[index].topic, events[index].event, refusal)
            }
        }
        let progress = progress(with: intake.accepted(count))
        for (topic, partition, event) in progress { intake.add(topic, partition, event) }
        defer { if !progress.isEmpty { arrived() } }
        var receipt: AppendReceipt?
        if intake.count > 0 {
            let append = LogAppend(
                principal: principal, events: try intake.sealed(), refusable: true, durability: durability)
            receipt = try await log.appendAndWait(append)
        }
        var verdicts: [GatewayVerdict] = []
        var next = 0
        for index in events.indices {
            if let refusal = refusals[index] {
                verdicts.append(.refused(refusal))
            } else if let receipt {
                verdicts.append(.accepted(receipt.events[next], receipt.durability))
                next += 1
            }
        }
        precondition(next == count, "every accepted event has a receipt")
        return verdicts
    }
}
