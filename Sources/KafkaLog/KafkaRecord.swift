import Base
import CRdKafka
import EventLog
import Foundation
import RecordFormat

/// How an event stands in a record of Kafka: CloudEvents binary mode, as in the embedded log. Two things that the embedded
/// log keeps in its frames are attributes here: who acted (`ce_principal`) and, for a time at or before 1970 that a record
/// cannot carry, the event time (`ce_time`).
enum KafkaRecord {
    static let principalHeader = "ce_principal"
    static let timeHeader: StaticString = "ce_time"
    /// Record timestamp of an event whose time stands in `ce_time`; librdkafka takes 0 for now, and brokers refuse less.
    static let early: Int64 = 1

    static func produce(
        _ event: NewEvent, principal: String?, to partition: TopicPartition, _ client: KafkaClient,
        slot: UnsafeMutableRawPointer?
    ) throws(EventLogError) {
        let topic = try client.topic(partition.topic)
        guard let headers = rd_kafka_headers_new(12) else {
            throw KafkaErrors.error(RD_KAFKA_RESP_ERR__FAIL, "making the headers of an event")
        }
        func add(_ name: String, _ value: String?) {
            guard var value else { return }
            value.withUTF8 { raw in
                _ = rd_kafka_header_add(headers, name, name.utf8.count, raw.baseAddress, raw.count)
            }
        }
        add(EventHeader.type, event.type)
        add(EventHeader.id, event.id)
        add(EventHeader.source, event.source)
        add(EventHeader.specVersion, "1.0")
        add(EventHeader.subject, event.subject)
        add(EventHeader.contentType, event.contentType)
        add(EventHeader.causation, event.causation)
        add(EventHeader.correlation, event.correlation)
        for (name, value) in event.extensions { add(name, value) }
        add(principalHeader, principal)
        var timestamp = event.time.milliseconds
        if timestamp < early {
            KafkaRecord.add(early: timestamp, to: headers)
            timestamp = early
        }
        func hand() -> rd_kafka_resp_err_t {
            event.key.withBytes { key in
                event.data.withBytes { value in
                    headrace_rd_produce(
                        client.pointer, topic, Int32(partition.partition), timestamp, key?.baseAddress, key?.count ?? 0,
                        value?.baseAddress, value?.count ?? 0, headers, slot)
                }
            }
        }
        var code = hand()
        // Permits bound the records; this is the client's own limit in bytes.
        while code == RD_KAFKA_RESP_ERR__QUEUE_FULL {
            Thread.sleep(forTimeInterval: 0.001)
            code = hand()
        }
        guard code == RD_KAFKA_RESP_ERR_NO_ERROR else {
            rd_kafka_headers_destroy(headers)
            throw KafkaErrors.error(code, "appending the event '\(event.id)' to \(partition)")
        }
    }

    /// The time of an event that its record cannot carry.
    static func add(early time: Int64, to headers: OpaquePointer?) {
        let text = Instant(milliseconds: time).description
        _ = rd_kafka_header_add(headers, "\(timeHeader)", timeHeader.utf8CodeUnitCount, text, text.utf8.count)
    }

    /// Takes a consumed message over into a batch under construction.
    static func append(_ message: UnsafeMutablePointer<rd_kafka_message_t>, to batch: inout RecordBatchAssembler) {
        var kind = RD_KAFKA_TIMESTAMP_NOT_AVAILABLE
        var timestamp = rd_kafka_message_timestamp(message, &kind)
        let key = message.pointee.key.map { UnsafeRawBufferPointer(start: $0, count: message.pointee.key_len) }
        let value = message.pointee.payload.map { UnsafeRawBufferPointer(start: $0, count: message.pointee.len) }
        var headers: OpaquePointer?
        var count = 0
        if rd_kafka_message_headers(message, &headers) == RD_KAFKA_RESP_ERR_NO_ERROR, let headers {
            count = rd_kafka_header_cnt(headers)
            if timestamp == early, let time = time(headers) { timestamp = time }
        }
        batch.append(offset: message.pointee.offset, timestamp: timestamp, key: key, value: value, headers: count) {
            payload in
            for index in 0..<count { write(headers, index, &payload) }
        }
    }

    @inline(__always)
    private static func write(_ headers: OpaquePointer?, _ index: Int, _ payload: inout ByteWriter) {
        var name: UnsafePointer<CChar>?
        var value: UnsafeRawPointer?
        var size = 0
        guard rd_kafka_header_get_all(headers, index, &name, &value, &size) == RD_KAFKA_RESP_ERR_NO_ERROR, let name
        else { return }
        let length = strlen(name)
        payload.append(varint: Int64(length))
        payload.append(UnsafeRawBufferPointer(start: name, count: length))
        payload.append(varint: Int64(value == nil ? -1 : size))
        if let value { payload.append(UnsafeRawBufferPointer(start: value, count: size)) }
    }

    private static func time(_ headers: OpaquePointer) -> Int64? {
        var value: UnsafeRawPointer?
        var size = 0
        guard rd_kafka_header_get_last(headers, "\(timeHeader)", &value, &size) == RD_KAFKA_RESP_ERR_NO_ERROR,
            let value
        else { return nil }
        let text = String(decoding: UnsafeRawBufferPointer(start: value, count: size), as: UTF8.self)
        return Instant(text)?.milliseconds
    }
}

extension Optional where Wrapped == [UInt8] {
    /// The bytes; an empty array is not nil, which librdkafka tells apart by the pointer.
    @inline(__always)
    func withBytes<R>(_ body: (UnsafeRawBufferPointer?) -> R) -> R {
        guard let bytes = self else { return body(nil) }
        return bytes.withUnsafeBytes { raw in
            if raw.baseAddress != nil { return body(raw) }
            return withUnsafeBytes(of: UInt8(0)) { body(UnsafeRawBufferPointer(rebasing: $0[0..<0])) }
        }
    }
}
