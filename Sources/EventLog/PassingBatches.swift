import Base
import CPlatform
import RecordFormat

/// Looks at the batches of a partition's file as its bytes pass by on their way into a backup: what is rotten there is told
/// when it is copied, not when it is needed.
struct PassingBatches {
    private let file: String
    private let partition: TopicPartition
    /// Bytes of a batch of which the rest has not come by, and where it begins.
    private var rest: [UInt8] = []
    private var at: Int64 = 0
    /// The offset from which the next batch may begin.
    private var next: Int64 = 0
    /// From here on nobody can say where a batch begins.
    private var lostFrom: Int64?
    private(set) var damaged: [DamagedRange] = []

    init(file: String, partition: TopicPartition) {
        self.file = file
        self.partition = partition
    }

    mutating func pass(_ part: [UInt8]) {
        guard lostFrom == nil else { return }
        rest.append(contentsOf: part)
        var used = 0
        rest.withUnsafeBytes { raw in
            while raw.count - used >= RecordBatchLayout.headerSize {
                func number<T: FixedWidthInteger>(_ offset: Int, _ type: T.Type) -> T {
                    T(bigEndian: raw.loadUnaligned(fromByteOffset: used + offset, as: T.self))
                }
                let size =
                    Int(number(RecordBatchLayout.length, Int32.self)) + RecordBatchLayout.lengthOverhead
                guard size >= RecordBatchLayout.headerSize, size <= LogFrame.maximumSize else {
                    lostFrom = at + Int64(used)
                    return
                }
                guard raw.count - used >= size else { return }
                let covered = used + RecordBatchLayout.attributes..<used + size
                let crc = headrace_crc32c(0, raw.baseAddress.map { $0 + covered.lowerBound }, covered.count)
                let first = number(RecordBatchLayout.baseOffset, Int64.self)
                let delta = Int64(number(RecordBatchLayout.lastOffsetDelta, Int32.self))
                let isLikely = first >= 0 && delta >= 0 && first < Int64.max - delta - 1
                // What the checksum does not cover: the magic, and the offset, which only grows.
                let isPlaced = isLikely && first >= next && number(RecordBatchLayout.magic, UInt8.self) == 2
                if crc != number(RecordBatchLayout.crc, UInt32.self) || !isPlaced {
                    note(used, size, isLikely ? first..<first + delta + 1 : nil)
                } else {
                    next = first + delta + 1
                }
                used += size
            }
        }
        at += Int64(used)
        rest.removeFirst(used)
    }

    private mutating func note(_ used: Int, _ size: Int, _ offsets: Range<Int64>?) {
        var range = DamagedRange(
            file: file, from: at + Int64(used), to: at + Int64(used + size), sequences: 0..<0)
        range.lost = offsets.map { (partition, $0) }
        damaged.append(range)
    }

    /// At the end of the file: a batch of which a part is missing, or after which nothing could be told apart.
    mutating func end(at end: Int64) {
        guard let from = lostFrom ?? (rest.isEmpty ? nil : at) else { return }
        damaged.append(DamagedRange(file: file, from: from, to: end, sequences: 0..<0))
    }
}
