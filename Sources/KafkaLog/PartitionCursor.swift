import Base
import CRdKafka
import EventLog
import Foundation
import RecordFormat

/// One reading position in one partition: librdkafka fetches ahead into its queue, reads take from it. A queue of its own
/// for every start, so that nothing fetched for an older position is ever taken for the new one. For one reader at a time.
final class PartitionCursor {
    /// Messages taken from the queue at a time.
    static let take = 1000
    /// How long one wait for the first message lasts, in milliseconds.
    static let wait: Int32 = 100
    /// Seconds that a reader waits for a marker which the brokers have yet to write behind what it was told is there.
    static let markerWait = 0.25

    let partition: TopicPartition
    let client: KafkaClient
    private let topic: OpaquePointer
    private let queue: OpaquePointer
    /// Offset of the next record to give.
    private(set) var next: Int64
    /// Where the partition ended when librdkafka last came to its end.
    private var seenEnd: Int64 = -1
    /// Taken from the queue and not given yet: those from `first` to `count`.
    private let messages: UnsafeMutableBufferPointer<UnsafeMutablePointer<rd_kafka_message_t>?>
    private var first = 0
    private var count = 0

    init(_ partition: TopicPartition, _ client: KafkaClient, from offset: Int64) throws(EventLogError) {
        self.partition = partition
        self.client = client
        next = offset
        topic = try client.topic(partition.topic)
        queue = rd_kafka_queue_new(client.pointer)
        messages = .allocate(capacity: PartitionCursor.take)
        messages.initialize(repeating: nil)
        guard rd_kafka_consume_start_queue(topic, Int32(partition.partition), offset, queue) == 0 else {
            let code = rd_kafka_last_error()
            rd_kafka_queue_destroy(queue)
            messages.deallocate()
            throw KafkaErrors.error(code, "reading \(partition) from \(offset)")
        }
    }

    func close() {
        drop()
        _ = rd_kafka_consume_stop(topic, Int32(partition.partition))
        rd_kafka_queue_destroy(queue)
        messages.deallocate()
    }

    private func drop() {
        for index in first..<count {
            if let message = messages[index] { rd_kafka_message_destroy(message) }
        }
        first = 0
        count = 0
    }

    /// What a read found: nothing at all up to `silent`, or a batch.
    struct Page {
        var batch: RecordBatch?
        /// Offsets in front of the end that hold no record.
        var silent: Range<Int64>?
    }

    /// - Parameters:
    ///   - end: records at or behind it are kept for later.
    ///   - patience: seconds to wait for what must be there.
    func read(maxBytes: Int, below end: Int64, patience: Double) throws(EventLogError) -> Page {
        var batch = RecordBatchAssembler(capacity: min(maxBytes, 1 << 20) + 4096)
        var deadline = Date(timeIntervalSinceNow: patience)
        let from = next
        while true {
            let open = try fill(&batch, maxBytes, end)
            if !batch.isEmpty || !open { break }
            guard seenEnd < end else {
                // With records waiting behind the end, nothing is known of what lies behind them.
                next = first < count ? end : max(seenEnd, end)
                return Page(batch: nil, silent: from..<next)
            }
            guard Date() < deadline else {
                // The brokers end before what is there: somebody's transaction in front of it is still open.
                if seenEnd >= from { return Page(batch: nil, silent: nil) }
                throw KafkaErrors.error(
                    RD_KAFKA_RESP_ERR__TIMED_OUT, "reading \(partition) from \(from), which should end at \(end)")
            }
            receive(PartitionCursor.wait)
            if seenEnd >= from { deadline = min(deadline, Date(timeIntervalSinceNow: PartitionCursor.markerWait)) }
        }
        let done = batch.finish()
        if let done { next = done.header.lastOffset + 1 }
        return Page(batch: done, silent: nil)
    }

    /// Moves messages that are here into the batch. False when the next one lies behind the end or the batch is full.
    private func fill(_ batch: inout RecordBatchAssembler, _ maxBytes: Int, _ end: Int64) throws(EventLogError) -> Bool
    {
        // Worked on as locals: a class's own variables are checked for exclusive access one by one.
        var (at, here) = (first, count)
        let next = next
        defer { (first, count) = (at, here) }
        while true {
            while at < here {
                guard let message = messages[at] else {
                    at += 1
                    continue
                }
                if message.pointee.err == RD_KAFKA_RESP_ERR_NO_ERROR {
                    if message.pointee.offset >= end {
                        // Nothing below the end is left.
                        seenEnd = max(seenEnd, end)
                        return batch.isEmpty
                    }
                    guard batch.takes(offset: message.pointee.offset), batch.isEmpty || batch.size < maxBytes else {
                        return false
                    }
                    if message.pointee.offset >= next { KafkaRecord.append(message, to: &batch) }
                } else if let error = heed(message.pointee) {
                    throw error
                }
                rd_kafka_message_destroy(message)
                messages[at] = nil
                at += 1
            }
            guard batch.isEmpty || batch.size < maxBytes else { return false }
            at = 0
            here = max(0, rd_kafka_consume_batch_queue(queue, 0, messages.baseAddress, messages.count))
            if here == 0 { return true }
        }
    }

    /// A message that is none: the end of the partition, or trouble.
    private func heed(_ message: rd_kafka_message_t) -> EventLogError? {
        if message.err == RD_KAFKA_RESP_ERR__PARTITION_EOF {
            seenEnd = max(seenEnd, message.offset)
            return nil
        }
        let error = KafkaErrors.error(message.err, "reading \(partition) at \(message.offset)")
        // librdkafka tries again by itself what the brokers may mend.
        return error.kafka?.kind == .retriable ? nil : error
    }

    /// Waits for one message.
    private func receive(_ milliseconds: Int32) {
        guard let message = rd_kafka_consume_queue(queue, milliseconds) else { return }
        messages[0] = message
        first = 0
        count = 1
    }
}
