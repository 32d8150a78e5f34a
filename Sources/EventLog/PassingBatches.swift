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

    /// The last batch that was taken for sound, and the offset from which it might have begun.
    private var last: (at: Int64, size: Int, offsets: Range<Int64>, from: Int64)?
    /// The offset before which all batches end.
    private let limit: Int64

    init(file: String, partition: TopicPartition, end: Int64) {
        limit = end
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
                let offsets = isLikely ? first..<first + delta + 1 : nil
                // What the checksum does not cover: magic, epoch, and the offset, which only grows.
                let isSound =
                    crc == number(RecordBatchLayout.crc, UInt32.self)
                    && number(RecordBatchLayout.magic, UInt8.self) == 2
                    && number(RecordBatchLayout.leaderEpoch, Int32.self) == -1
                take(at + Int64(used), size, offsets, isSound: isSound)
                used += size
            }
        }
        at += Int64(used)
        rest.removeFirst(used)
    }

    /// A batch that stands behind the place of the one after it has jumped: it is the one that is damaged.
    private mutating func take(_ at: Int64, _ size: Int, _ offsets: Range<Int64>?, isSound: Bool) {
        guard isSound, let offsets, offsets.upperBound <= limit else { return note(at, size, offsets) }
        if offsets.lowerBound < next {
            guard let jumped = last, offsets.lowerBound >= jumped.from else { return note(at, size, offsets) }
            note(jumped.at, jumped.size, jumped.offsets)
            next = jumped.from
        }
        last = (at, size, offsets, next)
        next = offsets.upperBound
    }

    private mutating func note(_ at: Int64, _ size: Int, _ offsets: Range<Int64>?) {
        var range = DamagedRange(file: file, from: at, to: at + Int64(size), sequences: 0..<0)
        range.lost = offsets.map { (partition, $0) }
        damaged.append(range)
    }

    /// At the end of the file: a batch of which a part is missing, or after which nothing could be told apart.
    mutating func end(at end: Int64) {
        guard let from = lostFrom ?? (rest.isEmpty ? nil : at) else { return }
        damaged.append(DamagedRange(file: file, from: from, to: end, sequences: 0..<0))
    }
}
