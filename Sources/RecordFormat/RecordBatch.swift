import Base
import CPlatform

/// What a batch's header says, read without touching its records.
package struct RecordBatchHeader: Sendable, Equatable {
    package let baseOffset: Int64
    /// Bytes of the whole batch.
    package let size: Int
    /// -1 where no cluster wrote it.
    package let leaderEpoch: Int32
    package let crc: UInt32
    package let attributes: UInt16
    package let lastOffsetDelta: Int32
    package let baseTimestamp: Int64
    package let maxTimestamp: Int64
    package let producer: ProducerStamp
    package let count: Int32

    /// After this moment (milliseconds since 1970) compaction may drop the batch's tombstones; nil before the first pass.
    package var deleteHorizon: Int64? {
        attributes & RecordBatchLayout.deleteHorizonBit == 0 ? nil : baseTimestamp
    }
    package var lastOffset: Int64 { baseOffset + Int64(lastOffsetDelta) }

    package init(_ bytes: UnsafeRawBufferPointer) throws(RecordFormatError) {
        guard bytes.count >= RecordBatchLayout.headerSize else {
            throw RecordFormatError(
                "bad-batch", "a batch of \(bytes.count) bytes is shorter than its header", fault: .world)
        }
        func read<T: FixedWidthInteger>(_ offset: Int, _ type: T.Type) -> T {
            T(bigEndian: bytes.loadUnaligned(fromByteOffset: offset, as: T.self))
        }
        guard bytes[RecordBatchLayout.magic] == 2 else {
            throw RecordFormatError(
                "bad-batch", "a batch has format \(bytes[RecordBatchLayout.magic]); only format 2 is known",
                fault: .world)
        }
        baseOffset = read(RecordBatchLayout.baseOffset, Int64.self)
        size = Int(read(RecordBatchLayout.length, Int32.self)) + RecordBatchLayout.lengthOverhead
        leaderEpoch = read(RecordBatchLayout.leaderEpoch, Int32.self)
        crc = read(RecordBatchLayout.crc, UInt32.self)
        attributes = read(RecordBatchLayout.attributes, UInt16.self)
        lastOffsetDelta = read(RecordBatchLayout.lastOffsetDelta, Int32.self)
        baseTimestamp = read(RecordBatchLayout.baseTimestamp, Int64.self)
        maxTimestamp = read(RecordBatchLayout.maxTimestamp, Int64.self)
        producer = ProducerStamp(
            id: read(RecordBatchLayout.producerID, Int64.self),
            epoch: read(RecordBatchLayout.producerEpoch, Int16.self),
            sequence: read(RecordBatchLayout.baseSequence, Int32.self))
        count = read(RecordBatchLayout.count, Int32.self)
        guard size >= RecordBatchLayout.headerSize, size <= bytes.count, count >= 0, lastOffsetDelta >= 0,
            count <= Int64(lastOffsetDelta) + 1, baseOffset >= 0, baseOffset < Int64.max - Int64(Int32.max)
        else {
            throw RecordFormatError(
                "bad-batch", "a batch states \(size) bytes and \(count) records, which cannot be", fault: .world)
        }
    }
}

extension RecordBatchHeader {
    /// - Parameter bytes: the whole batch.
    package func matchesCRC(_ bytes: UnsafeRawBufferPointer) -> Bool {
        guard bytes.count >= size else { return false }
        let covered = UnsafeRawBufferPointer(rebasing: bytes[RecordBatchLayout.attributes..<size])
        return headrace_crc32c(0, covered.baseAddress, covered.count) == crc
    }
}

/// Where one record's parts stand in the batch's uncompressed bytes. A start of -1 is a null.
package struct RecordView: Sendable {
    package let offset: Int64
    package let timestamp: Int64
    package let keyStart: Int32
    package let keyCount: Int32
    package let valueStart: Int32
    package let valueCount: Int32
    package let headersStart: Int32
    package let headersCount: Int32
    /// From the key's length to the record's last byte: what does not depend on the batch around it.
    package let bodyStart: Int32
    package let end: Int32
}

/// A decoded batch: the uncompressed record bytes and a view per record. Immutable, so it may be shared.
package final class RecordBatch: Sendable {
    package let header: RecordBatchHeader
    package let payload: [UInt8]
    package let records: [RecordView]

    init(header: RecordBatchHeader, payload: [UInt8], records: [RecordView]) {
        self.header = header
        self.payload = payload
        self.records = records
    }

    /// Checks the CRC, decompresses and finds the records.
    package init(_ bytes: UnsafeRawBufferPointer) throws(RecordFormatError) {
        let header = try RecordBatchHeader(bytes)
        guard header.matchesCRC(bytes) else {
            throw RecordFormatError(
                "bad-crc", "the batch at offset \(header.baseOffset) does not match its CRC-32C", fault: .world)
        }
        self.header = header
        let body = UnsafeRawBufferPointer(rebasing: bytes[RecordBatchLayout.headerSize..<header.size])
        switch header.attributes & RecordBatchLayout.codecMask {
        case 0: payload = [UInt8](body)
        case RecordBatchLayout.codecLZ4: payload = try LZ4Frame.decompress(body)
        default:
            throw RecordFormatError(
                "unknown-codec",
                "a batch uses codec \(header.attributes & RecordBatchLayout.codecMask); none and LZ4 are known",
                fault: .world)
        }
        do {
            records = try payload.withRaw { raw throws(BaseError) in try RecordBatch.scan(raw, header) }
        } catch {
            throw RecordFormatError(
                "bad-records", "the records of the batch at offset \(header.baseOffset) are damaged", cause: error,
                fault: .world)
        }
    }

    /// A batch that was just encoded, as its reader will see it.
    package convenience init(_ encoded: EncodedBatch) throws(RecordFormatError) {
        let decoded: RecordBatch = try encoded.bytes.withRaw { raw throws(RecordFormatError) in try RecordBatch(raw) }
        self.init(header: decoded.header, payload: decoded.payload, records: decoded.records)
    }

    /// Collected records, as their reader will see them.
    package convenience init(_ builder: RecordBatchBuilder) throws(RecordFormatError) {
        let payload = builder.bytes
        let header = RecordBatchHeader(
            baseOffset: 0, size: payload.count, lastOffsetDelta: Int32(clamping: max(0, builder.count - 1)),
            baseTimestamp: builder.baseTimestamp, maxTimestamp: builder.maxTimestamp, count: Int32(builder.count))
        do {
            let records = try payload.withRaw { raw throws(BaseError) in try RecordBatch.scan(raw, header) }
            self.init(header: header, payload: payload, records: records)
        } catch {
            throw RecordFormatError("bad-records", "collected records cannot be read", cause: error)
        }
    }

    private static func scan(
        _ raw: UnsafeRawBufferPointer, _ header: RecordBatchHeader
    ) throws(BaseError) -> [RecordView] {
        var views: [RecordView] = []
        // No record is smaller than seven bytes, so a false count costs no memory.
        views.reserveCapacity(min(Int(header.count), raw.count / 7))
        var reader = ByteReader(raw)
        var nextDelta: Int64 = 0
        for _ in 0..<header.count {
            let length = Int(try reader.varint())
            try reader.require(length)
            let end = reader.offset + length
            try reader.skip(1)
            let timeDelta = try reader.varint()
            let offsetDelta = try reader.varint()
            guard offsetDelta >= nextDelta, offsetDelta <= Int64(header.lastOffsetDelta) else {
                throw BaseError("bad-record", "a record stands outside its batch", fault: .world)
            }
            nextDelta = offsetDelta + 1
            let bodyStart = reader.offset
            func part() throws(BaseError) -> (Int32, Int32) {
                let count = Int(try reader.varint())
                guard count >= 0 else { return (-1, 0) }
                let start = reader.offset
                try reader.skip(count)
                return (Int32(start), Int32(count))
            }
            let key = try part()
            let value = try part()
            let headers = try reader.varint()
            guard headers >= 0, headers <= length else {
                throw BaseError("bad-record", "a record states \(headers) headers", fault: .world)
            }
            views.append(
                RecordView(
                    offset: header.baseOffset + offsetDelta, timestamp: header.baseTimestamp &+ timeDelta,
                    keyStart: key.0,
                    keyCount: key.1, valueStart: value.0, valueCount: value.1, headersStart: Int32(reader.offset),
                    headersCount: Int32(headers), bodyStart: Int32(bodyStart), end: Int32(end)))
            guard end >= reader.offset else {
                throw BaseError("bad-record", "a record overruns its length", fault: .world)
            }
            try reader.skip(end - reader.offset)
        }
        return views
    }
}

extension RecordBatch {
    /// Indices of the records whose offsets lie in a range.
    package func indices(in range: Range<Int64>) -> Range<Int> {
        records.sortedIndex(after: { $0.offset < range.lowerBound }
        )..<records.sortedIndex(after: { $0.offset < range.upperBound })
    }
}

/// One event as it stands in the log.
package struct StoredEvent: Sendable {
    package let batch: RecordBatch
    package let index: Int

    @inlinable
    package init(batch: RecordBatch, index: Int) {
        self.batch = batch
        self.index = index
    }

    package var offset: Int64 { batch.records[index].offset }

    /// SHA-256 of what the event says, wherever it stands: time, key, value, headers.
    package var digest: Digest {
        let view = batch.records[index]
        var out = ByteWriter(capacity: 16 + Int(view.end - view.bodyStart))
        out.append(big: view.timestamp)
        batch.payload.withUnsafeBytes { raw in
            out.append(UnsafeRawBufferPointer(rebasing: raw[Int(view.bodyStart)..<Int(view.end)]))
        }
        return Digest.of(out.bytes)
    }
    package var time: Instant { Instant(milliseconds: batch.records[index].timestamp) }
    package var dataCount: Int { Int(batch.records[index].valueCount) }

    /// The record's data; nil for a tombstone.
    package func withData<R, E: Error>(_ body: (UnsafeRawBufferPointer) throws(E) -> R) throws(E) -> R? {
        let view = batch.records[index]
        guard view.valueStart >= 0 else { return nil }
        return try batch.payload.withRaw { raw throws(E) in
            try body(
                UnsafeRawBufferPointer(rebasing: raw[Int(view.valueStart)..<Int(view.valueStart + view.valueCount)]))
        }
    }

    package var data: [UInt8]? {
        let view = batch.records[index]
        guard view.valueStart >= 0 else { return nil }
        return [UInt8](batch.payload[Int(view.valueStart)..<Int(view.valueStart + view.valueCount)])
    }

    package var key: [UInt8]? {
        let view = batch.records[index]
        guard view.keyStart >= 0 else { return nil }
        return [UInt8](batch.payload[Int(view.keyStart)..<Int(view.keyStart + view.keyCount)])
    }

    /// All headers in the order they were written. Damage inside headers ends the list early; the CRC has been checked,
    /// so that is a producer's mistake, not rot.
    package var headers: [(name: String, value: String)] {
        var result: [(String, String)] = []
        forEachHeader { name, value in
            result.append((String(decoding: name, as: UTF8.self), String(decoding: value, as: UTF8.self)))
            return true
        }
        return result
    }

    package func header(_ wanted: String) -> String? {
        var found: String?
        var wanted = wanted
        wanted.withUTF8 { text in
            forEachHeader { name, value in
                guard name.count == text.count, name.elementsEqual(text) else { return true }
                found = String(decoding: value, as: UTF8.self)
                return false
            }
        }
        return found
    }

    /// Compares a header without building a String; the hot test for progress events.
    package func headerEquals(_ wanted: StaticString, _ expected: StaticString) -> Bool {
        var equal = false
        forEachHeader { name, value in
            guard name.count == wanted.utf8CodeUnitCount,
                name.elementsEqual(UnsafeBufferPointer(start: wanted.utf8Start, count: wanted.utf8CodeUnitCount))
            else { return true }
            equal =
                value.count == expected.utf8CodeUnitCount
                && value.elementsEqual(
                    UnsafeBufferPointer(start: expected.utf8Start, count: expected.utf8CodeUnitCount))
            return false
        }
        return equal
    }

    package var isProgress: Bool { headerEquals("ce_type", "source.progress") }
    package var id: String { header(EventHeader.id) ?? "" }
    package var type: String { header(EventHeader.type) ?? "" }

    private func forEachHeader(_ body: (UnsafeRawBufferPointer, UnsafeRawBufferPointer) -> Bool) {
        let view = batch.records[index]
        batch.payload.withUnsafeBytes { raw in
            var reader = ByteReader(raw, offset: Int(view.headersStart))
            for _ in 0..<view.headersCount {
                guard let nameCount = try? reader.varint(), let name = try? reader.slice(Int(nameCount)),
                    let valueCount = try? reader.varint(), let value = try? reader.slice(max(Int(valueCount), 0)),
                    body(name, value)
                else { return }
            }
        }
    }
}
