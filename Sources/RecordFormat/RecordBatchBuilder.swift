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
}

/// Collects events into one RecordBatch v2, LZ4-compressed where that is smaller.
package struct RecordBatchBuilder: Sendable {
    private var records = ByteWriter()
    package private(set) var count = 0
    private var baseTimestamp: Int64 = 0
    package private(set) var maxTimestamp: Int64 = .min

    private static let typeName = [UInt8](EventHeader.type.utf8)
    private static let idName = [UInt8](EventHeader.id.utf8)
    private static let sourceName = [UInt8](EventHeader.source.utf8)
    private static let versionName = [UInt8](EventHeader.specVersion.utf8)
    private static let subjectName = [UInt8](EventHeader.subject.utf8)
    private static let contentName = [UInt8](EventHeader.contentType.utf8)
    private static let causationName = [UInt8](EventHeader.causation.utf8)
    private static let correlationName = [UInt8](EventHeader.correlation.utf8)

    package init() {}

    /// Bytes of the records before compression.
    package var size: Int { records.count }

    package mutating func append(_ event: NewEvent) {
        let time = event.time.milliseconds
        if count == 0 { baseTimestamp = time }
        maxTimestamp = max(maxTimestamp, time)

        // The record's own length comes first, so the variable part is measured before it is written.
        var headers = 4
        var headerBytes = Self.size(Self.typeName, event.type) + Self.size(Self.idName, event.id)
        headerBytes += Self.size(Self.sourceName, event.source) + Self.size(Self.versionName, "1.0")
        func optional(_ name: [UInt8], _ value: String?) {
            guard let value else { return }
            headers += 1
            headerBytes += Self.size(name, value)
        }
        optional(Self.subjectName, event.subject)
        optional(Self.contentName, event.contentType)
        optional(Self.causationName, event.causation)
        optional(Self.correlationName, event.correlation)
        for (name, value) in event.extensions { optional([UInt8](name.utf8), value) }

        let timeDelta = time &- baseTimestamp
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
        for (name, value) in event.extensions { write([UInt8](name.utf8), value) }
        count += 1
    }

    private static func size(_ name: [UInt8], _ value: String) -> Int {
        let length = value.utf8.count
        return ByteWriter.varintLength(Int64(name.count)) + name.count + ByteWriter.varintLength(Int64(length)) + length
    }

    private mutating func write(_ name: [UInt8], _ value: String) {
        records.append(varint: Int64(name.count))
        records.append(name)
        records.append(varint: Int64(value.utf8.count))
        records.bytes.append(contentsOf: value.utf8)
    }

    /// The finished batch with base offset 0; the log stamps the real one with `stamp(_:baseOffset:)`, which the CRC
    /// does not cover.
    package func finish() -> [UInt8] {
        precondition(count > 0, "an empty batch is never written")
        let compressed = LZ4Frame.compress(records.bytes)
        let body = compressed ?? records.bytes
        var out = ByteWriter(capacity: RecordBatchLayout.headerSize + body.count)
        out.append(big: Int64(0))
        out.append(big: Int32(RecordBatchLayout.headerSize + body.count - RecordBatchLayout.lengthOverhead))
        out.append(big: Int32(-1))
        out.append(UInt8(2))
        out.append(big: UInt32(0))
        out.append(big: compressed == nil ? UInt16(0) : RecordBatchLayout.codecLZ4)
        out.append(big: Int32(count - 1))
        out.append(big: baseTimestamp)
        out.append(big: maxTimestamp)
        out.append(big: Int64(-1))
        out.append(big: Int16(-1))
        out.append(big: Int32(-1))
        out.append(big: Int32(count))
        out.append(body)
        RecordBatchLayout.seal(&out.bytes)
        return out.bytes
    }
}

extension RecordBatchLayout {
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
