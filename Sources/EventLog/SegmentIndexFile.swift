import Base
import CPlatform
import Foundation
import RecordFormat

/// The derived index of one WAL segment beside it on disk: batches, event ids, the end of what it covers and the hash
/// there. A missing, stale or damaged one is rebuilt from the segment.
struct SegmentIndexFile {
    static let magic: UInt32 = 0x3149_5248  // "HRI1"

    var coveredBytes: Int64 = 0
    var nextSequence: UInt64 = 0
    var lastHash = Digest.zero
    var partitions: [TopicPartition] = []
    var batches: [(partition: UInt32, entry: BatchEntry)] = []
    var identifiers: [(UInt64, UInt64, partition: UInt32, offset: Int64)] = []

    private var numbers: [TopicPartition: UInt32] = [:]

    mutating func number(of partition: TopicPartition) -> UInt32 {
        if let known = numbers[partition] { return known }
        let number = UInt32(partitions.count)
        numbers[partition] = number
        partitions.append(partition)
        return number
    }

    func encoded() -> [UInt8] {
        var out = ByteWriter(capacity: 64 + batches.count * 40 + identifiers.count * 28)
        out.append(little: SegmentIndexFile.magic)
        out.append(little: UInt32(0))
        out.append(little: coveredBytes)
        out.append(little: nextSequence)
        out.append(lastHash.bytes)
        out.append(little: UInt32(partitions.count))
        for partition in partitions {
            out.append(sized: partition.topic)
            out.append(little: UInt32(partition.partition))
        }
        out.append(little: UInt32(batches.count))
        for (partition, entry) in batches {
            out.append(little: partition)
            out.append(little: entry.baseOffset)
            out.append(little: entry.count)
            out.append(little: entry.maxTime)
            out.append(little: entry.fileOffset)
            out.append(little: entry.size)
        }
        out.append(little: UInt32(identifiers.count))
        for identifier in identifiers {
            out.append(little: identifier.0)
            out.append(little: identifier.1)
            out.append(little: identifier.partition)
            out.append(little: identifier.offset)
        }
        let crc = out.bytes.withUnsafeBytes { headrace_crc32c(0, $0.baseAddress! + 8, $0.count - 8) }
        out.patch(little: crc, at: 4)
        return out.bytes
    }

    /// nil when the bytes are not a whole, undamaged index.
    init?(_ bytes: [UInt8], segment: Int32) {
        guard bytes.count > 8 else { return nil }
        do {
            try bytes.withRaw { raw throws(BaseError) in try self.read(raw, segment) }
        } catch {
            return nil
        }
    }

    init() {}

    private mutating func read(_ raw: UnsafeRawBufferPointer, _ segment: Int32) throws(BaseError) {
        var reader = ByteReader(raw)
        guard try reader.little(UInt32.self) == SegmentIndexFile.magic,
            try reader.little(UInt32.self) == headrace_crc32c(0, raw.baseAddress! + 8, raw.count - 8)
        else { throw BaseError("bad-index", "damaged", fault: .world) }
        coveredBytes = try reader.little()
        nextSequence = try reader.little()
        guard let hash = Digest(try reader.slice(Digest.byteCount)) else {
            throw BaseError("bad-index", "damaged", fault: .world)
        }
        lastHash = hash
        for _ in 0..<(try reader.little(UInt32.self)) {
            let topic = try reader.sizedText()
            _ = number(of: TopicPartition(topic, Int(try reader.little(UInt32.self))))
        }
        for _ in 0..<(try reader.little(UInt32.self)) {
            let partition = try reader.little(UInt32.self)
            let base: Int64 = try reader.little()
            let count: Int32 = try reader.little()
            let time: Int64 = try reader.little()
            let offset: Int64 = try reader.little()
            let size: Int32 = try reader.little()
            guard Int(partition) < partitions.count else { throw BaseError("bad-index", "damaged", fault: .world) }
            let entry = BatchEntry(
                baseOffset: base, count: count, maxTime: time, segment: segment, fileOffset: offset, size: size)
            batches.append((partition, entry))
        }
        let count = Int(try reader.little(UInt32.self))
        try reader.require(count * 28)
        identifiers.reserveCapacity(count)
        for _ in 0..<count {
            let first: UInt64 = try reader.little()
            let second: UInt64 = try reader.little()
            let partition: UInt32 = try reader.little()
            identifiers.append((first, second, partition, try reader.little()))
        }
    }
}
