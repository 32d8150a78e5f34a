import Base

/// Where the batches of every partition stand: in files of their own, then in the WAL.
struct PartitionTable: Sendable {
    /// A batch that still stands in the WAL.
    struct TailEntry: Sendable {
        let entry: BatchEntry
        /// First sequence of its segment.
        let segment: UInt64
    }

    struct Partition: Sendable {
        let partition: TopicPartition
        /// First offset that may be read.
        var start: Int64 = 0
        var files: [PartitionFile] = []
        var tail: [TailEntry] = []
        /// Where the partition once ended in frames that are lost: their offsets are never given again.
        var lostEnd: Int64 = 0
        /// Offsets that may be lost: nobody knows in which partitions the lost events stood.
        var doubtful: [Range<Int64>] = []

        /// One past the last offset that is there.
        var end: Int64 {
            max(tail.last?.entry.end ?? files.last?.record.end ?? start, start, lostEnd)
        }

        /// Index of the first tail batch that ends after an offset.
        func tailIndex(endingAfter offset: Int64) -> Int { tail.sortedIndex(after: { $0.entry.end <= offset }) }

        func fileIndex(endingAfter offset: Int64) -> Int { PartitionTable.index(in: files, endingAfter: offset) }
    }

    /// Index of the first file that ends after an offset.
    static func index(in files: [PartitionFile], endingAfter offset: Int64) -> Int {
        files.sortedIndex(after: { $0.record.end <= offset })
    }

    private(set) var list: [Partition] = []
    private var numbers: [TopicPartition: Int] = [:]

    mutating func number(of partition: TopicPartition) -> Int {
        if let known = numbers[partition] { return known }
        numbers[partition] = list.count
        list.append(Partition(partition: partition))
        return list.count - 1
    }

    func known(_ partition: TopicPartition) -> Int? { numbers[partition] }

    subscript(number: Int) -> Partition {
        get { list[number] }
        _modify { yield &list[number] }
    }

    subscript(partition: TopicPartition) -> Partition? { numbers[partition].map { list[$0] } }

    mutating func append(_ entry: BatchEntry, segment: UInt64, to partition: TopicPartition) {
        let number = number(of: partition)
        list[number].tail.append(TailEntry(entry: entry, segment: segment))
    }
}
