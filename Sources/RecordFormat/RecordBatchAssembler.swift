import Base

/// Builds decoded batches from records that a client library hands over one by one: the same bytes and views that
/// decoding a batch would give, so that readers and digests cannot tell the difference.
package struct RecordBatchAssembler {
    private var payload: ByteWriter
    private var records: [RecordView] = []

    /// - Parameter capacity: bytes of keys, values and headers that are expected.
    package init(capacity: Int = 0) { payload = ByteWriter(capacity: capacity) }

    package var isEmpty: Bool { records.isEmpty }
    package var count: Int { records.count }
    /// Bytes of keys, values and headers so far.
    package var size: Int { payload.count }

    /// Whether a record of that offset can still stand in this batch, whose offsets are 32-bit distances.
    package func takes(offset: Int64) -> Bool {
        guard let first = records.first else { return true }
        return offset - first.offset < Int64(Int32.max) - 1
    }

    /// - Parameters:
    ///   - headers: how many headers `writeHeaders` writes, each as name length, name, value length, value.
    @inline(__always)
    package mutating func append(
        offset: Int64, timestamp: Int64, key: UnsafeRawBufferPointer?, value: UnsafeRawBufferPointer?, headers: Int,
        writeHeaders: (inout ByteWriter) -> Void
    ) {
        let bodyStart = payload.count
        payload.append(varint: Int64(key?.count ?? -1))
        let keyStart = key == nil ? -1 : payload.count
        if let key { payload.append(key) }
        payload.append(varint: Int64(value?.count ?? -1))
        let valueStart = value == nil ? -1 : payload.count
        if let value { payload.append(value) }
        payload.append(varint: Int64(headers))
        let headersStart = payload.count
        if headers > 0 { writeHeaders(&payload) }
        records.append(
            RecordView(
                offset: offset, timestamp: timestamp, keyStart: Int32(keyStart), keyCount: Int32(key?.count ?? 0),
                valueStart: Int32(valueStart), valueCount: Int32(value?.count ?? 0), headersStart: Int32(headersStart),
                headersCount: Int32(headers), bodyStart: Int32(bodyStart), end: Int32(payload.count)))
    }

    /// The batch; nil when there is no record.
    package consuming func finish() -> RecordBatch? {
        guard let first = records.first, let last = records.last else { return nil }
        let times = records.lazy.map(\.timestamp)
        let header = RecordBatchHeader(
            baseOffset: first.offset, size: payload.count, lastOffsetDelta: Int32(clamping: last.offset - first.offset),
            baseTimestamp: first.timestamp, maxTimestamp: times.max() ?? first.timestamp, count: Int32(records.count))
        return RecordBatch(header: header, payload: payload.bytes, records: records)
    }
}

extension RecordBatchHeader {
    /// What is known of records that came without their batch: no CRC (it was checked on the way), no producer.
    init(
        baseOffset: Int64, size: Int, lastOffsetDelta: Int32, baseTimestamp: Int64, maxTimestamp: Int64, count: Int32
    ) {
        self.baseOffset = baseOffset
        self.size = size
        self.lastOffsetDelta = lastOffsetDelta
        self.baseTimestamp = baseTimestamp
        self.maxTimestamp = maxTimestamp
        self.count = count
        leaderEpoch = -1
        crc = 0
        attributes = 0
        producer = .none
    }
}
