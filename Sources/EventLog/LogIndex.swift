import Base
import RecordFormat

/// Where one batch stands: enough to find, bound and read it without touching the file.
package struct BatchEntry: Sendable {
    package let baseOffset: Int64
    package let count: Int32
    package let maxTime: Int64
    package let segment: Int32
    package let fileOffset: Int64
    package let size: Int32

    package var end: Int64 { baseOffset + Int64(count) }
}

/// What readers need: the batches of every partition, oldest first. Derived from the frames.
package struct LogIndex: Sendable {
    package private(set) var partitions: [TopicPartition] = []
    private var numbers: [TopicPartition: Int] = [:]
    package private(set) var batches: [[BatchEntry]] = []

    package init() {}

    package mutating func number(of partition: TopicPartition) -> Int {
        if let known = numbers[partition] { return known }
        numbers[partition] = partitions.count
        partitions.append(partition)
        batches.append([])
        return partitions.count - 1
    }

    package func known(_ partition: TopicPartition) -> Int? { numbers[partition] }

    package mutating func append(_ entry: BatchEntry, to partition: Int) {
        batches[partition].append(entry)
    }

    package func end(_ partition: TopicPartition) -> Int64 {
        numbers[partition].flatMap { batches[$0].last?.end } ?? 0
    }

    /// Index of the first batch that ends after `offset`.
    package func first(_ partition: Int, endingAfter offset: Int64) -> Int {
        let list = batches[partition]
        var low = 0
        var high = list.count
        while low < high {
            let middle = (low + high) / 2
            if list[middle].end <= offset { low = middle + 1 } else { high = middle }
        }
        return low
    }
}

/// A range of the log that cannot be read any more although it was durable once.
package struct DamagedRange: Sendable, CustomStringConvertible {
    package let file: String
    package let from: Int64
    package let to: Int64
    package let sequences: Range<UInt64>

    package var description: String {
        "\(file) bytes \(from)..<\(to), events \(sequences.lowerBound)..<\(sequences.upperBound)"
    }
}

/// What opening a log found.
package struct RecoveryReport: Sendable {
    package var truncatedBytes: Int64 = 0
    package var truncatedFile: String?
    package var damaged: [DamagedRange] = []
    package var rebuiltIndexes: [String] = []
    package var events: UInt64 = 0

    package init() {}
}
