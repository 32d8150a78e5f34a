import Base
import CRdKafka
import EventLog

/// Asking the brokers how far every partition reaches: what others write is seen by this alone.
extension KafkaLog {
    static func watch(_ log: () -> KafkaLog?) {
        var seconds = 0.0
        while let log = log(), !log.table.withLock({ $0.closing }) {
            do {
                try log.refresh()
                log.answered()
            } catch {
                // One partition without a leader fails the question about all of them.
                log.silent(error)
                if log.refreshEachTopic() { log.answered() } else { log.refuseWaiting() }
            }
            seconds += watchInterval
            if seconds >= startInterval {
                seconds = 0
                try? log.lookAtStarts(log.allPartitions)
            }
            log.cursors.sweep()
            _ = log.closed.wait(seconds: watchInterval) { $0 ? true : nil }
        }
    }

    var allPartitions: [TopicPartition] {
        topics.flatMap { layout in (0..<layout.partitions).map { TopicPartition(layout.name, $0) } }
    }

    /// Asks how far every partition can be read.
    func refresh() throws(EventLogError) {
        let found = try ask(allPartitions, headrace_rd_offset_end(), seconds: 5)
        publish(table.update { $0.observe(found.filter { $0.value >= 0 }) })
    }

    private func answered() {
        silence.withLock { $0 = nil }
        control.answered()
    }

    /// Notes that the brokers do not answer, and since when.
    private func silent(_ error: EventLogError) {
        let now = Instant.wallClock()
        silence.withLock {
            $0 =
                $0
                ?? EventLogError(
                    "broker-unavailable", "\(configuration) has not answered since \(now): \(error.message)",
                    cause: error.cause, fault: .world, retriable: true)
        }
    }

    /// Publishers that wait for their turn are told of an outage: nothing of theirs is under way.
    private func refuseWaiting() {
        if let outage { group.withLock { $0 }?.refuseWaiting(outage) }
    }

    /// Topics in a row without an answer after which the others are not asked.
    private static let mute = 3

    /// One partition without a leader fails a question about all: then each topic is asked for itself. True when one answers.
    private func refreshEachTopic() -> Bool {
        var failed = 0
        var answered = false
        for layout in topics where !table.withLock({ $0.closing }) && failed < KafkaLog.mute {
            let partitions = (0..<layout.partitions).map { TopicPartition(layout.name, $0) }
            guard let found = try? ask(partitions, headrace_rd_offset_end(), seconds: 1) else {
                failed += 1
                continue
            }
            (failed, answered) = (0, true)
            publish(table.update { $0.observe(found.filter { $0.value >= 0 }) })
        }
        return answered
    }

    func lookAtStarts(_ partitions: [TopicPartition]) throws(EventLogError) {
        for (partition, start) in try ask(partitions, headrace_rd_offset_beginning()) where start >= 0 {
            table.withLock { $0.observe(start: start, of: partition) }
        }
    }

    /// First offsets at or after a time; the times -1 and -2 stand for the end and the beginning.
    func ask(
        _ partitions: [TopicPartition], _ time: Int64, seconds: Double? = nil
    ) throws(EventLogError) -> [TopicPartition: Int64] {
        guard !partitions.isEmpty else { return [:] }
        let list = rd_kafka_topic_partition_list_new(Int32(partitions.count))
        defer { rd_kafka_topic_partition_list_destroy(list) }
        for partition in partitions {
            rd_kafka_topic_partition_list_add(list, partition.topic, Int32(partition.partition)).pointee.offset = time
        }
        let code = try control.use { pointer throws(EventLogError) in
            rd_kafka_offsets_for_times(pointer, list, Int32((seconds ?? configuration.patience) * 1000))
        }
        guard code == RD_KAFKA_RESP_ERR_NO_ERROR, let list else {
            throw KafkaErrors.error(code, "asking for offsets of \(partitions.count) partitions")
        }
        var found: [TopicPartition: Int64] = [:]
        for index in 0..<Int(list.pointee.cnt) {
            let entry = list.pointee.elems[index]
            guard entry.err == RD_KAFKA_RESP_ERR_NO_ERROR else { continue }
            found[TopicPartition(String(cString: entry.topic), Int(entry.partition))] = entry.offset
        }
        return found
    }
}
