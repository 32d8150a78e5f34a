import Base
import CRdKafka
import EventLog
import Foundation
import RecordFormat

/// A transactional producer: events, consumed offsets, all or nothing. The brokers let one live client use a name; the
/// one that comes later aborts what the older has open and fences it off.
package final class KafkaTransaction: TransactionalWriter {
    /// Events handed to librdkafka at a time.
    static let handover = 500

    private let client: KafkaClient
    private let table: Monitor<EndTable>
    private let publish: ([TopicPartition]) -> Void
    private let patience: Int32
    private let permits: Permits
    private var isOpen = false
    private var begun: Date?
    /// Seconds after which the brokers abort an open transaction by themselves.
    private let timeout: Double
    /// An abort did not come through: nothing can be begun here any more.
    private(set) var isStuck = false
    private var pending: [(event: NewEvent, partition: TopicPartition)] = []
    private var deliveries: [Delivery] = []
    private var added: [TopicPartition] = []
    private var touched: Set<TopicPartition> = []
    /// Deliveries of this transaction that are accounted for; a late one of an older transaction counts there.
    private var landed = Monitor(0)
    private let principal: String?
    /// Told of every transaction that is through: its events, the group and what it consumed.
    var onCommit: ((Int, String, [TopicPartition: Int64]) -> Void)?
    private let ask: (String) throws(EventLogError) -> [TopicPartition: Int64]

    package func committed(group: String) throws(EventLogError) -> [TopicPartition: Int64] { try ask(group) }

    /// - Parameters:
    ///   - principal: written into every record; nil leaves that to whoever adds.
    ///   - ask: what a group has committed.
    ///   - publish: told which partitions have more to read.
    init(
        name: String, _ configuration: KafkaConfiguration, table: Monitor<EndTable>, principal: String?,
        committed ask: @escaping (String) throws(EventLogError) -> [TopicPartition: Int64] = { _ in [:] },
        publish: @escaping ([TopicPartition]) -> Void
    ) throws(EventLogError) {
        self.ask = ask
        self.table = table
        self.publish = publish
        self.principal = principal
        patience = Int32(configuration.patience * 1000)
        timeout =
            configuration.settings.last { $0.name == "transaction.timeout.ms" }.flatMap { Double($0.value) }
            .map { $0 / 1000 } ?? 60
        permits = Permits(KafkaProducer.limit)
        client = try KafkaClient(
            .producer, name: "transaction-\(name)", configuration,
            KafkaProducer.settings + [("transactional.id", "\(configuration.name).\(name)")])
        do {
            try repeated("taking over the transactions of '\(configuration.name).\(name)'") {
                rd_kafka_init_transactions(client.pointer, $0)
            }
        } catch {
            client.close()
            throw error
        }
    }

    deinit { close() }

    /// Calls until it succeeds, cannot, or the patience is over.
    private func repeated(_ what: String, _ call: (Int32) -> OpaquePointer?) throws(EventLogError) {
        let deadline = Date(timeIntervalSinceNow: Double(patience) / 1000)
        while true {
            let left = max(1, Int32(deadline.timeIntervalSinceNow * 1000))
            guard let object = call(left) else { return }
            let error = KafkaErrors.error(object, what)
            guard error.kafka?.kind == .retriable, deadline.timeIntervalSinceNow > 0 else { throw error }
            // Some calls say at once that they may succeed later.
            Thread.sleep(forTimeInterval: 0.02)
        }
    }

    package func add(_ event: NewEvent, to partition: TopicPartition) throws(EventLogError) {
        if !isOpen {
            try repeated("beginning a transaction") { _ in rd_kafka_begin_transaction(client.pointer) }
            isOpen = true
            begun = Date()
        }
        pending.append((event, partition))
        added.append(partition)
        if touched.insert(partition).inserted { table.withLock { $0.begin([partition]) } }
        if pending.count >= KafkaTransaction.handover { try handOver() }
    }

    private func handOver() throws(EventLogError) {
        guard !pending.isEmpty else { return }
        let batch = pending
        pending.removeAll(keepingCapacity: true)
        permits.take(batch.count)
        let delivery = Delivery(records: batch.count, slots: batch.count, "appending in a transaction") {
            [landed, permits] _ in
            permits.give(batch.count)
            landed.update { $0 += 1 }
        }
        deliveries.append(delivery)
        for (index, (event, partition)) in batch.enumerated() {
            do {
                try KafkaRecord.produce(
                    event, principal: principal, to: partition, client, slot: delivery.slot(index))
            } catch {
                delivery.fail(error, records: batch.count - index)
                throw error
            }
        }
    }

    package func commit(
        group: String, consumed: [TopicPartition: Int64], check: ([Int64]) throws(EventLogError) -> Void
    ) throws(EventLogError) {
        if !isOpen {
            guard !consumed.isEmpty else { return }
            try repeated("beginning a transaction") { _ in rd_kafka_begin_transaction(client.pointer) }
            isOpen = true
            begun = Date()
        }
        var asked = false
        do {
            try handOver()
            let offsets = try settle()
            try checkEnds(offsets)
            try check(offsets)
            if !consumed.isEmpty { try send(consumed, group) }
            asked = true
            try repeated("committing a transaction") { rd_kafka_commit_transaction(client.pointer, $0) }
            var written: [TopicPartition: Int64] = [:]
            for (partition, offset) in zip(added, offsets) {
                written[partition] = max(written[partition] ?? 0, offset + 1)
            }
            let count = added.count
            finish(written)
            onCommit?(count, group, consumed)
        } catch {
            throw dropped(error, asked: asked)
        }
    }

    private func checkEnds(_ offsets: [Int64]) throws(EventLogError) {
        var first: [TopicPartition: Int64] = [:]
        for (partition, offset) in zip(added, offsets) {
            // A record that was sent twice is taken once, and its place is not told.
            guard offset >= 0 else {
                throw EventLogError(
                    "transaction-aborted", "the brokers do not say where an event of \(partition) stands",
                    fault: .world, retriable: true)
            }
            first[partition] = min(first[partition] ?? .max, offset)
        }
        let lowest = first
        if let found = table.withLock({ $0.shrunk(lowest) }) {
            throw KafkaLog.shrunk(found.partition, known: found.end)
        }
    }

    /// Aborts after a failure, and says what became of the transaction.
    /// - Parameter asked: the brokers were asked to commit, so they may have.
    func dropped(_ error: EventLogError, asked: Bool) -> EventLogError {
        let age = begun.map { Date().timeIntervalSince($0) } ?? 0
        var stuck: EventLogError?
        do { try abort() } catch { stuck = error }
        guard let stuck else {
            // Nothing of it is in the log. What the caller did wrong it must mend; anything else may be done again.
            return error.fault == .caller || KafkaTransaction.lasting.contains(error.code) ? error : aborted(error)
        }
        isStuck = true
        // The brokers fence a transaction that stood open too long just as they fence one that was taken over.
        if let over = fenced(error) ?? fenced(stuck) ?? fatal.flatMap(fenced), age < timeout {
            guard asked else { return over }
            return EventLogError(
                over.code, "\(over.message); nobody can say whether its last transaction is in the log",
                cause: over.cause, fault: .world)
        }
        return asked ? indefinite(error) : aborted(error)
    }

    /// What is the same however often it is done again.
    private static let lasting: Set<String> = ["not-authorized", "foreign-writer", "log-shrunk"]

    private func fenced(_ error: EventLogError) -> EventLogError? { error.code == "producer-fenced" ? error : nil }

    private func aborted(_ error: EventLogError) -> EventLogError {
        error.code == "transaction-aborted"
            ? error
            : EventLogError(
                "transaction-aborted", "\(error.message); nothing of it is in the log, do it again",
                cause: error.cause, fault: .world, retriable: true)
    }

    private func indefinite(_ error: EventLogError) -> EventLogError {
        EventLogError(
            "outcome-unknown",
            "nobody can say whether a transaction is in the log: \(error.message); look before sending it again",
            cause: error.cause, fault: .world)
    }

    /// Waits for every delivery report.
    private func settle() throws(EventLogError) -> [Int64] {
        // Asks librdkafka not to linger; the reports may still be on their way through the polling thread afterwards.
        rd_kafka_flush(client.pointer, patience)
        let count = deliveries.count
        guard landed.wait(seconds: Double(patience) / 1000, until: { $0 >= count ? true : nil }) == true else {
            throw KafkaErrors.error(
                RD_KAFKA_RESP_ERR__TIMED_OUT, "waiting for \(added.count) events of a transaction to be taken")
        }
        for delivery in deliveries { if let error = delivery.error { throw error } }
        return deliveries.flatMap(\.offsets)
    }

    private func send(_ consumed: [TopicPartition: Int64], _ group: String) throws(EventLogError) {
        let list = rd_kafka_topic_partition_list_new(Int32(consumed.count))
        defer { rd_kafka_topic_partition_list_destroy(list) }
        for (partition, next) in consumed.sorted(by: { $0.key < $1.key }) {
            rd_kafka_topic_partition_list_add(list, partition.topic, Int32(partition.partition)).pointee.offset = next
        }
        // No member of the group: whoever writes here holds the transactional id instead.
        guard let metadata = rd_kafka_consumer_group_metadata_new(group) else {
            throw EventLogError("bad-group", "'\(group)' is no name of a consumer group")
        }
        defer { rd_kafka_consumer_group_metadata_destroy(metadata) }
        try repeated("committing the consumed offsets of '\(group)'") {
            rd_kafka_send_offsets_to_transaction(client.pointer, list, metadata, $0)
        }
    }

    package func abort() throws(EventLogError) {
        guard isOpen else { return }
        defer { finish([:]) }
        try repeated("aborting a transaction") { rd_kafka_abort_transaction(client.pointer, $0) }
        // What was purged is reported too, and must be before the records' places go.
        let count = deliveries.count
        _ = landed.wait(seconds: Double(patience) / 1000) { $0 >= count ? true : nil } as Bool?
    }

    private func finish(_ written: [TopicPartition: Int64]) {
        isOpen = false
        begun = nil
        let partitions = touched
        let changed: [TopicPartition] = table.update { $0.end(partitions, written: written) }
        pending.removeAll(keepingCapacity: true)
        deliveries.removeAll(keepingCapacity: true)
        added.removeAll(keepingCapacity: true)
        touched.removeAll(keepingCapacity: true)
        landed = Monitor(0)
        if !changed.isEmpty { publish(changed) }
    }

    /// Why the client is finished, if it is.
    var fatal: EventLogError? { client.report.fatal }
    var report: (name: String, report: KafkaClient.Report) { (client.name, client.report) }

    /// What is open is not aborted here, which would wait for brokers that may be away: the next of the same name, or
    /// the brokers' own time limit, does that.
    package func close() {
        if isOpen {
            _ = rd_kafka_purge(client.pointer, Int32(RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT))
            let count = deliveries.count
            _ = landed.wait(seconds: 2) { $0 >= count ? true : nil } as Bool?
            finish([:])
        }
        client.close()
    }
}

/// Records that may be under way at a time: taken before they are handed over, given back by their report. A full client
/// is waited for, so nothing is ever refused for want of room.
final class Permits: Sendable {
    private let left: Monitor<Int>
    private let all: Int

    init(_ count: Int) {
        all = count
        left = Monitor(count)
    }

    /// More than there are in all waits for all of them.
    func take(_ count: Int) { while !take(count, seconds: 3600) {} }

    /// False when they are not there in time.
    func take(_ count: Int, seconds: Double) -> Bool {
        let count = min(count, all)
        return left.wait(seconds: seconds) { left -> Bool? in
            guard left >= count else { return nil }
            left -= count
            return true
        } ?? false
    }

    func tryTake(_ count: Int) -> Bool {
        let count = min(count, all)
        return left.withLock { left in
            guard left >= count else { return false }
            left -= count
            return true
        }
    }

    func give(_ count: Int) { left.update { $0 += min(count, all) } }

    var taken: Int { all - left.withLock { $0 } }
}
