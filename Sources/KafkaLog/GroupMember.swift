import Base
import CRdKafka
import EventLog
import Foundation
import RecordFormat

/// A member of a consumer group: the brokers share a topic's partitions out among the members, and move them one by one
/// (cooperatively) as members come and go. Every batch is handled, then its position is stored, then committed; a
/// partition that moves away is handled and committed up to where its next owner begins. At least once after a crash
/// or a commit that the brokers refuse (it is reported), once otherwise.
///
/// All of it happens on one thread, which also polls: handler, rebalancing, commits never overlap.
package final class GroupMember: Sendable {
    /// Where a group begins in a partition that it has never committed.
    package enum Start: Sendable { case beginning, end }

    /// Records that are handled at a time.
    static let batchRecords = 500
    static let batchBytes = 1 << 20

    private struct State {
        var assigned: Set<TopicPartition> = []
        var failure: EventLogError?
        var handled: Int64 = 0
        var rebalances = 0
        var closing = false
    }

    private let state = Monitor(State())
    private let client: KafkaClient
    private let thread = Monitor<BlockingThread?>(nil)

    package var assigned: [TopicPartition] { state.withLock { $0.assigned.sorted() } }
    /// Why the member has stopped; nil while it runs.
    package var failure: EventLogError? { state.withLock { $0.failure } }
    package var handled: Int64 { state.withLock { $0.handled } }
    package var rebalances: Int { state.withLock { $0.rebalances } }
    /// With the lag of each partition behind what is committed and behind what is handled.
    package var report: KafkaClientReport { KafkaClientReport(name: client.name, client.report) }

    /// Waits until the member has that many partitions, for those who need to know.
    package func waitForAssignment(of count: Int, seconds: Double) -> Bool {
        state.wait(seconds: seconds) { $0.assigned.count == count || $0.failure != nil ? true : nil } != nil
            && failure == nil
    }

    /// - Parameter handle: called with each batch, in order of its partition; an error stops the member before the
    ///   batch's position is stored, so that whoever takes over gets it again.
    package init(
        _ configuration: KafkaConfiguration, group: String, topics: [String], start: Start = .beginning,
        handle: @escaping @Sendable (TopicPartition, RecordBatch) throws -> Void
    ) throws(EventLogError) {
        let settings =
            KafkaLog.readerSettings.filter { !["enable.auto.commit", "enable.partition.eof"].contains($0.0) } + [
                ("group.id", group), ("partition.assignment.strategy", "cooperative-sticky"),
                ("enable.auto.commit", "true"), ("auto.commit.interval.ms", "1000"),
            ]
        client = try KafkaClient(.consumer, name: "group-\(group)", configuration, settings, polling: .owner) {
            rd_kafka_conf_set_rebalance_cb($0) { pointer, code, list, opaque in
                KafkaClient.rebalance(opaque, code, list, pointer)
            }
        }
        rd_kafka_poll_set_consumer(client.pointer)
        let list = rd_kafka_topic_partition_list_new(Int32(topics.count))
        defer { rd_kafka_topic_partition_list_destroy(list) }
        for topic in topics { rd_kafka_topic_partition_list_add(list, topic, -1) }
        let session = Session(client: client, start: start, patience: configuration.patience, handle: handle) {
            [state] change in
            state.update { state in
                switch change {
                case .gained(let partitions): state.assigned.formUnion(partitions)
                case .lost(let partitions): state.assigned.subtract(partitions)
                case .handled(let records): state.handled += records
                case .failed(let error): state.failure = state.failure ?? error
                }
                if case .handled = change {} else { state.rebalances += 1 }
            }
        }
        client.onRebalance = { [session] code, list in session.rebalance(code, list) }
        let code = rd_kafka_subscribe(client.pointer, list)
        guard code == RD_KAFKA_RESP_ERR_NO_ERROR else {
            client.onRebalance = nil
            client.close()
            throw KafkaErrors.error(code, "joining the group '\(group)'")
        }
        thread.withLock {
            $0 = BlockingThread(name: "kafka-group") { [client, state] in
                while session.goesOn, !state.withLock({ $0.closing }) { session.poll() }
                session.finish()
                // Leaves the group: what is stored is committed, and the others get the partitions at once.
                rd_kafka_consumer_close(client.pointer)
                client.onRebalance = nil
            }
        }
    }

    package func close() {
        state.update { $0.closing = true }
        thread.withLock {
            $0?.join()
            $0 = nil
        }
        client.close()
    }
}

/// What the member's thread does. Sendable only to get there: there is no lock to name, no
/// other thread touches it.
private final class Session: @unchecked Sendable {
    enum Change {
        case gained([TopicPartition])
        case lost([TopicPartition])
        case handled(Int64)
        case failed(EventLogError)
    }

    private let client: KafkaClient
    private let start: GroupMember.Start
    private let patience: Double
    private let handle: (TopicPartition, RecordBatch) throws -> Void
    private let tell: (Change) -> Void
    private var partition: TopicPartition?
    private var batch = RecordBatchAssembler()
    private(set) var goesOn = true

    init(
        client: KafkaClient, start: GroupMember.Start, patience: Double,
        handle: @escaping (TopicPartition, RecordBatch) throws -> Void, tell: @escaping (Change) -> Void
    ) {
        self.client = client
        self.start = start
        self.patience = patience
        self.handle = handle
        self.tell = tell
    }

    func poll() {
        // Rebalancing happens inside of this call, on this thread.
        guard let message = rd_kafka_consumer_poll(client.pointer, batch.isEmpty ? 100 : 0) else { return finish() }
        defer { rd_kafka_message_destroy(message) }
        guard message.pointee.err == RD_KAFKA_RESP_ERR_NO_ERROR else {
            let error = KafkaErrors.error(message.pointee.err, "reading as a member of a group")
            if error.kafka?.kind != .retriable { fail(error) }
            return
        }
        guard let topic = message.pointee.rkt.flatMap({ rd_kafka_topic_name($0) }) else { return }
        let place = TopicPartition(String(cString: topic), Int(message.pointee.partition))
        if place != partition || !batch.takes(offset: message.pointee.offset) { finish() }
        guard goesOn else { return }
        partition = place
        KafkaRecord.append(message, to: &batch)
        if batch.count >= GroupMember.batchRecords || batch.size >= GroupMember.batchBytes { finish() }
    }

    private func fail(_ error: EventLogError) {
        goesOn = false
        tell(.failed(error))
    }

    /// Has what was collected handled, and stores how far that is.
    func finish() {
        let collected = batch
        batch = RecordBatchAssembler()
        guard goesOn, let partition, let done = collected.finish() else { return }
        do {
            try handle(partition, done)
        } catch let error as EventLogError {
            return fail(error)
        } catch {
            return fail(
                EventLogError("handler-failed", "the records of \(partition) cannot be handled", cause: error))
        }
        tell(.handled(Int64(done.records.count)))
        let list = rd_kafka_topic_partition_list_new(1)
        defer { rd_kafka_topic_partition_list_destroy(list) }
        rd_kafka_topic_partition_list_add(list, partition.topic, Int32(partition.partition)).pointee.offset =
            done.header.lastOffset + 1
        // Refused only for a partition that was taken away meanwhile; its next owner begins at what was committed.
        let code = rd_kafka_offsets_store(client.pointer, list)
        if code != RD_KAFKA_RESP_ERR_NO_ERROR { client.failed(code, "storing the position of \(partition)", nil) }
    }

    func rebalance(_ code: rd_kafka_resp_err_t, _ list: UnsafeMutablePointer<rd_kafka_topic_partition_list_t>?) {
        let partitions = (0..<Int(list?.pointee.cnt ?? 0)).compactMap { index in
            list.map {
                TopicPartition(String(cString: $0.pointee.elems[index].topic), Int($0.pointee.elems[index].partition))
            }
        }
        switch code {
        case RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS:
            begin(list)
            take(rd_kafka_incremental_assign(client.pointer, list), "taking partitions over")
            tell(.gained(partitions))
        case RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS:
            if rd_kafka_assignment_lost(client.pointer) == 0 {
                finish()
                // What is stored and not committed yet would be handled again by the next owner.
                let code = commit()
                if code != RD_KAFKA_RESP_ERR_NO_ERROR, code != RD_KAFKA_RESP_ERR__NO_OFFSET {
                    client.failed(code, "committing before partitions move", nil)
                }
            } else {
                // Somebody else has them already; what is here and not handled is theirs.
                batch = RecordBatchAssembler()
            }
            take(rd_kafka_incremental_unassign(client.pointer, list), "giving partitions up")
            tell(.lost(partitions))
        default:
            fail(KafkaErrors.error(code, "sharing out the partitions of a group"))
            rd_kafka_assign(client.pointer, nil)
        }
    }

    /// How long a commit waits for a group that is being shared out just then, in seconds.
    private static let commitPatience = 5.0

    private func commit() -> rd_kafka_resp_err_t {
        let deadline = Date(timeIntervalSinceNow: Session.commitPatience)
        while true {
            let code = rd_kafka_commit(client.pointer, nil, 0)
            guard code == RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS, Date() < deadline else { return code }
            Thread.sleep(forTimeInterval: 0.05)
        }
    }

    /// Where nothing was committed the group begins where it was told to; anything else without a position is an error.
    private func begin(_ list: UnsafeMutablePointer<rd_kafka_topic_partition_list_t>?) {
        let code = rd_kafka_committed(client.pointer, list, Int32(patience * 1000))
        guard code == RD_KAFKA_RESP_ERR_NO_ERROR, let list else {
            return fail(KafkaErrors.error(code, "asking where the group stands"))
        }
        for index in 0..<Int(list.pointee.cnt) where list.pointee.elems[index].offset < 0 {
            list.pointee.elems[index].offset =
                start == .beginning ? headrace_rd_offset_beginning() : headrace_rd_offset_end()
        }
    }

    private func take(_ object: OpaquePointer?, _ what: String) {
        if let object { fail(KafkaErrors.error(object, what)) }
    }
}
