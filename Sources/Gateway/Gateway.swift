import Base
import Catalog
import EventLog
import Privacy
import RecordFormat

package enum GatewayModule {}
/// Refusals of events. Codes: `unknown-topic`, `reserved-topic`, `fed-by-connector`, `reserved-type`, `reserved-attribute`,
/// `bad-event`, `bad-id`, `key-required`, `future-timestamp`, `no-data`, `event-too-large`, `bad-json`,
/// `schema-violation`, `bad-version`, `old-version`, `upcast-failed`, `reserved-member`, `no-subject`, `bad-subject`.
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
    /// The time at the gateway.
    package var now: Instant { clock() }
    /// Keys of the people that personal fields speak of.
    let keys: KeyStore
    let feeds = Monitor(GatewayFeed())
    private let checking = BlockingPool(name: "gateway-check", threads: 2, limit: Gateway.checkLimit)
    /// Requests that may wait to be checked.
    private static let checkLimit = 1024

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

    /// From now on only the platform writes there.
    package func reserve(_ topic: String) { reserved.withLock { _ = $0.insert(topic) } }

    package func topic(_ name: String) -> TopicDefinition? { topics.withLock { $0[name] } }
    package var allTopics: [TopicDefinition] { topics.withLock { $0.values.sorted { $0.name < $1.name } } }
    package var hasPersonalTopics: Bool { topics.withLock { $0.values.contains { $0.personal != nil } } }
    package func isReserved(_ name: String) -> Bool { reserved.withLock { $0.contains(name) } }

    /// A checker with its own working memory, for one thread and what it appends together.
    package final class Checker {
        private let gateway: Gateway
        private let document = JSONDocument()
        private var known: [String: TopicDefinition] = [:]

        init(_ gateway: Gateway) { self.gateway = gateway }

        /// A topic as it was when this checker first met it.
        func topic(_ name: String) -> TopicDefinition? {
            if known[name] == nil { known[name] = gateway.topic(name) }
            return known[name]
        }

        /// nil when the event may be appended.
        /// - Parameter history: event times of imported history are not held against the clock.
        package func check(
            topic name: String, _ event: NewEvent, history: Bool = false
        ) -> GatewayError? {
            guard let topic = topic(name) else {
                return GatewayError(
                    "unknown-topic", "there is no topic '\(name)'; declare it in a workspace and apply that")
            }
            if let refusal = reserved(name, event, history) ?? attributes(topic, event) { return refusal }
            if !history, event.time - gateway.clock() > Limits.futureSkew {
                return GatewayError(
                    "future-timestamp",
                    "the event '\(event.id)' is dated \(event.time), more than \(Limits.futureSkew / 1000) s ahead of the clock"
                )
            }
            return content(topic, event)
        }

        /// What the platform keeps for itself.
        private func reserved(_ name: String, _ event: NewEvent, _ history: Bool) -> GatewayError? {
            if gateway.isReserved(name) {
                return GatewayError(
                    "reserved-topic",
                    "the topic '\(name)' is written by the platform itself; publish to one of your own")
            }
            if !history, gateway.isClaimed(name) {
                return GatewayError(
                    "fed-by-connector",
                    "the topic '\(name)' belongs to a connector until it has finished; publish then, or to another topic"
                )
            }
            if event.type.hasPrefix("source.") {
                return GatewayError(
                    "reserved-type",
                    "events of type '\(event.type)' are written by sources themselves; choose another type")
            }
            if event.extensions.contains(where: { $0.name == EventHeader.keyID }) {
                return GatewayError(
                    "reserved-attribute", "the attribute 'keyid' is written by the platform itself; choose another name"
                )
            }
            return nil
        }

        private func attributes(_ topic: TopicDefinition, _ event: NewEvent) -> GatewayError? {
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
                    "the topic '\(topic.name)' keeps the newest event of each key, so the event '\(event.id)' needs a partitionkey"
                )
            }
            return nil
        }

        private func content(_ topic: TopicDefinition, _ event: NewEvent) -> GatewayError? {
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
            if let refusal = lift(topic, event) { return refusal }
            if let violation = topic.schema?.check(document) {
                return GatewayError(
                    "schema-violation",
                    "the data of the event '\(event.id)' does not fit the schema of '\(topic.name)': \(violation)")
            }
            return topic.personal.flatMap { personal($0, topic, event) }
        }

        /// Data of an earlier version is held against the schema as the newest would say it.
        private func lift(_ topic: TopicDefinition, _ event: NewEvent) -> GatewayError? {
            guard let stated = event.extensions.first(where: { $0.name == EventHeader.dataVersion })?.value else {
                return nil
            }
            // Without versions the attribute is whatever its publishers mean by it.
            let newest = topic.upcasting.version
            guard newest > 1 else { return nil }
            guard let version = Upcasting.version(stated), version <= newest else {
                return GatewayError(
                    "bad-version",
                    "the data of the event '\(event.id)' is of version '\(stated)'; '\(topic.name)' knows 1 to \(newest)"
                )
            }
            guard version < newest else { return nil }
            guard topic.personal == nil else {
                return GatewayError(
                    "old-version",
                    "the data of the event '\(event.id)' is of version \(version); '\(topic.name)' has personal fields, which are sealed where version \(newest) has them, so it takes that alone"
                )
            }
            do {
                try document.parse(
                    try topic.upcasting.lift(try document.value(), from: version, to: newest).canonical)
            } catch {
                return GatewayError(
                    "upcast-failed", "the event '\(event.id)': \((error as? any DescribedError)?.message ?? "\(error)")"
                )
            }
            return nil
        }

        /// What a topic with personal fields asks beyond its schema.
        private func personal(_ fields: PersonalFields, _ topic: TopicDefinition, _ event: NewEvent) -> GatewayError? {
            if let name = SealedFields.reservedMember(in: document) {
                return GatewayError(
                    "reserved-member",
                    "the data of the event '\(event.id)' has a member '\(name)'; '\(topic.name)' keeps personal fields, and there such members say what was sealed and erased"
                )
            }
            guard SealedFields.has(fields.fields, in: document) else { return nil }
            let size = SealedFields.sealedSize(fields.fields, in: document)
            guard size <= Limits.eventData else {
                return GatewayError(
                    "event-too-large",
                    "the event '\(event.id)' would have \(size) bytes of data with its personal fields sealed; at most \(Limits.eventData) are taken"
                )
            }
            if let subject = gateway.subject(of: event, fields, document) {
                guard subject.hasPrefix(Gateway.subject(ofTopic: "")) else { return nil }
                return GatewayError(
                    "bad-subject",
                    "the event '\(event.id)' names a person whose name begins with '\(Gateway.subject(ofTopic: ""))', which stands for the dead letters of a topic; choose another name"
                )
            }
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
        let bytes = events.reduce(0) { $0 + ($1.event.data?.count ?? 0) }
        // Sealing may wait for the disk and large data take long to check: neither is for Swift's own threads.
        let offer =
            bytes > Gateway.inlineBytes || hasPersonalTopics
            ? try await checking.run { try self.offer(events) } : try offer(events)
        var isThere = false
        defer { if offer.progress.newest != nil { arrived(offer.progress, isThere: isThere) } }
        var receipt: AppendReceipt?
        if !offer.entries.isEmpty {
            let append = LogAppend(
                principal: principal, events: offer.entries, refusable: true, durability: durability)
            receipt = try await log.appendAndWait(append)
            isThere = true
        }
        var verdicts: [GatewayVerdict] = []
        var next = 0
        for index in events.indices {
            if let refusal = offer.refusals[index] {
                verdicts.append(.refused(refusal))
            } else if let receipt {
                verdicts.append(.accepted(receipt.events[offer.places?[next] ?? next], receipt.durability))
                next += 1
            }
        }
        precondition(next == offer.accepted, "every accepted event has a receipt")
        return verdicts
    }

    /// Data up to so many bytes is checked at once, on the caller's thread.
    private static let inlineBytes = 64 << 10

    /// Events after their check, as they go into the log.
    private struct Offer: Sendable {
        var refusals: [Int: GatewayError] = [:]
        /// How many of the entries are events that were accepted; they come first.
        var accepted = 0
        /// Where each accepted event stands among the entries, where that is not their own order.
        var places: [Int]?
        var progress = GatewayProgress()
        var entries: [Intake.Entry] = []

        /// What is appended together stands in the order of its times: nothing of it is late for the rest.
        mutating func sort() {
            let times = entries[..<accepted].map(\.event.time)
            guard zip(times, times.dropFirst()).contains(where: { $0 > $1 }) else { return }
            let order = times.indices.sorted { (times[$0], $0) < (times[$1], $1) }
            let unsorted = entries
            var places = Array(repeating: 0, count: accepted)
            for (place, index) in order.enumerated() {
                entries[place] = unsorted[index]
                places[index] = place
            }
            self.places = places
        }
    }

    private func offer(_ events: [(topic: String, event: NewEvent)]) throws -> Offer {
        let checker = checker()
        var offer = Offer()
        var intake = Intake(self, checker)
        for (index, (topic, event)) in events.enumerated() {
            if let refusal = checker.check(topic: topic, event) {
                offer.refusals[index] = refusal
            } else {
                intake.accept(topic, event)
            }
        }
        offer.accepted = intake.count
        for index in offer.refusals.keys.sorted() {
            if let refusal = offer.refusals[index], (events[index].event.data?.count ?? 0) <= Limits.eventData {
                intake.refuse(events[index].topic, events[index].event, refusal)
            }
        }
        let accepted = intake.accepted(offer.accepted)
        offer.entries = try intake.sealed()
        offer.sort()
        offer.progress = progress(with: accepted)
        offer.entries += offer.progress.entries
        return offer
    }
}
