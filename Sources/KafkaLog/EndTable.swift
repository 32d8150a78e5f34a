import Base
import EventLog

/// How far every partition can be read, as readers are told. It moves when a transaction of ours is through, and when the
/// brokers say that somebody else's is. A transaction of ours shows in all its partitions at once: while it is being
/// committed its partitions stand still, whatever the brokers already show.
package struct EndTable {
    private(set) var starts: [TopicPartition: Int64] = [:]
    private(set) var ends: [TopicPartition: Int64] = [:]
    /// Transactions of ours under way in each partition.
    private var open: [TopicPartition: Int] = [:]
    /// Offsets that were read and hold no record: markers, and what was aborted.
    private var silent: [TopicPartition: Range<Int64>] = [:]
    private(set) var version: UInt64 = 0
    var closing = false

    package init() {}

    func isKnown(_ partition: TopicPartition) -> Bool { ends[partition] != nil }

    package mutating func add(_ partition: TopicPartition, _ range: Range<Int64>) {
        guard ends[partition] == nil else { return }
        starts[partition] = range.lowerBound
        ends[partition] = range.upperBound
    }

    mutating func begin(_ partitions: Set<TopicPartition>) {
        for partition in partitions { open[partition, default: 0] += 1 }
    }

    /// The transaction is through.
    /// - Parameter written: one past its last record in each partition; none when it was aborted.
    /// - Returns: the partitions with more to read.
    mutating func end(_ partitions: Set<TopicPartition>, written: [TopicPartition: Int64]) -> [TopicPartition] {
        for partition in partitions {
            guard let count = open[partition] else { continue }
            open[partition] = count > 1 ? count - 1 : nil
        }
        return advance(written)
    }

    /// The first of these partitions in which a new record stands below what was known to be there: the end has fallen.
    /// - Parameter first: the lowest offset that a transaction's records were given in each partition.
    package func shrunk(_ first: [TopicPartition: Int64]) -> (partition: TopicPartition, end: Int64)? {
        for (partition, offset) in first.sorted(by: { $0.key < $1.key }) {
            if let end = ends[partition], offset < end { return (partition, end) }
        }
        return nil
    }

    /// What the brokers say.
    mutating func observe(_ found: [TopicPartition: Int64]) -> [TopicPartition] {
        advance(found.filter { open[$0.key] == nil })
    }

    private mutating func advance(_ found: [TopicPartition: Int64]) -> [TopicPartition] {
        var changed: [TopicPartition] = []
        for (partition, end) in found where end > ends[partition, default: 0] {
            ends[partition] = end
            changed.append(partition)
        }
        if !changed.isEmpty { version += 1 }
        return changed.sorted()
    }

    mutating func observe(start: Int64, of partition: TopicPartition) {
        starts[partition] = max(starts[partition] ?? 0, start)
        if let end = ends[partition], end < start { ends[partition] = start }
    }

    mutating func observe(silent range: Range<Int64>, of partition: TopicPartition) {
        guard !range.isEmpty else { return }
        if let known = silent[partition], known.upperBound >= range.lowerBound, known.lowerBound <= range.lowerBound {
            silent[partition] = known.lowerBound..<max(known.upperBound, range.upperBound)
        } else {
            silent[partition] = range
        }
    }

    /// The first offset at or after this one that may hold a record.
    func spoken(_ partition: TopicPartition, from offset: Int64) -> Int64 {
        guard let silent = silent[partition], silent.contains(offset) else { return offset }
        return silent.upperBound
    }

    /// Offsets between a position and the end, markers at the very end not counted.
    func lag(_ partition: TopicPartition, from position: Int64) -> Int64 {
        let end = ends[partition] ?? 0
        let from = max(position, starts[partition] ?? 0)
        guard from < end else { return 0 }
        if let silent = silent[partition], silent.contains(from), silent.upperBound >= end { return 0 }
        return end - from
    }
}
