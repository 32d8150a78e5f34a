import Base
import RecordFormat

package enum EventLogModule {}
/// Errors of the log. Codes that callers act on: `unknown-topic`, `log-stopped`, `log-saturated`, `rot`, `locked`,
/// `offset-conflict`, `producer-fenced`, `out-of-order-sequence`, `trimmed`, `pinned`, `unsupported`,
/// `transaction-aborted`, `outcome-unknown`, `log-shrunk`, `broker-unavailable`.
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

    /// Reads what `description` writes.
    package init?(parsing text: String) {
        guard let slash = text.lastIndex(of: "/"), let partition = Int(text[text.index(after: slash)...]),
            partition >= 0,
            slash > text.startIndex
        else { return nil }
        self.init(String(text[..<slash]), partition)
    }

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

/// What a backend can do; what it lacks is refused with `unsupported`, never imitated.
package struct LogCapabilities: OptionSet, Sendable {
    package let rawValue: Int
    package init(rawValue: Int) { self.rawValue = rawValue }
    package static let globalSequence = LogCapabilities(rawValue: 1 << 0)
    package static let idDeduplication = LogCapabilities(rawValue: 1 << 1)
    package static let atomicMultiTopic = LogCapabilities(rawValue: 1 << 2)
    package static let hashChain = LogCapabilities(rawValue: 1 << 3)
    package static let expectedOffset = LogCapabilities(rawValue: 1 << 4)
    package static let idempotentProducers = LogCapabilities(rawValue: 1 << 5)
    package static let pins = LogCapabilities(rawValue: 1 << 6)
    package static let relaxedDurability = LogCapabilities(rawValue: 1 << 7)
    package static let trim = LogCapabilities(rawValue: 1 << 8)
    /// Each event stands one behind the one before it; without it markers of transactions stand in between.
    package static let denseOffsets = LogCapabilities(rawValue: 1 << 9)
    /// `transactionalWriter(named:)`.
    package static let transactions = LogCapabilities(rawValue: 1 << 10)
    /// After an append that failed for want of a disk nothing is taken any more, so none is overtaken by a later one.
    package static let stopsAtFailure = LogCapabilities(rawValue: 1 << 11)
}

/// Offsets that must stay readable, under a name: a model, an audit, a backup.
package struct Pin: Sendable, Equatable {
    package let name: String
    package let ranges: [TopicPartition: Range<Int64>]

    package init(name: String, ranges: [TopicPartition: Range<Int64>]) {
        self.name = name
        self.ranges = ranges
    }
}

/// The one narrow door to the events: append, read, offsets, follow, trim. Blocking calls belong on a thread of one's own.
package protocol EventLog: AnyObject, Sendable {
    var capabilities: LogCapabilities { get }
    /// What an ordinary append promises here.
    var durability: Durability { get }

    /// Makes a topic known, or changes how long its events are kept. Its number of partitions never changes.
    func declare(_ layout: TopicLayout) throws(EventLogError)
    var topics: [TopicLayout] { get }

    /// Hands over events; `completion` is called once, from the log's thread, after they are on disk or have failed.
    func append(_ append: LogAppend, completion: @escaping @Sendable (Result<AppendReceipt, EventLogError>) -> Void)

    /// Hands over one encoded batch for one partition; its records are not held against event ids.
    func append(_ append: BatchAppend, completion: @escaping @Sendable (Result<BatchReceipt, EventLogError>) -> Void)

    /// A producer id of its own; the same name again gives the same id with the next epoch, and the older epoch is
    /// refused from then on.
    func registerProducer(named name: String?) throws(EventLogError) -> ProducerIdentity

    /// Batches of one partition from the one that holds `offset`, at most about `maxBytes` as stored, at least one
    /// where there is one. Empty at the end. Offsets may be missing inside a compacted batch.
    func read(_ partition: TopicPartition, from offset: Int64, maxBytes: Int) throws(EventLogError) -> [RecordBatch]

    /// Whether a read that found nothing from there on means that nothing is there. False where the log cannot show yet what
    /// stands before its end; reading again tells.
    func isReadable(_ partition: TopicPartition, from offset: Int64) -> Bool
    /// Where offsets end of which nobody knows whether they are lost; nil where this is no such one.
    func endOfDoubt(_ partition: TopicPartition, _ offset: Int64) -> Int64?
    /// First offset that can be read and one past the last durable one.
    func offsets(_ partition: TopicPartition) throws(EventLogError) -> Range<Int64>

    /// The first offset of an event at or after that time; the end when there is none.
    func offset(_ partition: TopicPartition, atOrAfter time: Instant) throws(EventLogError) -> Int64

    /// Gives up everything below an offset. Refused where a pin holds it.
    func trim(_ partition: TopicPartition, before offset: Int64) throws(EventLogError)

    /// Keeps offsets from being trimmed or compacted, or changes what a name keeps.
    func pin(_ pin: Pin) throws(EventLogError)
    func unpin(_ name: String) throws(EventLogError)
    var pins: [Pin] { get }

    /// Waits until more has become durable than the version given and returns the new version; the same one when the
    /// seconds pass first.
    func waitForChange(after version: UInt64, seconds: Double) -> UInt64

    /// A version number whenever more became durable; only the newest is kept for a slow reader.
    func changes() -> AsyncStream<UInt64>

    /// Calls `body` whenever more became readable, as long as what is returned is kept; from a thread of the log's, so it must be
    /// quick.
    func listen(_ body: @escaping @Sendable () -> Void) -> LogListening

    /// Follows partitions from offsets on.
    func follow(_ positions: [TopicPartition: Int64]) throws(EventLogError) -> LogFollower

    /// A writer of transactions. Another one of the same name, in whatever process, takes over: what the older has open
    /// is aborted and it is refused from then on.
    func transactionalWriter(named name: String) throws(EventLogError) -> any TransactionalWriter

    /// Events of the log; where a backend cannot tell events from its own markers, those of before its opening count too.
    var eventCount: UInt64 { get }
    /// Why nothing is taken any more; nil while all is well.
    var stopped: EventLogError? { get }
    /// Ends the log's threads after what was handed over is done.
    func close()
}

/// Events and consumed offsets that become readable together or not at all. For one thread.
package protocol TransactionalWriter: AnyObject {
    /// Puts an event into the open transaction, beginning one where there is none.
    func add(_ event: NewEvent, to partition: TopicPartition) throws(EventLogError)
    /// Ends the transaction and gives the events' offsets in the order in which they were added. Fails with
    /// `transaction-aborted` when nothing of it is in the log, so that it may be done again.
    /// - Parameters:
    ///   - consumed: next offsets of what the events were made from, kept under the group's name.
    ///   - check: sees the offsets before they count; an error aborts the transaction.
    func commit(
        group: String, consumed: [TopicPartition: Int64], check: ([Int64]) throws(EventLogError) -> Void
    ) throws(EventLogError)
    /// What a group has committed; nothing for a partition it never did.
    func committed(group: String) throws(EventLogError) -> [TopicPartition: Int64]
    /// Drops what is open.
    func abort() throws(EventLogError)
    func close()
}

/// For readers that must not take what a log cannot show yet for nothing.
package enum LogReading {
    /// Reads in a row that may find nothing where something may be, each of which waits a little.
    package static let attempts = 20

    package static func notYet(_ partition: TopicPartition, _ offset: Int64) -> EventLogError {
        EventLogError(
            "not-readable-yet",
            "the log does not show yet what stands in \(partition) from offset \(offset) on: a broker takes over, or a transaction is open in front of it; try again",
            fault: .world, retriable: true)
    }
}

extension EventLog {
    package func isReadable(_ partition: TopicPartition, from offset: Int64) -> Bool { true }

    package func endOfDoubt(_ partition: TopicPartition, _ offset: Int64) -> Int64? {
        nil
    }

    /// Appends and waits for the disk. For threads of our own.
    package func append(_ append: LogAppend) throws(EventLogError) -> AppendReceipt {
        try wait { self.append(append, completion: $0) }
    }

    /// Appends a batch and waits for the disk. For threads of our own.
    package func append(_ append: BatchAppend) throws(EventLogError) -> BatchReceipt {
        try wait { self.append(append, completion: $0) }
    }

    private func wait<R: Sendable>(
        _ start: (@escaping @Sendable (Result<R, EventLogError>) -> Void) -> Void
    ) throws(EventLogError) -> R {
        let box = Monitor<Result<R, EventLogError>?>(nil)
        start { result in box.update { $0 = result } }
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
    /// - Parameter passesDoubt: goes over offsets of which nobody knows whether anything was ever there: after the end of a log
    ///   went missing each partition has such, and a node must begin all the same. It is told elsewhere.
    package func forEachEvent(
        _ partition: TopicPartition, from: Int64? = nil, to: Int64? = nil, passesDoubt: Bool = false,
        _ body: (StoredEvent) throws -> Bool
    ) throws {
        let range = try offsets(partition)
        var offset = max(from ?? range.lowerBound, range.lowerBound)
        let end = min(to ?? range.upperBound, range.upperBound)
        var attempts = 0
        while offset < end {
            let batches: [RecordBatch]
            do {
                batches = try read(partition, from: offset, maxBytes: 1 << 20)
            } catch {
                guard passesDoubt, error.code == "rot", let next = endOfDoubt(partition, offset) else { throw error }
                offset = next
                continue
            }
            guard !batches.isEmpty else {
                if isReadable(partition, from: offset) { return }
                attempts += 1
                guard attempts < LogReading.attempts else { throw LogReading.notYet(partition, offset) }
                continue
            }
            attempts = 0
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
    key.withUnsafeBytes { murmur2Partition($0, partitions: partitions) }
}

package func murmur2Partition(_ key: UnsafeRawBufferPointer, partitions: Int) -> Int {
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
