import Base
import CRdKafka
import EventLog
import Foundation

/// Where a topic on the brokers is not what its declaration says. Reported, never changed.
package struct TopicDrift: Sendable, Equatable, CustomStringConvertible {
    package let topic: String
    package let setting: String
    package let declared: String
    package let actual: String

    package var description: String {
        "the topic '\(topic)' has \(setting) \(actual) on the brokers, declared is \(declared)"
    }
}

extension KafkaLog {
    /// Differences between declarations and brokers, as they stood when each topic was declared.
    package var drift: [TopicDrift] {
        drifts.withLock { table in table.keys.sorted().flatMap { table[$0] ?? [] } }
    }

    /// Creates the topic where it is missing; compares it where it is there.
    package func declare(_ layout: TopicLayout) throws(EventLogError) {
        guard TopicName.isLegal(layout.name), TopicName.partitions.contains(layout.partitions) else {
            throw EventLogError(
                "bad-topic", "'\(layout.name)' with \(layout.partitions) partitions is no topic that Kafka takes")
        }
        if case .milliseconds = layout.deduplication {
            throw unsupported("horizon of event ids, which '\(layout.name)' declares with deduplicate")
        }
        if let known = layouts.withLock({ $0[layout.name] }), known == layout { return }
        var partitions = try partitionCount(layout.name)
        if partitions == nil, configuration.createsTopics {
            try create(layout)
            let deadline = Date(timeIntervalSinceNow: configuration.patience)
            while partitions == nil, Date() < deadline {
                partitions = try partitionCount(layout.name)
                if partitions == nil { Thread.sleep(forTimeInterval: 0.02) }
            }
        }
        guard let partitions else {
            throw EventLogError(
                "unknown-topic",
                "the cluster has no topic '\(layout.name)' and it was not created; create it with \(layout.partitions) partitions",
                fault: .world)
        }
        try settle(layout, partitions: partitions)
    }

    private func settle(_ layout: TopicLayout, partitions: Int) throws(EventLogError) {
        var found = try configuration.createsTopics ? differences(layout) : []
        if partitions != layout.partitions {
            found.insert(
                TopicDrift(
                    topic: layout.name, setting: "partitions", declared: "\(layout.partitions)", actual: "\(partitions)"
                ),
                at: 0)
        }
        let places = (0..<partitions).map { TopicPartition(layout.name, $0) }
        let fresh = places.filter { place in !table.withLock { $0.isKnown(place) } }
        let starts = try ask(fresh, headrace_rd_offset_beginning())
        let ends = try ask(fresh, headrace_rd_offset_end())
        for place in fresh {
            guard let start = starts[place], let end = ends[place], start >= 0, end >= start else {
                throw EventLogError(
                    "broker-unavailable", "the brokers do not say how far \(place) reaches; try again", fault: .world,
                    retriable: true)
            }
            table.withLock { $0.add(place, start..<end) }
            tally(end - start)
        }
        // Readers go by what there is: events in a partition nobody declared are events too.
        let actual = TopicLayout(
            name: layout.name, partitions: partitions, retention: layout.retention, isCompacted: layout.isCompacted,
            tombstoneRetention: layout.tombstoneRetention, deduplication: layout.deduplication)
        layouts.withLock { $0[layout.name] = actual }
        drifts.withLock { $0[layout.name] = found.isEmpty ? nil : found }
    }

    private func partitionCount(_ topic: String) throws(EventLogError) -> Int? {
        var metadata: UnsafePointer<rd_kafka_metadata>?
        let code = try control.use { pointer throws(EventLogError) in
            rd_kafka_metadata(
                pointer, 0, try control.topic(topic), &metadata, Int32(configuration.patience * 1000))
        }
        guard code == RD_KAFKA_RESP_ERR_NO_ERROR, let metadata else {
            throw KafkaErrors.error(code, "looking for the topic '\(topic)'")
        }
        defer { rd_kafka_metadata_destroy(metadata) }
        guard metadata.pointee.topic_cnt > 0 else { return nil }
        let found = metadata.pointee.topics[0]
        switch found.err {
        case RD_KAFKA_RESP_ERR_NO_ERROR: return found.partition_cnt > 0 ? Int(found.partition_cnt) : nil
        case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART, RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE: return nil
        default: throw KafkaErrors.error(found.err, "looking for the topic '\(topic)'")
        }
    }

    /// What a declaration means in Kafka's settings, in the order in which they are set.
    static func settings(of layout: TopicLayout) -> [(name: String, value: String)] {
        [
            ("cleanup.policy", layout.isCompacted ? "compact" : "delete"),
            ("retention.ms", "\(layout.retention.milliseconds ?? -1)"),
            ("retention.bytes", "\(layout.retention.bytes ?? -1)"),
            ("delete.retention.ms", "\(layout.tombstoneRetention)"),
            ("max.message.bytes", "\(KafkaLog.messageBytes)"), ("message.timestamp.type", "CreateTime"),
        ]
    }

    private func create(_ layout: TopicLayout) throws(EventLogError) {
        var message = [CChar](repeating: 0, count: 512)
        guard
            let topic = rd_kafka_NewTopic_new(
                layout.name, Int32(layout.partitions), Int32(configuration.replication), &message, message.count)
        else {
            throw EventLogError("bad-topic", "the topic '\(layout.name)' cannot be created with these numbers")
        }
        defer { rd_kafka_NewTopic_destroy(topic) }
        for (name, value) in KafkaLog.settings(of: layout) { _ = rd_kafka_NewTopic_set_config(topic, name, value) }
        var topics: [OpaquePointer?] = [topic]
        let event = try administer("creating the topic '\(layout.name)'", RD_KAFKA_ADMIN_OP_CREATETOPICS) {
            options, queue in
            rd_kafka_CreateTopics(control.pointer, &topics, 1, options, queue)
        }
        defer { rd_kafka_event_destroy(event) }
        var count = 0
        guard let results = rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(event), &count),
            count > 0, let result = results[0]
        else { return }
        let code = rd_kafka_topic_result_error(result)
        // Another node may have been faster.
        guard code != RD_KAFKA_RESP_ERR_NO_ERROR, code != RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS else { return }
        let detail = rd_kafka_topic_result_error_string(result).map { String(cString: $0) }
        throw KafkaErrors.error(code, "creating the topic '\(layout.name)'", detail: detail)
    }

    private func differences(_ layout: TopicLayout) throws(EventLogError) -> [TopicDrift] {
        guard let resource = rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, layout.name) else { return [] }
        defer { rd_kafka_ConfigResource_destroy(resource) }
        var resources: [OpaquePointer?] = [resource]
        let event = try administer("asking for the settings of '\(layout.name)'", RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS) {
            options, queue in
            rd_kafka_DescribeConfigs(control.pointer, &resources, 1, options, queue)
        }
        defer { rd_kafka_event_destroy(event) }
        var count = 0
        guard
            let results = rd_kafka_DescribeConfigs_result_resources(
                rd_kafka_event_DescribeConfigs_result(event), &count), count > 0
        else { return [] }
        var entryCount = 0
        guard let entries = rd_kafka_ConfigResource_configs(results[0], &entryCount) else { return [] }
        var actual: [String: String] = [:]
        for index in 0..<entryCount {
            guard let name = rd_kafka_ConfigEntry_name(entries[index]),
                let value = rd_kafka_ConfigEntry_value(entries[index])
            else { continue }
            actual[String(cString: name)] = String(cString: value)
        }
        // A setting that the brokers do not tell is no difference.
        return KafkaLog.settings(of: layout).compactMap { name, declared in
            guard let value = actual[name], value != declared else { return nil }
            return TopicDrift(topic: layout.name, setting: name, declared: declared, actual: value)
        }
    }

    /// Asks something of the cluster's administration and waits for the answer, which the caller destroys.
    private func administer(
        _ what: String, _ operation: rd_kafka_admin_op_t, _ start: (OpaquePointer?, OpaquePointer?) -> Void
    ) throws(EventLogError) -> OpaquePointer {
        try control.use { pointer throws(EventLogError) in try administer(pointer, what, operation, start) }
    }

    private func administer(
        _ pointer: OpaquePointer, _ what: String, _ operation: rd_kafka_admin_op_t,
        _ start: (OpaquePointer?, OpaquePointer?) -> Void
    ) throws(EventLogError) -> OpaquePointer {
        let milliseconds = Int32(configuration.patience * 1000)
        let queue = rd_kafka_queue_new(pointer)
        defer { rd_kafka_queue_destroy(queue) }
        let options = rd_kafka_AdminOptions_new(pointer, operation)
        defer { rd_kafka_AdminOptions_destroy(options) }
        var message = [CChar](repeating: 0, count: 512)
        rd_kafka_AdminOptions_set_request_timeout(options, milliseconds, &message, message.count)
        rd_kafka_AdminOptions_set_operation_timeout(options, milliseconds, &message, message.count)
        start(options, queue)
        guard let event = rd_kafka_queue_poll(queue, milliseconds) else {
            throw KafkaErrors.error(RD_KAFKA_RESP_ERR__TIMED_OUT, what)
        }
        let code = rd_kafka_event_error(event)
        guard code == RD_KAFKA_RESP_ERR_NO_ERROR else {
            defer { rd_kafka_event_destroy(event) }
            throw KafkaErrors.error(
                code, what, detail: rd_kafka_event_error_string(event).map { String(cString: $0) })
        }
        return event
    }

    package func trim(_ partition: TopicPartition, before offset: Int64) throws(EventLogError) {
        let readable = try offsets(partition)
        guard offset <= readable.upperBound else {
            throw EventLogError(
                "bad-offset",
                "\(partition) ends at \(readable.upperBound); nothing before \(offset) can be given up yet")
        }
        guard offset > readable.lowerBound else { return }
        let list = rd_kafka_topic_partition_list_new(1)
        defer { rd_kafka_topic_partition_list_destroy(list) }
        rd_kafka_topic_partition_list_add(list, partition.topic, Int32(partition.partition)).pointee.offset = offset
        let deletion = rd_kafka_DeleteRecords_new(list)
        defer { rd_kafka_DeleteRecords_destroy(deletion) }
        var deletions: [OpaquePointer?] = [deletion]
        let event = try administer("trimming \(partition) before \(offset)", RD_KAFKA_ADMIN_OP_DELETERECORDS) {
            options, queue in
            rd_kafka_DeleteRecords(control.pointer, &deletions, 1, options, queue)
        }
        defer { rd_kafka_event_destroy(event) }
        guard let answer = rd_kafka_DeleteRecords_result_offsets(rd_kafka_event_DeleteRecords_result(event)),
            answer.pointee.cnt > 0
        else { return }
        let entry = answer.pointee.elems[0]
        guard entry.err == RD_KAFKA_RESP_ERR_NO_ERROR else {
            throw KafkaErrors.error(entry.err, "trimming \(partition) before \(offset)")
        }
        table.withLock { $0.observe(start: offset, of: partition) }
    }
}
