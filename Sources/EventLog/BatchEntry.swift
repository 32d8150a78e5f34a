import Base

/// Where one batch stands: enough to find, bound and read it without touching the file.
package struct BatchEntry: Sendable, Equatable {
    package let baseOffset: Int64
    /// One past its last offset; records between may have gone by compaction.
    package let end: Int64
    package let maxTime: Int64
    package let fileOffset: Int64
    package let size: Int32
    /// Records in it.
    package let count: Int32

    static let encodedSize = 40

    func encode(into out: inout ByteWriter) {
        out.append(little: baseOffset)
        out.append(little: end)
        out.append(little: maxTime)
        out.append(little: fileOffset)
        out.append(little: size)
        out.append(little: count)
    }

    init(baseOffset: Int64, end: Int64, maxTime: Int64, fileOffset: Int64, size: Int32, count: Int32) {
        self.baseOffset = baseOffset
        self.end = end
        self.maxTime = maxTime
        self.fileOffset = fileOffset
        self.size = size
        self.count = count
    }

    init(_ reader: inout ByteReader) throws(BaseError) {
        baseOffset = try reader.little()
        end = try reader.little()
        maxTime = try reader.little()
        fileOffset = try reader.little()
        size = try reader.little()
        count = try reader.little()
        guard baseOffset >= 0, end >= baseOffset, fileOffset >= 0, size > 0, count >= 0 else {
            throw BaseError("bad-index", "an entry cannot be", fault: .world)
        }
    }
}

extension Array where Element == BatchEntry {
    /// Index of the first batch that ends after `offset`.
    func firstIndex(endingAfter offset: Int64) -> Int { sortedIndex(after: { $0.end <= offset }) }
}

/// A range of the log that cannot be read any more although it was durable once.
package struct DamagedRange: Sendable, Equatable, CustomStringConvertible {
    package let file: String
    package let from: Int64
    package let to: Int64
    package let sequences: Range<UInt64>
    /// Where it is known: whose events they are, exactly.
    package var lost: (partition: TopicPartition, offsets: Range<Int64>)?
    /// The events can be read; what is gone is the proof of their order and content.
    package var isProofAlone = false

    package static func == (left: DamagedRange, right: DamagedRange) -> Bool {
        left.file == right.file && left.from == right.from && left.to == right.to && left.sequences == right.sequences
    }

    package init(file: String, from: Int64, to: Int64, sequences: Range<UInt64>) {
        self.file = file
        self.from = from
        self.to = to
        self.sequences = sequences
    }

    package var description: String {
        let place = "\(file) bytes \(from)..<\(to)"
        if let lost {
            return "\(place), offsets \(lost.offsets.lowerBound)..<\(lost.offsets.upperBound) of \(lost.partition)"
        }
        let events = "events \(sequences.lowerBound)..<\(sequences.upperBound)"
        return isProofAlone
            ? "\(place): \(events) can be read, their order and content cannot be proven" : "\(place), \(events)"
    }
}

/// Event ids that cannot be had any more: their file is gone or damaged, and the events it was made from were trimmed or
/// compacted. An event that comes again with one of them is taken as new.
package struct LostIdentifiers: Sendable, Equatable, CustomStringConvertible {
    package let file: String
    package let sequences: Range<UInt64>
    package let count: Int

    package var description: String {
        "\(file): \(count) ids of the events \(sequences.lowerBound)..<\(sequences.upperBound) are lost; repeats of those events are taken as new ones"
    }
}

/// What opening a log found.
package struct RecoveryReport: Sendable {
    package var truncatedBytes: Int64 = 0
    package var truncatedFile: String?
    package var damaged: [DamagedRange] = []
    package var rebuiltIndexes: [String] = []
    package var lostIdentifiers: [LostIdentifiers] = []
    /// What is wrong with the durable mark; it is written anew.
    package var mark: Mark?
    /// Files of an interrupted rewriting or trimming, taken away.
    package var removed: [String] = []
    package var scannedBytes: Int64 = 0
    package var events: UInt64 = 0

    package init() {}

    /// Without the mark nobody can tell events that were cut off from ones that never were.
    package enum Mark: String, Sendable {
        case missing, damaged

        package var text: String {
            "'durable.mark' was \(rawValue): whether acknowledged events are missing at the log's end cannot be told"
        }
    }
}
