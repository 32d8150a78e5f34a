import Base
import CRdKafka
import EventLog
import Foundation
import RecordFormat

/// The log on a Kafka cluster, through librdkafka. Every append is one transaction, readers see what is committed. What
/// Kafka lacks (a global sequence, ids over a horizon, expected offsets, pins, a hash chain, producer ids of callers) is
/// refused by name.
///
/// Appends ride in the transactions of one thread (`AppendGroup`); readers take from cursors that librdkafka fills ahead;
/// one thread asks the brokers how far every partition reaches, so that what others write is seen.
package final class KafkaLog: EventLog {
    /// The largest record, which every topic of ours is created for: an event's data and its attributes.
    static let messageBytes = Limits.eventData + (1 << 20)
    /// All events of one append.
    static let appendBytes = 32 << 20
    /// Seconds between two looks at the ends, and at the beginnings, of all partitions.
    static let watchInterval = 0.05
    static let startInterval = 2.0
    /// Settings of every client that reads.
    static let readerSettings: [(String, String)] = [
        ("isolation.level", "read_committed"), ("check.crcs", "true"), ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"), ("auto.offset.reset", "error"), ("enable.partition.eof", "true"),
        ("fetch.wait.max.ms", "100"), ("queued.max.messages.kbytes", "65536"),
        // Above either limit librdkafka looks again a second later, so only the bytes count.
        ("queued.min.messages", "1000000"),
        ("fetch.message.max.bytes", "4194304"), ("fetch.max.bytes", "67108864"),
        // Some brokers send more than they were asked for.
        ("receive.message.max.bytes", "1000000000"),
    ]

    package let configuration: KafkaConfiguration
    /// Under which appends go.
    package let name: String
    let table: Monitor<EndTable>
    /// What the thread that asks the brokers waits for; on `table` every append would wake it.
    let closed = Monitor(false)
    let layouts = Monitor<[String: TopicLayout]>([:])
    let drifts = Monitor<[String: [TopicDrift]]>([:])
    let hub = FollowerHub()
    let control: KafkaClient
    let cursors: CursorTable
    private let pages = PageCache()
    let group: Monitor<AppendGroup?>
    private let producer = Monitor<KafkaProducer?>(nil)
    private let watcher = Monitor<BlockingThread?>(nil)
    private let tallied = Monitor<UInt64>(0)
    let silence = Monitor<EventLogError?>(nil)
    let consumed = Monitor<[String: [TopicPartition: Int64]]>([:])

    package var capabilities: LogCapabilities { [.atomicMultiTopic, .trim, .transactions] }
    package var durability: Durability { .replicated }

    /// - Parameter named: appends go under this transactional id; the one that comes later fences the older.
    package static func open(_ configuration: KafkaConfiguration, named name: String = "log") throws(EventLogError)
        -> KafkaLog
    {
        let log = try KafkaLog(configuration, named: name)
        do {
            try log.reach()
            let group = try AppendGroup(patience: configuration.patience) {
                [weak log, table = log.table] () throws(EventLogError) in
                try KafkaTransaction(
                    name: name, configuration, table: table, principal: nil, publish: { log?.publish($0) })
            }
            log.group.withLock { $0 = group }
        } catch {
            log.close()
            throw error
        }
        log.watcher.withLock { $0 = BlockingThread(name: "kafka-watch") { [weak log] in KafkaLog.watch { log } } }
        return log
    }

    private init(_ configuration: KafkaConfiguration, named name: String) throws(EventLogError) {
        self.configuration = configuration
        self.name = name
        table = Monitor(EndTable())
        group = Monitor(nil)
        control = try KafkaClient(.consumer, name: "control", configuration, KafkaLog.readerSettings)
        let begun = Date()
        cursors = CursorTable(seconds: { Date().timeIntervalSince(begun) }) { number throws(EventLogError) in
            try KafkaClient(.consumer, name: "reader-\(number)", configuration, KafkaLog.readerSettings)
        }
    }

    /// Fails with what is wrong when the cluster cannot be reached, rather than later and somewhere else.
    private func reach() throws(EventLogError) {
        let deadline = Date(timeIntervalSinceNow: configuration.patience)
        var announced = false
        while true {
            var metadata: UnsafePointer<rd_kafka_metadata>?
            let code = rd_kafka_metadata(control.pointer, 0, nil, &metadata, 1000)
            if code == RD_KAFKA_RESP_ERR_NO_ERROR {
                control.answered()
                return rd_kafka_metadata_destroy(metadata)
            }
            // Who is refused is refused again: no use in waiting.
            if let refusal = control.report.refusal { throw refusal }
            let heard = control.report.reason.map { " (\($0))" } ?? ""
            if !announced {
                announced = true
                configuration.announce(
                    "\(configuration.bootstrap) does not answer yet\(heard); trying for \(Int(configuration.patience)) s"
                )
            }
            guard Date() < deadline else {
                throw KafkaErrors.error(
                    code, "reaching \(configuration)", detail: String(cString: rd_kafka_err2str(code)) + heard)
            }
        }
    }

    /// The cluster's own id; empty where the brokers have none.
    package var clusterID: String {
        let found = try? control.use { pointer throws(EventLogError) -> String in
            guard let text = rd_kafka_clusterid(pointer, 5000) else { return "" }
            defer { rd_kafka_mem_free(pointer, text) }
            return String(cString: text)
        }
        return found ?? ""
    }

    package var topics: [TopicLayout] { layouts.withLock { $0.values.sorted { $0.name < $1.name } } }

    package var eventCount: UInt64 { tallied.withLock { $0 } + UInt64(group.withLock { $0 }?.statistics.events ?? 0) }

    func tally(_ events: Int64) { tallied.withLock { $0 += UInt64(max(0, events)) } }

    package var stopped: EventLogError? { group.withLock { $0 }?.stopped ?? control.report.fatal }

    /// What was acknowledged is gone from the cluster: an unclean leader, a topic made anew, a broker that lost its disk.
    static func shrunk(_ partition: TopicPartition, known end: Int64) -> EventLogError {
        EventLogError(
            "log-shrunk",
            "\(partition) was known to reach to offset \(end) and no longer does: the cluster lost events that were acknowledged; stop, find out what is gone, and rebuild state from what is left",
            fault: .world)
    }

    /// Why the brokers cannot be asked, and since when; nil while they answer.
    package var outage: EventLogError? {
        if let known = silence.withLock({ $0 }) { return known }
        let report = control.report
        guard report.isDown else { return nil }
        return EventLogError(
            "broker-unavailable", "\(configuration) does not answer\(report.reason.map { ": \($0)" } ?? "")",
            fault: .world, retriable: true)
    }

    func unsupported(_ what: String) -> EventLogError {
        EventLogError("unsupported", "a log on Kafka has no \(what); the embedded log does")
    }

    // MARK: Append

    package func append(
        _ append: LogAppend, completion: @escaping @Sendable (Result<AppendReceipt, EventLogError>) -> Void
    ) {
        do throws(EventLogError) {
            guard append.expected.isEmpty else { throw unsupported("appends at expected offsets") }
            guard append.durability == .synced else { throw unsupported("relaxed appends") }
            try append.check(maximumSize: KafkaLog.appendBytes)
            guard let group = group.withLock({ $0 }) else {
                throw EventLogError("log-stopped", "the log is closed", fault: .world)
            }
            if append.refusable, let outage { throw outage }
            let layouts = layouts.withLock { $0 }
            let places = try places(append, layouts)
            group.append(try keyed(append, layouts), to: places, completion: completion)
        } catch {
            completion(.failure(error))
        }
    }

    /// Kafka compacts by key alone, so what a compacted topic says about itself goes under its own id there.
    private func keyed(
        _ append: LogAppend, _ layouts: [String: TopicLayout]
    ) throws(EventLogError) -> LogAppend {
        guard append.events.contains(where: { $0.event.key == nil && layouts[$0.topic]?.isCompacted == true }) else {
            return append
        }
        var events = append.events
        for index in events.indices {
            let (topic, _, event) = events[index]
            guard event.key == nil, layouts[topic]?.isCompacted == true else { continue }
            guard event.type == EventType.progress else {
                throw EventLogError(
                    "key-required",
                    "the topic '\(topic)' keeps the newest event of each key, so the event '\(event.id)' needs one")
            }
            events[index].event = event.keyed([UInt8](event.id.utf8))
        }
        return LogAppend(
            principal: append.principal, events: events, refusable: append.refusable, durability: append.durability,
            expected: append.expected)
    }

    private func places(
        _ append: LogAppend, _ layouts: [String: TopicLayout]
    ) throws(EventLogError) -> [TopicPartition] {
        var places: [TopicPartition] = []
        places.reserveCapacity(append.events.count)
        for (topic, partition, event) in append.events {
            guard let partitions = layouts[topic]?.partitions else {
                throw EventLogError(
                    "unknown-topic", "there is no topic '\(topic)'; declare it in a workspace and apply that")
            }
            let place = partition ?? murmur2Partition(event.key ?? [UInt8](event.id.utf8), partitions: partitions)
            guard (0..<partitions).contains(place) else {
                throw EventLogError(
                    "unknown-partition", "the topic '\(topic)' has \(partitions) partitions, there is no \(place)")
            }
            places.append(TopicPartition(topic, place))
        }
        return places
    }

    package func append(
        _ append: BatchAppend, completion: @escaping @Sendable (Result<BatchReceipt, EventLogError>) -> Void
    ) {
        do throws(EventLogError) {
            guard append.expectedOffset == nil else { throw unsupported("appends at expected offsets") }
            guard append.durability == .synced else { throw unsupported("relaxed appends") }
            guard append.producer.isNone else { throw unsupported("producer ids of its callers") }
            try require(append.partition)
            let producer = try producer.withLock { made throws(EventLogError) in
                if let made { return made }
                let fresh = try KafkaProducer(configuration)
                made = fresh
                return fresh
            }
            try producer.send(append) { [weak self] result in
                if case .success(let receipt) = result { self?.landed(receipt, append.partition) }
                completion(result)
            }
        } catch {
            completion(.failure(error))
        }
    }

    private func landed(_ receipt: BatchReceipt, _ partition: TopicPartition) {
        tally(Int64(receipt.count))
        let end = receipt.position.offset + Int64(receipt.count)
        publish(table.update { $0.observe([partition: end]) })
    }

    package func registerProducer(named name: String?) throws(EventLogError) -> ProducerIdentity {
        throw unsupported("producer ids of its callers")
    }

    package func transactionalWriter(named name: String) throws(EventLogError) -> any TransactionalWriter {
        let writer = try KafkaTransaction(
            name: name, configuration, table: table, principal: name,
            committed: { [weak self] group throws(EventLogError) in try self?.committed(group: group) ?? [:] },
            publish: { [weak self] in self?.publish($0) })
        writer.onCommit = { [weak self] events, group, offsets in
            self?.tally(Int64(events))
            self?.consumed.withLock { $0[group, default: [:]].merge(offsets) { $1 } }
        }
        // What the older one had open is decided now; readers must see it before they are asked where to go on.
        try refresh()
        return writer
    }

    // MARK: Read

    func require(_ partition: TopicPartition) throws(EventLogError) {
        let partitions = layouts.withLock { $0[partition.topic]?.partitions }
        guard let partitions else {
            throw EventLogError("unknown-topic", "there is no topic '\(partition.topic)'")
        }
        guard (0..<partitions).contains(partition.partition) else {
            throw EventLogError(
                "unknown-partition", "the topic '\(partition.topic)' has partitions 0..<\(partitions), not \(partition)"
            )
        }
    }

    package func read(
        _ partition: TopicPartition, from offset: Int64, maxBytes: Int
    ) throws(EventLogError) -> [RecordBatch] {
        let readable = try offsets(partition)
        guard offset >= readable.lowerBound else {
            throw EventLogError(
                "trimmed",
                "offsets of \(partition) below \(readable.lowerBound) were given up by retention; read from there")
        }
        // Only whether anything is left: the read itself begins where the reader stands, in front of markers of aborted
        // transactions, so that whoever filters their records sees where each ends.
        guard table.withLock({ $0.spoken(partition, from: offset) }) < readable.upperBound else { return [] }
        do {
            while true {
                if let known = pages.batch(partition, holding: offset) { return [known] }
                guard
                    let page = try cursors.read(
                        partition, from: offset, maxBytes: max(1, maxBytes), below: readable.upperBound,
                        patience: configuration.patience)
                else { continue }
                if let silent = page.silent { table.withLock { $0.observe(silent: silent, of: partition) } }
                guard let batch = page.batch else { return [] }
                pages.insert(batch, partition, from: offset)
                return [batch]
            }
        } catch {
            guard error.code == "trimmed" else { throw error }
            // Retention may have moved the beginning since it was last looked at; otherwise the end has fallen.
            try lookAtStarts([partition])
            guard try offsets(partition).lowerBound <= offset else { throw error }
            throw KafkaLog.shrunk(partition, known: readable.upperBound)
        }
    }

    /// A broker that took a partition over may for a moment show less than the one before it had told of.
    package func isReadable(_ partition: TopicPartition, from offset: Int64) -> Bool {
        table.withLock { $0.spoken(partition, from: offset) >= $0.ends[partition] ?? 0 }
    }

    package func offsets(_ partition: TopicPartition) throws(EventLogError) -> Range<Int64> {
        let known: Range<Int64>? = table.withLock { table in
            guard let start = table.starts[partition], let end = table.ends[partition] else { return nil }
            return min(start, end)..<end
        }
        // As in the embedded log: nothing stands where nothing was declared.
        return known ?? 0..<0
    }

    package func offset(_ partition: TopicPartition, atOrAfter time: Instant) throws(EventLogError) -> Int64 {
        let readable = try offsets(partition)
        // What a record cannot carry stands in it as 1 ms after 1970, so earlier times begin at the beginning.
        guard time.milliseconds > KafkaRecord.early else { return readable.lowerBound }
        guard let found = try ask([partition], time.milliseconds)[partition] else {
            throw EventLogError(
                "broker-unavailable", "the brokers do not say where \(partition) reaches \(time); try again",
                fault: .world, retriable: true)
        }
        return found < 0 ? readable.upperBound : min(max(found, readable.lowerBound), readable.upperBound)
    }

    package func pin(_ pin: Pin) throws(EventLogError) { throw unsupported("pins") }
    package func unpin(_ name: String) throws(EventLogError) { throw unsupported("pins") }
    package var pins: [Pin] { [] }

    package func waitForChange(after version: UInt64, seconds: Double) -> UInt64 {
        if seconds <= 0 { return table.withLock { $0.version > version ? $0.version : version } }
        return table.wait(seconds: seconds) { $0.version > version ? $0.version : nil } ?? version
    }

    package func listen(_ body: @escaping @Sendable () -> Void) -> LogListening { hub.listen(body) }

    package func changes() -> AsyncStream<UInt64> { hub.changes { table.withLock { $0.version } } }

    package func follow(_ positions: [TopicPartition: Int64]) throws(EventLogError) -> LogFollower {
        try LogFollower.make(log: self, hub: hub, positions: positions)
    }

    /// Partitions with more to read.
    func publish(_ partitions: [TopicPartition]) {
        guard !partitions.isEmpty else { return }
        hub.wake(partitions)
        hub.announce(table.withLock { $0.version })
    }

    // MARK: Reports

    /// What every client tells about itself, by name.
    package var clientReports: [KafkaClientReport] {
        var list = [(control.name, control.report)] + cursors.reports
        if let report = group.withLock({ $0 })?.report { list.append(("append", report)) }
        if let producer = producer.withLock({ $0 }) { list.append(producer.report) }
        return list.map { KafkaClientReport(name: $0.0, $0.1) }
    }

    /// What a consumer group has committed, as the brokers know it, in every partition of the topics declared here.
    package func committed(group: String) throws(EventLogError) -> [TopicPartition: Int64] {
        let client = try KafkaClient(
            .consumer, name: "group-\(group)-offsets", configuration, KafkaLog.readerSettings + [("group.id", group)])
        defer { client.close() }
        let partitions = allPartitions
        let list = rd_kafka_topic_partition_list_new(Int32(partitions.count))
        defer { rd_kafka_topic_partition_list_destroy(list) }
        for partition in partitions {
            rd_kafka_topic_partition_list_add(list, partition.topic, Int32(partition.partition))
        }
        let code = rd_kafka_committed(client.pointer, list, Int32(configuration.patience * 1000))
        guard code == RD_KAFKA_RESP_ERR_NO_ERROR, let list else {
            throw KafkaErrors.error(code, "asking where the group '\(group)' stands")
        }
        var found: [TopicPartition: Int64] = [:]
        for index in 0..<Int(list.pointee.cnt) where list.pointee.elems[index].offset >= 0 {
            let entry = list.pointee.elems[index]
            found[TopicPartition(String(cString: entry.topic), Int(entry.partition))] = entry.offset
        }
        return found
    }

    /// How far each consumer group stands behind, by the offsets it committed with its outputs.
    package var lag: [(group: String, partition: TopicPartition, records: Int64)] {
        let groups = consumed.withLock { $0 }
        return table.withLock { table in
            groups.sorted { $0.key < $1.key }.flatMap { group, positions in
                positions.sorted { $0.key < $1.key }.map { (group, $0.key, table.lag($0.key, from: $0.value)) }
            }
        }
    }

    /// Transactions of appends: committed, and done again.
    package var transactions: (committed: Int, repeated: Int) {
        let statistics = group.withLock { $0 }?.statistics
        return (statistics?.good ?? 0, statistics?.again ?? 0)
    }

    package func close() {
        table.update { $0.closing = true }
        closed.update { $0 = true }
        watcher.withLock {
            $0?.join()
            $0 = nil
        }
        group.withLock { $0 }?.close()
        producer.withLock {
            $0?.close()
            $0 = nil
        }
        hub.close()
        cursors.close()
        control.close()
    }
}

/// What one client tells about itself.
package struct KafkaClientReport: Sendable {
    package let name: String
    package let statistics: KafkaStatistics
    /// Counted by what may be done about them.
    package let errors: [String: Int]
    package let messages: [String]

    init(name: String, _ report: KafkaClient.Report) {
        self.name = name
        statistics = report.statistics
        errors = report.errors
        messages = report.messages
    }
}
