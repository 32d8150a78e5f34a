import Base
import CPlatform
import RecordFormat

/// One append in the write-ahead log: an envelope (header, table of batches, interleave map), then the batches.
///
/// The hash chain runs over envelopes; an envelope holds the digest of every batch's records before compression. So the
/// chain still holds, and can still be checked, when the batches have moved into partition files and were compressed
/// anew. Little-endian. docs/formats/log.md describes it byte by byte.
package enum LogFrame {
    package static let magic: UInt32 = 0x3246_5248  // "HRF2"
    package static let version: UInt8 = 2
    package static let headerSize = 96
    /// Bytes of one frame; larger appends are refused.
    package static let maximumSize = 64 << 20

    static let sizeOffset = 8
    static let crcOffset = 12
    static let coveredOffset = 16
    static let recordedTimeOffset = 40
    static let durableOffset = 48
    static let previousHashOffset = 56

    /// A batch of the frame, as its envelope tells.
    package struct Batch: Sendable {
        package let partition: TopicPartition
        package let baseOffset: Int64
        package let count: Int
        /// Where its bytes start, from the frame's first byte.
        package let start: Int
        package let size: Int
        package let producer: ProducerStamp
        /// Event ids of this batch are held against later ones.
        package let isDeduplicated: Bool
        /// Of its records before compression.
        package let digest: Digest
        /// The digest holds the records' times as well.
        package let isTimed: Bool

        package var end: Int64 { baseOffset + Int64(count) }
    }

    /// What an envelope says.
    package struct Description: Sendable {
        /// Bytes of the frame and of its envelope.
        package let size: Int
        package let envelopeSize: Int
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

        package var endSequence: UInt64 { firstSequence + UInt64(eventCount) }
    }

    /// A batch for a new frame.
    package struct NewBatch {
        package let partition: TopicPartition
        package let baseOffset: Int64
        package let batch: EncodedBatch
        package let isDeduplicated: Bool

        package init(partition: TopicPartition, baseOffset: Int64, batch: EncodedBatch, isDeduplicated: Bool) {
            self.partition = partition
            self.baseOffset = baseOffset
            self.batch = batch
            self.isDeduplicated = isDeduplicated
        }
    }

    private static let deduplicatedFlag: UInt16 = 1
    private static let timedFlag: UInt16 = 2

    /// Everything but what only the writer knows (previous hash, recorded time, durable mark, CRC).
    package static func encode(
        firstSequence: UInt64, principal: String, keyID: String, batches: [NewBatch],
        interleave: [(batch: Int, count: Int)]
    ) -> [UInt8] {
        let total = batches.reduce(0) { $0 + $1.batch.bytes.count + 96 + $1.partition.topic.utf8.count }
        var out = ByteWriter(capacity: headerSize + total + interleave.count * 6 + 64)
        out.append(little: magic)
        out.append(version)
        out.append(UInt8(0))
        out.append(little: UInt16(batches.count))
        out.append(little: UInt32(0))
        out.append(little: UInt32(0))
        out.append(little: UInt32(0))
        out.append(little: UInt32(interleave.count))
        out.append(little: firstSequence)
        out.append(little: UInt32(batches.reduce(0) { $0 + $1.batch.count }))
        out.append(little: UInt32(0))
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
            out.append(little: UInt32(batch.batch.count))
            out.append(little: UInt32(batch.batch.bytes.count))
            out.append(little: (batch.isDeduplicated ? deduplicatedFlag : 0) | timedFlag)
            out.append(little: batch.batch.producer.id)
            out.append(little: batch.batch.producer.epoch)
            out.append(little: batch.batch.producer.sequence)
            out.append(batch.batch.digest.bytes)
        }
        for run in interleave {
            out.append(little: UInt16(run.batch))
            out.append(little: UInt32(run.count))
        }
        out.patch(little: UInt32(out.count), at: coveredOffset)
        for batch in batches { out.append(batch.batch.bytes) }
        out.patch(little: UInt32(out.count), at: sizeOffset)
        return out.bytes
    }

    /// Where the batches stand in the frame that was made of them.
    static func entries(
        of batches: [NewBatch], in frame: [UInt8]
    ) -> [(partition: TopicPartition, entry: BatchEntry, producer: ProducerStamp)] {
        var start = frame.count - batches.reduce(0) { $0 + $1.batch.bytes.count }
        return batches.map { batch in
            defer { start += batch.batch.bytes.count }
            let entry = BatchEntry(
                baseOffset: batch.baseOffset, end: batch.baseOffset + Int64(batch.batch.count),
                maxTime: batch.batch.maxTimestamp, fileOffset: Int64(start), size: Int32(batch.batch.bytes.count),
                count: Int32(batch.batch.count))
            return (batch.partition, entry, batch.batch.producer)
        }
    }

    /// Completes a frame in place and returns its hash.
    package static func seal(
        _ frame: inout [UInt8], previousHash: Digest, recordedTime: Int64, durableThrough: UInt64
    ) -> Digest {
        frame.withUnsafeMutableBytes { raw in
            raw.storeBytes(of: recordedTime.littleEndian, toByteOffset: recordedTimeOffset, as: Int64.self)
            raw.storeBytes(of: durableThrough.littleEndian, toByteOffset: durableOffset, as: UInt64.self)
            previousHash.store(into: raw, at: previousHashOffset)
            let size = Int(
                UInt32(littleEndian: raw.loadUnaligned(fromByteOffset: coveredOffset, as: UInt32.self)))
            let envelope = UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(raw)[..<size])
            raw.storeBytes(of: crc(envelope).littleEndian, toByteOffset: crcOffset, as: UInt32.self)
            return Digest.of(envelope)
        }
    }

    private static func crc(_ envelope: UnsafeRawBufferPointer) -> UInt32 {
        let covered = UnsafeRawBufferPointer(rebasing: envelope[coveredOffset...])
        return headrace_crc32c(0, covered.baseAddress, covered.count)
    }

    /// Makes the envelope's CRC good where one begins.
    static func reseal(_ frame: inout [UInt8]) {
        guard let size = frame.withUnsafeBytes({ statedSize($0) })?.envelope, size <= frame.count else { return }
        frame.withUnsafeMutableBytes { raw in
            let value = crc(UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(raw)[..<size]))
            raw.storeBytes(of: value.littleEndian, toByteOffset: crcOffset, as: UInt32.self)
        }
    }

    /// The sizes a frame states at the start of `bytes`; nil when no frame starts there.
    package static func statedSize(_ bytes: UnsafeRawBufferPointer) -> (frame: Int, envelope: Int)? {
        guard bytes.count >= headerSize,
            UInt32(littleEndian: bytes.loadUnaligned(as: UInt32.self)) == magic, bytes[4] == version
        else { return nil }
        let size = Int(UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: sizeOffset, as: UInt32.self)))
        let envelope = Int(UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: coveredOffset, as: UInt32.self)))
        return envelope >= headerSize && size >= envelope && size <= maximumSize ? (size, envelope) : nil
    }

    /// Checks the CRC of an envelope and reads it.
    package static func decodeEnvelope(_ bytes: UnsafeRawBufferPointer) throws(EventLogError) -> Description {
        guard let (size, envelopeSize) = statedSize(bytes), envelopeSize <= bytes.count else {
            throw EventLogError("bad-frame", "no whole frame stands here", fault: .world)
        }
        let envelope = UnsafeRawBufferPointer(rebasing: bytes[..<envelopeSize])
        let stored = UInt32(littleEndian: envelope.loadUnaligned(fromByteOffset: crcOffset, as: UInt32.self))
        guard crc(envelope) == stored else {
            throw EventLogError("bad-frame", "the frame's envelope does not match its CRC-32C", fault: .world)
        }
        do {
            return try table(envelope, size)
        } catch {
            throw EventLogError("bad-frame", "the frame's table is damaged", cause: error, fault: .world)
        }
    }

    /// Checks the CRC of the envelope and of every batch.
    package static func decode(_ bytes: UnsafeRawBufferPointer) throws(EventLogError) -> Description {
        let description = try decodeEnvelope(bytes)
        guard description.size <= bytes.count else {
            throw EventLogError("bad-frame", "the frame ends early", fault: .world)
        }
        for batch in description.batches {
            let stored = UnsafeRawBufferPointer(rebasing: bytes[batch.start..<batch.start + batch.size])
            do {
                let header = try RecordBatchHeader(stored)
                guard header.size == batch.size, header.baseOffset == batch.baseOffset,
                    Int(header.count) == batch.count, header.leaderEpoch == -1, header.matchesCRC(stored)
                else { throw RecordFormatError("bad-crc", "it does not match its CRC-32C", fault: .world) }
            } catch {
                throw EventLogError(
                    "bad-frame", "the batch at offset \(batch.baseOffset) of \(batch.partition) is damaged",
                    cause: error, fault: .world)
            }
        }
        return description
    }

    private static func table(_ envelope: UnsafeRawBufferPointer, _ size: Int) throws(BaseError) -> Description {
        var reader = ByteReader(envelope, offset: 6)
        let batchCount = Int(try reader.little(UInt16.self))
        try reader.skip(12)
        let runs = Int(try reader.little(UInt32.self))
        let firstSequence = try reader.little(UInt64.self)
        let eventCount = Int(try reader.little(UInt32.self))
        try reader.skip(4)
        let recordedTime = try reader.little(Int64.self)
        let durableThrough = try reader.little(UInt64.self)
        guard let previousHash = Digest(try reader.slice(Digest.byteCount)), firstSequence < UInt64(Int64.max) else {
            throw BaseError("bad-frame", "no hash", fault: .world)
        }
        let principalCount = Int(try reader.little(UInt16.self))
        let keyCount = Int(try reader.little(UInt16.self))
        try reader.skip(4)
        let principal = String(decoding: try reader.slice(principalCount), as: UTF8.self)
        let keyID = String(decoding: try reader.slice(keyCount), as: UTF8.self)
        var batches: [Batch] = []
        batches.reserveCapacity(min(batchCount, 64))
        var start = envelope.count
        var events = 0
        for _ in 0..<batchCount {
            let batch = try self.batch(&reader, start)
            start += batch.size
            events += batch.count
            batches.append(batch)
        }
        // What the table says of itself is not believed before it is read.
        var interleave: [(batch: Int, count: Int)] = []
        interleave.reserveCapacity(min(runs, reader.remaining / 6))
        var interleaved = 0
        for _ in 0..<runs {
            let batch = Int(try reader.little(UInt16.self))
            interleave.append((batch, Int(try reader.little(UInt32.self))))
            interleaved += interleave.last?.count ?? 0
            guard batch < batchCount else {
                throw BaseError("bad-frame", "the interleave map names no batch", fault: .world)
            }
        }
        guard start == size, events == eventCount, interleaved == eventCount, reader.remaining == 0 else {
            throw BaseError("bad-frame", "the table does not add up", fault: .world)
        }
        return Description(
            size: size, envelopeSize: envelope.count, firstSequence: firstSequence, eventCount: eventCount,
            recordedTime: recordedTime, durableThrough: durableThrough, previousHash: previousHash,
            principal: principal, keyID: keyID, batches: batches, interleave: interleave)
    }

    private static func batch(_ reader: inout ByteReader, _ start: Int) throws(BaseError) -> Batch {
        let topicCount = Int(try reader.little(UInt16.self))
        let topic = String(decoding: try reader.slice(topicCount), as: UTF8.self)
        let partition = Int(try reader.little(UInt32.self))
        let base = try reader.little(Int64.self)
        let count = Int(try reader.little(UInt32.self))
        let size = Int(try reader.little(UInt32.self))
        let flags = try reader.little(UInt16.self)
        let id = try reader.little(Int64.self)
        let epoch = try reader.little(Int16.self)
        let sequence = try reader.little(Int32.self)
        guard let digest = Digest(try reader.slice(Digest.byteCount)), base >= 0,
            base < Int64.max - Int64(UInt32.max), size >= RecordBatchLayout.headerSize
        else { throw BaseError("bad-frame", "a batch cannot be where the table says", fault: .world) }
        return Batch(
            partition: TopicPartition(topic, partition), baseOffset: base, count: count, start: start, size: size,
            producer: ProducerStamp(id: id, epoch: epoch, sequence: sequence),
            isDeduplicated: flags & deduplicatedFlag != 0, digest: digest, isTimed: flags & timedFlag != 0)
    }
}
