import Base
import RecordFormat

package enum EventLogModule {}
/// Errors of the log. Codes that callers act on: `unknown-topic`, `log-stopped`, `log-saturated`, `rot`, `locked`.
package typealias EventLogError = Failure<EventLogModule>

/// One partition of one topic.
package struct TopicPartition: Hashable, Sendable, Comparable, CustomStringConvertible {
    package let topic: String
    package let partition: Int

    package init(_ topic: String, _ partition: Int) {
        self.topic = topic
        self.partition = partition
    }

    package var description: String { "\(topic)/\(partition)" }

    package static func < (left: TopicPartition, right: TopicPartition) -> Bool {
        (left.topic, left.partition) < (right.topic, right.partition)
    }
}

/// Where an event stands. `sequence` is the log's global number; a backend without one gives nil.
package struct Position: Hashable, Sendable, CustomStringConvertible {
    package let topic: String
    package let partition: Int
    package let offset: Int64
    package let sequence: UInt64?

    package init(topic: String, partition: Int, offset: Int64, sequence: UInt64?) {
        self.topic = topic
        self.partition = partition
        self.offset = offset
        self.sequence = sequence
    }

    package var description: String { "\(topic)/\(partition)@\(offset)" }

    /// Reads `topic/partition@offset`.
    package init?(_ text: String) {
        guard let at = text.lastIndex(of: "@"), let slash = text[..<at].lastIndex(of: "/"),
            let partition = Int(text[text.index(after: slash)..<at]), let offset = Int64(text[text.index(after: at)...])
        else { return nil }
        self.init(topic: String(text[..<slash]), partition: partition, offset: offset, sequence: nil)
    }
}

/// What became of one event of an append.
package struct EventReceipt: Sendable {
    package let position: Position
    /// The id was already in the topic; `position` is where it stands since then.
    package let duplicate: Bool
}

/// The answer to an append: given only after the events are on disk.
package struct AppendReceipt: Sendable {
    package let events: [EventReceipt]
    /// `synced`: on disk. Named in every answer, since a backend may be asked for less.
    package let durability: String
}

/// Events of one append, atomically all or none, in the order in which they follow each other.
package struct LogAppend: Sendable {
    package let principal: String
    package let events: [(topic: String, partition: Int?, event: NewEvent)]

    /// Whether a full queue refuses it (`log-saturated`). Writers of our own bound themselves by what they have under way.
    package let refusable: Bool

    /// `partition` nil: chosen by the event's key.
    package init(
        principal: String, events: [(topic: String, partition: Int?, event: NewEvent)], refusable: Bool = false
    ) {
        self.principal = principal
        self.events = events
        self.refusable = refusable
    }
}

/// A topic as the log knows it.
package struct TopicLayout: Sendable, Equatable {
    package let name: String
    package let partitions: Int

    package init(name: String, partitions: Int) {
        self.name = name
        self.partitions = partitions
    }
}

/// What a backend can do; what it lacks is refused with `unsupported`, never imitated.
package struct LogCapabilities: OptionSet, Sendable {
    package let rawValue: Int
    package init(rawValue: Int) { self.rawValue = rawValue }
    package static let globalSequence = LogCapabilities(rawValue: 1)
    package static let idDeduplication = LogCapabilities(rawValue: 2)
    package static let atomicMultiTopic = LogCapabilities(rawValue: 4)
    package static let hashChain = LogCapabilities(rawValue: 8)
}

/// The one narrow door to the events: append, read, offsets, follow. Blocking calls belong on a thread of one's own.
package protocol EventLog: AnyObject, Sendable {
    var capabilities: LogCapabilities { get }

    /// Makes a topic known. Declaring it again with the same layout changes nothing; with another it is refused.
    func declare(_ layout: TopicLayout) throws(EventLogError)
    var topics: [TopicLayout] { get }

    /// Hands over events; `completion` is called once, from the log's thread, after they are on disk or have failed.
    func append(_ append: LogAppend, completion: @escaping @Sendable (Result<AppendReceipt, EventLogError>) -> Void)

    /// Batches of one partition from the one that holds `offset`, at most about `maxBytes` as stored, at least one
    /// where there is one. Empty at the end.
    func read(_ partition: TopicPartition, from offset: Int64, maxBytes: Int) throws(EventLogError) -> [RecordBatch]

    /// First offset and one past the last durable one.
    func offsets(_ partition: TopicPartition) throws(EventLogError) -> Range<Int64>

    /// The first offset of the first batch with an event at or after that time; the end when there is none.
    func offset(_ partition: TopicPartition, atOrAfter time: Instant) throws(EventLogError) -> Int64

    /// Waits until more has become durable than the version given and returns the new version; the same one when the
    /// seconds pass first.
    func waitForChange(after version: UInt64, seconds: Double) -> UInt64

    /// A version number whenever more became durable; only the newest is kept for a slow reader.
    func changes() -> AsyncStream<UInt64>
}

extension EventLog {
    /// Appends and waits for the disk. For threads of our own.
    package func append(_ append: LogAppend) throws(EventLogError) -> AppendReceipt {
        let box = Monitor<Result<AppendReceipt, EventLogError>?>(nil)
        self.append(append) { result in box.update { $0 = result } }
        guard let result = box.wait(until: { $0 }) else {
            throw EventLogError("lost-answer", "the log gave no answer to an append", fault: .headrace)
        }
        return try result.get()
    }

    /// Appends and waits for the disk without holding a thread.
    package func appendAndWait(_ append: LogAppend) async throws(EventLogError) -> AppendReceipt {
        let result = await withCheckedContinuation { continuation in
            self.append(append) { continuation.resume(returning: $0) }
        }
        return try result.get()
    }

    /// Every event of a partition in [from, to), in order.
    package func forEachEvent(
        _ partition: TopicPartition, from: Int64? = nil, to: Int64? = nil, _ body: (StoredEvent) throws -> Bool
    ) throws {
        let range = try offsets(partition)
        var offset = max(from ?? range.lowerBound, range.lowerBound)
        let end = min(to ?? range.upperBound, range.upperBound)
        while offset < end {
            let batches = try read(partition, from: offset, maxBytes: 1 << 20)
            guard !batches.isEmpty else { return }
            for batch in batches {
                for index in batch.records.indices where batch.records[index].offset >= offset {
                    guard batch.records[index].offset < end else { return }
                    guard try body(StoredEvent(batch: batch, index: index)) else { return }
                }
                offset = batch.header.lastOffset + 1
            }
        }
    }

    package func partitions(of topic: String) -> Int {
        topics.first { $0.name == topic }?.partitions ?? 0
    }
}

/// Kafka's default partitioner (murmur2 over the key, positive, modulo). Source: Apache Kafka, Utils.murmur2.
package func murmur2Partition(_ key: [UInt8], partitions: Int) -> Int {
    let multiplier: UInt32 = 0x5bd1_e995
    var hash = UInt32(0x9747_b28c) ^ UInt32(truncatingIfNeeded: key.count)
    var index = 0
    while key.count - index >= 4 {
        var word = UInt32(key[index]) | UInt32(key[index + 1]) << 8
        word |= UInt32(key[index + 2]) << 16 | UInt32(key[index + 3]) << 24
        word = word &* multiplier
        word ^= word >> 24
        word = word &* multiplier
        hash = hash &* multiplier ^ word
        index += 4
    }
    let rest = key.count - index
    if rest >= 3 { hash ^= UInt32(key[index + 2]) << 16 }
    if rest >= 2 { hash ^= UInt32(key[index + 1]) << 8 }
    if rest >= 1 { hash = (hash ^ UInt32(key[index])) &* multiplier }
    hash ^= hash >> 13
    hash = hash &* multiplier
    hash ^= hash >> 15
    return Int(hash & 0x7FFF_FFFF) % partitions
}
