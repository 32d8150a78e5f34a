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
    private var messages: [UnsafeMutablePointer<rd_kafka_message_t>?]
    private var first = 0
    private var count = 0

    init(_ partition: TopicPartition, _ client: KafkaClient, from offset: Int64) throws(EventLogError) {
        self.partition = partition
        self.client = client
        next = offset
        topic = try client.topic(partition.topic)
        queue = rd_kafka_queue_new(client.pointer)
        messages = Array(repeating: nil, count: PartitionCursor.take)
        guard rd_kafka_consume_start_queue(topic, Int32(partition.partition), offset, queue) == 0 else {
            let code = rd_kafka_last_error()
            rd_kafka_queue_destroy(queue)
            throw KafkaErrors.error(code, "reading \(partition) from \(offset)")
        }
    }

    func close() {
        drop()
        _ = rd_kafka_consume_stop(topic, Int32(partition.partition))
        rd_kafka_queue_destroy(queue)
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
        while true {
            while first < count {
                guard let message = messages[first] else {
                    first += 1
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
                } else {
                    try heed(message.pointee)
                }
                rd_kafka_message_destroy(message)
                messages[first] = nil
                first += 1
            }
            guard batch.isEmpty || batch.size < maxBytes else { return false }
            first = 0
            count = messages.withUnsafeMutableBufferPointer {
                max(0, rd_kafka_consume_batch_queue(queue, 0, $0.baseAddress, $0.count))
            }
            if count == 0 { return true }
        }
    }

    /// A message that is none: the end of the partition, or trouble.
    private func heed(_ message: rd_kafka_message_t) throws(EventLogError) {
        if message.err == RD_KAFKA_RESP_ERR__PARTITION_EOF {
            seenEnd = max(seenEnd, message.offset)
            return
        }
        let error = KafkaErrors.error(message.err, "reading \(partition) at \(message.offset)")
        // librdkafka tries again by itself what the brokers may mend.
        if error.kafka?.kind == .retriable { return }
        drop()
        throw error
    }

    /// Waits for one message.
    private func receive(_ milliseconds: Int32) {
        guard let message = rd_kafka_consume_queue(queue, milliseconds) else { return }
        messages[0] = message
        first = 0
        count = 1
    }
}

/// The cursors of all readers: a read that goes on where an earlier one of the same partition ended takes its cursor, so
/// that many readers at different positions each stream. librdkafka holds one position a partition and client, so the
/// n-th position of a partition lives in the n-th client.
final class CursorTable: Sendable {
    /// Positions of one partition at a time; one more waits for one of them, or takes over the oldest.
    static let positions = 8
    /// Seconds after which a cursor that nobody uses gives its memory back.
    static let idle = 5.0

    private struct Entry {
        var cursor: PartitionCursor?
        var next: Int64 = -1
        var busy = false
        var used: UInt64 = 0
        var usedAt = 0.0
    }

    private struct State {
        var entries: [TopicPartition: [Entry]] = [:]
        var clock: UInt64 = 0
        var closing = false
    }

    /// Entries and their cursors: each cursor is used by whoever set `busy`.
    private final class Box: @unchecked Sendable {
        // Every access goes through the monitor's lock.
        let state = Monitor(State())
    }

    private let box = Box()
    private let clients = Monitor<[KafkaClient]>([])
    private let make: @Sendable (Int) throws(EventLogError) -> KafkaClient
    private let seconds: @Sendable () -> Double

    init(
        seconds: @escaping @Sendable () -> Double, make: @escaping @Sendable (Int) throws(EventLogError) -> KafkaClient
    ) {
        self.make = make
        self.seconds = seconds
    }

    private func client(_ index: Int) throws(EventLogError) -> KafkaClient {
        try clients.withLock { list throws(EventLogError) in
            while list.count <= index { list.append(try make(list.count)) }
            return list[index]
        }
    }

    var reports: [(name: String, report: KafkaClient.Report)] {
        clients.withLock { $0 }.map { ($0.name, $0.report) }
    }

    private enum Claim {
        case entry(Int, PartitionCursor?)
        /// Somebody else is reading just this: look again when it is done.
        case waited
        case closing
    }

    /// Takes the cursor that stands at the offset, else a free place, else the one that rested longest.
    private func claim(_ partition: TopicPartition, _ offset: Int64) -> Claim? {
        var waited = false
        return box.state.wait { state -> Claim? in
            if state.closing { return .closing }
            var list = state.entries[partition] ?? []
            if list.contains(where: { $0.busy && $0.next == offset }) {
                waited = true
                return nil
            }
            if waited { return .waited }
            defer { state.entries[partition] = list }
            var chosen = list.firstIndex { !$0.busy && $0.cursor != nil && $0.next == offset }
            if chosen == nil { chosen = list.firstIndex { !$0.busy && $0.cursor == nil } }
            if chosen == nil, list.count < CursorTable.positions {
                list.append(Entry())
                chosen = list.count - 1
            }
            if chosen == nil {
                chosen = list.indices.filter { !list[$0].busy }.min { list[$0].used < list[$1].used }
            }
            guard let chosen else { return nil }
            list[chosen].busy = true
            list[chosen].next = offset
            state.clock += 1
            list[chosen].used = state.clock
            return .entry(chosen, list[chosen].cursor)
        }
    }

    private func release(_ partition: TopicPartition, _ index: Int, _ cursor: PartitionCursor?) {
        let now = seconds()
        box.state.update { state in
            state.entries[partition]?[index].cursor = cursor
            state.entries[partition]?[index].next = cursor?.next ?? -1
            state.entries[partition]?[index].busy = false
            state.entries[partition]?[index].usedAt = now
        }
    }

    /// nil when another reader was at the same place: what it found is worth a look.
    func read(
        _ partition: TopicPartition, from offset: Int64, maxBytes: Int, below end: Int64, patience: Double
    ) throws(EventLogError) -> PartitionCursor.Page? {
        let index: Int
        var cursor: PartitionCursor?
        switch claim(partition, offset) {
        case .entry(let place, let found): (index, cursor) = (place, found)
        case .waited: return nil
        case .closing, nil:
            throw EventLogError("log-stopped", "the log is closing", fault: .world, retriable: true)
        }
        do {
            if let old = cursor, old.next != offset {
                old.close()
                cursor = nil
            }
            let current: PartitionCursor
            if let cursor {
                current = cursor
            } else {
                current = try PartitionCursor(partition, try client(index), from: offset)
                cursor = current
            }
            let page = try current.read(maxBytes: maxBytes, below: end, patience: patience)
            // At the end it would ask the brokers for more all the time, some of which answer at once with nothing; a
            // fresh start when there is more costs one round trip.
            if current.next >= end {
                current.close()
                release(partition, index, nil)
            } else {
                release(partition, index, current)
            }
            return page
        } catch {
            cursor?.close()
            release(partition, index, nil)
            throw error
        }
    }

    /// Gives back what rests.
    func sweep() {
        let now = seconds()
        close { now - $0.usedAt > CursorTable.idle }
    }

    private func close(where matches: (Entry) -> Bool) {
        // Busy until it is closed: another start of the same partition in the same client would be stopped with it.
        let gone: [(partition: TopicPartition, index: Int, cursor: PartitionCursor)] = box.state.withLock { state in
            var gone: [(TopicPartition, Int, PartitionCursor)] = []
            for partition in state.entries.keys.sorted() {
                for index in state.entries[partition, default: []].indices {
                    guard let entry = state.entries[partition]?[index], !entry.busy, let cursor = entry.cursor,
                        matches(entry)
                    else { continue }
                    gone.append((partition, index, cursor))
                    state.entries[partition]?[index].busy = true
                    state.entries[partition]?[index].next = -1
                }
            }
            return gone
        }
        for (partition, index, cursor) in gone {
            cursor.close()
            release(partition, index, nil)
        }
    }

    func close() {
        box.state.update { $0.closing = true }
        _ = box.state.wait(seconds: 30) { state in
            state.entries.values.allSatisfy { $0.allSatisfy { !$0.busy } } ? true : nil
        }
        close { _ in true }
        for client in clients.withLock({ $0 }) { client.close() }
    }
}
