import Base
import RecordFormat

/// What an answer promises.
package enum Durability: String, Sendable {
    /// The events are on disk.
    case synced
    /// The events are in the operating system's hands: they outlive this process, but not a power failure in the next
    /// moments. Readers see them once they are on disk.
    case relaxed
    /// Every in-sync replica of a cluster has the events; when they go to a disk is the brokers' own policy. What a log
    /// on Kafka answers where an embedded one would say `synced`.
    case replicated
}

/// Events to append as one: all of them or none, in this order.
package struct LogAppend: Sendable {
    package let principal: String
    /// A partition of nil is chosen by the event's key, or its id where it has none.
    package let events: [(topic: String, partition: Int?, event: NewEvent)]
    /// Told to come back when the log is saturated; otherwise the caller is one of ours and bounds itself.
    package let refusable: Bool
    package let durability: Durability
    /// Where the first event of this append for a partition must stand, as read before: optimistic concurrency. The
    /// second one must stand one behind it, and so on; an event that is in the log already is no conflict.
    package let expected: [TopicPartition: Int64]

    package init(
        principal: String, events: [(topic: String, partition: Int?, event: NewEvent)], refusable: Bool = false,
        durability: Durability = .synced, expected: [TopicPartition: Int64] = [:]
    ) {
        self.principal = principal
        self.events = events
        self.refusable = refusable
        self.durability = durability
        self.expected = expected
    }
}

extension LogAppend {
    /// Bytes of everything but the data.
    private static func attributeBytes(_ event: NewEvent) -> Int {
        var bytes = event.id.utf8.count + event.source.utf8.count + event.type.utf8.count + (event.key?.count ?? 0)
        bytes += (event.subject?.utf8.count ?? 0) + (event.contentType?.utf8.count ?? 0)
        bytes += (event.causation?.utf8.count ?? 0) + (event.correlation?.utf8.count ?? 0)
        for (name, value) in event.extensions { bytes += name.utf8.count + value.utf8.count }
        return bytes
    }

    /// What every log asks of an append before it looks at its topics.
    /// - Parameter maximumSize: bytes of all events together.
    package func check(maximumSize: Int) throws(EventLogError) {
        var total = 0
        // By index: an event that is taken out of its array is copied, with everything it holds on to.
        for index in events.indices {
            let size = events[index].event.data?.count ?? 0
            guard size <= Limits.eventData else {
                throw EventLogError(
                    "event-too-large",
                    "an event of '\(events[index].topic)' has \(size) bytes of data; at most \(Limits.eventData) are taken"
                )
            }
            guard !events[index].event.id.isEmpty, events[index].event.id.utf8.count <= Limits.nameLength else {
                throw EventLogError(
                    "bad-id",
                    "an event of '\(events[index].topic)' needs an id of 1 to \(Limits.nameLength) bytes, not '\(events[index].event.id.prefix(40))'"
                )
            }
            total += size + LogAppend.attributeBytes(events[index].event) + 256
        }
        guard !events.isEmpty, events.count <= Limits.appendEvents, principal.utf8.count <= Limits.nameLength,
            total <= maximumSize
        else {
            throw EventLogError(
                "append-too-large",
                "one append takes 1 to \(Limits.appendEvents) events, at most \(maximumSize) bytes and a principal of at most \(Limits.nameLength); this one has \(events.count) events and \(total) bytes"
            )
        }
    }
}

/// One batch of records for one partition.
package struct BatchAppend: Sendable {
    package let principal: String
    package let partition: TopicPartition
    private let records: Records
    package let durability: Durability
    package let expectedOffset: Int64?
    /// Told to come back when the log is saturated.
    package let refusable: Bool

    /// A log that keeps batches as they are takes them encoded; one that hands records on would only undo that.
    private enum Records: Sendable {
        /// With the stamp of its producer, if it has one.
        case encoded(EncodedBatch)
        case collected(RecordBatchBuilder)
    }

    package init(
        principal: String, partition: TopicPartition, batch: EncodedBatch, durability: Durability = .synced,
        expectedOffset: Int64? = nil, refusable: Bool = false
    ) {
        self.principal = principal
        self.partition = partition
        records = .encoded(batch)
        self.durability = durability
        self.expectedOffset = expectedOffset
        self.refusable = refusable
    }

    /// Records that the log encodes as it needs them.
    package init(principal: String, partition: TopicPartition, records: RecordBatchBuilder, refusable: Bool = false) {
        self.principal = principal
        self.partition = partition
        self.records = .collected(records)
        durability = .synced
        expectedOffset = nil
        self.refusable = refusable
    }

    package var count: Int {
        switch records {
        case .encoded(let batch): batch.count
        case .collected(let builder): builder.count
        }
    }

    /// Bytes of the records before compression.
    package var recordBytes: Int {
        switch records {
        case .encoded(let batch): batch.recordBytes
        case .collected(let builder): builder.size
        }
    }

    /// None for records that nobody stamped.
    package var producer: ProducerStamp {
        if case .encoded(let batch) = records { batch.producer } else { .none }
    }

    /// As RecordBatch v2; encodes what is only collected, so ask once.
    package func encoded() -> EncodedBatch {
        switch records {
        case .encoded(let batch): batch
        case .collected(let builder): builder.finish()
        }
    }

    /// Records that were only collected; nil where they came encoded.
    package var collected: RecordBatchBuilder? {
        if case .collected(let builder) = records { builder } else { nil }
    }

    /// As its reader will see it.
    package func decoded() throws(RecordFormatError) -> RecordBatch {
        switch records {
        case .encoded(let batch): try RecordBatch(batch)
        case .collected(let builder): try RecordBatch(builder)
        }
    }
}

/// What became of one event of an append.
package struct EventReceipt: Sendable {
    package let position: Position
    /// The id was already in the topic; `position` is where it stands since then.
    package let duplicate: Bool

    package init(position: Position, duplicate: Bool) {
        self.position = position
        self.duplicate = duplicate
    }
}

/// The answer to an append.
package struct AppendReceipt: Sendable {
    package let events: [EventReceipt]
    package let durability: Durability

    package init(events: [EventReceipt], durability: Durability) {
        self.events = events
        self.durability = durability
    }
}

/// The answer to a batch.
package struct BatchReceipt: Sendable {
    /// Of the first record; the others follow it, on a shared log perhaps with foreign ones in between.
    package let position: Position
    package let count: Int
    /// The producer sent this batch before.
    package let duplicate: Bool
    package let durability: Durability

    package init(position: Position, count: Int, duplicate: Bool, durability: Durability) {
        self.position = position
        self.count = count
        self.duplicate = duplicate
        self.durability = durability
    }
}

/// Cause of an `offset-conflict`: somebody else wrote first.
package struct OffsetConflict: Error, Sendable {
    package let partition: TopicPartition
    package let expected: Int64
    package let actual: Int64
}

/// What a producer stamps its batches with.
package struct ProducerIdentity: Sendable, Equatable {
    package let id: Int64
    package let epoch: Int16
}
