import Base
import CPlatform
import RecordFormat

/// One append in the write-ahead log: a header, a table of batches, the interleave map and the batches themselves.
/// Little-endian. docs/formats/log.md describes it byte by byte.
package enum LogFrame {
    package static let magic: UInt32 = 0x3146_5248  // "HRF1"
    package static let version: UInt8 = 1
    package static let headerSize = 88
    /// Bytes of one frame; larger appends are refused.
    package static let maximumSize = 64 << 20

    static let sizeOffset = 8
    static let crcOffset = 12
    static let coveredOffset = 16
    static let recordedTimeOffset = 32
    static let durableOffset = 40
    static let previousHashOffset = 48

    /// A batch of the frame.
    package struct Batch: Sendable {
        package let partition: TopicPartition
        package let baseOffset: Int64
        package let count: Int
        /// Where its bytes start, from the frame's first byte.
        package let start: Int
        package let size: Int
    }

    /// A frame's header and table.
    package struct Description: Sendable {
        package let size: Int
        package let firstSequence: UInt64
        package let eventCount: Int
        package let recordedTime: Int64
        package let durableThrough: UInt64
        package let previousHash: Digest
        package let principal: String
        package let keyID: String
        package let batches: [Batch]
        /// Runs of events: index into `batches`, how many follow from it.
        package let interleave: [(batch: Int, count: Int)]
    }

    /// Everything but what only the writer knows (previous hash, recorded time, durable mark, CRC).
    package static func encode(
        firstSequence: UInt64, principal: String, keyID: String,
        batches: [(partition: TopicPartition, baseOffset: Int64, count: Int, bytes: [UInt8])],
        interleave: [(batch: Int, count: Int)]
    ) -> [UInt8] {
        let total = batches.reduce(0) { $0 + $1.bytes.count + 64 + $1.partition.topic.utf8.count }
        var out = ByteWriter(capacity: headerSize + total + interleave.count * 6 + 64)
        out.append(little: magic)
        out.append(version)
        out.append(UInt8(0))
        out.append(little: UInt16(batches.count))
        out.append(little: UInt32(0))
        out.append(little: UInt32(0))
        out.append(little: firstSequence)
        out.append(little: UInt32(batches.reduce(0) { $0 + $1.count }))
        out.append(little: UInt32(interleave.count))
        out.append(little: Int64(0))
        out.append(little: UInt64(0))
        out.append(Digest.zero.bytes)
        out.append(little: UInt16(principal.utf8.count))
        out.append(little: UInt16(keyID.utf8.count))
        out.append(little: UInt32(0))
        out.append([UInt8](principal.utf8))
        out.append([UInt8](keyID.utf8))
        for batch in batches {
            out.append(little: UInt16(batch.partition.topic.utf8.count))
            out.append([UInt8](batch.partition.topic.utf8))
            out.append(little: UInt32(batch.partition.partition))
            out.append(little: batch.baseOffset)
            out.append(little: UInt32(batch.count))
            out.append(little: UInt32(batch.bytes.count))
        }
        for run in interleave {
            out.append(little: UInt16(run.batch))
            out.append(little: UInt32(run.count))
        }
        for batch in batches { out.append(batch.bytes) }
        out.patch(little: UInt32(out.count), at: sizeOffset)
        return out.bytes
    }

    /// Completes a frame in place and returns its hash.
    package static func seal(
        _ frame: inout [UInt8], previousHash: Digest, recordedTime: Int64, durableThrough: UInt64
    ) -> Digest {
        func put<T: FixedWidthInteger>(_ value: T, _ offset: Int) {
            withUnsafeBytes(of: value.littleEndian) { raw in
                for (index, byte) in raw.enumerated() { frame[offset + index] = byte }
            }
        }
        put(recordedTime, recordedTimeOffset)
        put(durableThrough, durableOffset)
        for (index, byte) in previousHash.bytes.enumerated() { frame[previousHashOffset + index] = byte }
        put(crc(frame), crcOffset)
        return Digest.of(frame)
    }

    package static func crc(_ frame: [UInt8]) -> UInt32 {
        frame.withUnsafeBytes { crc($0) }
    }

    static func crc(_ frame: UnsafeRawBufferPointer) -> UInt32 {
        let covered = UnsafeRawBufferPointer(rebasing: frame[coveredOffset...])
        return headrace_crc32c(0, covered.baseAddress, covered.count)
    }

    /// The size a frame states at the start of `bytes`; nil when no frame starts there.
    package static func statedSize(_ bytes: UnsafeRawBufferPointer) -> Int? {
        guard bytes.count >= headerSize,
            UInt32(littleEndian: bytes.loadUnaligned(as: UInt32.self)) == magic, bytes[4] == version
        else { return nil }
        let size = Int(UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: sizeOffset, as: UInt32.self)))
        return size >= headerSize && size <= maximumSize ? size : nil
    }

    /// Checks the CRC and reads header and table.
    package static func decode(_ bytes: UnsafeRawBufferPointer) throws(EventLogError) -> Description {
        guard let size = statedSize(bytes), size <= bytes.count else {
            throw EventLogError("bad-frame", "no whole frame stands here", fault: .world)
        }
        let frame = UnsafeRawBufferPointer(rebasing: bytes[..<size])
        let stored = UInt32(littleEndian: frame.loadUnaligned(fromByteOffset: crcOffset, as: UInt32.self))
        guard crc(frame) == stored else {
            throw EventLogError("bad-frame", "the frame does not match its CRC-32C", fault: .world)
        }
        do {
            return try table(frame, size)
        } catch {
            throw EventLogError("bad-frame", "the frame's table is damaged", cause: error, fault: .world)
        }
    }

    /// Header and table of a frame whose CRC does not match, for learning what was lost; nil when they make no sense.
    static func salvage(_ bytes: UnsafeRawBufferPointer) -> Description? {
        guard let size = statedSize(bytes), size <= bytes.count else { return nil }
        return try? table(UnsafeRawBufferPointer(rebasing: bytes[..<size]), size)
    }

    private static func table(_ frame: UnsafeRawBufferPointer, _ size: Int) throws(BaseError) -> Description {
        var reader = ByteReader(frame, offset: 6)
        let batchCount = Int(try reader.little(UInt16.self))
        try reader.skip(8)
        let firstSequence = try reader.little(UInt64.self)
        let eventCount = Int(try reader.little(UInt32.self))
        let runs = Int(try reader.little(UInt32.self))
        let recordedTime = try reader.little(Int64.self)
        let durableThrough = try reader.little(UInt64.self)
        guard let previousHash = Digest(try reader.slice(Digest.byteCount)) else {
            throw BaseError("bad-frame", "no hash", fault: .world)
        }
        let principalCount = Int(try reader.little(UInt16.self))
        let keyCount = Int(try reader.little(UInt16.self))
        try reader.skip(4)
        let principal = String(decoding: try reader.slice(principalCount), as: UTF8.self)
        let keyID = String(decoding: try reader.slice(keyCount), as: UTF8.self)
        var pending: [(TopicPartition, Int64, Int, Int)] = []
        for _ in 0..<batchCount {
            let topicCount = Int(try reader.little(UInt16.self))
            let topic = String(decoding: try reader.slice(topicCount), as: UTF8.self)
            let partition = Int(try reader.little(UInt32.self))
            let base = try reader.little(Int64.self)
            let count = Int(try reader.little(UInt32.self))
            pending.append((TopicPartition(topic, partition), base, count, Int(try reader.little(UInt32.self))))
        }
        var interleave: [(batch: Int, count: Int)] = []
        for _ in 0..<runs {
            let batch = Int(try reader.little(UInt16.self))
            interleave.append((batch, Int(try reader.little(UInt32.self))))
            guard batch < batchCount else {
                throw BaseError("bad-frame", "the interleave map names no batch", fault: .world)
            }
        }
        var batches: [Batch] = []
        for (partition, base, count, bytes) in pending {
            batches.append(
                Batch(partition: partition, baseOffset: base, count: count, start: reader.offset, size: bytes))
            try reader.skip(bytes)
        }
        return Description(
            size: size, firstSequence: firstSequence, eventCount: eventCount, recordedTime: recordedTime,
            durableThrough: durableThrough, previousHash: previousHash, principal: principal, keyID: keyID,
            batches: batches, interleave: interleave)
    }
}
