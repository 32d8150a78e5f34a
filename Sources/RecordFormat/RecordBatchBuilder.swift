import Base
import CLZ4
import CPlatform

package enum RecordFormatModule {}
/// Errors of encoding and decoding batches.
package typealias RecordFormatError = Failure<RecordFormatModule>

/// Byte offsets inside a RecordBatch v2. Source: Apache Kafka, DefaultRecordBatch; all numbers big-endian.
package enum RecordBatchLayout {
    package static let baseOffset = 0
    package static let length = 8
    package static let leaderEpoch = 12
    package static let magic = 16
    package static let crc = 17
    /// First byte that the CRC-32C covers.
    package static let attributes = 21
    package static let lastOffsetDelta = 23
    package static let baseTimestamp = 27
    package static let maxTimestamp = 35
    package static let producerID = 43
    package static let producerEpoch = 51
    package static let baseSequence = 53
    package static let count = 57
    package static let headerSize = 61
    /// `length` counts the bytes after itself.
    package static let lengthOverhead = 12
    package static let codecMask: UInt16 = 7
    package static let codecLZ4: UInt16 = 3
    /// The base timestamp is the time after which tombstones may go.
    package static let deleteHorizonBit: UInt16 = 1 << 6
}

/// Who wrote a batch, by the rules of Kafka's idempotent producer: `sequence` is the number of its first record.
package struct ProducerStamp: Sendable, Hashable {
    package let id: Int64
    package let epoch: Int16
    package let sequence: Int32

    package init(id: Int64, epoch: Int16, sequence: Int32) {
        self.id = id
        self.epoch = epoch
        self.sequence = sequence
    }

    /// A batch of nobody in particular.
    package static let none = ProducerStamp(id: -1, epoch: -1, sequence: -1)
    package var isNone: Bool { id < 0 }
}

/// A finished batch on its way into a log.
package struct EncodedBatch: Sendable {
    /// RecordBatch v2.
    package fileprivate(set) var bytes: [UInt8]
    package let baseOffset: Int64
    package let count: Int
    package let maxTimestamp: Int64
    /// As `RecordBatchLayout.digest`. It stays the same when the records are compressed again.
    package let digest: Digest
    package let producer: ProducerStamp
    package let hasKeylessRecord: Bool
    /// Bytes of the records before compression.
    package let recordBytes: Int

    /// Writes the offset of the first record; the CRC does not cover it.
    package mutating func stamp(baseOffset: Int64) { RecordBatchLayout.stamp(&bytes, baseOffset: baseOffset) }
}

/// Collects events into one RecordBatch v2, LZ4-compressed where that is smaller.
package struct RecordBatchBuilder: Sendable {
    private var records: ByteWriter
    package private(set) var count = 0
    package private(set) var baseTimestamp: Int64 = 0
    package private(set) var maxTimestamp: Int64 = .min
    private var hasKeylessRecord = false
    package private(set) var hasHeaders = false
    private let baseOffset: Int64
    private let deleteHorizon: Int64?

    private static let typeName = HeaderName(EventHeader.type)
    private static let idName = HeaderName(EventHeader.id)
    private static let sourceName = HeaderName(EventHeader.source)
    private static let versionName = HeaderName(EventHeader.specVersion)
    private static let subjectName = HeaderName(EventHeader.subject)
    private static let contentName = HeaderName(EventHeader.contentType)
    private static let causationName = HeaderName(EventHeader.causation)
    private static let correlationName = HeaderName(EventHeader.correlation)

    /// - Parameters:
    ///   - baseOffset: offset of the batch; known when stored records are written again, stamped later for new ones.
    ///   - deleteHorizon: milliseconds since 1970 after which the tombstones may go; Kafka keeps it in place of the base
    ///     timestamp (attribute bit 6).
    package init(baseOffset: Int64 = 0, deleteHorizon: Int64? = nil, capacity: Int = 0) {
        self.baseOffset = baseOffset
        self.deleteHorizon = deleteHorizon
        records = ByteWriter(capacity: capacity)
        if let deleteHorizon { baseTimestamp = deleteHorizon }
    }

    /// Bytes of the records before compression.
    package var size: Int { records.count }
    package var bytes: [UInt8] { records.bytes }

    /// Takes a record's time in and gives its distance from the batch's.
    @inline(__always)
    private mutating func note(_ time: Int64) -> Int64 {
        if count == 0, deleteHorizon == nil { baseTimestamp = time }
        maxTimestamp = max(maxTimestamp, time)
        return time &- baseTimestamp
    }

    /// A record without headers: legal in a topic whose declaration gives a default type.
    package mutating func append(key: UnsafeRawBufferPointer?, value: UnsafeRawBufferPointer?, time: Int64) {
        let timeDelta = note(time)
        let keyLength = key?.count ?? -1
        if keyLength < 0 { hasKeylessRecord = true }
        let valueLength = value?.count ?? -1
        let total =
            2 + ByteWriter.varintLength(timeDelta) + ByteWriter.varintLength(Int64(count))
            + ByteWriter.varintLength(Int64(keyLength)) + max(keyLength, 0)
            + ByteWriter.varintLength(Int64(valueLength)) + max(valueLength, 0)
        if total <= RecordScratch.limit {
            let number = count
            withUnsafeTemporaryAllocation(byteCount: total + RecordScratch.lengthBytes, alignment: 1) { room in
                var record = RecordScratch(room)
                record.append(varint: total)
                record.append(0)
                record.append(varint: Int(timeDelta))
                record.append(varint: number)
                record.append(varint: keyLength)
                if let key { record.append(key) }
                record.append(varint: valueLength)
                if let value { record.append(value) }
                record.append(varint: 0)
                records.append(record.bytes)
            }
            count += 1
            return
        }
        records.append(varint: Int64(total))
        records.append(UInt8(0))
        records.append(varint: timeDelta)
        records.append(varint: Int64(count))
        records.append(varint: Int64(keyLength))
        if let key { records.append(key) }
        records.append(varint: Int64(valueLength))
        if let value { records.append(value) }
        records.append(varint: 0)
        count += 1
    }

    /// A stored record again, under its own offset and time: key, value and headers are taken as they stand.
    package mutating func append(_ batch: RecordBatch, _ index: Int) {
        let view = batch.records[index]
        if view.headersCount > 0 { hasHeaders = true }
        let timeDelta = note(view.timestamp)
        let offsetDelta = view.offset - baseOffset
        let body = Int(view.end - view.bodyStart)
        records.append(
            varint: Int64(1 + ByteWriter.varintLength(timeDelta) + ByteWriter.varintLength(offsetDelta) + body))
        records.append(UInt8(0))
        records.append(varint: timeDelta)
        records.append(varint: offsetDelta)
        batch.payload.withUnsafeBytes { raw in
            records.append(UnsafeRawBufferPointer(rebasing: raw[Int(view.bodyStart)..<Int(view.end)]))
        }
        count += 1
    }

    package mutating func append(_ event: NewEvent) {
        hasHeaders = true
        let timeDelta = note(event.time.milliseconds)

        // The record's own length comes first, so the variable part is measured before it is written.
        var headers = 4
        var headerBytes = Self.size(Self.typeName, event.type) + Self.size(Self.idName, event.id)
        headerBytes += Self.size(Self.sourceName, event.source) + Self.size(Self.versionName, "1.0")
        func optional(_ name: HeaderName, _ value: String?) {
            guard let value else { return }
            headers += 1
            headerBytes += Self.size(name, value)
        }
        optional(Self.subjectName, event.subject)
        optional(Self.contentName, event.contentType)
        optional(Self.causationName, event.causation)
        optional(Self.correlationName, event.correlation)
        for (name, value) in event.extensions {
            headers += 1
            headerBytes += Self.size(name.utf8.count, value)
        }

        let keyLength = event.key?.count ?? -1
        let valueLength = event.data?.count ?? -1
        let total =
            1 + ByteWriter.varintLength(timeDelta) + ByteWriter.varintLength(Int64(count))
            + ByteWriter.varintLength(Int64(keyLength)) + max(keyLength, 0)
            + ByteWriter.varintLength(Int64(valueLength))
            + max(valueLength, 0) + ByteWriter.varintLength(Int64(headers)) + headerBytes
        records.append(varint: Int64(total))
        records.append(UInt8(0))
        records.append(varint: timeDelta)
        records.append(varint: Int64(count))
        records.append(varint: Int64(keyLength))
        if let key = event.key { records.append(key) }
        records.append(varint: Int64(valueLength))
        if let data = event.data { records.append(data) }
        records.append(varint: Int64(headers))
        write(Self.typeName, event.type)
        write(Self.idName, event.id)
        write(Self.sourceName, event.source)
        write(Self.versionName, "1.0")
        if let subject = event.subject { write(Self.subjectName, subject) }
        if let contentType = event.contentType { write(Self.contentName, contentType) }
        if let causation = event.causation { write(Self.causationName, causation) }
        if let correlation = event.correlation { write(Self.correlationName, correlation) }
        for (name, value) in event.extensions {
            records.append(varint: Int64(name.utf8.count))
            records.bytes.append(contentsOf: name.utf8)
            write(value)
        }
        count += 1
    }

    @inline(__always)
    private static func size(_ name: HeaderName, _ value: String) -> Int { size(name.count, value) }

    @inline(__always)
    private static func size(_ name: Int, _ value: String) -> Int {
        let length = value.utf8.count
        return ByteWriter.varintLength(Int64(name)) + name + ByteWriter.varintLength(Int64(length)) + length
    }

    private mutating func write(_ name: HeaderName, _ value: String) {
        records.append(varint: Int64(name.count))
        records.append(UnsafeRawBufferPointer(start: name.start, count: name.count))
        write(value)
    }

    @inline(__always)
    private mutating func write(_ value: String) {
        records.append(varint: Int64(value.utf8.count))
        records.bytes.append(contentsOf: value.utf8)
    }

    /// Visits what was appended without headers, in order, until `body` says false: key, value and time as they were given.
    /// For records that somebody else will encode; nil where some have headers.
    @inlinable
    package func forEachPlainRecord(
        _ body: (UnsafeRawBufferPointer?, UnsafeRawBufferPointer?, Int64) -> Bool
    ) -> Void? {
        guard !hasHeaders else { return nil }
        return bytes.withUnsafeBytes { raw in
            var at = 0
            // The bytes are this builder's own, so nothing in them needs to be doubted.
            func varint() -> Int64 {
                var (result, shift): (UInt64, UInt64) = (0, 0)
                while true {
                    let byte = raw[at]
                    at += 1
                    result |= UInt64(byte & 0x7F) << shift
                    if byte & 0x80 == 0 { return Int64(bitPattern: result >> 1) ^ -Int64(bitPattern: result & 1) }
                    shift += 7
                }
            }
            func part() -> UnsafeRawBufferPointer? {
                let count = Int(varint())
                guard count >= 0 else { return nil }
                defer { at += count }
                return UnsafeRawBufferPointer(rebasing: raw[at..<at + count])
            }
            for _ in 0..<count {
                let length = Int(varint())
                let end = at + length
                at += 1
                let time = baseTimestamp &+ varint()
                _ = varint()
                let key = part()
                let value = part()
                guard body(key, value, time) else { return }
                at = end
            }
        }
    }

    /// Of the records so far.
    package var digest: Digest { RecordBatchLayout.digest(baseTimestamp, records.bytes) }
    /// Of the records alone, as envelopes have it that were written before times were in it.
    package var untimedDigest: Digest { Digest.of(records.bytes) }

    /// A batch of which compaction left nothing but the offsets it covers.
    package static func empty(
        baseOffset: Int64, lastOffset: Int64, time: Int64, producer: ProducerStamp
    ) -> EncodedBatch {
        var builder = RecordBatchBuilder(baseOffset: baseOffset)
        builder.baseTimestamp = time
        builder.maxTimestamp = time
        return builder.finish(producer: producer, lastOffset: lastOffset)
    }

    /// The finished batch.
    /// - Parameter lastOffset: where the batch ends when records behind its last one were taken out by compaction.
    package func finish(producer: ProducerStamp = .none, lastOffset: Int64? = nil) -> EncodedBatch {
        let compressed = records.bytes.withUnsafeBytes { LZ4Frame.compress($0) }
        let body = compressed ?? records.bytes
        var attributes = compressed == nil ? UInt16(0) : RecordBatchLayout.codecLZ4
        if deleteHorizon != nil { attributes |= RecordBatchLayout.deleteHorizonBit }
        var out = ByteWriter(capacity: RecordBatchLayout.headerSize + body.count)
        out.append(big: baseOffset)
        out.append(big: Int32(RecordBatchLayout.headerSize + body.count - RecordBatchLayout.lengthOverhead))
        out.append(big: Int32(-1))
        out.append(UInt8(2))
        out.append(big: UInt32(0))
        out.append(big: attributes)
        out.append(big: Int32(clamping: lastOffset.map { $0 - baseOffset } ?? Int64(count - 1)))
        out.append(big: baseTimestamp)
        out.append(big: maxTimestamp)
        out.append(big: producer.id)
        out.append(big: producer.epoch)
        out.append(big: producer.sequence)
        out.append(big: Int32(count))
        out.append(body)
        RecordBatchLayout.seal(&out.bytes)
        return EncodedBatch(
            bytes: out.bytes, baseOffset: baseOffset, count: count, maxTimestamp: maxTimestamp, digest: digest,
            producer: producer, hasKeylessRecord: hasKeylessRecord, recordBytes: records.count)
    }
}

extension RecordBatchLayout {
    /// SHA-256 of the first record's time (milliseconds since 1970, little-endian) and of the records before compression,
    /// which hold their times as differences from it.
    package static func digest(_ baseTimestamp: Int64, _ records: [UInt8]) -> Digest {
        var stream = DigestStream()
        withUnsafeBytes(of: baseTimestamp.littleEndian) { stream.update($0) }
        stream.update(records)
        return stream.finish()
    }

    /// Writes the CRC over the bytes it covers.
    package static func seal(_ batch: inout [UInt8]) {
        let crc = batch.withUnsafeBytes { headrace_crc32c(0, $0.baseAddress! + attributes, $0.count - attributes) }
        withUnsafeBytes(of: crc.bigEndian) { raw in
            for (index, byte) in raw.enumerated() { batch[Self.crc + index] = byte }
        }
    }

    package static func stamp(_ batch: inout [UInt8], baseOffset: Int64) {
        withUnsafeBytes(of: baseOffset.bigEndian) { raw in
            for (index, byte) in raw.enumerated() { batch[Self.baseOffset + index] = byte }
        }
    }
}

/// The name of a header, in memory that is never given back: no thread waits for another over a count of references.
/// Unchecked: the bytes are written before anybody sees them and never change, so there is no lock.
private struct HeaderName: @unchecked Sendable {
    let start: UnsafeRawPointer
    let count: Int

    init(_ name: String) {
        count = name.utf8.count
        let room = UnsafeMutableRawPointer.allocate(byteCount: max(1, count), alignment: 1)
        for (index, byte) in name.utf8.enumerated() { room.storeBytes(of: byte, toByteOffset: index, as: UInt8.self) }
        start = UnsafeRawPointer(room)
    }
}
