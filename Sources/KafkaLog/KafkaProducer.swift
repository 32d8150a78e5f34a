import Base
import CRdKafka
import EventLog
import Foundation
import RecordFormat

/// An idempotent producer for encoded batches: in order, once, without a transaction around them.
final class KafkaProducer: Sendable {
    /// Records under way in one client.
    static let limit = 500_000
    /// Bytes of records under way: enough for four requests of librdkafka's size on their way. librdkafka
    /// makes a request's buffer as large as everything that waits, so more of it costs more for every request.
    static let bytesLimit = 4 << 20

    /// What every producer of ours relies on. librdkafka's own defaults would lose, double or scatter events: idempotence
    /// is off, the partitioner is CRC32 and not Java's murmur2.
    static let settings: [(String, String)] = [
        ("enable.idempotence", "true"), ("acks", "all"), ("partitioner", "murmur2_random"),
        ("max.in.flight.requests.per.connection", "5"), ("compression.type", "lz4"), ("linger.ms", "5"),
        ("queue.buffering.max.messages", "\(limit * 2)"), ("message.max.bytes", "\(KafkaLog.messageBytes)"),
    ]

    /// How long a thread that waits for permits serves deliveries before it looks again, in milliseconds.
    private static let pause: Int32 = 5

    private let client: KafkaClient
    private let permits = Permits(bytesLimit)

    init(_ configuration: KafkaConfiguration) throws(EventLogError) {
        client = try KafkaClient(.producer, name: "producer", configuration, KafkaProducer.settings, polling: .shared)
    }

    var report: (name: String, report: KafkaClient.Report) { (client.name, client.report) }

    /// Hands a batch over record by record, waiting for room unless it is refusable.
    func send(
        _ append: BatchAppend, completion: @escaping @Sendable (Result<BatchReceipt, EventLogError>) -> Void
    ) throws(EventLogError) {
        // The client stays until this is through, whoever closes it meanwhile.
        try client.use { _ throws(EventLogError) in try handOver(append, completion: completion) }
    }

    private func handOver(
        _ append: BatchAppend, completion: @escaping @Sendable (Result<BatchReceipt, EventLogError>) -> Void
    ) throws(EventLogError) {
        let partition = append.partition
        let (count, bytes) = (append.count, append.recordBytes)
        guard count > 0 else { throw EventLogError("append-too-large", "a batch takes 1 record or more") }
        let topic = try client.topic(partition.topic)
        if append.refusable {
            guard permits.tryTake(bytes) else {
                throw EventLogError(
                    "log-saturated",
                    "\(permits.taken) bytes wait for the brokers, the limit is \(KafkaProducer.bytesLimit); try again",
                    fault: .world, retriable: true)
            }
        } else {
            while !permits.tryTake(bytes) {
                guard !client.isRefusing else {
                    throw EventLogError("log-stopped", "the log is closed", fault: .world)
                }
                client.help(wait: KafkaProducer.pause)
                // Another thread may be serving; what it serves gives permits back.
                if permits.take(bytes, seconds: Double(KafkaProducer.pause) / 1000) { break }
            }
        }
        let delivery = Delivery(records: count, slots: 1, "appending") { [permits, client] delivery in
            permits.give(bytes)
            client.answer {
                if let error = delivery.error { return completion(.failure(KafkaProducer.partly(error, delivery))) }
                let position = Position(
                    topic: partition.topic, partition: partition.partition, offset: delivery.offsets[0], sequence: nil)
                completion(
                    .success(BatchReceipt(position: position, count: count, duplicate: false, durability: .replicated)))
            }
        }
        do {
            var handed = 0
            let (number, slot) = (Int32(partition.partition), delivery.slot(0))
            let code =
                if let builder = append.collected, !builder.hasHeaders {
                    handOver(builder, topic, number, slot, &handed)
                } else {
                    handOver(try append.decoded(), topic, number, slot, &handed)
                }
            if code != RD_KAFKA_RESP_ERR_NO_ERROR {
                delivery.fail(KafkaErrors.error(code, "appending to \(partition)"), records: count - handed)
            }
        } catch {
            delivery.fail(
                EventLogError("bad-batch", "the batch for \(partition) cannot be read", cause: error), records: count)
        }
        client.help()
    }

    /// Without a transaction, what failed may be there in part: sent again it would stand twice.
    private static func partly(_ error: EventLogError, _ delivery: Delivery) -> EventLogError {
        guard error.fault != .caller || delivery.offsets[0] >= 0 else { return error }
        return EventLogError(
            "outcome-unknown",
            "nobody can say how much of a batch is in the log: \(error.message); look before sending it again",
            cause: error.cause, fault: .world)
    }

    /// Hands records over one by one until one is refused.
    /// - Parameter handed: how many were taken.
    private func handOver(
        _ builder: RecordBatchBuilder, _ topic: OpaquePointer, _ partition: Int32, _ slot: UnsafeMutableRawPointer?,
        _ handed: inout Int
    ) -> rd_kafka_resp_err_t {
        var code = RD_KAFKA_RESP_ERR_NO_ERROR
        _ = builder.forEachPlainRecord { key, value, time in
            let headers = KafkaProducer.headers(early: time)
            code = handOver(topic, partition, max(time, KafkaRecord.early), key, value, headers, slot)
            guard code == RD_KAFKA_RESP_ERR_NO_ERROR else { return false }
            handed += 1
            return true
        }
        return code
    }

    private func handOver(
        _ batch: RecordBatch, _ topic: OpaquePointer, _ partition: Int32, _ slot: UnsafeMutableRawPointer?,
        _ handed: inout Int
    ) -> rd_kafka_resp_err_t {
        batch.payload.withUnsafeBytes { raw in
            func part(_ start: Int32, _ count: Int32) -> UnsafeRawBufferPointer? {
                start < 0 ? nil : UnsafeRawBufferPointer(rebasing: raw[Int(start)..<Int(start + count)])
            }
            while handed < batch.records.count {
                let view = batch.records[handed]
                let headers =
                    view.headersCount > 0
                    ? KafkaProducer.headers(batch, handed, view) : KafkaProducer.headers(early: view.timestamp)
                let code = handOver(
                    topic, partition, max(view.timestamp, KafkaRecord.early), part(view.keyStart, view.keyCount),
                    part(view.valueStart, view.valueCount), headers, slot)
                guard code == RD_KAFKA_RESP_ERR_NO_ERROR else { return code }
                handed += 1
            }
            return RD_KAFKA_RESP_ERR_NO_ERROR
        }
    }

    /// Hands one record over, waiting while the client has no room.
    @inline(__always)
    private func handOver(
        _ topic: OpaquePointer, _ partition: Int32, _ time: Int64, _ key: UnsafeRawBufferPointer?,
        _ value: UnsafeRawBufferPointer?, _ headers: OpaquePointer?, _ slot: UnsafeMutableRawPointer?
    ) -> rd_kafka_resp_err_t {
        while true {
            let code = headrace_rd_produce(
                client.pointer, topic, partition, time, key?.baseAddress, key?.count ?? 0, value?.baseAddress,
                value?.count ?? 0, headers, slot)
            guard code == RD_KAFKA_RESP_ERR__QUEUE_FULL, !client.isRefusing else {
                if code != RD_KAFKA_RESP_ERR_NO_ERROR, let headers { rd_kafka_headers_destroy(headers) }
                return code
            }
            // Permits bound the records; this is the client's own limit in bytes.
            client.help(wait: 1)
        }
    }

    @inline(__always)
    private static func headers(early time: Int64) -> OpaquePointer? {
        guard time < KafkaRecord.early else { return nil }
        let headers = rd_kafka_headers_new(1)
        KafkaRecord.add(early: time, to: headers)
        return headers
    }

    private static func headers(_ batch: RecordBatch, _ index: Int, _ view: RecordView) -> OpaquePointer? {
        let headers = rd_kafka_headers_new(Int(view.headersCount) + 1)
        if view.timestamp < KafkaRecord.early { KafkaRecord.add(early: view.timestamp, to: headers) }
        for (name, value) in StoredEvent(batch: batch, index: index).headers {
            _ = rd_kafka_header_add(headers, name, name.utf8.count, value, value.utf8.count)
        }
        return headers
    }

    /// What is not delivered by then comes back as purged, so that every batch gets its answer.
    func close() {
        client.refuse()
        let deadline = Date(timeIntervalSinceNow: 10)
        while permits.taken > 0, Date() < deadline { Thread.sleep(forTimeInterval: 0.01) }
        if permits.taken > 0 {
            _ = rd_kafka_purge(client.pointer, Int32(RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT))
            for _ in 0..<200 where permits.taken > 0 { Thread.sleep(forTimeInterval: 0.01) }
        }
        client.close()
    }
}
