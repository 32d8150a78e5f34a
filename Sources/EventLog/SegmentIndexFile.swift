import Base
import CPlatform
import RecordFormat

/// The derived index of one WAL segment beside it on disk: its batches, who wrote them, the end of what it covers and
/// the hash there. A missing, stale or damaged one is rebuilt from the segment.
struct SegmentIndexFile: Sendable {
    static let magic: UInt32 = 0x3249_5248  // "HRI2"

    var coveredBytes: Int64 = 0
    var nextSequence: UInt64 = 0
    var lastHash = Digest.zero
    /// Recorded time of the newest frame, milliseconds since 1970.
    var newestRecorded: Int64 = .min
    private(set) var partitions: [TopicPartition] = []
    private(set) var batches: [(partition: UInt32, entry: BatchEntry)] = []
    /// Batches of idempotent producers: index into `batches`.
    private(set) var producers: [(batch: UInt32, stamp: ProducerStamp)] = []
    /// Event ids in the segment. Not in this file: they get one of their own.
    var identifiers: [IdentifierFile.Entry] = []

    private var numbers: [TopicPartition: UInt32] = [:]

    init() {}

    mutating func number(of partition: TopicPartition) -> UInt32 {
        if let known = numbers[partition] { return known }
        let number = UInt32(partitions.count)
        numbers[partition] = number
        partitions.append(partition)
        return number
    }

    mutating func append(_ entry: BatchEntry, _ partition: TopicPartition, _ stamp: ProducerStamp) {
        if !stamp.isNone { producers.append((UInt32(batches.count), stamp)) }
        batches.append((number(of: partition), entry))
    }

    func encoded() -> [UInt8] {
        var out = ByteWriter(capacity: 128 + batches.count * 44)
        out.append(little: SegmentIndexFile.magic)
        out.append(little: UInt32(0))
        out.append(little: coveredBytes)
        out.append(little: nextSequence)
        out.append(lastHash.bytes)
        out.append(little: newestRecorded)
        out.append(little: UInt32(partitions.count))
        for partition in partitions {
            out.append(sized: partition.topic)
            out.append(little: UInt32(partition.partition))
        }
        out.append(little: UInt32(batches.count))
        for (partition, entry) in batches {
            out.append(little: partition)
            entry.encode(into: &out)
        }
        out.append(little: UInt32(producers.count))
        for (batch, stamp) in producers {
            out.append(little: batch)
            out.append(little: stamp.id)
            out.append(little: stamp.epoch)
            out.append(little: stamp.sequence)
        }
        out.sealFromEight()
        return out.bytes
    }

    /// nil when the bytes are not a whole, undamaged index.
    init?(_ bytes: [UInt8]) {
        do {
            try bytes.withRaw { raw throws(BaseError) in try self.read(raw) }
        } catch {
            return nil
        }
    }

    private mutating func read(_ raw: UnsafeRawBufferPointer) throws(BaseError) {
        var reader = try ByteReader(sealed: raw, magic: SegmentIndexFile.magic)
        coveredBytes = try reader.little()
        nextSequence = try reader.little()
        guard let hash = Digest(try reader.slice(Digest.byteCount)) else {
            throw BaseError("bad-index", "damaged", fault: .world)
        }
        lastHash = hash
        newestRecorded = try reader.little()
        for _ in 0..<(try reader.little(UInt32.self)) {
            let topic = try reader.sizedText()
            _ = number(of: TopicPartition(topic, Int(try reader.little(UInt32.self))))
        }
        for _ in 0..<(try reader.little(UInt32.self)) {
            let partition = try reader.little(UInt32.self)
            guard Int(partition) < partitions.count else { throw BaseError("bad-index", "damaged", fault: .world) }
            batches.append((partition, try BatchEntry(&reader)))
        }
        for _ in 0..<(try reader.little(UInt32.self)) {
            let batch: UInt32 = try reader.little()
            guard Int(batch) < batches.count else { throw BaseError("bad-index", "damaged", fault: .world) }
            let id: Int64 = try reader.little()
            let epoch: Int16 = try reader.little()
            producers.append((batch, ProducerStamp(id: id, epoch: epoch, sequence: try reader.little())))
        }
    }
}

extension ByteWriter {
    /// Writes the CRC-32C of everything from byte 8 into bytes 4 to 7: how all derived files are sealed.
    mutating func sealFromEight() {
        let crc = bytes.withUnsafeBytes { headrace_crc32c(0, $0.baseAddress.map { $0 + 8 }, $0.count - 8) }
        patch(little: crc, at: 4)
    }
}

extension ByteReader {
    /// A reader behind magic number and checksum, after both were checked.
    init(sealed raw: UnsafeRawBufferPointer, magic: UInt32) throws(BaseError) {
        self.init(raw)
        guard raw.count >= 8, try little(UInt32.self) == magic,
            try little(UInt32.self) == headrace_crc32c(0, raw.baseAddress.map { $0 + 8 }, raw.count - 8)
        else { throw BaseError("bad-index", "the checksum does not match", fault: .world) }
    }
}
