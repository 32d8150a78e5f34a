import Base
import EventLog
import RecordFormat

/// Writes emitted events and consumed offsets in one transaction of the log, under a name that one live fold can have.
///
/// Outputs come first and the local checkpoint second, so after a crash the log may hold more than the state knows. The
/// fold then goes over the same events again: as long as its offsets lie below where the log ended when this sink took
/// over, what it emits is compared with what is there and written nowhere.
package final class TransactionSink: DerivedSink, DerivedPlaces {
    /// Events after which a transaction is committed at the next pause.
    static let events = 10_000

    private let log: any EventLog
    private let writer: any TransactionalWriter
    private let group: String
    private let reader: DerivedReader
    /// Where each topic ended before this sink wrote.
    private var settled: [String: Int64] = [:]
    private var free: [String: Int64] = [:]
    private var written: Set<String> = []
    private var expected: [(topic: String, offset: Int64)] = []
    private var consumed: [TopicPartition: Int64] = [:]
    /// What the group had committed before: while the fold catches up with it, its offsets do not go back.
    private let before: [TopicPartition: Int64]

    private let partition: Int
    /// What is to be said with the next commit.
    private var progress: DerivedEvent?

    /// - Parameter partition: of every topic that is written.
    package init(log: any EventLog, name: String, partition: Int = 0) throws {
        self.partition = partition
        self.log = log
        writer = try log.transactionalWriter(named: name)
        group = "headrace.\(name)"
        before = try writer.committed(group: group)
        reader = DerivedReader(log: log, partition: partition)
    }

    deinit { writer.close() }

    package var places: (any DerivedPlaces)? { self }

    private func settledEnd(_ topic: String) throws -> Int64 {
        if let known = settled[topic] { return known }
        let end = try log.offsets(TopicPartition(topic, partition)).upperBound
        settled[topic] = end
        return end
    }

    package func place(_ topic: String, from next: Int64) throws -> Int64 {
        let end = try settledEnd(topic)
        if next < end, let event = try reader.place(topic, atOrAfter: next), event.offset < end { return event.offset }
        let offset = max(next, free[topic] ?? end)
        free[topic] = offset + 1
        return offset
    }

    package func take(_ event: DerivedEvent) throws {
        guard event.offset >= (try settledEnd(event.topic)) else {
            guard reader.taken(event.topic, event.offset)?.id == event.event.id else {
                throw LogSink.foreignWriter(
                    "\(event.topic)/\(partition)@\(event.offset), where the fold emits '\(event.event.id)'")
            }
            return
        }
        try writer.add(event.event, to: TopicPartition(event.topic, partition))
        written.insert(event.topic)
        expected.append((event.topic, event.offset))
    }

    package func say(_ progress: DerivedEvent) throws { self.progress = progress }

    package func sliceEnded(_ consumed: () -> [TopicPartition: Int64]) throws {
        if expected.count >= TransactionSink.events { try flush(consumed) }
    }

    package func flush(_ positions: () -> [TopicPartition: Int64]) throws {
        let positions = positions().merging(before) { max($0, $1) }
        guard !expected.isEmpty || positions != consumed || progress != nil else { return }
        let wanted = expected
        // Behind what it speaks of, and in the same transaction.
        if let said = progress { try writer.add(said.event, to: TopicPartition(said.topic, said.partition)) }
        progress = nil
        try writer.commit(group: group, consumed: positions) { offsets throws(EventLogError) in
            for (offset, place) in zip(offsets, wanted) where offset != place.offset {
                throw LogSink.foreignWriter("\(place.topic)/\(partition)@\(offset) and not at offset \(place.offset)")
            }
        }
        // The commit's marker takes an offset in every partition that was written.
        for topic in written { free[topic, default: 0] += 1 }
        written.removeAll(keepingCapacity: true)
        expected.removeAll(keepingCapacity: true)
        consumed = positions
    }
}
